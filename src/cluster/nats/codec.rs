//! How events are written into the stream's messages and read back. Subjects and headers can be
//! written by hand, so that any NATS client can publish: a plain message is an event.
//!
//! | part | in the message |
//! |---|---|
//! | channel | subject `<stream>.ev.<channel>`, a `.` in its name as `%2E` |
//! | data | the payload |
//! | kind | header `Pushline-Kind: json` or `binary`; without it: text, or binary if it is not UTF-8 |
//! | type | header `Pushline-Type` |
//! | attributes | header `Pushline-Attributes`, as [`Attributes::encode`] has them, in base64 |
//! | idempotency key | header `Nats-Msg-Id: <channel> <key>`, both escaped: the broker knows it again, too |

use std::borrow::Cow;
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::IgnoredAny;

use super::wire::Headers;
use crate::cluster::is_channel;
use crate::log::event::{Attributes, Kind, Publication};
use crate::proto::envelope::{TYPE_BYTES_MAX, is_plain};

const KIND: &str = "Pushline-Kind";
const TYPE: &str = "Pushline-Type";
const ATTRIBUTES: &str = "Pushline-Attributes";
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// Longest key taken from the stream: a publisher's name and its longest key, escaped.
const KEY_BYTES_MAX: usize = 4096;

/// The subjects of a stream.
#[derive(Clone, Debug)]
pub struct Subjects {
    events: String,
    /// For revocations, as JSON.
    pub revoked: String,
    /// For what nodes say to each other. It does not begin with the stream's name, so it is not kept.
    pub asides: String,
}

impl Subjects {
    /// The subjects of the stream of this name.
    pub fn new(stream: &str) -> Self {
        Self {
            events: format!("{stream}.ev."),
            revoked: format!("{stream}.revoked"),
            asides: format!("_pushline.{stream}"),
        }
    }

    /// All subjects of the stream.
    pub fn all(stream: &str) -> String {
        format!("{stream}.>")
    }

    /// Where a channel's events go.
    pub fn of_channel(&self, channel: &str) -> String {
        let mut subject = String::with_capacity(self.events.len() + channel.len() + 8);
        subject.push_str(&self.events);
        escape_dots(channel, &mut subject);
        subject
    }

    /// The channel of a subject, if it is one of events.
    pub fn channel<'a>(&self, subject: &'a str) -> Option<Cow<'a, str>> {
        let token = subject.strip_prefix(&self.events)?;
        let name = match token.contains('%') {
            true => Cow::Owned(token.replace("%2E", ".")),
            false => Cow::Borrowed(token),
        };
        // Dots as they are would be another way to say the same.
        let is_name = !token.contains('.') && is_channel(&name);
        is_name.then_some(name)
    }
}

fn escape_dots(name: &str, out: &mut String) {
    for (place, part) in name.split('.').enumerate() {
        if place > 0 {
            out.push_str("%2E");
        }
        out.push_str(part);
    }
}

/// The headers of a publication.
pub fn headers(publication: &Publication) -> Vec<(&'static str, Cow<'_, str>)> {
    let Publication { channel, kind, event_type, key, attributes, .. } = publication;
    let mut headers = Vec::new();
    match kind {
        Kind::Text => {}
        Kind::Json => headers.push((KIND, "json".into())),
        Kind::Binary => headers.push((KIND, "binary".into())),
    }
    headers.extend(event_type.iter().map(|text| (TYPE, escaped(text))));
    headers.extend(key.iter().map(|key| {
        let id = format!("{channel} {}", escaped(key));
        (MESSAGE_ID, id.into())
    }));
    headers.extend(attributes.iter().map(|of| (ATTRIBUTES, attributes_text(of).into())));
    headers
}

/// What a message of the stream says, if it is an event.
pub fn publication(
    subjects: &Subjects,
    subject: &str,
    headers: Option<Headers<'_>>,
    data: &[u8],
) -> Option<Publication> {
    let channel = subjects.channel(subject)?;
    let header = |name: &str| headers.and_then(|all| all.get(name));
    let kind = kind_of(header(KIND), data);
    let event_type = header(TYPE).map(unescaped);
    let event_type = event_type.filter(|text| is_plain(text, TYPE_BYTES_MAX));
    let key = header(MESSAGE_ID).and_then(|id| id.strip_prefix(&*channel)?.strip_prefix(' '));
    let key = key.filter(|key| key.len() <= KEY_BYTES_MAX).map(unescaped);
    Some(Publication {
        channel: channel.into(),
        kind,
        data: Bytes::copy_from_slice(data),
        event_type: event_type.map(Into::into),
        key: key.map(Into::into),
        attributes: header(ATTRIBUTES).and_then(read_attributes),
    })
}

