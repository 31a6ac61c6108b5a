//! Events that are ordered and not yet committed, which must not be seen yet, and the answers that
//! wait for them. Always empty with a store that commits at once.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::{Equivalent, HashMap};

use super::event::{Event, Publication};
use super::history::bytes_of;
use super::message::{Published, Refusal, Ticket};
use super::publish::Accepted;

/// Events that may wait for a commit: more than it takes to keep a disk busy, and so few that a
/// channel's part of them can be counted in its `pending`.
pub const PENDING_EVENTS_MAX: usize = u16::MAX as usize;

/// Bytes that may wait for a commit, as history charges events.
pub const PENDING_BYTES_MAX: u64 = 64 << 20;

/// Workers whose reserved places are counted apart; beyond that, workers share counts.
const LANES_COUNTED: usize = 64;

/// An event that waits for its commit.
#[derive(Debug)]
pub(super) struct PendingEvent {
    pub event: Arc<Event>,
    /// Index of its channel, which is not freed meanwhile.
    pub channel: u32,
    /// The lanes in which a place is reserved for it, one bit each.
    reserved: u64,
    /// Whether it is a value that was ordered again, of which subscribers are not told.
    pub is_carried: bool,
}

/// An answer that waits for the commit of its events.
#[derive(Debug)]
pub(super) struct PendingAnswer {
    pub worker: u16,
    pub ticket: Ticket,
    pub outcome: Published,
    pub unaccepted: Vec<Publication>,
    /// The seq of each accepted publication; for a repeated key, that of the first time.
    pub seqs: Vec<u64>,
}

impl PendingAnswer {
    /// An answer that accepts nothing yet.
    pub fn new(worker: u16, ticket: Ticket) -> Self {
        let outcome = Published {
            accepted: 0,
            first_seq: 0,
            last_seq: 0,
            subscribers: 0,
            elsewhere: None,
            refusal: None,
            stream: None,
        };
        Self { worker, ticket, outcome, unaccepted: Vec::new(), seqs: Vec::new() }
    }

    /// Counts one more accepted publication. `waits`: some event of the log is not committed yet.
    pub fn accept(&mut self, accepted: &Accepted, waits: bool) {
        let outcome = &mut self.outcome;
        if waits {
            // Those before it repeat committed ones.
            self.seqs.resize(outcome.accepted as usize, outcome.last_seq);
            self.seqs.push(accepted.seq);
        }
        if outcome.accepted == 0 {
            outcome.first_seq = accepted.seq;
        }
        outcome.accepted += 1;
        outcome.last_seq = accepted.seq;
        outcome.subscribers = accepted.subscribers;
        outcome.elsewhere = accepted.elsewhere;
    }

    /// This one, and so those behind it, can't be ordered.
    pub fn refuse(
        &mut self,
        refusal: Refusal,
        refused: Publication,
        behind: impl Iterator<Item = Publication>,
    ) {
        self.outcome.refusal = Some(refusal);
        self.unaccepted = std::iter::once(refused).chain(behind).collect();
    }

    /// What comes next was lost on its way, so the rest can't be tried again in its order.
    pub fn lose_rest(&mut self) {
        self.outcome.refusal = Some(Refusal::Store);
        self.unaccepted = Vec::new();
    }

    /// The last event it waits for.
    fn waits_for(&self) -> u64 {
        self.seqs.iter().copied().max().unwrap_or(0)
    }

    /// Takes back what was accepted after `committed_to`, which is lost.
    fn cut(&mut self, committed_to: u64) {
        let Some(accepted) = self.seqs.iter().position(|seq| *seq > committed_to) else { return };
        self.seqs.truncate(accepted);
        self.lose_rest();
        let outcome = &mut self.outcome;
        outcome.accepted = accepted as u32;
        outcome.first_seq = if accepted == 0 { 0 } else { outcome.first_seq };
        outcome.last_seq = self.seqs.last().copied().unwrap_or(0);
    }
}

/// A channel's hash and a key as they are looked for, without a box. They hash as the pair does.
#[derive(Hash)]
struct KeyOf<'a>(u64, &'a str);

impl Equivalent<(u64, Box<str>)> for KeyOf<'_> {
    fn equivalent(&self, (channel_hash, key): &(u64, Box<str>)) -> bool {
        self.0 == *channel_hash && *self.1 == **key
    }
}

/// All that waits, in order of arrival.
#[derive(Debug)]
pub(super) struct Pending {
    events: VecDeque<PendingEvent>,
    answers: VecDeque<PendingAnswer>,
    /// The seq of each waiting event with an idempotency key, by its channel's hash and the key.
    keys: HashMap<(u64, Box<str>), u64>,
    /// Places reserved in the workers' lanes.
    reserved: [u32; LANES_COUNTED],
    bytes: u64,
    /// How many of the events were ordered again.
    carried: u32,
    /// Newest event the store has reported.
    committed_to: u64,
}

