//! Server-Sent Events (WHATWG HTML, section "Server-sent events"): the response head, events,
//! gaps, heartbeats.
//!
//! Each line ending in the data becomes one line ending in what the browser delivers: CR, LF and
//! CRLF all become LF, because the format knows no other. Empty data is dispatched too: a `data:`
//! line appends an LF to the browser's buffer, so the buffer is not empty at the blank line, and
//! that LF is then removed again.

use super::cursor::EventId;
use super::data::{Data, EventView};
use super::envelope::{self, GapView, json};
use super::http::response::{Date, write_stream_head};

/// A comment: proxies and clients see that the stream is alive, but no event is dispatched.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// The same for a page, whose scripts see no comments. It has no `id:`, so it moves no cursor. A
/// stream's first beat is that of [`write_first_beat`].
pub(crate) const HEARTBEAT_EVENT: &[u8] = b"event: pushline.beat\ndata: {}\n\n";

/// Appends the head of a stream's response. `extra_headers` are whole lines, each with its CRLF.
pub fn write_head(out: &mut Vec<u8>, date: &Date, extra_headers: &[u8]) {
    write_stream_head(out, b"Content-Type: text/event-stream\r\n", date, extra_headers);
}

/// Appends a complete stream that only says why there is none now, and when to try again. It has no
/// blank line, as that would end an event and set the client's last id to this stream's, which is
/// empty; `retry:` takes effect when its line ends (WHATWG HTML 9.2.6).
pub(crate) fn write_refusal(
    out: &mut Vec<u8>,
    date: &Date,
    extra_headers: &[u8],
    code: &str,
    retry_ms: u32,
) {
    write_head(out, date, extra_headers);
    out.extend_from_slice(b": ");
    out.extend_from_slice(code.as_bytes());
    out.extend_from_slice(b"\nretry: ");
    out.extend_from_slice(itoa::Buffer::new().format(retry_ms).as_bytes());
    out.push(b'\n');
}

/// Appends the first bytes of a stream: they open it in the client before any event comes, and say
/// how long to wait before reconnecting. `from` is where a stream without a cursor begins: an `id:`
/// without data dispatches nothing but is remembered (WHATWG HTML, "Interpreting an event stream"),
/// so a client that is cut before its first event still resumes.
pub fn write_preamble(out: &mut Vec<u8>, retry_ms: u32, from: Option<EventId>) {
    out.extend_from_slice(b": pushline\nretry: ");
    out.extend_from_slice(itoa::Buffer::new().format(retry_ms).as_bytes());
    if let Some(id) = from {
        out.extend_from_slice(b"\nid: ");
        id.write(out);
    }
    out.extend_from_slice(b"\n\n");
}

/// Appends a beat that says when the next one is due: a page's watchdog needs to know that, and
/// whether events reach it at all.
pub fn write_first_beat(out: &mut Vec<u8>, period_ms: u128) {
    let beat = format!("event: pushline.beat\ndata: {{\"every_ms\":{period_ms}}}\n\n");
    out.extend_from_slice(beat.as_bytes());
}

/// Appends the event that tells the client its connection's name, for `POST
/// /sse/{connection}/token`. It has no `id:`, so it moves no cursor.
pub(crate) fn write_opened(out: &mut Vec<u8>, connection: &str) {
    out.extend_from_slice(b"event: pushline.open\ndata: {\"connection\":\"");
    out.extend_from_slice(connection.as_bytes());
    out.extend_from_slice(b"\"}\n\n");
}

/// Appends the event that says why the stream ends. It has no `id:` either, so the client resumes
/// from where it was.
pub(crate) fn write_end(out: &mut Vec<u8>, reason: &str, code: u16, message: &str) {
    let end = format!(
        "event: pushline.end\ndata: {{\"reason\":\"{reason}\",\"code\":{code},\"message\":\"{message}\"}}\n\n"
    );
    out.extend_from_slice(end.as_bytes());
}

/// Appends an event whose `data:` is the payload itself; bytes as base64.
pub fn write_event(out: &mut Vec<u8>, event: &EventView<'_>) {
    write_id(out, event.id);
    write_unnamed(out, event);
}

/// The same without an id.
pub(crate) fn write_unnamed(out: &mut Vec<u8>, event: &EventView<'_>) {
    write_type(out, event.event_type);
    match event.data {
        Data::Text(text) | Data::Json(text) => write_data(out, text.as_bytes()),
        Data::Binary(bytes) => {
            out.extend_from_slice(b"data: ");
            json::write_base64(out, bytes);
            out.push(b'\n');
        }
    }
    out.push(b'\n');
}

/// Appends an event whose `data:` is the envelope: the same JSON as on a WebSocket, one line.
pub fn write_event_enveloped(out: &mut Vec<u8>, event: &EventView<'_>) {
    write_fields(out, event.id, event.event_type);
    out.extend_from_slice(b"data: ");
    envelope::write_event(out, event);
    out.extend_from_slice(b"\n\n");
}

/// Appends a gap whose `data:` describes the loss.
pub fn write_gap(out: &mut Vec<u8>, gap: &GapView<'_>) {
    write_fields(out, gap.id, Some(envelope::GAP_TYPE));
    out.extend_from_slice(b"data: ");
    envelope::write_gap_data(out, gap);
    out.extend_from_slice(b"\n\n");
}

/// Appends a gap whose `data:` is the envelope.
pub fn write_gap_enveloped(out: &mut Vec<u8>, gap: &GapView<'_>) {
    write_fields(out, gap.id, Some(envelope::GAP_TYPE));
    out.extend_from_slice(b"data: ");
    envelope::write_gap(out, gap);
    out.extend_from_slice(b"\n\n");
}

fn write_fields(out: &mut Vec<u8>, id: EventId, event_type: Option<&str>) {
    write_id(out, id);
    write_type(out, event_type);
}

fn write_id(out: &mut Vec<u8>, id: EventId) {
    out.extend_from_slice(b"id: ");
    id.write(out);
    out.push(b'\n');
}

fn write_type(out: &mut Vec<u8>, event_type: Option<&str>) {
    if let Some(event_type) = event_type {
        // Types are checked on arrival; a line end here would forge fields.
        debug_assert!(memchr::memchr2(b'\n', b'\r', event_type.as_bytes()).is_none());
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(event_type.as_bytes());
        out.push(b'\n');
    }
}

/// A `data:` line per line. The client removes the space after the colon, so that data beginning
/// with a space keeps its own.
fn write_data(out: &mut Vec<u8>, mut data: &[u8]) {
    while let Some(end) = memchr::memchr2(b'\n', b'\r', data) {
        write_line(out, &data[..end]);
        let line_end = if data[end..].starts_with(b"\r\n") { 2 } else { 1 };
        data = &data[end + line_end..];
    }
    write_line(out, data);
}

fn write_line(out: &mut Vec<u8>, line: &[u8]) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(line);
    out.push(b'\n');
}
