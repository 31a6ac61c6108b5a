//! Standard input by lines, and each line in the form the server takes.

use std::io::{self, BufRead, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crossbeam_channel::Sender;
use serde::Serialize;
use serde_json::value::RawValue;

use super::args::PubArgs;
use crate::limits::EVENT_BYTES_MAX;

/// Longest line: the largest event a Pushline server can be set to take.
const LINE_BYTES_MAX: usize = EVENT_BYTES_MAX;

/// What comes from standard input.
#[derive(Debug)]
pub(super) enum Input {
    /// A line, without its end.
    Line(Vec<u8>),
    /// There are no more.
    End,
    /// Reading failed.
    Failed(io::Error),
}

/// Reads until the end; blocks while the lane is full.
pub(super) fn read_lines(source: impl Read, lane: &Sender<Input>) {
    let mut source = io::BufReader::new(source);
    loop {
        let mut line = Vec::new();
        let mut most = source.by_ref().take(LINE_BYTES_MAX as u64 + 1);
        let input = match most.read_until(b'\n', &mut line) {
            Ok(0) => Input::End,
            Ok(_) if line.len() > LINE_BYTES_MAX => {
                let mib = LINE_BYTES_MAX >> 20;
                Input::Failed(io::Error::other(format!("a line of more than {mib} MiB")))
            }
            Ok(_) => Input::Line(without_end(line)),
            Err(error) => Input::Failed(error),
        };
        let goes_on = matches!(input, Input::Line(_));
        if lane.send(input).is_err() || !goes_on {
            return;
        }
    }
}

fn without_end(mut line: Vec<u8>) -> Vec<u8> {
    for end in [b"\n", b"\r"] {
        if line.ends_with(end) {
            line.pop();
        }
    }
    line
}

/// Makes publications from lines.
#[derive(Debug)]
pub(super) struct Encoder {
    channel: String,
    event: Option<String>,
    key: String,
    media: Media,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    Text,
    Json,
    Binary,
}

#[derive(Serialize)]
struct Publication<'a> {
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Text(&'a str),
    Json(&'a RawValue),
}

impl Encoder {
    /// Encodes as the arguments say; keys begin with `key`.
    pub fn new(args: &PubArgs, key: String) -> Self {
        let essence = args.content_type.split(';').next().unwrap_or("").trim();
        let media = match essence.to_ascii_lowercase().as_str() {
            "application/json" => Media::Json,
            "application/octet-stream" => Media::Binary,
            _ => Media::Text,
        };
        Self { channel: args.channel.clone(), event: args.event.clone(), key, media }
    }

    /// A line of the request's body, with its LF; `None` for an empty line between JSON values.
    ///
    /// # Errors
    /// The line is not what the media type promises.
    pub fn encode(&self, number: u64, line: &[u8]) -> Result<Option<Vec<u8>>, serde_json::Error> {
        let key = format!("{}-{number}", self.key);
        let (data, data_base64) = match (self.media, std::str::from_utf8(line)) {
            (Media::Json, Ok(text)) if text.trim().is_empty() => return Ok(None),
            (Media::Json, _) => (Some(Data::Json(serde_json::from_slice(line)?)), None),
            (Media::Text, Ok(text)) => (Some(Data::Text(text)), None),
            // Not text after all: this way nothing of it is lost.
            (Media::Text, Err(_)) | (Media::Binary, _) => (None, Some(STANDARD.encode(line))),
        };
        let event = self.event.as_deref();
        let publication =
            Publication { channel: &self.channel, event, key: &key, data, data_base64 };
        let mut json = serde_json::to_vec(&publication)?;
        json.push(b'\n');
        Ok(Some(json))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::envelope::{Payload, parse_publication};
    use std::borrow::Cow;

    fn encoder(media: Media) -> Encoder {
        Encoder { channel: "c".into(), event: Some("t".into()), key: "k".into(), media }
    }

    #[test]
    fn a_line_is_published_as_it_is() {
        let text = |text: &'static str| Payload::Text(Cow::Borrowed(text));
        for (media, line, expected) in [
            (Media::Text, &b"a\tb \"c\""[..], text("a\tb \"c\"")),
            (Media::Text, b"", text("")),
            (Media::Text, b"caf\xe9", Payload::Binary(b"caf\xe9".to_vec())),
            (Media::Json, b" {\"x\": 1e999}", Payload::Json("{\"x\": 1e999}")),
            (Media::Binary, b"ab", Payload::Binary(b"ab".to_vec())),
        ] {
            let json = encoder(media).encode(7, line).expect("valid").expect("not empty");
            let (end, json) = json.split_last().expect("not empty");
            let publication = parse_publication(json).expect("the server takes it");
            assert_eq!((*end, publication.payload), (b'\n', expected));
            assert_eq!(publication.channel, "c");
            assert_eq!(
                (publication.event_type.as_deref(), publication.key.as_deref()),
                (Some("t"), Some("k-7"))
            );
        }
        assert!(encoder(Media::Json).encode(1, b"{").is_err());
        assert!(encoder(Media::Json).encode(1, b" ").expect("blank").is_none());
    }

    #[test]
    fn lines_end_in_any_of_the_usual_ways() {
        let (send, lane) = crossbeam_channel::unbounded();
        read_lines(&b"a\n\r\nb \r\nc"[..], &send);
        let lines = lane.try_iter().map_while(|input| match input {
            Input::Line(line) => Some(line),
            Input::End | Input::Failed(_) => None,
        });
        assert_eq!(lines.collect::<Vec<_>>(), [&b"a"[..], b"", b"b ", b"c"]);
    }
}
