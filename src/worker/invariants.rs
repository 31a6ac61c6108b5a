//! What must hold between two turns, checked by the simulation and the tests. Walks everything.

use super::session::Protocol;
use super::turn::Core;
use crate::limits::CARRY_BYTES_MAX;

impl Core {
    /// Whether nothing is left to do: nothing to send, nothing under way to the log or back. Timers
    /// may still run.
    pub fn is_quiet(&self) -> bool {
        self.net.is_flushed()
            && self.sessions.is_quiet()
            && self.hub.is_quiet()
            && self.link.is_quiet()
            && !self.net.indices().any(|index| self.net.is_sending(index))
    }

    /// Subscriptions at present, live and explicit.
    pub fn subscriptions(&self) -> usize {
        self.hub.subscriptions()
    }

    /// Panics if the worker contradicts itself. Call it between two turns.
    pub fn check_invariants(&self) {
        self.net.check_invariants(|index| {
            self.sessions[index].takes_input() && self.sessions[index].carried() > CARRY_BYTES_MAX
        });
        self.sessions.check_invariants(
            |index| self.net.is_open(index),
            |index| self.net.token(index),
            |index| self.link.asked_by(self.net.token(index)),
        );
        self.hub.check_invariants(self.link.joins());
        self.link.check_invariants();
        assert!(!self.clock.is_crowded(self.net.len()), "stale expiries pile up");
        for index in self.net.indices().filter(|&index| self.net.is_open(index)) {
            self.check_connection(index);
        }
    }

    /// What the parts of one connection must agree on.
    fn check_connection(&self, index: u32) {
        let protocol = self.sessions[index].protocol();
        let is_stream = matches!(protocol, Protocol::Sse | Protocol::Ws);
        let reads = self.hub.channels_of(index).next().is_some();
        assert!(!reads || is_stream, "slot {index} reads as {protocol:?}");
        let ended = self.net.has_peer_ended(index);
        let ends = self.sessions[index].carried() > 0 || self.sessions[index].has_farewell();
        assert!(!is_stream || !ended || ends, "slot {index}: its peer has ended unnoticed");
        let to_send = self.has_output(index) || self.hub.is_behind(index);
        let awaited = self.net.is_queued(index) || self.net.is_sending(index);
        assert!(awaited || !to_send, "slot {index} has something to send for ever");
        if let Some(carrier) = self.net.carrier(index) {
            let streams = carrier.streams();
            let asked: u16 = streams.map(|stream| self.sessions[stream].outstanding()).sum();
            assert_eq!(carrier.asked(), asked, "slot {index}: at the log");
        }
    }
}
