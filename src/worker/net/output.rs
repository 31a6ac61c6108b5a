//! What is sent. The only place that queues an `Op::Send`, and the only one that learns how much of
//! it was taken: a socket has at most one send in a batch, composed of the rest of a half-sent
//! event, output of its own, and events.
//!
//! The next turn begins with what the sockets did not take: everything else was taken.

use std::collections::VecDeque;
use std::ops::Range;

use super::Net;
use super::socket::Flags;
use crate::bits::Change;
use crate::limits::{ARENA_BYTES_KEPT, FIRST_SEND_BYTES_MAX, SEND_BYTES_MAX};
use crate::ring::{Batch, Op, Token};
use crate::worker::pool::{Reuse, clear_buffer};

/// A socket's own output: answers, control frames, whatever is not an event of a channel.
#[derive(Debug, Default)]
pub struct Own {
    bytes: Vec<u8>,
    /// Bytes the socket took of its last send, if that was not all of it.
    taken: Option<u32>,
    /// Index of its send among the batch's composed sends, while it has one.
    sent_at: u32,
}

impl Own {
    /// Appends to what waits for the socket.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
    }
}

impl Reuse for Own {
    fn clear(&mut self) {
        clear_buffer(&mut self.bytes);
        self.taken = None;
    }
}

/// The batch being decided, and the sockets with something to send.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub batch: Batch,
    sends: Vec<Sent>,
    dirty: VecDeque<u32>,
    behind: VecDeque<u32>,
    carriers: VecDeque<u32>,
    /// Bytes handed to sockets since the last turn was settled. What they did not take is
    /// subtracted before this is added to the metrics, which must never go down.
    handed_bytes: u64,
    /// Something is to be done as soon as these sends are settled.
    to_settle: bool,
}

/// Queues, each with a budget, so that none waits for another for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Sockets with output of their own, or with little to read.
    First,
    /// Sockets of subscribers that are further behind.
    Behind,
    /// Sockets that carry streams, behind what those have to say in the same turn.
    Carriers,
}

impl Queue {
    fn flag(self) -> Flags {
        match self {
            Self::First => Flags::DIRTY,
            Self::Behind => Flags::BEHIND,
            Self::Carriers => Flags::CARRIES,
        }
    }
}

/// A composed send of the batch, as offsets into the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub token: Token,
    from: u32,
    rest_to: u32,
    own_to: u32,
    to: u32,
}

/// A send being composed: first the rest of an event, then output of its own, then events.
#[derive(Clone, Copy, Debug)]
pub struct Draft {
    from: u32,
    rest_to: u32,
    own_to: u32,
    /// No further event is begun in the arena from here on.
    pub until: usize,
}

/// How much the socket took of its subscriber's parts of a send, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of the rest of a half-sent event.
    pub rest: usize,
    /// Bytes of events.
    pub events: usize,
    /// Whether everything was taken.
    pub whole: bool,
}

/// A send that was not taken whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// A send composed for this socket.
    Composed(Taken, Sent),
    /// Bytes shared with other sockets.
    Shared,
}

impl Sent {
    /// How many bytes are being sent.
    pub fn len(&self) -> usize {
        (self.to - self.from) as usize
    }
}

impl Net {
    // --- own output ---

    /// Appends to the socket's own output. It is sent once the socket is queued.
    pub fn write(&mut self, index: u32, write: impl FnOnce(&mut Vec<u8>)) {
        self.change_own(index, |bytes, _| write(bytes));
    }

    /// Every change of own output, but for DATA that a carrier takes from its streams: what those hold
    /// is counted.
    fn change_own(&mut self, index: u32, change: impl FnOnce(&mut Vec<u8>, &[u8])) {
        let mut bytes = std::mem::take(&mut self.own(index).bytes);
        let before = bytes.len();
        change(&mut bytes, &self.output.batch.arena);
        if self.is_stream(index) {
            self.h2.count_held(index, before, bytes.len());
        }
        self.own(index).bytes = bytes;
    }

