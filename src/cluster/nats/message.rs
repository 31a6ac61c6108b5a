//! Reads what comes on the subject to which a stream's messages are sent.

use std::time::Duration;

use super::wire::Message;
use crate::cluster::follower::Mark;

#[derive(Debug)]
pub enum Delivered {
    /// A message of the stream.
    Message {
        mark: Mark,
        /// Counts the messages of this opening, from 1.
        count: u64,
        /// When it was stored, since 1970.
        stored_at: Duration,
    },
    /// The broker waits until this subject hears of us: what came before it was taken.
    FlowControl(String),
    /// The broker is there, and has nothing more to send.
    Heartbeat {
        /// How many messages of this opening it has sent, if it says so.
        sent: Option<u64>,
        /// It still waits for the answer to a request for flow control; the request got lost.
        awaited: Option<String>,
    },
    /// It ends the delivery, or says what is not understood.
    Other,
}

impl Delivered {
    pub fn of(message: &Message<'_>) -> Self {
        if let Some(status) = message.headers.and_then(|headers| headers.status()) {
            return match (status, message.reply) {
                (100, Some(reply)) => Self::FlowControl(reply.to_owned()),
                (100, None) => heartbeat(message),
                _ => Self::Other,
            };
        }
        message.reply.and_then(place).unwrap_or(Self::Other)
    }
}

fn heartbeat(message: &Message<'_>) -> Delivered {
    let header = |name| message.headers.and_then(|all| all.get(name));
    Delivered::Heartbeat {
        sent: header("Nats-Last-Consumer").and_then(|text| text.parse().ok()),
        awaited: header("Nats-Consumer-Stalled").map(str::to_owned),
    }
}

/// The subject by which a message would be acknowledged says all of its place:
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<seq>.<count>.<ns>.<pending>`, where a domain and an
/// account may come before the stream.
fn place(reply: &str) -> Option<Delivered> {
    let rest = reply.strip_prefix("$JS.ACK.")?;
    let tokens = rest.split('.').count();
    let mut tokens = rest.split('.').skip(if tokens >= 9 { 5 } else { 3 });
    let mut number = || tokens.next()?.parse::<u64>().ok();
    let (seq, count, stored_ns) = (number()?, number()?, number()?);
    let mark = Mark { seq, sign: stored_ns };
    Some(Delivered::Message { mark, count, stored_at: Duration::from_nanos(stored_ns) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_place_are_read() {
        for reply in [
            "$JS.ACK.PUSHLINE.c1.1.42.7.1700000000000000001.3",
            "$JS.ACK.hub.ACCOUNT.PUSHLINE.c1.1.42.7.1700000000000000001.3.random",
        ] {
            let Some(Delivered::Message { mark, count, .. }) = place(reply) else { panic!() };
            assert_eq!((mark.seq, count, mark.sign), (42, 7, 1_700_000_000_000_000_001));
        }
        for bad in ["", "$JS.ACK.", "$JS.ACK.S.c.1.x.7.1.3", "$JS.ACK.S.c.1"] {
            assert!(place(bad).is_none(), "{bad}");
        }
    }
}
