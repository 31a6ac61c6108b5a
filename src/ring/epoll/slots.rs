//! The sockets, by slot.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::OwnedFd;

use crate::ring::Token;

/// A connection and what the driver knows about it.
#[derive(Debug, Default)]
pub(super) struct Slot {
    socket: Option<OwnedFd>,
    generation: u32,
    /// Counts the connections the slot has had; events carry it, which identifies those of former
    /// ones.
    life: u16,
    /// The worker has not yet named the generation.
    is_fresh: bool,
    /// The worker wants to receive.
    pub is_receiving: bool,
    /// The worker wants to be told when there is room to send.
    pub is_blocked: bool,
    /// There may be something to read: an event said so, and no read since has taken all.
    pub is_readable: bool,
    /// It is in the line of connections to read.
    pub is_in_line: bool,
    /// An event reported a FIN, a reset, an error or urgent data: a read that brings less than there
    /// was room for may have stopped before something of which no event will tell.
    pub is_read_to_the_end: bool,
}

impl Slot {
    pub fn socket(&self) -> &OwnedFd {
        self.socket.as_ref().expect("a connection is here")
    }

    pub fn life(&self) -> u16 {
        self.life
    }

    pub fn token(&self, index: u32) -> Token {
        Token { slot: index, generation: self.generation }
    }
}

/// Slots are handed out lowest first, as the kernel does with direct descriptors.
#[derive(Debug)]
pub(super) struct Slots {
    /// As many slots as were ever in use at once.
    slots: Vec<Slot>,
    vacant: BinaryHeap<Reverse<u32>>,
    count: u32,
}

impl Slots {
    pub fn new(count: u32) -> Self {
        // Room that is never used is never touched and takes no memory.
        let slots = Vec::with_capacity(count as usize);
        Self { slots, vacant: BinaryHeap::new(), count }
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn at(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    /// The lowest free slot, and the life that would begin there with [`Slots::occupy`].
    pub fn vacant(&self) -> Option<(u32, u16)> {
        let fresh = self.slots.len() as u32;
        match self.vacant.peek() {
            Some(&Reverse(index)) => Some((index, self.slots[index as usize].life.wrapping_add(1))),
            None => (fresh < self.count).then_some((fresh, 0)),
        }
    }

    /// Puts a new connection into the slot that [`Slots::vacant`] named.
    pub fn occupy(&mut self, (index, life): (u32, u16), socket: OwnedFd) {
        let slot = Slot { socket: Some(socket), life, is_fresh: true, ..Slot::default() };
        match self.slots.get_mut(index as usize) {
            Some(vacant) => {
                let taken = self.vacant.pop();
                debug_assert_eq!(taken, Some(Reverse(index)));
                *vacant = slot;
            }
            None => self.slots.push(slot),
        }
    }

    /// The slot an event is about, unless that connection is gone.
    pub fn living(&mut self, index: u32, life: u16) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(index as usize)?;
        (slot.socket.is_some() && slot.life == life).then_some(slot)
    }

    /// The worker uses `token`; the first use after an accept sets the generation.
    pub fn adopt(&mut self, token: Token) -> &mut Slot {
        let slot = &mut self.slots[token.slot as usize];
        if std::mem::take(&mut slot.is_fresh) {
            slot.generation = token.generation;
        }
        assert!(
            slot.socket.is_some() && slot.generation == token.generation,
            "{token:?} is used, but no such connection is open"
        );
        slot
    }

    /// Frees the slot of a connection that the worker is done with; returns its socket.
    pub fn vacate(&mut self, token: Token) -> Option<OwnedFd> {
        let slot = self.adopt(token);
        let life = slot.life;
        let left = std::mem::replace(slot, Slot { life, ..Slot::default() });
        self.vacant.push(Reverse(token.slot));
        left.socket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> OwnedFd {
        rustix::io::dup(std::io::stderr()).unwrap()
    }

    fn occupied(slots: &mut Slots) -> (u32, u16) {
        let place = slots.vacant().unwrap();
        slots.occupy(place, socket());
        place
    }

    #[test]
    fn the_lowest_free_slot_is_taken_first_and_lives_again() {
        let mut slots = Slots::new(3);
        let lives: Vec<_> = (0..3).map(|_| occupied(&mut slots)).collect();
        assert_eq!(lives, [(0, 0), (1, 0), (2, 0)]);
        assert_eq!(slots.vacant(), None);
        for slot in [2, 0] {
            slots.vacate(Token { slot, generation: 7 });
        }
        assert_eq!([occupied(&mut slots), occupied(&mut slots)], [(0, 1), (2, 1)]);
    }

    #[test]
    fn an_event_of_a_former_life_finds_nothing() {
        let mut slots = Slots::new(1);
        occupied(&mut slots);
        assert!(slots.living(0, 0).is_some() && slots.living(0, 1).is_none());
        slots.vacate(Token { slot: 0, generation: 7 });
        assert!(slots.living(0, 0).is_none());
        occupied(&mut slots);
        assert!(slots.living(0, 0).is_none() && slots.living(0, 1).is_some());
        assert!(slots.living(1, 0).is_none(), "no connection was ever there");
    }

    #[test]
    #[should_panic(expected = "no such connection is open")]
    fn using_a_closed_token_is_a_bug_of_ours() {
        let mut slots = Slots::new(1);
        occupied(&mut slots);
        let token = Token { slot: 0, generation: 7 };
        slots.vacate(token);
        slots.adopt(token);
    }
}