impl Pending {
    pub fn new() -> Self {
        Self {
            events: VecDeque::new(),
            answers: VecDeque::new(),
            keys: HashMap::new(),
            reserved: [0; LANES_COUNTED],
            bytes: 0,
            carried: 0,
            committed_to: 0,
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.answers.is_empty()
    }

    /// Whether no more events may wait.
    pub fn is_full(&self) -> bool {
        self.events.len() >= PENDING_EVENTS_MAX || self.bytes >= PENDING_BYTES_MAX
    }

    /// Places of a worker's lane that are reserved.
    #[inline]
    pub fn reserved_for(&self, worker: u16) -> usize {
        self.reserved[lane(worker)] as usize
    }

    /// The seq of a waiting event with this key.
    pub fn seq_by_key(&self, channel_hash: u64, key: &str) -> Option<u64> {
        if self.keys.is_empty() {
            return None;
        }
        self.keys.get(&KeyOf(channel_hash, key)).copied()
    }

    pub fn push_event(
        &mut self,
        event: Arc<Event>,
        channel: u32,
        workers: impl Iterator<Item = u16>,
    ) {
        let reserved = workers.fold(0, |lanes, worker| lanes | 1 << lane(worker));
        self.push(PendingEvent { event, channel, reserved, is_carried: false });
    }

    /// A value that is ordered again: no worker is told.
    pub fn push_carried(&mut self, event: Arc<Event>, channel: u32) {
        self.push(PendingEvent { event, channel, reserved: 0, is_carried: true });
    }

    fn push(&mut self, pending: PendingEvent) {
        let PendingEvent { event, reserved, is_carried, .. } = &pending;
        self.bytes += bytes_of(event);
        self.carried += u32::from(*is_carried);
        if let Some(key) = &event.key {
            self.keys.insert((event.channel_hash, key.clone()), event.seq);
        }
        lanes_of(*reserved).for_each(|lane| self.reserved[lane] += 1);
        self.events.push_back(pending);
    }

    /// Whether a value that was ordered again is among them.
    pub fn has_carried(&self) -> bool {
        self.carried > 0
    }

    /// All events that wait.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().map(|pending| &*pending.event)
    }

    pub fn push_answer(&mut self, answer: PendingAnswer) {
        self.answers.push_back(answer);
    }

    pub fn commit(&mut self, through: u64) {
        self.committed_to = self.committed_to.max(through);
    }

    /// The next event that may be shown.
    pub fn committed(&self) -> Option<&PendingEvent> {
        self.events.front().filter(|first| first.event.seq <= self.committed_to)
    }

    /// Takes the first event, which is shown or lost.
    pub fn take_event(&mut self) -> Option<PendingEvent> {
        let first = self.events.pop_front()?;
        self.forget(&first);
        Some(first)
    }

    /// The next answer whose events have all been taken.
    pub fn take_answer(&mut self) -> Option<PendingAnswer> {
        let waits_for = self.answers.front()?.waits_for();
        let is_due = self.events.front().is_none_or(|first| waits_for < first.event.seq);
        if is_due { self.answers.pop_front() } else { None }
    }

    /// Takes the newest event that is not committed: all of these are lost.
    pub fn take_lost(&mut self) -> Option<PendingEvent> {
        self.events.back().filter(|last| last.event.seq > self.committed_to)?;
        let last = self.events.pop_back()?;
        self.forget(&last);
        Some(last)
    }

    /// Takes back in waiting answers what is lost.
    pub fn cut_answers(&mut self) {
        self.answers.iter_mut().for_each(|answer| answer.cut(self.committed_to));
    }

    fn forget(&mut self, taken: &PendingEvent) {
        self.bytes -= bytes_of(&taken.event);
        self.carried -= u32::from(taken.is_carried);
        if let Some(key) = &taken.event.key {
            self.keys.remove(&KeyOf(taken.event.channel_hash, key));
        }
        lanes_of(taken.reserved).for_each(|lane| self.reserved[lane] -= 1);
    }

    /// Walks everything; `note` gets the channel index of each waiting event.
    pub fn check_invariants(&self, mut note: impl FnMut(u32)) {
        let seqs: Vec<u64> = self.events.iter().map(|pending| pending.event.seq).collect();
        assert!(seqs.is_sorted());
        assert_eq!(
            self.bytes,
            self.events.iter().map(|pending| bytes_of(&pending.event)).sum::<u64>()
        );
        self.events.iter().for_each(|pending| note(pending.channel));
        let keyed = self.events.iter().filter(|pending| pending.event.key.is_some()).count();
        assert_eq!(self.keys.len(), keyed);
        let carried = self.events.iter().filter(|pending| pending.is_carried).count();
        assert_eq!(self.carried as usize, carried);
        assert!(!self.events.is_empty() || self.reserved.iter().all(|count| *count == 0));
    }
}

fn lane(worker: u16) -> usize {
    usize::from(worker) % LANES_COUNTED
}

fn lanes_of(bits: u64) -> impl Iterator<Item = usize> {
    (0..LANES_COUNTED).filter(move |lane| bits >> lane & 1 == 1)
}
