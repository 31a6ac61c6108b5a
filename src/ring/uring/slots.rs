//! What the driver must know about each slot: its connection, and what is in flight for it.

use super::user_data::{Kind, pack};
use crate::ring::Token;

/// A connection lives here, but the worker has not yet named its generation.
const FRESH: u16 = 1 << 0;
/// A connection lives here and `generation` is its own.
const OPEN: u16 = 1 << 1;
/// The worker wants to receive.
const RECEIVING: u16 = 1 << 2;
const RECV_ARMED: u16 = 1 << 3;
const POLL_IN_ARMED: u16 = 1 << 4;
/// The receive or the poll for bytes was cancelled so that the poll is armed instead, which the
/// worker must not notice.
const REFRESHING: u16 = 1 << 5;
const POLL_OUT_ARMED: u16 = 1 << 6;
/// A shutdown runs on a kernel thread; it looks the descriptor up by slot *when it runs*.
const SHUTTING_DOWN: u16 = 1 << 7;
/// Closed by the worker, but the descriptor must stay until the shutdown has run.
const CLOSE_HELD_BACK: u16 = 1 << 8;

#[derive(Clone, Copy, Default)]
struct Slot {
    generation: u32,
    flags: u16,
    /// When there was last something to receive, as counted by [`super::receive::Multishots`].
    heard: u16,
}

/// What may be in flight for a token, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InFlight {
    Recv,
    PollIn,
    PollOut,
    Shutdown,
}

impl InFlight {
    fn flag(self) -> u16 {
        match self {
            InFlight::Recv => RECV_ARMED,
            InFlight::PollIn => POLL_IN_ARMED,
            InFlight::PollOut => POLL_OUT_ARMED,
            InFlight::Shutdown => SHUTTING_DOWN,
        }
    }

    /// The user data that identifies its completion.
    pub(super) fn user_data(self, token: Token) -> u64 {
        let kind = match self {
            InFlight::Recv => Kind::Recv,
            InFlight::PollIn => Kind::PollIn,
            InFlight::PollOut => Kind::PollOut,
            InFlight::Shutdown => Kind::Shutdown,
        };
        pack(kind, token)
    }
}

/// One entry per direct descriptor.
pub(super) struct Slots {
    /// As many as were ever in use: the memory of the others is not touched.
    slots: Vec<Slot>,
    count: u32,
    /// Slots with a connection, including those whose close is held back.
    occupied: u32,
    /// Closes that are held back.
    held_back: u32,
}