    pub(super) fn own(&mut self, index: u32) -> &mut Own {
        let pool = &mut self.pool;
        self.sockets[index].own.get_or_insert_with(|| pool.take())
    }

    /// Bytes of the socket's own output.
    pub fn out_len(&self, index: u32) -> usize {
        self.sockets[index].own.as_ref().map_or(0, |own| own.bytes.len())
    }

    /// Forgets the socket's own output.
    pub fn drop_out(&mut self, index: u32) {
        if self.out_len(index) > 0 {
            self.change_own(index, |bytes, _| clear_buffer(bytes));
        }
    }

    /// Returns what an idle socket does not need to the pool.
    pub fn free_idle(&mut self, index: u32) {
        let Self { sockets, pool, .. } = self;
        if let Some(own) = sockets[index].own.take_if(|own| own.bytes.is_empty()) {
            pool.give(own);
        }
    }

    // --- sockets with something to send ---

    /// Queues the socket, unless it is in that queue already.
    pub fn queue(&mut self, index: u32, queue: Queue) {
        let queue = if self.carries(index) { Queue::Carriers } else { queue };
        if self.sockets[index].flags.raise(queue.flag()) {
            self.queue_of(queue).push_back(index);
        }
    }

    fn queue_of(&mut self, queue: Queue) -> &mut VecDeque<u32> {
        match queue {
            Queue::First => &mut self.output.dirty,
            Queue::Behind => &mut self.output.behind,
            Queue::Carriers => &mut self.output.carriers,
        }
    }

    /// Queues a socket whose subscriber has something to read. One that is blocked, or in the queue
    /// of those further behind, gets to it anyway.
    pub fn wake(&mut self, index: u32) {
        let flags = self.sockets[index].flags;
        if !flags.contains(Flags::BLOCKED) && !flags.contains(Flags::BEHIND) {
            self.queue(index, Queue::First);
        }
    }

    /// How many sockets a queue holds.
    pub fn queued(&self, queue: Queue) -> usize {
        match queue {
            Queue::First => self.output.dirty.len(),
            Queue::Behind => self.output.behind.len(),
            Queue::Carriers => self.output.carriers.len(),
        }
    }

    /// Takes the next socket out of a queue; `Some(None)` if nothing is to be sent to it after all:
    /// a blocked one is woken by `Writable`, and one that has its send already by the next turn.
    pub fn next_queued(&mut self, queue: Queue) -> Option<Option<u32>> {
        let index = self.queue_of(queue).pop_front()?;
        let flags = &mut self.sockets[index].flags;
        let is_queued = flags.contains(queue.flag());
        flags.remove(queue.flag());
        let is_due = is_queued && !flags.contains(Flags::BLOCKED) && !flags.contains(Flags::SENT);
        Some(is_due.then_some(index))
    }

    /// Whether the socket is in a queue.
    pub fn is_queued(&self, index: u32) -> bool {
        let flags = self.sockets[index].flags;
        flags.contains(Flags::DIRTY)
            || flags.contains(Flags::BEHIND)
            || flags.contains(Flags::CARRIES)
    }

    /// Whether the queues are empty.
    pub fn is_flushed(&self) -> bool {
        self.output.dirty.is_empty()
            && self.output.behind.is_empty()
            && self.output.carriers.is_empty()
    }

    /// How much to compose for a socket whose subscriber is further behind. Composing more than it
    /// takes is wasted, so after a short send this is little more than it took then.
    pub fn replay_bytes_max(&self, index: u32) -> usize {
        match self.sockets[index].own.as_ref().and_then(|own| own.taken) {
            None => SEND_BYTES_MAX,
            Some(taken) => {
                let unsent = self.settings.unsent.map_or(SEND_BYTES_MAX, |max| max as usize);
                (2 * taken as usize).clamp(FIRST_SEND_BYTES_MAX, unsent.max(FIRST_SEND_BYTES_MAX))
            }
        }
    }

