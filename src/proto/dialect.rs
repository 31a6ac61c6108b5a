//! Everything about its wire that depends on how a connection reads events: one closed list, and
//! one function each for events, gaps, heartbeats and ends. Another protocol is another entry here
//! and a file in `worker/session`.
//!
//! Each form is a pure function of the event: a half-sent event is encoded again, and sending goes
//! on from the offset.

use super::data::EventView;
use super::envelope::{self, GapView};
use super::sse;
use super::stream::{self, STREAM_TYPE};
use super::ws;
use super::ws::close::{CloseCode, write_close};
use super::ws::frame::{self, Opcode, write_text_with};

/// Names of the query parameter that holds a cursor, of which the first present one counts: ours,
/// the polyfills', Ably's.
pub(crate) const CURSOR_NAMES: [&[u8]; 3] = [b"last_event_id", b"lastEventId", b"lastEvent"];

/// How a connection is sent its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Dialect {
    /// `data:` is the payload.
    SseBare = 0,
    /// `data:` is the envelope.
    SseEnvelope = 1,
    /// A message is the payload.
    WsBare = 2,
    /// A message is the envelope.
    WsEnvelope = 3,
    /// A channel's stream as its producer would send it: `data:` alone, and an end.
    StreamEvents = 4,
    /// The text of a channel's stream.
    StreamText = 5,
}

/// What is sent so that proxies and peers know the server is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// The cheapest there is: a comment, or a ping.
    Plain,
    /// On SSE an event, for a page whose scripts see no comments.
    Event,
}

impl Dialect {
    /// How many dialects there are, for tables indexed by them.
    pub const COUNT: usize = 6;

    /// All dialects, by index.
    pub const ALL: [Self; Self::COUNT] = [
        Self::SseBare,
        Self::SseEnvelope,
        Self::WsBare,
        Self::WsEnvelope,
        Self::StreamEvents,
        Self::StreamText,
    ];

    /// Bits that hold any dialect, with room for more of them.
    pub const BITS: u32 = 4;

    /// How many bytes an encoding makes of one byte of data, at most: SSE writes `data: ` before
    /// each line (JSON needs six bytes for a control character, base64 four for three).
    pub const GROWTH_MAX: usize = 7;

    /// Whether a message from the peer is an operation rather than an event.
    pub(crate) fn has_operations(self) -> bool {
        self == Self::WsEnvelope
    }

    /// Whether the last id is the client's cursor for all its channels, which are therefore sent in
    /// one order.
    pub(crate) fn has_one_cursor(self) -> bool {
        matches!(self, Self::SseBare | Self::SseEnvelope)
    }

    /// Whether a loss can be told in band. A bare WebSocket has no way to, and is closed with
    /// [`CloseCode::GAP`] instead; so is a plain reader of a stream.
    pub(crate) fn tells_gaps(self) -> bool {
        self != Self::WsBare && !self.ends()
    }

    /// Whether it reads one stream, and ends with it.
    pub fn ends(self) -> bool {
        matches!(self, Self::StreamEvents | Self::StreamText)
    }

    /// Whether there is something to send that is no event, so that the peer knows we are there.
    pub(crate) fn has_heartbeats(self) -> bool {
        self != Self::StreamText
    }

    /// Appends an event.
    pub fn write_event(self, out: &mut Vec<u8>, event: &EventView<'_>) {
        match self {
            Self::SseBare => sse::write_event(out, event),
            Self::SseEnvelope => sse::write_event_enveloped(out, event),
            // There is no way to say that this is not a message of the channel.
            Self::WsBare if event.event_type == Some(STREAM_TYPE) => {}
            Self::WsBare => ws::write_event(out, event),
            Self::WsEnvelope => write_text_with(out, |out| envelope::write_event(out, event)),
            Self::StreamEvents => stream::write_plain(out, event),
            Self::StreamText => stream::write_text(out, event),
        }
    }

    /// Appends a gap; the dialect must be able to tell it.
    pub fn write_gap(self, out: &mut Vec<u8>, gap: &GapView<'_>) {
        match self {
            Self::SseBare => sse::write_gap(out, gap),
            Self::SseEnvelope => sse::write_gap_enveloped(out, gap),
            Self::WsBare | Self::StreamEvents | Self::StreamText => {
                debug_assert!(false, "it is closed instead");
            }
            Self::WsEnvelope => write_text_with(out, |out| envelope::write_gap(out, gap)),
        }
    }

    /// Appends a heartbeat.
    pub(crate) fn write_heartbeat(self, out: &mut Vec<u8>, form: Heartbeat) {
        match (self, form) {
            (Self::SseBare | Self::SseEnvelope, Heartbeat::Plain) | (Self::StreamEvents, _) => {
                out.extend_from_slice(sse::HEARTBEAT);
            }
            (Self::StreamText, _) => {}
            (Self::SseBare | Self::SseEnvelope, Heartbeat::Event) => {
                out.extend_from_slice(sse::HEARTBEAT_EVENT);
            }
            (Self::WsBare | Self::WsEnvelope, _) => frame::write_header(out, Opcode::Ping, 0),
        }
    }

    /// Appends why the stream ends: the last event of SSE, or a close frame. `label`: the reason's
    /// name for programs.
    pub(crate) fn write_end(self, out: &mut Vec<u8>, label: &str, code: CloseCode, message: &str) {
        match self {
            Self::SseBare | Self::SseEnvelope => sse::write_end(out, label, code.0, message),
            Self::WsBare | Self::WsEnvelope => write_close(out, Some(code), message),
            // Its readers know no such event; that `[DONE]` is missing says enough.
            Self::StreamEvents | Self::StreamText => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cursor::{Epoch, EventId};
    use super::super::data::Data;
    use super::*;

    #[test]
    fn no_encoding_grows_beyond_what_is_reckoned_with() {
        const COUNT: usize = 10_000;
        let id = EventId { epoch: Epoch::from_random(1), seq: u64::MAX };
        let write = |dialect: Dialect, data: Data<'_>| {
            let mut out = Vec::new();
            dialect.write_event(
                &mut out,
                &EventView { id, channel: "c", event_type: None, data, attributes: None },
            );
            out.len()
        };
        for dialect in Dialect::ALL {
            let empty = write(dialect, Data::Text(""));
            for text in ["\n", "\r", "\u{1}", "\"", "a"] {
                let length = write(dialect, Data::Text(&text.repeat(COUNT)[..]));
                let head = 16; // A length that takes more bytes to say.
                assert!(
                    length <= empty + head + Dialect::GROWTH_MAX * COUNT,
                    "{dialect:?} {text:?}"
                );
            }
            assert!(write(dialect, Data::Binary(&[0xff; COUNT])) < empty + 2 * COUNT);
        }
    }
}