impl Slots {
    pub(super) fn new(count: u32) -> Self {
        Slots { slots: Vec::with_capacity(count as usize), count, occupied: 0, held_back: 0 }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Slots that are not free.
    pub(super) fn occupied(&self) -> u32 {
        self.occupied
    }

    /// Whether no slot is free, but one will be without further requests.
    pub(super) fn has_room_soon(&self) -> bool {
        self.occupied == self.count() && self.held_back > 0
    }

    /// Whether a connection is here, whether closed or not, named or not.
    pub(super) fn is_occupied(&self, slot: u32) -> bool {
        self.slots.get(slot as usize).is_some_and(|slot| slot.flags != 0)
    }

    /// The kernel put a new connection here, which implies that the earlier one's close has run.
    pub(super) fn accepted(&mut self, slot: u32) {
        assert!(slot < self.count, "the kernel handed out slot {slot} of {}", self.count);
        if self.slots.len() <= slot as usize {
            self.slots.resize(slot as usize + 1, Slot::default());
        }
        let entry = &mut self.slots[slot as usize];
        assert_eq!(entry.flags, 0, "the kernel handed out slot {slot}, which is in use");
        entry.flags = FRESH;
        self.occupied += 1;
    }

    /// The worker uses `token`; the first use after an accept sets the generation.
    pub(super) fn adopt(&mut self, token: Token) {
        let entry = &mut self.slots[token.slot as usize];
        if entry.flags & FRESH != 0 {
            *entry = Slot { generation: token.generation, flags: OPEN, heard: 0 };
        }
        assert!(
            entry.flags & OPEN != 0 && entry.generation == token.generation,
            "{token:?} is used, but no such connection is open"
        );
    }

    /// Whether completions for `token` are still of interest.
    pub(super) fn is_current(&self, token: Token) -> bool {
        self.slots
            .get(token.slot as usize)
            .is_some_and(|slot| slot.flags & OPEN != 0 && slot.generation == token.generation)
    }

    pub(super) fn is_in_flight(&self, slot: u32, what: InFlight) -> bool {
        self.slots[slot as usize].flags & what.flag() != 0
    }

    pub(super) fn begin(&mut self, slot: u32, what: InFlight) {
        self.slots[slot as usize].flags |= what.flag();
    }

    pub(super) fn finish(&mut self, slot: u32, what: InFlight) {
        self.slots[slot as usize].flags &= !what.flag();
    }

    /// The worker is done with the connection. Returns whether the descriptor can be freed now; if
    /// not, [`Slots::shutdown_ran`] will say when.
    pub(super) fn close(&mut self, slot: u32) -> bool {
        let entry = &mut self.slots[slot as usize];
        if entry.flags & SHUTTING_DOWN != 0 {
            entry.flags = SHUTTING_DOWN | CLOSE_HELD_BACK;
            self.held_back += 1;
            return false;
        }
        entry.flags = 0;
        self.occupied -= 1;
        true
    }

    /// The shutdown has run. Returns whether a close was held back for it and must be submitted
    /// now.
    pub(super) fn shutdown_ran(&mut self, slot: u32) -> bool {
        let entry = &mut self.slots[slot as usize];
        assert!(entry.flags & SHUTTING_DOWN != 0, "a shutdown ran on slot {slot} unasked");
        if entry.flags & CLOSE_HELD_BACK != 0 {
            entry.flags = 0;
            self.held_back -= 1;
            self.occupied -= 1;
            return true;
        }
        entry.flags &= !SHUTTING_DOWN;
        false
    }

    /// Whether the worker wants to receive.
    pub(super) fn is_receiving(&self, slot: u32) -> bool {
        self.slots[slot as usize].flags & RECEIVING != 0
    }

    /// Sets whether the worker wants to receive. Returns whether it did before.
    pub(super) fn set_receiving(&mut self, slot: u32, is_wanted: bool) -> bool {
        let was = self.is_receiving(slot);
        let flags = &mut self.slots[slot as usize].flags;
        *flags = if is_wanted { *flags | RECEIVING } else { *flags & !RECEIVING };
        was
    }

    /// Notes that there is something to receive. Returns when there last was.
    pub(super) fn note_heard(&mut self, slot: u32, now: u16) -> u16 {
        std::mem::replace(&mut self.slots[slot as usize].heard, now)
    }

    /// Begins to refresh what is armed here, if that is a receive or a poll for bytes and not being
    /// refreshed yet; returns its token and which of the two it is.
    pub(super) fn begin_refresh(&mut self, slot: u32) -> Option<(Token, InFlight)> {
        let entry = self.slots.get_mut(slot as usize)?;
        let what = match entry.flags & (RECV_ARMED | POLL_IN_ARMED | REFRESHING) {
            RECV_ARMED => InFlight::Recv,
            POLL_IN_ARMED => InFlight::PollIn,
            _ => return None,
        };
        entry.flags |= REFRESHING;
        Some((Token { slot, generation: entry.generation }, what))
    }

    /// Ends a refresh: the poll is armed instead, or no longer needed. Returns whether there was
    /// one.
    pub(super) fn end_refresh(&mut self, slot: u32) -> bool {
        let flags = &mut self.slots[slot as usize].flags;
        let was = *flags & REFRESHING != 0;
        *flags &= !REFRESHING;
        was
    }

    /// The token whose poll is armed here.
    pub(super) fn polled(&self, slot: u32) -> Option<Token> {
        let Slot { generation, flags, .. } = *self.slots.get(slot as usize)?;
        (flags & POLL_OUT_ARMED != 0).then_some(Token { slot, generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Token = Token { slot: 1, generation: 7 };
    const SECOND: Token = Token { slot: 1, generation: 8 };

    #[test]
    fn a_completion_of_the_former_life_is_stale_even_before_the_new_one_is_named() {
        let mut slots = Slots::new(4);
        slots.accepted(1);
        assert!(!slots.is_current(FIRST));
        slots.adopt(FIRST);
        assert!(slots.is_current(FIRST));
        assert!(slots.close(1));
        assert!(!slots.is_current(FIRST));
        slots.accepted(1);
        assert!(!slots.is_current(FIRST), "the slot lives again, but not for the former owner");
        slots.adopt(SECOND);
        assert!(slots.is_current(SECOND) && !slots.is_current(FIRST));
    }

    #[test]
    fn a_close_waits_for_the_shutdown_in_flight() {
        let mut slots = Slots::new(4);
        slots.accepted(1);
        slots.adopt(FIRST);
        slots.begin(1, InFlight::Shutdown);
        assert!(!slots.close(1));
        assert!(!slots.is_current(FIRST));
        assert!(slots.shutdown_ran(1));
        slots.accepted(1);
    }

    #[test]
    fn a_full_table_has_room_soon_only_while_a_close_is_held_back() {
        let mut slots = Slots::new(2);
        slots.accepted(0);
        slots.accepted(1);
        slots.adopt(FIRST);
        assert!(!slots.has_room_soon());
        slots.begin(1, InFlight::Shutdown);
        slots.close(1);
        assert!(slots.has_room_soon());
        assert_eq!(slots.occupied(), 2);
        slots.shutdown_ran(1);
        assert!(!slots.has_room_soon(), "it is free now");
        assert_eq!(slots.occupied(), 1);
    }

    #[test]
    fn a_receive_is_refreshed_once_and_stays_armed_to_the_worker() {
        let mut slots = Slots::new(4);
        slots.accepted(1);
        slots.adopt(FIRST);
        assert_eq!(slots.begin_refresh(1), None, "nothing is armed");
        for what in [InFlight::Recv, InFlight::PollIn] {
            slots.begin(1, what);
            assert_eq!(slots.begin_refresh(1), Some((FIRST, what)));
            assert_eq!(slots.begin_refresh(1), None, "one at a time");
            assert!(slots.is_in_flight(1, what));
            assert!(slots.end_refresh(1) && !slots.end_refresh(1));
            slots.finish(1, what);
        }
        slots.begin(1, InFlight::PollIn);
        slots.begin_refresh(1);
        slots.close(1);
        assert!(!slots.end_refresh(1), "the close ended it");
    }

    #[test]
    #[should_panic(expected = "no such connection is open")]
    fn using_a_closed_token_is_a_bug_of_ours() {
        let mut slots = Slots::new(4);
        slots.accepted(1);
        slots.adopt(FIRST);
        slots.close(1);
        slots.adopt(FIRST);
    }
}
