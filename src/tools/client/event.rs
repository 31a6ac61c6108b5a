//! An event as it arrives, and how it is printed.

use std::borrow::Cow;
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::proto::envelope::GAP_TYPE;

/// The envelope all events come in, on both transports.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<'a> {
    /// The cursor after this event.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    /// `null` is a value here.
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<Cow<'a, str>>,
}

#[derive(Debug, Deserialize)]
struct Gap {
    channel: String,
    reason: String,
    after: String,
    first: Option<String>,
}

fn present<'de, D: Deserializer<'de>>(source: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(source).map(Some)
}

/// How events are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// The data and a line end.
    Data,
    /// The envelope and a line end.
    Json,
}

impl<'a> Envelope<'a> {
    /// Reads an event; `None` if it is something else that a server may say.
    pub fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The loss this event reports, in words.
    pub fn gap(&self) -> Option<String> {
        if self.event.as_deref() != Some(GAP_TYPE) {
            return None;
        }
        let Gap { channel, reason, after, first } = serde_json::from_str(self.data?.get()).ok()?;
        let first = first.unwrap_or_else(|| "what comes now".to_owned());
        Some(format!(
            "gap on {channel}: events after {after} may be lost ({reason}); going on with {first}"
        ))
    }

    /// Prints the event, which came as `text`.
    pub fn print(&self, text: &str, format: Format, out: &mut impl Write) -> io::Result<()> {
        match (format, self.data, &self.data_base64) {
            (Format::Json, ..) => out.write_all(text.as_bytes())?,
            (Format::Data, Some(data), _) => match serde_json::from_str::<Cow<'_, str>>(data.get())
            {
                Ok(text) => out.write_all(text.as_bytes())?,
                Err(_) => out.write_all(data.get().as_bytes())?,
            },
            (Format::Data, None, Some(encoded)) => {
                out.write_all(&STANDARD.decode(encoded.as_bytes()).unwrap_or_default())?;
            }
            (Format::Data, None, None) => {}
        }
        out.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str, format: Format) -> Vec<u8> {
        let mut out = Vec::new();
        let envelope = Envelope::parse(text).expect("an envelope");
        envelope.print(text, format, &mut out).expect("memory takes all");
        out
    }

    #[test]
    fn data_is_printed_as_it_was_published() {
        for (data, expected) in [
            (r#""data":"a\nb""#, &b"a\nb\n"[..]),
            (r#""data":"""#, b"\n"),
            (r#""data":{"x": [1]}"#, b"{\"x\": [1]}\n"),
            (r#""data":null"#, b"null\n"),
            (r#""data_base64":"AP8=""#, b"\x00\xff\n"),
        ] {
            let text = format!(r#"{{"id":"e-1","channel":"c",{data}}}"#);
            assert_eq!(printed(&text, Format::Data), expected, "{data}");
            assert_eq!(printed(&text, Format::Json), format!("{text}\n").as_bytes());
        }
    }

    #[test]
    fn only_a_gap_is_a_gap() {
        let gap = r#"{"id":"e-4","channel":"c","event":"pushline.gap",
            "data":{"channel":"c","reason":"evicted","after":"e-1","first":"e-4"}}"#;
        let told = Envelope::parse(gap).and_then(|envelope| envelope.gap()).expect("a gap");
        assert!(told.contains("after e-1") && told.contains("evicted") && told.contains("e-4"));
        let event = r#"{"id":"e-4","channel":"c","event":"pushline","data":1}"#;
        assert!(Envelope::parse(event).is_some_and(|envelope| envelope.gap().is_none()));
        assert!(Envelope::parse(r#"{"ok":true}"#).is_none());
    }
}
