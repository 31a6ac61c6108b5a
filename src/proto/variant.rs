//! The forms an event takes on the wire. Each is a pure function of the event: an event that was
//! half sent is encoded again and goes on from the offset.

use super::data::EventView;
use super::envelope::{self, GapView};
use super::ws::frame::write_text_with;
use super::{sse, ws};

/// How one connection wants its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Variant {
    /// `data:` is the payload.
    SseBare = 0,
    /// `data:` is the envelope.
    SseEnvelope = 1,
    /// A message is the payload.
    WsBare = 2,
    /// A message is the envelope.
    WsEnvelope = 3,
}

/// Whether a gap could be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum GapWritten {
    /// It was appended.
    InBand,
    /// A bare WebSocket has no place for it: close with
    /// [`CloseCode::GAP`](super::ws::close::CloseCode::GAP) and the reason `gap`.
    CloseInstead,
}

impl Variant {
    /// How many there are, for tables indexed by one.
    pub const COUNT: usize = 4;

    /// What an encoding makes of a byte of data, at most: SSE writes `data: ` before each line (six
    /// bytes are what JSON needs for a control character, four thirds what base64 does).
    pub const GROWTH_MAX: usize = 7;

    /// Appends an event.
    pub fn write_event(self, out: &mut Vec<u8>, event: &EventView<'_>) {
        match self {
            Self::SseBare => sse::write_event(out, event),
            Self::SseEnvelope => sse::write_event_enveloped(out, event),
            Self::WsBare => ws::write_event(out, event),
            Self::WsEnvelope => write_text_with(out, |out| envelope::write_event(out, event)),
        }
    }

    /// Appends a gap.
    pub fn write_gap(self, out: &mut Vec<u8>, gap: &GapView<'_>) -> GapWritten {
        match self {
            Self::SseBare => sse::write_gap(out, gap),
            Self::SseEnvelope => sse::write_gap_enveloped(out, gap),
            Self::WsBare => return GapWritten::CloseInstead,
            Self::WsEnvelope => write_text_with(out, |out| envelope::write_gap(out, gap)),
        }
        GapWritten::InBand
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
        let write = |variant: Variant, data: Data<'_>| {
            let mut out = Vec::new();
            variant.write_event(&mut out, &EventView { id, channel: "c", event_type: None, data });
            out.len()
        };
        for variant in
            [Variant::SseBare, Variant::SseEnvelope, Variant::WsBare, Variant::WsEnvelope]
        {
            let empty = write(variant, Data::Text(""));
            for text in ["\n", "\r", "\u{1}", "\"", "a"] {
                let length = write(variant, Data::Text(&text.repeat(COUNT)[..]));
                let head = 16; // A length that takes more bytes to say.
                assert!(
                    length <= empty + head + Variant::GROWTH_MAX * COUNT,
                    "{variant:?} {text:?}"
                );
            }
            assert!(write(variant, Data::Binary(&[0xff; COUNT])) < empty + 2 * COUNT);
        }
    }
}
