//! One subscriber: the few bytes we remember about it.

use super::stream::Stream;

/// The state of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The request is not sent yet.
    Connecting,
    /// The request is sent.
    Asked,
    /// The server accepted the subscription.
    Subscribed,
    /// It ended after it had been accepted.
    Ended,
    /// It was never accepted.
    Failed,
}

/// One subscriber. With HTTP/1.1 it has a connection of its own; HTTP/2 carries many on one.
#[derive(Debug)]
pub(super) struct Subscriber {
    /// Highest sequence number received.
    pub sequence: u32,
    /// The reader of its bytes.
    pub stream: Stream,
    /// Of its subscription.
    pub state: State,
    /// Whether a heartbeat came since the parent began to watch.
    pub is_beating: bool,
}

// A million of these, each with a socket of 16 bytes, must not matter beside the kernel's share.
const _: () = assert!(size_of::<Subscriber>() <= 24);

impl Subscriber {
    /// A subscriber in this state that has received nothing.
    pub fn new(state: State) -> Self {
        Self { sequence: 0, stream: Stream::new(), state, is_beating: false }
    }

    /// Whether the server has accepted it, then or now.
    pub fn was_accepted(&self) -> bool {
        matches!(self.state, State::Subscribed | State::Ended)
    }

    /// Whether it waits for its connection, or for the server's answer.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Connecting | State::Asked)
    }

    /// Whether anything may still come for it.
    pub fn is_open(&self) -> bool {
        self.is_waiting() || self.state == State::Subscribed
    }

    /// It is over; how, unless it was over before.
    pub fn end(&mut self) -> Option<State> {
        let how = match self.state {
            State::Connecting | State::Asked => State::Failed,
            State::Subscribed => State::Ended,
            State::Ended | State::Failed => return None,
        };
        self.state = how;
        Some(how)
    }
}
