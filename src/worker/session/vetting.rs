//! Open streams under rules that change: a grant runs out, a key is removed, a token is revoked.

use std::ops::Range;
use std::sync::Arc;

use super::Sessions;
use crate::auth::{Gate, Revoked};
use crate::reason::CloseReason;

/// Connections checked per turn after the rules have changed: about 100 us.
const VETTED_PER_TURN: u32 = 4096;

impl Sessions {
    /// Whether the session is a subscriber whose grant has run out.
    pub fn has_expired(&self, index: u32) -> bool {
        let at = self.of[index].expires_at_unix_s();
        let due = at.is_some_and(|at| u64::from(at) <= self.shared.unix_s);
        due && self.of[index].is_subscriber() && !self.shared.gate.is_open()
    }

    /// Applies new access rules, to open streams too.
    pub fn take_gate(&mut self, gate: Arc<Gate>) {
        self.shared.gate = gate;
        self.vetted_to = Some(0);
    }

    /// Takes the new list of revoked tokens, which ends open streams too.
    pub fn take_revoked(&mut self, revoked: Arc<Revoked>) {
        self.shared.revoked = revoked;
        self.vetted_to = Some(0);
    }

    /// Whether some sessions have not been checked yet against changed rules.
    pub fn has_to_vet(&self) -> bool {
        self.vetted_to.is_some()
    }

    /// Places of the next slice of sessions to check against changed rules; one slice per turn.
    pub fn next_to_vet(&mut self) -> Range<u32> {
        let Some(from) = self.vetted_to else { return 0..0 };
        let end = self.of.len();
        let to = end.min(from.saturating_add(VETTED_PER_TURN));
        self.vetted_to = (to < end).then_some(to);
        from..to
    }

    /// The session at this place, counted over sockets and streams.
    pub fn index_at(&self, place: u32) -> u32 {
        self.of.index_at(place)
    }

    /// Why the present rules end this stream, if they do.
    pub fn disowned(&self, index: u32) -> Option<CloseReason> {
        if !self.of[index].is_subscriber() || self.shared.vouches_for(self.of[index].grant()) {
            return None;
        }
        match self.of[index].grant().is_some_and(|grant| self.shared.revoked.covers(grant)) {
            true => Some(CloseReason::Operator),
            false => Some(CloseReason::KeyRemoved),
        }
    }
}
