//! WebSocket frames in pieces, from a client and from a server.

#[path = "../../codecs/ws_framing/naive.rs"]
mod naive;

use pushline::proto::ws::frame::Sender;
use pushline::proto::ws::message::{MessageLimits, Received, Receiver};

use super::split::split;

/// Small, so that the fuzzer exceeds them.
const LIMITS: MessageLimits = MessageLimits { message_bytes_max: 300, fragments_max: 4 };

/// The stream's messages, one line each, and the close code it broke with, if it did.
type Outcome = (Vec<String>, Option<u16>);

/// Cuts make no difference, and a client's stream reads as in RFC 6455, followed word for word.
pub fn check(input: &[u8]) {
    let Some(split) = split(input) else { return };
    for sender in [Sender::Client, Sender::Server] {
        let whole = receive(sender, &[split.whole]);
        assert_eq!(receive(sender, &split.pieces), whole, "{sender:?}");
        if sender == Sender::Client {
            assert_eq!(naive::decode(split.whole), whole);
        }
    }
}

fn receive(sender: Sender, pieces: &[&[u8]]) -> Outcome {
    let mut receiver = Receiver::new(sender);
    let mut said = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let (taken, received) = match receiver.receive(rest, &LIMITS) {
                Ok(progress) => progress,
                Err(violation) => return (said, Some(violation.code().0)),
            };
            assert!(received.is_some() || taken == rest.len(), "bytes left without a message");
            rest = &rest[taken..];
            let Some(received) = received else { break };
            said.push(describe(&received));
            if matches!(received, Received::Close { .. }) {
                return (said, None);
            }
            if receiver.is_idle() {
                // The server drops an idle receiver and continues with another.
                receiver = Receiver::new(sender);
            }
        }
    }
    (said, None)
}

fn describe(received: &Received) -> String {
    match received {
        Received::Text(text) => {
            assert!(text.len() <= LIMITS.message_bytes_max);
            format!("text {}", text.escape_ascii())
        }
        Received::Binary(bytes) => {
            assert!(bytes.len() <= LIMITS.message_bytes_max);
            format!("binary {}", bytes.escape_ascii())
        }
        Received::Ping(payload) => format!("ping {}", payload.escape_ascii()),
        Received::Pong => "pong".to_owned(),
        Received::Close { code: None, .. } => "close".to_owned(),
        Received::Close { code: Some(code), reason } => {
            format!("close {} {}", code.0, reason.escape_ascii())
        }
    }
}
