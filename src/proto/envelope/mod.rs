//! JSON envelopes: events and answers out, client operations and NDJSON lines in.

mod check;
pub(super) mod json;
mod op;
mod presence;
#[cfg(test)]
mod tests;

use super::attributes::Attributes;
use super::cursor::EventId;
use super::data::{Data, EventView};
use super::stream::Part;
use super::ws::close::cut;

pub(crate) use check::is_plain;
pub use check::{
    KEY_BYTES_MAX, RESERVED_PREFIX, TYPE_BYTES_MAX, attributes, event_key, event_type, key,
};
pub use op::{
    ClientOp, Invalid, OpBody, OpError, Payload, Publication, REF_BYTES_MAX, parse_op,
    parse_publication,
};

pub use presence::{
    Changes, Listed, MembersView, NODE_TYPE, News, NodeSays, PRESENCE_TYPE, Said, write_members,
    write_members_answer, write_node_says, write_page,
};

/// The event type of a gap.
pub const GAP_TYPE: &str = "pushline.gap";
/// How much of a foreign cursor a gap repeats: a client may send one as long as a head, and
/// anything longer is not an id.
pub const AFTER_BYTES_MAX: usize = 64;

/// Events that a subscriber will not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapView<'a> {
    /// Where the subscriber continues: its cursor once it has read this.
    pub id: EventId,
    /// The channel they were on.
    pub channel: &'a str,
    /// `evicted`, `epoch` or `overrun`.
    pub reason: &'a str,
    /// The cursor that could not be honoured, as the client sent it.
    pub after: &'a str,
    /// The oldest event that will still come, if any is kept.
    pub first: Option<EventId>,
}

/// Appends `{"id","channel","event"?,"data"}` (`"data_base64"` for bytes), always on one line.
/// Attributes come before the data: `"publisher"`, `"event_key"`, `"tombstone"`, `"ephemeral"`.
pub fn write_event(out: &mut Vec<u8>, event: &EventView<'_>) {
    write_start(out, event.id, event.channel, event.event_type);
    if let Some(attributes) = event.attributes {
        write_attributes(out, attributes);
    }
    match event.data {
        Data::Text(text) => {
            out.extend_from_slice(b",\"data\":");
            json::write_string(out, text);
        }
        Data::Json(value) => {
            out.extend_from_slice(b",\"data\":");
            json::write_one_line(out, value);
        }
        Data::Binary(bytes) => {
            out.extend_from_slice(b",\"data_base64\":\"");
            json::write_base64(out, bytes);
            out.push(b'"');
        }
    }
    out.push(b'}');
}

/// Appends `{"id","channel","event":"pushline.gap","data":{…}}`.
pub fn write_gap(out: &mut Vec<u8>, gap: &GapView<'_>) {
    write_start(out, gap.id, gap.channel, Some(GAP_TYPE));
    out.extend_from_slice(b",\"data\":");
    write_gap_data(out, gap);
    out.push(b'}');
}

/// Appends `{"channel","reason","after","first"}`.
pub fn write_gap_data(out: &mut Vec<u8>, gap: &GapView<'_>) {
    out.extend_from_slice(b"{\"channel\":");
    json::write_string(out, gap.channel);
    out.extend_from_slice(b",\"reason\":");
    json::write_string(out, gap.reason);
    out.extend_from_slice(b",\"after\":");
    json::write_string(out, cut(gap.after, AFTER_BYTES_MAX));
    out.extend_from_slice(b",\"first\":");
    match gap.first {
        Some(id) => write_id(out, id),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}

/// A value in an answer.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A string.
    Text(&'a str),
    /// A JSON number.
    Number(u64),
    /// An event id, as a string.
    Id(EventId),
}

/// Appends `{"ref":…,"ok":true,…}`. `reference` is JSON as the client sent it, see
/// [`ClientOp::reference`]; without one there is no `ref`.
pub fn write_ok(out: &mut Vec<u8>, reference: Option<&str>, fields: &[(&str, Value<'_>)]) {
    write_reference(out, reference);
    out.extend_from_slice(b"\"ok\":true");
    for (name, value) in fields {
        out.push(b',');
        json::write_string(out, name);
        out.push(b':');
        match value {
            Value::Text(text) => json::write_string(out, text),
            Value::Number(number) => {
                out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes());
            }
            Value::Id(id) => write_id(out, *id),
        }
    }
    out.push(b'}');
}

fn write_start(out: &mut Vec<u8>, id: EventId, channel: &str, event_type: Option<&str>) {
    out.extend_from_slice(b"{\"id\":");
    write_id(out, id);
    out.extend_from_slice(b",\"channel\":");
    json::write_string(out, channel);
    if let Some(event_type) = event_type {
        out.extend_from_slice(b",\"event\":");
        json::write_string(out, event_type);
    }
}

fn write_attributes(out: &mut Vec<u8>, attributes: &Attributes) {
    let Attributes { publisher, event_key, tombstone, ephemeral, stream, merged, .. } = attributes;
    for (name, text) in [(",\"publisher\":", publisher), (",\"event_key\":", event_key)] {
        if let Some(text) = text {
            out.extend_from_slice(name.as_bytes());
            json::write_string(out, text);
        }
    }
    for (name, is_set) in [(",\"tombstone\":true", tombstone), (",\"ephemeral\":true", ephemeral)] {
        if *is_set {
            out.extend_from_slice(name.as_bytes());
        }
    }
    if let Some(mark) = stream.as_ref().filter(|mark| mark.part == Part::Token) {
        out.extend_from_slice(b",\"stream\":");
        json::write_string(out, &mark.id);
        out.extend_from_slice(b",\"offset\":");
        out.extend_from_slice(itoa::Buffer::new().format(mark.at).as_bytes());
        if let Some(merged) = merged {
            out.extend_from_slice(b",\"tokens\":");
            out.extend_from_slice(itoa::Buffer::new().format(merged.count()).as_bytes());
        }
    }
}

fn write_id(out: &mut Vec<u8>, id: EventId) {
    out.push(b'"');
    id.write(out);
    out.push(b'"');
}

/// Begins an answer with `{"ref":…,`, or `{` if there is no `ref`.
pub(super) fn write_reference(out: &mut Vec<u8>, reference: Option<&str>) {
    out.push(b'{');
    if let Some(reference) = reference {
        out.extend_from_slice(b"\"ref\":");
        out.extend_from_slice(reference.as_bytes());
        out.push(b',');
    }
}