    // --- composing ---

    /// Begins a send of about this many bytes.
    pub fn begin_send(&mut self, bytes_max: usize) -> Draft {
        let from = self.output.batch.end();
        Draft { from, rest_to: from, own_to: from, until: from as usize + bytes_max }
    }

    /// Adds own output to a send that has the rest of an event in the arena.
    pub fn add_own(&mut self, index: u32, draft: &mut Draft) {
        let Self { output, sockets, .. } = self;
        draft.rest_to = output.batch.end();
        if let Some(own) = &sockets[index].own {
            output.batch.arena.extend_from_slice(&own.bytes);
        }
        draft.own_to = output.batch.end();
    }

    /// Ends a send whose rest of an event did not fit as a whole: nothing may follow it.
    pub fn end_with_rest(&self, draft: &mut Draft) {
        draft.rest_to = self.output.batch.end();
        draft.own_to = draft.rest_to;
    }

    /// What was composed.
    pub fn end_draft(&self, index: u32, draft: Draft) -> Sent {
        let Draft { from, rest_to, own_to, .. } = draft;
        Sent { token: self.token(index), from, rest_to, own_to, to: self.output.batch.end() }
    }

    /// Queues the send, unless it is empty; returns its length.
    pub fn finish_send(&mut self, index: u32, draft: Draft) -> usize {
        let sent = self.end_draft(index, draft);
        if sent.len() == 0 {
            return 0;
        }
        self.own(index).sent_at = self.output.sends.len() as u32;
        self.sockets[index].flags.insert(Flags::SENT);
        self.output.sends.push(sent);
        self.send(sent.token, sent.from..sent.to);
        self.metrics.sends_explicit.add(1);
        sent.len()
    }

    /// Frames the first `length` bytes of what was composed for a stream, which are sent to it.
    pub fn send_part(&mut self, index: u32, sent: &Sent, length: usize) -> Taken {
        let length = length as u32;
        self.send_data(index, sent.from..sent.from + length);
        self.settle(sent, length)
    }

    /// The arena ends where this began.
    pub fn drop_draft(&mut self, sent: &Sent) {
        self.output.batch.arena.truncate(sent.from as usize);
    }

    /// The memory that holds the bytes of sends.
    pub fn arena(&mut self) -> &mut Vec<u8> {
        &mut self.output.batch.arena
    }

    /// Where the next byte of the arena goes.
    pub fn arena_end(&self) -> u32 {
        self.output.batch.end()
    }

    /// Sends bytes of the arena that other sockets share. The socket has no composed send.
    pub fn send_shared(&mut self, index: u32, bytes: Range<u32>) {
        debug_assert!(!self.sockets[index].flags.contains(Flags::SENT));
        self.send(self.token(index), bytes);
    }

    fn send(&mut self, token: Token, bytes: Range<u32>) {
        self.output.handed_bytes += u64::from(bytes.end - bytes.start);
        self.output.batch.ops.push(Op::Send { token, from: bytes.start, to: bytes.end });
    }

    // --- settling ---

    /// The socket took only a part of its send, and is blocked until it is writable.
    pub fn settle_short(&mut self, token: Token, taken: u32) -> Short {
        let index = token.slot;
        let flags = &mut self.sockets[index].flags;
        let composed = flags.contains(Flags::SENT);
        flags.remove(Flags::SENT);
        flags.insert(Flags::BLOCKED);
        self.output.batch.ops.push(Op::PollOut(token));
        self.metrics.sends_short.add(1);
        let own = self.own(index);
        own.taken = Some(taken);
        let sent_at = own.sent_at as usize;
        if !composed {
            return Short::Shared;
        }
        let sent = self.output.sends[sent_at];
        debug_assert_eq!(sent.token, token);
        self.untaken(u64::from(sent.to - sent.from - taken));
        Short::Composed(self.settle(&sent, taken), sent)
    }

