//! One worker's share of the simulated kernel: its descriptor table, what is armed, its provided
//! buffers, and the agenda of moments at which something must be looked at.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use crate::ring::{BufferId, DriverStats, Token};

/// A multishot request: armed until its last completion is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Armed {
    No,
    Yes,
    /// Cancelled, but that has not taken effect yet.
    Stopping,
}

/// A descriptor in use.
#[derive(Debug)]
pub(super) struct Life {
    /// Distinguishes lives of the same slot, independently of the worker's generations.
    pub(super) serial: u64,
    pub(super) link: usize,
    /// As set by the first op that used it.
    generation: Option<u32>,
    pub(super) recv: Armed,
    /// The turn that reported the end of receiving: the worker cannot know before the next.
    pub(super) recv_ended_turn: u64,
    pub(super) recv_on_agenda: bool,
    pub(super) poll_armed: bool,
    pub(super) poll_on_agenda: bool,
    pub(super) sent_turn: u64,
    pub(super) shut_down: bool,
}

#[derive(Debug, Default)]
struct Slot {
    life: Option<Life>,
    generation_before: Option<u32>,
}

/// Something to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    Accept,
    AcceptStopped,
    Recv { slot: u32, serial: u64 },
    RecvStopped { slot: u32, serial: u64 },
    Poll { slot: u32, serial: u64 },
    SpuriousPoll { slot: u32, serial: u64 },
    Doorbell,
    DoorbellAgain,
}

/// When to look: by time, then shuffled if the fault says so, then in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Duration,
    shuffle: u32,
    sequence: u64,
    look: Look,
}

#[derive(Debug)]
pub(super) struct Worker {
    slots: Vec<Slot>,
    free_slots: BTreeSet<u32>,
    pub(super) backlog: VecDeque<usize>,
    pub(super) accept: Armed,
    pub(super) accept_ended_turn: u64,
    pub(super) accept_on_agenda: bool,
    pub(super) doorbell_on_agenda: bool,
    agenda: BinaryHeap<Reverse<Entry>>,
    entries: u64,
    lent: Vec<bool>,
    free_buffers: VecDeque<u16>,
    pub(super) turns: u64,
    /// The end of the sleep it asked for; `None`: until a completion.
    pub(super) asleep_until: Option<Duration>,
    pub(super) stalled_until: Duration,
    pub(super) stats: DriverStats,
    /// A driver was made for it and not dropped yet.
    pub(super) driven: bool,
    /// Its listener exists: until its driver is dropped.
    pub(super) listening: bool,
    accepted: u64,
    closed: u64,
}

impl Worker {
    pub(super) fn new(slots: u32, recv_buffers: u16) -> Self {
        Self {
            slots: (0..slots).map(|_| Slot::default()).collect(),
            free_slots: (0..slots).collect(),
            backlog: VecDeque::new(),
            accept: Armed::No,
            accept_ended_turn: 0,
            accept_on_agenda: false,
            doorbell_on_agenda: false,
            agenda: BinaryHeap::new(),
            entries: 0,
            lent: vec![false; usize::from(recv_buffers)],
            free_buffers: (0..recv_buffers).collect(),
            turns: 0,
            asleep_until: Some(Duration::ZERO),
            stalled_until: Duration::ZERO,
            stats: DriverStats::default(),
            driven: false,
            listening: true,
            accepted: 0,
            closed: 0,
        }
    }

    /// The life a worker's op is about; panics if there is none, because then the worker is wrong.
    /// The first op of a life sets its generation, which must be a new one.
    pub(super) fn life_of(&mut self, token: Token) -> &mut Life {
        let capacity = self.slots.len();
        assert!((token.slot as usize) < capacity, "{token:?}: only {capacity} slots");
        let slot = &mut self.slots[token.slot as usize];
        let before = slot.generation_before;
        let Some(life) = &mut slot.life else { panic!("{token:?}: closed or never accepted") };
        match life.generation {
            Some(generation) => {
                assert_eq!(generation, token.generation, "{token:?}: of another generation");
            }
            None => {
                assert_ne!(before, Some(token.generation), "{token:?}: generation used before");
                life.generation = Some(token.generation);
            }
        }
        life
    }

    /// The life an entry of the agenda is about, if it still goes on.
    pub(super) fn life_at(&mut self, slot: u32, serial: u64) -> Option<(Token, &mut Life)> {
        let life = self.slots[slot as usize].life.as_mut()?;
        let generation = life.generation?;
        (life.serial == serial).then_some((Token { slot, generation }, life))
    }

