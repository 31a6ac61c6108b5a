//! Closing on kernels that release closed descriptors in order.
//!
//! Before Linux 6.13 every operation on a direct descriptor holds the whole table as it was when
//! the operation began: a closed socket stays open until everything that began before its close has
//! ended (plus a second on Linux 6.1). One idle connection with its poll armed keeps all later
//! sockets from closing, and their peers from hearing of it. So on these kernels a close shuts the
//! socket down first, which the peer notices at once, and now and then all that is armed is armed
//! again, which releases those sockets.

use std::io;

use io_uring::{opcode, squeue, types::Fixed};

use super::slots::InFlight;
use super::user_data::{Kind, pack};
use super::{UringDriver, cancel, close};
use crate::ring::{Completion, KernelVersion, Token};

/// The first kernel in which each descriptor is released by itself.
const RELEASES_AT_ONCE_SINCE: KernelVersion = KernelVersion { major: 6, minor: 13 };

/// Closed sockets that may linger, at least, before what is armed is armed again: a walk over the
/// table should release more than a handful.
const LINGERING_MIN: u32 = 256;

/// Beyond that, one closed socket may linger for each of this many open ones: a close then costs
/// this many re-arms.
const OPEN_PER_LINGERING: u32 = 4;

/// Slots a turn looks at while it walks over the table; each armed one costs two entries.
const SLOTS_PER_TURN: u32 = 256;

/// How the kernel releases closed descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    AtOnce,
    InOrder(Walk),
}

/// A walk over the table that arms again what is armed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Walk {
    /// Closes since the last walk began: sockets that may linger.
    closes: u32,
    /// The next slot to visit.
    hand: u32,
    /// Slots the walk has left; 0 when there is none.
    left: u32,
}

impl Release {
    pub(super) fn of(kernel: KernelVersion) -> Self {
        if kernel < RELEASES_AT_ONCE_SINCE {
            Release::InOrder(Walk::default())
        } else {
            Release::AtOnce
        }
    }

    /// Counts a closed descriptor; `open` of `slots` are in use.
    fn closed(&mut self, open: u32, slots: u32) {
        let Release::InOrder(walk) = self else { return };
        walk.closes += 1;
        if walk.left == 0 && walk.closes > LINGERING_MIN + open / OPEN_PER_LINGERING {
            *walk = Walk { closes: 0, hand: 0, left: slots };
        }
    }

    /// The slots this turn must visit.
    fn step(&mut self) -> std::ops::Range<u32> {
        let Release::InOrder(walk) = self else { return 0..0 };
        let from = walk.hand;
        let step = walk.left.min(SLOTS_PER_TURN);
        walk.hand += step;
        walk.left -= step;
        from..walk.hand
    }
}

impl UringDriver {
    pub(super) fn queue_close(
        &mut self,
        token: Token,
        out: &mut Vec<Completion>,
    ) -> io::Result<()> {
        // What is in flight holds the socket open: without the cancels, closing would only free the
        // slot, and the peer would never notice.
        for what in [InFlight::Recv, InFlight::PollIn, InFlight::PollOut] {
            if self.state.slots.is_in_flight(token.slot, what) {
                self.push(&cancel(what.user_data(token)), out)?;
            }
        }
        let shuts_down = self.state.slots.is_in_flight(token.slot, InFlight::Shutdown);
        if matches!(self.release, Release::InOrder(_)) && !shuts_down {
            self.state.slots.begin(token.slot, InFlight::Shutdown);
            self.push(&shutdown(token, libc::SHUT_RDWR), out)?;
        }
        if self.state.slots.close(token.slot) {
            self.free(token, out)?;
        }
        Ok(())
    }

    /// Frees a descriptor whose slot is free already.
    pub(super) fn free(&mut self, token: Token, out: &mut Vec<Completion>) -> io::Result<()> {
        self.push(&close(token), out)?;
        self.release.closed(self.state.slots.occupied(), self.state.slots.count());
        Ok(())
    }

    /// Continues the walk, if one is under way. A cancelled receive is armed again once it has
    /// ended; a cancelled poll for room reports `Writable`, and the send that follows finds out.
    pub(super) fn refresh(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        for slot in self.release.step() {
            self.wait_by_poll(slot, out)?;
            if let Some(token) = self.state.slots.polled(slot) {
                self.push(&cancel(InFlight::PollOut.user_data(token)), out)?;
            }
        }
        Ok(())
    }
}

/// The entry of a shutdown. It runs on a kernel thread.
pub(super) fn shutdown(token: Token, how: i32) -> squeue::Entry {
    opcode::Shutdown::new(Fixed(token.slot), how).build().user_data(pack(Kind::Shutdown, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u32, minor: u32) -> KernelVersion {
        KernelVersion { major, minor }
    }

    #[test]
    fn newer_kernels_need_no_walk() {
        let mut release = Release::of(version(6, 13));
        (0..10_000).for_each(|_| release.closed(1, 1024));
        assert_eq!(release.step(), 0..0);
    }

    #[test]
    fn a_walk_begins_when_many_were_closed_and_meets_each_slot_once() {
        let mut release = Release::of(version(6, 12));
        let (open, slots) = (400, 1000);
        for _ in 0..LINGERING_MIN + open / OPEN_PER_LINGERING {
            release.closed(open, slots);
            assert!(release.step().is_empty());
        }
        release.closed(open, slots);
        let mut met = Vec::new();
        loop {
            let step = release.step();
            if step.is_empty() {
                break;
            }
            assert!(step.len() <= SLOTS_PER_TURN as usize);
            met.extend(step);
        }
        assert_eq!(met, (0..slots).collect::<Vec<_>>());
    }
}
