//! A replica's readers: live subscribers, to whom slices of events are handed out, and followers.

use std::sync::Arc;

use super::Replica;
use crate::limits::SLICE_BYTES_MAX;
use crate::log::event::Event;
use crate::worker::hub::live::Live;

/// The new place of a slot that moved because another was removed from the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The slot that moved.
    pub slot: u32,
    /// Its new index.
    pub index: u32,
}

impl Replica {
    // --- live subscribers ---

    /// How many subscribers are live.
    pub fn live_len(&self) -> usize {
        self.live.len()
    }

    /// The subscriber at this index: slot and dialect.
    pub fn live_slot(&self, index: u32) -> Option<(u32, usize)> {
        self.live.get(index as usize).map(|live| (live.slot(), live.dialect_index()))
    }

    /// Adds a subscriber that has everything up to `fanned_to`; returns its index, and which one
    /// moved to make room.
    pub fn add_live(&mut self, subscriber: Live) -> (u32, Option<Moved>) {
        let end = self.live.len();
        let place = self.handed as usize;
        self.live.push(subscriber);
        self.live.swap(place, end);
        self.handed += 1;
        let moved = (place != end).then(|| self.live_at(end));
        (place as u32, moved)
    }

    /// The cursor of the live subscriber at this index.
    pub fn live_cursor(&self, index: u32) -> u64 {
        if index < self.handed { self.fanned_to } else { self.slice_from }
    }

    /// Removes the live subscriber at this index; up to two others move.
    pub fn remove_live(&mut self, index: u32) -> [Option<Moved>; 2] {
        let mut hole = index as usize;
        let mut moves = [None, None];
        if index < self.handed {
            self.handed -= 1;
            let last_handed = self.handed as usize;
            if last_handed != hole {
                self.live[hole] = self.live[last_handed];
                moves[0] = Some(self.live_at(hole));
            }
            hole = last_handed;
        }
        self.live.swap_remove(hole);
        if hole < self.live.len() {
            moves[1] = Some(self.live_at(hole));
        }
        shrink_if_sparse(&mut self.live);
        moves
    }

    fn live_at(&self, index: usize) -> Moved {
        Moved { slot: self.live[index].slot(), index: index as u32 }
    }

    /// Whether some live subscribers have not been sent the present slice yet.
    pub fn slice_unfinished(&self) -> bool {
        (self.handed as usize) < self.live.len()
    }

    /// Whether there is something to fan out.
    pub fn has_work(&self) -> bool {
        self.slice_unfinished() || self.fanned_to < self.tail
    }

    /// Whether it has to be put into the queue for fan-out, which counts as done.
    pub fn schedule(&mut self) -> bool {
        self.has_work() && !std::mem::replace(&mut self.scheduled, true)
    }

    /// It was taken out of that queue. Returns whether there still is something to fan out.
    pub fn unschedule(&mut self) -> bool {
        std::mem::take(&mut self.scheduled) && self.has_work()
    }

    /// Begins the next slice if the last one is finished: as many events as fit a send, at least
    /// one. Afterwards `slice()` are its events.
    pub fn begin_slice(&mut self) {
        debug_assert!(!self.slice_unfinished());
        self.slice_from = self.fanned_to;
        let mut bytes = 0;
        let mut end = self.fanned_to;
        for event in self.after(self.fanned_to, u64::MAX) {
            bytes += event.data.len();
            if end != self.slice_from && bytes > SLICE_BYTES_MAX {
                break;
            }
            end = event.seq;
        }
        if end == self.slice_from || end == self.last_seq() {
            end = self.tail;
        }
        self.fanned_to = end;
        self.handed = if self.slice().next().is_some() { 0 } else { self.live.len() as u32 };
    }

    fn last_seq(&self) -> u64 {
        self.ring().back().map_or(self.base, |event| event.seq)
    }

    /// Where the present slice begins: the cursor of live subscribers that do not have it.
    pub fn slice_start(&self) -> u64 {
        self.slice_from
    }

    /// Whether the live subscriber at this index has been sent the present slice.
    pub fn is_handed(&self, index: u32) -> bool {
        index < self.handed
    }

    /// The events of the present slice.
    pub fn slice(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.after(self.slice_from, self.fanned_to)
    }

    /// A slice is being sent in this turn.
    pub fn send_in(&mut self, turn: u32) {
        self.sent_in_turn = turn;
    }

    /// Whether a slice was sent in this turn.
    pub fn was_sent_in(&self, turn: u32) -> bool {
        self.sent_in_turn == turn
    }

    /// Hands the present slice to at most `budget` live subscribers, and returns them.
    pub fn hand_out(&mut self, budget: usize) -> &[Live] {
        let from = self.handed as usize;
        let to = (from + budget).min(self.live.len());
        self.handed = to as u32;
        &self.live[from..to]
    }

    /// Moves live subscribers to the end of the last slice, once its sends are known to be taken.
    pub fn settle_slice(&mut self) {
        if !self.slice_unfinished() {
            self.slice_from = self.fanned_to;
        }
    }

    // --- followers ---

    /// Slots with a cursor of their own.
    pub fn followers(&self) -> &[u32] {
        self.window.as_ref().map_or(&[], |window| &window.followers)
    }

    /// Adds an explicit subscriber; returns its index.
    pub fn add_follower(&mut self, slot: u32) -> u32 {
        let followers = &mut self.window().followers;
        followers.push(slot);
        (followers.len() - 1) as u32
    }

    /// Removes the follower at this index; another one may move there.
    pub fn remove_follower(&mut self, index: u32) -> Option<Moved> {
        let followers = &mut self.window().followers;
        followers.swap_remove(index as usize);
        let moved = followers.get(index as usize).map(|&slot| Moved { slot, index });
        shrink_if_sparse(followers);
        self.close_window_if_empty();
        moved
    }
}

/// Gives back the memory of a channel that was once large.
fn shrink_if_sparse<T>(list: &mut Vec<T>) {
    if list.capacity() > 64 && list.len() < list.capacity() / 4 {
        list.shrink_to(list.len() * 2);
    }
}
