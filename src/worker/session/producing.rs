//! Which connection produces each channel's stream.

use std::sync::Arc;

use super::state::Producer;
use super::{Cx, Sessions};
use crate::ring::Token;
use crate::worker::effect::Effect;

impl Sessions {
    /// The connection of this worker that produces the channel's stream, if there is one.
    pub fn producer_of(&self, channel: &str) -> Option<Token> {
        self.shared.producing.get(channel).copied()
    }
}

impl Cx<'_> {
    /// The session produces the channel's stream from now on.
    pub(super) fn begin_producing(&mut self, channel: Box<str>) {
        self.shared.producing.insert(channel, self.token);
    }

    /// It does not any more.
    pub(super) fn end_producing(&mut self, channel: &str) {
        if self.shared.producing.get(channel) == Some(&self.token) {
            self.shared.producing.remove(channel);
        }
    }

    /// It leaves the stream open: the log is told.
    pub(super) fn leave_stream(&mut self, channel: Box<str>, id: Arc<str>, attempt: u64) {
        self.end_producing(&channel);
        self.push(Effect::LeaveStream { channel, id, attempt });
    }

    /// A producer's request is over: tells the log if the stream is left open.
    pub(super) fn leave_producer(&mut self, producer: &Producer) {
        let Producer { channel, id, attempt, asked, .. } = producer;
        match asked {
            true => self.leave_stream(channel.clone(), id.clone(), *attempt),
            false => self.end_producing(channel),
        }
    }
}
