//! RFC 6455 for a server (and, for the load generator and tests, a client): handshake, frames,
//! messages, close. No I/O; no extension is ever negotiated.
//!
//! An event becomes one final frame ([`write_event`]); what a peer sends goes through a
//! [`message::Receiver`].

pub mod close;
pub mod frame;
pub mod handshake;
pub mod mask;
pub mod message;

use super::data::{Data, EventView};
use frame::Opcode;

/// Appends an event as a bare message: text and JSON in a text frame, bytes in a binary frame.
pub fn write_event(out: &mut Vec<u8>, event: &EventView<'_>) {
    let (opcode, payload) = match event.data {
        Data::Text(text) | Data::Json(text) => (Opcode::Text, text.as_bytes()),
        Data::Binary(bytes) => (Opcode::Binary, bytes),
    };
    frame::write(out, opcode, payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::cursor::{Epoch, EventId};

    #[test]
    fn the_frame_type_follows_the_declared_data() {
        let id = EventId { epoch: Epoch::from_random(1), seq: 7 };
        let cases: [(Data<'_>, &[u8]); 4] = [
            (Data::Text("hi"), b"\x81\x02hi"),
            (Data::Json("{}"), b"\x81\x02{}"),
            (Data::Binary(&[0, 255]), b"\x82\x02\x00\xff"),
            (Data::Text(""), b"\x81\x00"),
        ];
        for (data, wire) in cases {
            let mut out = Vec::new();
            write_event(
                &mut out,
                &EventView { id, channel: "c", event_type: Some("t"), data, attributes: None },
            );
            assert_eq!(out, wire);
        }
    }
}