    /// The send failed: none of it was taken.
    pub fn settle_failed(&mut self, token: Token) {
        let socket = &self.sockets[token.slot];
        if let Some(own) = socket.own.as_ref().filter(|_| socket.flags.contains(Flags::SENT)) {
            let sent = self.output.sends[own.sent_at as usize];
            self.untaken(u64::from(sent.to - sent.from));
        }
    }

    /// The composed sends of the last batch, to be settled one by one with [`Net::settle_whole`].
    pub fn take_sends(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.output.sends)
    }

    /// Settles a composed send as taken whole; `None` if it was short, or its socket has ended.
    pub fn settle_whole(&mut self, sent: &Sent) -> Option<Taken> {
        let index = sent.token.slot;
        if !self.is_current(sent.token) || !self.sockets[index].flags.contains(Flags::SENT) {
            return None;
        }
        self.sockets[index].flags.remove(Flags::SENT);
        let taken = self.settle(sent, sent.to - sent.from);
        if let Some(own) = &mut self.sockets[index].own {
            own.taken = None;
        }
        Some(taken)
    }

    fn settle(&mut self, sent: &Sent, taken: u32) -> Taken {
        let end = sent.from + taken;
        let part = |from: u32, to: u32| (end.clamp(from, to) - from) as usize;
        let own_taken = part(sent.rest_to, sent.own_to);
        if own_taken > 0 {
            self.change_own(sent.token.slot, |bytes, _| drop(bytes.drain(..own_taken)));
        }
        Taken {
            rest: part(sent.from, sent.rest_to),
            events: part(sent.own_to, sent.to),
            whole: end == sent.to,
        }
    }

    /// Keeps these bytes of the send's events as own output: they may not change any more, and go
    /// out first.
    pub fn keep(&mut self, sent: &Sent, events: Range<usize>) {
        let from = sent.own_to as usize;
        self.change_own(sent.token.slot, |bytes, arena| {
            let kept = &arena[from + events.start..from + events.end];
            bytes.splice(0..0, kept.iter().copied());
        });
    }

    /// Counts bytes that were handed to a socket and not taken.
    pub fn untaken(&mut self, bytes: u64) {
        self.output.handed_bytes -= bytes;
    }

    /// Begins the next batch, everything being settled: counts what was taken.
    pub fn begin_batch(&mut self, mut settled: Vec<Sent>) {
        settled.clear();
        self.output.sends = settled;
        self.output.to_settle = false;
        self.metrics.bytes_out.add(std::mem::take(&mut self.output.handed_bytes));
        let arena = &mut self.output.batch.arena;
        arena.clear();
        if arena.capacity() > ARENA_BYTES_KEPT {
            *arena = Vec::new();
        }
    }

    /// Asks for the next turn at once, as something is to be done when this batch's sends were
    /// taken: only the next turn learns that a send was taken whole.
    pub fn settle_soon(&mut self) {
        self.output.to_settle = true;
    }

    /// Whether the next turn may not wait: see [`Net::settle_soon`].
    pub fn has_to_settle(&self) -> bool {
        self.output.to_settle
    }

    /// The batch, for the driver.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.output.batch
    }

    /// Panics if a socket's flags contradict the queues and the batch.
    pub(super) fn check_output(&self, index: u32) {
        let socket = &self.sockets[index];
        let flags = socket.flags;
        for queue in [Queue::First, Queue::Behind, Queue::Carriers] {
            let queued = match queue {
                Queue::First => self.output.dirty.contains(&index),
                Queue::Behind => self.output.behind.contains(&index),
                Queue::Carriers => self.output.carriers.contains(&index),
            };
            assert!(
                queued || !flags.contains(queue.flag()),
                "slot {index} is in no queue: {socket:?}"
            );
        }
        let sent = self.output.sends.iter().any(|sent| sent.token == self.token(index));
        assert_eq!(sent, flags.contains(Flags::SENT), "slot {index} has a send: {socket:?}");
        assert!(!sent || !flags.contains(Flags::BLOCKED), "slot {index} sends although blocked");
    }
}