    pub(super) fn current(&mut self, slot: u32) -> &mut Life {
        self.slots[slot as usize].life.as_mut().expect("the link says it is in this slot")
    }

    pub(super) fn lives(&self, token: Token) -> bool {
        let life = self.slots[token.slot as usize].life.as_ref();
        life.is_some_and(|life| life.generation == Some(token.generation))
    }

    pub(super) fn links(&self) -> impl Iterator<Item = (u32, usize)> + '_ {
        let lives = self.slots.iter().zip(0..);
        lives.filter_map(|(slot, index)| Some((index, slot.life.as_ref()?.link)))
    }

    pub(super) fn slots_used(&self) -> usize {
        self.slots.len() - self.free_slots.len()
    }

    /// The first free slot at or after `from`, else the first.
    pub(super) fn free_slot(&self, from: u32) -> Option<u32> {
        self.free_slots.range(from..).next().or_else(|| self.free_slots.first()).copied()
    }

    pub(super) fn open(&mut self, slot: u32, link: usize) {
        assert!(self.free_slots.remove(&slot), "slot {slot} is in use");
        self.accepted += 1;
        self.slots[slot as usize].life = Some(Life {
            serial: self.accepted,
            link,
            generation: None,
            recv: Armed::No,
            recv_ended_turn: 0,
            recv_on_agenda: false,
            poll_armed: false,
            poll_on_agenda: false,
            sent_turn: 0,
            shut_down: false,
        });
    }

    /// Frees the slot and returns the link that was in it.
    pub(super) fn close(&mut self, slot: u32) -> usize {
        let place = &mut self.slots[slot as usize];
        let life = place.life.take().expect("only open slots are closed");
        place.generation_before = life.generation;
        assert!(self.free_slots.insert(slot), "slot {slot} was free");
        self.closed += 1;
        life.link
    }

    pub(super) fn plan(&mut self, at: Duration, shuffle: u32, look: Look) {
        self.entries += 1;
        self.agenda.push(Reverse(Entry { at, shuffle, sequence: self.entries, look }));
    }

    /// When something must be looked at next.
    pub(super) fn next_look_at(&self) -> Option<Duration> {
        self.agenda.peek().map(|Reverse(entry)| entry.at)
    }

    pub(super) fn take_look(&mut self, now: Duration) -> Option<Look> {
        if self.next_look_at()? > now {
            return None;
        }
        self.agenda.pop().map(|Reverse(entry)| entry.look)
    }

    /// When its thread will run next if nothing new happens.
    pub(super) fn due_at(&self) -> Option<Duration> {
        let first = [self.asleep_until, self.next_look_at()].into_iter().flatten().min();
        first.map(|at| at.max(self.stalled_until))
    }

    pub(super) fn lend(&mut self) -> Option<BufferId> {
        let buffer = self.free_buffers.pop_front()?;
        self.lent[usize::from(buffer)] = true;
        Some(BufferId(buffer))
    }

    pub(super) fn is_lent(&self, buffer: BufferId) -> bool {
        self.lent.get(usize::from(buffer.0)).is_some_and(|lent| *lent)
    }

    pub(super) fn recycle(&mut self, buffer: BufferId) {
        let place = usize::from(buffer.0);
        assert!(place < self.lent.len(), "{buffer:?}: no such buffer");
        assert!(self.lent[place], "{buffer:?}: recycled, but not lent");
        self.lent[place] = false;
        self.free_buffers.push_back(buffer.0);
    }

    pub(super) fn buffers_lent(&self) -> usize {
        self.lent.len() - self.free_buffers.len()
    }

    pub(super) fn check_conservation(&self) {
        let open = self.slots.iter().filter(|slot| slot.life.is_some()).count();
        assert_eq!(open, self.slots_used(), "slots used == slots not free");
        assert_eq!(self.accepted - self.closed, open as u64, "accepted - closed == open");
        let lent = self.lent.iter().filter(|lent| **lent).count();
        assert_eq!(lent, self.buffers_lent(), "buffers lent == buffers outstanding");
    }

    /// Checks that what is armed and ready will be looked at: the simulation itself loses no
    /// wake-up.
    pub(super) fn check_agenda(&self, slot: u32, readable: bool, writable: bool) {
        let life = self.slots[slot as usize].life.as_ref().expect("an open slot");
        let receiving = life.recv != Armed::No && readable;
        assert!(!receiving || life.recv_on_agenda, "bytes in slot {slot} will not be looked at");
        let polling = life.poll_armed && writable;
        assert!(!polling || life.poll_on_agenda, "room in slot {slot} will not be looked at");
    }
}
