//! How events are written into the stream's entries and read back. Defaults are left out, so that any
//! client of Redis can publish by the script: an entry with a channel and data is an event.
//!
//! | field | what |
//! |---|---|
//! | `t` | when, in microseconds since 1970, by the server's clock |
//! | `c` | channel |
//! | `d` | data |
//! | `k` | kind: `json` or `binary`; without it: text, or binary if it is not UTF-8 |
//! | `e` | type |
//! | `i` | idempotency key |
//! | `a` | attributes, as [`Attributes::encode`] has them |
//! | `r` | a revocation, as JSON: not an event |

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;

use super::resp::Reply;
use crate::cluster::follower::Mark;
use crate::cluster::{Revocation, is_channel};
use crate::log::event::{Attributes, Kind, Publication};
use crate::proto::envelope::{TYPE_BYTES_MAX, is_plain};

/// Fields of an entry, without its time.
pub type Fields = Vec<(&'static str, Vec<u8>)>;

/// The fields of a publication.
pub fn fields(publication: &Publication) -> Fields {
    let Publication { channel, kind, data, event_type, key, attributes } = publication;
    let mut fields = vec![("c", channel.as_bytes().to_vec()), ("d", data.to_vec())];
    match kind {
        Kind::Text => {}
        Kind::Json => fields.push(("k", b"json".to_vec())),
        Kind::Binary => fields.push(("k", b"binary".to_vec())),
    }
    fields.extend(event_type.iter().map(|text| ("e", text.as_bytes().to_vec())));
    fields.extend(key.iter().map(|key| ("i", key.as_bytes().to_vec())));
    fields.extend(attributes.iter().map(|of| {
        let mut bytes = Vec::with_capacity(of.encoded_bytes());
        of.encode(&mut bytes);
        ("a", bytes)
    }));
    fields
}

/// An entry of the stream.
#[derive(Debug)]
pub struct Entry {
    pub mark: Mark,
    /// When it was stored, since 1970.
    pub stored_at: Duration,
    /// What it says; `None`: nothing that we know.
    pub says: Option<Says>,
}

/// What an entry says.
#[derive(Debug)]
pub enum Says {
    Event(Publication),
    Revoked(Revocation),
}

impl Entry {
    /// Reads an entry as XREAD returns it: `<seq>-0`, and its fields. `None`: no node wrote it.
    pub fn read(reply: &Reply<'_>) -> Option<Self> {
        let [id, fields] = reply.list() else { return None };
        let seq = id.text()?.strip_suffix("-0")?.parse().ok()?;
        let fields: Vec<(&[u8], &[u8])> = fields
            .list()
            .chunks_exact(2)
            .filter_map(|pair| match pair {
                [Reply::Bytes(name), Reply::Bytes(value)] => Some((*name, *value)),
                _ => None,
            })
            .collect();
        let field = |wanted: &str| {
            fields.iter().find(|(name, _)| *name == wanted.as_bytes()).map(|(_, value)| *value)
        };
        let text = |wanted: &str| field(wanted).and_then(|bytes| std::str::from_utf8(bytes).ok());
        let stored_us = text("t").and_then(|text| text.parse().ok()).unwrap_or(0);
        // The hash is only compared with one that this process made.
        let mut sign = DefaultHasher::new();
        fields.hash(&mut sign);
        let says = match field("r") {
            Some(json) => serde_json::from_slice(json).ok().map(Says::Revoked),
            None => publication(field, text).map(Says::Event),
        };
        // 0 is no sign.
        let mark = Mark { seq, sign: sign.finish().max(1) };
        Some(Self { mark, stored_at: Duration::from_micros(stored_us), says })
    }
}

fn publication<'a>(
    field: impl Fn(&str) -> Option<&'a [u8]>,
    text: impl Fn(&str) -> Option<&'a str>,
) -> Option<Publication> {
    let channel = text("c").filter(|name| is_channel(name))?;
    let data = field("d").unwrap_or_default();
    let is_text = || simdutf8::basic::from_utf8(data).is_ok();
    let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok();
    let kind = match text("k") {
        Some("json") if is_text() && is_json() => Kind::Json,
        Some("binary") => Kind::Binary,
        _ if is_text() => Kind::Text,
        _ => Kind::Binary,
    };
    let event_type = text("e").filter(|text| is_plain(text, TYPE_BYTES_MAX));
    let attributes = field("a").and_then(|bytes| Attributes::decode(bytes).ok()?.boxed());
    Some(Publication {
        channel: channel.into(),
        kind,
        data: Bytes::copy_from_slice(data),
        event_type: event_type.map(Into::into),
        key: text("i").map(Into::into),
        attributes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_the_way_through_an_entry() {
        let attributes = Attributes { publisher: Some("alice".into()), ..Attributes::default() };
        for (kind, data) in
            [(Kind::Text, &b"hi"[..]), (Kind::Json, b"{\"a\":1}"), (Kind::Binary, b"\xff\r\n")]
        {
            let publication = Publication {
                channel: "a.b:c".into(),
                kind,
                data: Bytes::from_static(data),
                event_type: Some("ping".into()),
                key: Some("publisher k".into()),
                attributes: attributes.clone().boxed(),
            };
            let written = fields(&publication);
            let mut list = vec![Reply::Bytes(b"t"), Reply::Bytes(b"1700000000000001")];
            list.extend(
                written
                    .iter()
                    .flat_map(|(name, value)| [Reply::Bytes(name.as_bytes()), Reply::Bytes(value)]),
            );
            let reply = Reply::List(vec![Reply::Bytes(b"42-0"), Reply::List(list)]);
            let entry = Entry::read(&reply).expect("one");
            assert_eq!((entry.mark.seq, entry.stored_at.as_micros()), (42, 1_700_000_000_000_001));
            let Some(Says::Event(read)) = entry.says else { panic!() };
            assert_eq!(format!("{read:?}"), format!("{publication:?}"));
        }
    }

    #[test]
    fn an_entry_with_another_content_has_another_sign() {
        let entry = |data: &'static [u8]| {
            let list = [&b"c"[..], b"a", b"d", data].map(Reply::Bytes);
            let reply = Reply::List(vec![Reply::Bytes(b"1-0"), Reply::List(list.into())]);
            Entry::read(&reply).expect("one").mark
        };
        assert_eq!(entry(b"one"), entry(b"one"));
        assert_ne!(entry(b"one"), entry(b"two"));
    }
}
