//! Who gets in, and how fast: connections in all, of one address, and per second; publishes of one
//! connection per second.

use std::net::IpAddr;

use super::core::Core;
use super::deadline::Kind as Deadline;
use super::slot::{Flags, NONE};
use crate::limits::SLOTS_RESERVED;
use crate::proto::http::response::Status;
use crate::proto::reject::Reject;
use crate::reason::CloseReason;

/// Why a connection is refused. The order is that of `metrics::REFUSALS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// No slot, or the server's limit is reached.
    Full,
    /// Its address has too many already.
    Address,
    /// Connections arrive too fast.
    Rate,
    /// The server is going away.
    Draining,
}

impl From<Refused> for Reject {
    fn from(refused: Refused) -> Self {
        let (code, message) = match refused {
            Refused::Full => ("too_many_connections", "no room for another connection"),
            Refused::Address => ("too_many_from_address", "no more connections for this address"),
            Refused::Rate => ("too_fast", "connections arrive too fast; come back in a second"),
            Refused::Draining => ("draining", "the server is going away"),
        };
        Self::new(Status::ServiceUnavailable, code, message)
    }
}

impl Core {
    /// Lets an accepted connection in, or refuses what it will ask for: how, depends on what that is.
    pub(super) fn admit(&mut self, index: u32, peer: Option<IpAddr>) {
        if let Err(refused) = self.check_room(index, peer) {
            self.refuse_later(index, refused);
        }
    }

    /// Refuses what it will ask for.
    pub(super) fn refuse_later(&mut self, index: u32, refused: Refused) {
        self.work(index).refused = Some(refused);
        self.set_deadline(index, Deadline::Refusal);
    }

    /// Who was refused at the door has not said in time what it came for.
    pub(super) fn refuse_unheard(&mut self, index: u32) {
        let Some(refused) = self.slots[index as usize].work.as_ref().and_then(|work| work.refused)
        else {
            return;
        };
        self.note_origin(index, None);
        self.refuse_connection(index, refused);
    }

    fn check_room(&mut self, index: u32, peer: Option<IpAddr>) -> Result<(), Refused> {
        let room = self.setup.slots.saturating_sub(SLOTS_RESERVED);
        if self.open > room || self.setup.census.is_full() {
            self.reclaim_half_open(index);
        }
        let counted = self.setup.census.enter();
        if !counted {
            self.slots[index as usize].flags.set(Flags::UNCOUNTED);
        }
        self.note_peer(index, peer)?;
        if self.open > room || !counted {
            return Err(Refused::Full);
        }
        let rate = self.setup.settings.accept_rate;
        if rate.is_some_and(|rate| !self.arrivals.take(rate, self.now)) {
            return Err(Refused::Rate);
        }
        Ok(())
    }

    /// There is no room: the oldest connection that has not said yet what it wants makes some. One
    /// that has only just come still may.
    fn reclaim_half_open(&mut self, newcomer: u32) {
        while let Some(token) = self.oldest_head() {
            // One that was refused is on its way out already.
            let slot = &self.slots[token.slot as usize];
            let refused = slot.work.as_ref().is_some_and(|work| work.refused.is_some());
            let ends = refused || slot.flags.has(Flags::CLOSE_AFTER_OUT);
            if token.slot != newcomer && !ends {
                return self.close(token.slot, CloseReason::Refused);
            }
        }
    }

    /// A connection is gone.
    pub(super) fn leave_census(&self, address: u32, counted: bool) {
        if counted {
            self.setup.census.leave();
        }
        if address != NONE {
            self.setup.census.leave_from(address);
        }
    }

    /// Whether the connection may publish once more now.
    pub(super) fn may_publish_now(&mut self, index: u32) -> bool {
        let Some(rate) = self.setup.settings.connection_publish_rate else { return true };
        self.slots[index as usize].publishes.take(rate, self.now)
    }
}