/// The time since 1970 of `2026-01-02T03:04:05.678Z`.
pub fn time(text: &str) -> Option<Duration> {
    humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok()
}

fn attributes_text(attributes: &Attributes) -> String {
    let mut entries = Vec::with_capacity(attributes.encoded_bytes());
    attributes.encode(&mut entries);
    BASE64.encode(entries)
}

/// Those of a later version are left out: without them the event is still the event.
fn read_attributes(text: &str) -> Option<Box<Attributes>> {
    let entries = BASE64.decode(text).ok()?;
    Attributes::decode(&entries).ok()?.boxed()
}

/// Anyone may have written it: what says it is text or JSON is looked at.
fn kind_of(said: Option<&str>, data: &[u8]) -> Kind {
    let is_text = || simdutf8::basic::from_utf8(data).is_ok();
    match said {
        Some("binary") => Kind::Binary,
        Some("json") if serde_json::from_slice::<IgnoredAny>(data).is_ok() => Kind::Json,
        _ if is_text() => Kind::Text,
        _ => Kind::Binary,
    }
}

/// All but visible ASCII as `%XX`.
fn escaped(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        match is_plain(byte) {
            true => out.push(char::from(byte)),
            false => drop(write!(out, "%{byte:02X}")),
        }
    }
    Cow::Owned(out)
}

/// The reverse. What is not escaped well stays as it is.
fn unescaped(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| first == b'%');
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Op, Parsed, parse, write_message};
    use super::*;

    fn read_back(publication: &Publication) -> Option<Publication> {
        let subjects = Subjects::new("PUSHLINE");
        let subject = subjects.of_channel(&publication.channel);
        let headers = headers(publication);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, of)| (*name, &**of)).collect();
        let mut wire = Vec::new();
        write_message(&mut wire, &subject, None, &headers, &publication.data);
        let text = String::from_utf8(wire).expect("text").replacen("PUB", "MSG", 1);
        let text = text.replacen(&subject, &format!("{subject} 1"), 1);
        let Parsed::Complete(Op::Message(message), _) = parse(text.as_bytes()) else { return None };
        super::publication(&subjects, message.subject, message.headers, message.payload)
    }

    #[test]
    fn an_event_survives_the_way_through_the_stream() {
        let attributes = Attributes { publisher: Some("alice".into()), ..Attributes::default() };
        let all = [
            ("news", Kind::Text, "hello", None, None, None),
            ("a.b..c", Kind::Json, "{\"a\":1}", Some("chat"), None, attributes.boxed()),
            ("$x@y!z~:1", Kind::Text, "", Some("ä b%41"), Some("publisher ö%\u{7f} key 1"), None),
        ];
        for (channel, kind, data, event_type, key, attributes) in all {
            let publication = Publication {
                channel: channel.into(),
                kind,
                data: Bytes::from_static(data.as_bytes()),
                event_type: event_type.map(Into::into),
                key: key.map(Into::into),
                attributes,
            };
            let read = read_back(&publication).expect("an event");
            assert_eq!(format!("{read:?}"), format!("{publication:?}"));
        }
    }

    #[test]
    fn bytes_that_are_neither_text_nor_json_are_binary_whatever_they_are_called() {
        for (said, data, kind) in [
            (None, &b"\xff"[..], Kind::Binary),
            (Some("json"), b"{", Kind::Text),
            (Some("json"), b"\xff", Kind::Binary),
            (Some("binary"), b"text", Kind::Binary),
            (Some("no kind"), b"text", Kind::Text),
        ] {
            assert_eq!(kind_of(said, data), kind, "{said:?} {data:?}");
        }
    }

    #[test]
    fn subjects_that_are_no_channel_are_no_events() {
        let subjects = Subjects::new("PUSHLINE");
        for subject in ["PUSHLINE.ctl.x", "PUSHLINE.ev.a.b", "PUSHLINE.ev.%2E", "OTHER.ev.a"] {
            assert_eq!(subjects.channel(subject), None, "{subject}");
        }
        let long = format!("PUSHLINE.ev.{}", "x".repeat(300));
        assert_eq!(subjects.channel(&long), None);
    }
}
