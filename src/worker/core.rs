//! A worker without its sockets: connections, replicas, and the order of a turn. Sans-IO: it takes
//! completions, notices and the time, and leaves a batch of operations.
//!
//! A turn: settle what the last batch's sends became, decide over completions, ask the log, take
//! the lanes, then deadlines, fan-out to live subscribers, sends to explicit ones, and the sweep. A
//! connection has at most one send in a batch; that is why the phases stand in this order.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use crossbeam_channel::{Sender, TrySendError};
use slab::Slab;

use super::census::Census;
use super::channels::Channels;
use super::checks::Checks;
use super::deadline::Deadlines;
use super::delivery::Outgoing;
use super::drain::Drain;
use super::expiry::Expiries;
use super::fanout::Handed;
use super::pending::Pending;
use super::remark::Remark;
use super::slot::{Flags, Phase, Slot};
use super::sweep::Sweep;
use super::waiting::Waiting;
use super::work::Work;
use crate::auth::{Gate, ProofKey, Revoked};
use crate::bucket::Bucket;
use crate::config::Settings;
use crate::limits::{
    ARENA_BYTES_KEPT, LANE_ANSWERS_MAX, LEAVE_PIECES, LEAVES_AT_ONCE_MIN, PUBLISH_RETRY_PAUSE,
    SLOTS_FREE_TO_ACCEPT, SPARE_WORK_MAX,
};
use crate::log::SharedHasher;
use crate::log::event::Event;
use crate::log::message::{LeaveChannel, Request, RequestBody};
use crate::metrics::WorkerMetrics;
use crate::proto::cursor::Epoch;
use crate::proto::http::head::HeaderSpace;
use crate::proto::http::response::Date;
use crate::reason::CloseReason;
use crate::ring::{Batch, Completion, DriverStats, Op, RecvEnd, Token, Wait};

/// What a worker is made with.
#[derive(Debug)]
pub struct Setup {
    /// Which worker this is.
    pub worker: u16,
    /// The log's epoch.
    pub epoch: Epoch,
    /// The hasher all threads share.
    pub hasher: SharedHasher,
    /// Proves the names by which streams are refreshed.
    pub proof_key: ProofKey,
    /// The operator's choices.
    pub settings: Arc<Settings>,
    /// Slots of the ring's descriptor table.
    pub slots: u32,
    /// Counts the connections of all workers.
    pub census: Arc<Census>,
    /// Who may do what.
    pub gate: Arc<Gate>,
    /// Seed for `retry:` jitter.
    pub seed: u64,
}

/// A worker's state.
#[derive(Debug)]
pub struct Core {
    pub(super) setup: Setup,
    pub(super) now: Duration,
    pub(super) unix_s: u64,
    pub(super) turn: u32,
    pub(super) slots: Vec<Slot>,
    /// Apart from the slots: fan-out reads these and nothing else of a connection.
    pub(super) generations: Vec<u32>,
    pub(super) open: u32,
    pub(super) accept: Accept,
    pub(super) channels: Channels,
    /// Memory of input that has begun and not ended, all connections together.
    pub(super) unfinished_bytes: usize,
    /// Not before this time are replicas made to give memory back again.
    pub(super) relieve_at: Duration,
    pub(super) batch: Batch,
    /// Connections with output of their own, or with little to read.
    pub(super) dirty: VecDeque<u32>,
    /// Connections that are further behind.
    pub(super) replaying: VecDeque<u32>,
    /// Connections that left input unread, until their output was sent or until the next turn.
    pub(super) unread: VecDeque<Token>,
    pub(super) scheduled: VecDeque<u32>,
    pub(super) fanned: Vec<u32>,
    pub(super) slice: Vec<Arc<Event>>,
    /// Newest event of the log this worker knows of.
    pub(super) head_seen: u64,
    pub(super) stands: Vec<(u32, u64)>,
    pub(super) outgoing: Outgoing,
    pub(super) handed: Handed,
    pub(super) pending: Slab<Pending>,
    pub(super) waiting: Waiting,
    pub(super) at_log: usize,
    pub(super) leaves: Vec<LeaveChannel>,
    /// Not before this time does the log hear of more of them.
    leave_at: Duration,
    pub(super) deadlines: Deadlines,
    /// Streams by the second in which their grant runs out.
    pub(super) expiries: Expiries,
    pub(super) checks: Checks,
    /// Up to which slot the present rules of access were applied; none: to all.
    pub(super) vetted_to: Option<u32>,
    pub(super) sweep: Sweep,
    #[expect(clippy::vec_box, reason = "the boxes move in and out of slots")]
    pub(super) spare: Vec<Box<Work>>,
    /// By slot, whose it is; empty where nothing asks for addresses.
    pub(super) clients: Vec<Option<IpAddr>>,
    /// New connections.
    pub(super) arrivals: Bucket,
    pub(super) header_space: Option<Box<HeaderSpace>>,
    /// The present second, as `Date` says it.
    pub(super) date: Date,
    pub(super) random: fastrand::Rng,
    pub(super) drain: Drain,
    pub(super) gate: Arc<Gate>,
    pub(super) revoked: Arc<Revoked>,
    log: Sender<Request>,
    /// Where what is said goes; none: nothing is said.
    pub(super) remarks: Option<Sender<Remark>>,
    pub(super) metrics: Arc<WorkerMetrics>,
}

/// Whether connections are being accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accept {
    /// To be armed with the next batch.
    Wanted,
    Armed,
    /// No descriptor was free; wanted again when some may be.
    Full,
    /// Never again, but the end of an armed one is still to be told.
    Ending,
    /// Never again.
    Stopped,
}

impl Core {
    /// An empty worker that sends its requests into `log`.
    pub fn new(setup: Setup, log: Sender<Request>, metrics: Arc<WorkerMetrics>) -> Self {
        let random = fastrand::Rng::with_seed(setup.seed);
        let sweep = Sweep::new(setup.settings.heartbeat);
        Self {
            now: Duration::ZERO,
            unix_s: 0,
            turn: 0,
            // All of it at once: only what is used takes memory, and growing by doubling would
            // leave as much behind.
            slots: Vec::with_capacity(setup.slots as usize),
            generations: Vec::with_capacity(setup.slots as usize),
            open: 0,
            accept: Accept::Wanted,
            channels: Channels::default(),
            unfinished_bytes: 0,
            relieve_at: Duration::ZERO,
            batch: Batch::default(),
            dirty: VecDeque::new(),
            replaying: VecDeque::new(),
            unread: VecDeque::new(),
            scheduled: VecDeque::new(),
            fanned: Vec::new(),
            slice: Vec::new(),
            head_seen: 0,
            stands: Vec::new(),
            outgoing: Outgoing::default(),
            handed: Handed::default(),
            pending: Slab::new(),
            waiting: Waiting::default(),
            at_log: 0,
            leaves: Vec::new(),
            leave_at: Duration::ZERO,
            deadlines: Deadlines::default(),
            expiries: Expiries::default(),
            checks: Checks::default(),
            vetted_to: None,
            sweep,
            spare: Vec::new(),
            clients: Vec::new(),
            arrivals: Bucket::default(),
            header_space: Some(Box::default()),
            date: *b"Thu, 01 Jan 1970 00:00:00 GMT",
            random,
            drain: Drain::No,
            gate: setup.gate.clone(),
            revoked: Arc::default(),
            log,
            remarks: None,
            metrics,
            setup,
        }
    }

    // --- the turn ---

    /// Begins a turn: what became of the last batch's sends.
    pub fn begin_turn(&mut self, now: Duration, unix_s: u64, completions: &[Completion]) {
        self.now = now;
        if self.unix_s != unix_s {
            self.unix_s = unix_s;
            self.date = date_of(unix_s);
        }
        self.settle_sends(completions);
        self.turn = self.turn.wrapping_add(1);
        self.batch.arena.clear();
        self.checks.begin_turn();
        self.read_on();
        self.call_checks();
        if self.batch.arena.capacity() > ARENA_BYTES_KEPT {
            self.batch.arena = Vec::new();
        }
    }

    /// Decides over one completion; `bytes` are what a `Received` brought.
    pub fn complete(&mut self, completion: Completion, bytes: &[u8]) {
        match completion {
            Completion::Accepted { slot, peer } => self.accepted(slot, peer),
            Completion::AcceptEnded { errno } => self.accept_ended(errno),
            Completion::Received { token, .. } if self.is_current(token) => {
                self.metrics.bytes_in.add(bytes.len() as u64);
                self.received(token.slot, bytes);
                if self.is_current(token) {
                    self.note_unfinished(token.slot);
                }
            }
            Completion::RecvEnded { token, why } if self.is_current(token) => {
                self.receive_ended(token, why);
            }
            Completion::Writable { token } if self.is_current(token) => {
                self.slots[token.slot as usize].flags.clear(Flags::BLOCKED);
                self.go_on(token.slot);
            }
            // Sends were settled when the turn began; a doorbell says to look into the lanes,
            // which every turn does; the others are of connections that have ended.
            Completion::SendShort { .. }
            | Completion::SendFailed { .. }
            | Completion::Doorbell
            | Completion::Received { .. }
            | Completion::RecvEnded { .. }
            | Completion::Writable { .. } => {}
        }
    }

    /// Ends a turn: everything that goes into the batch besides what completions asked for.
    pub fn end_turn(&mut self) {
        self.check_deadlines();
        self.check_expiries();
        self.vet_slice();
        self.drain_on();
        self.relieve();
        self.bound_unfinished();
        self.fan_out();
        self.flush_dirty();
        self.sweep();
        self.send_requests();
        if self.accept == Accept::Wanted {
            self.accept = Accept::Armed;
            self.batch.ops.push(Op::AcceptStart);
        }
    }

    /// When this turn began.
    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// The batch this turn made, for the driver.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// How long the worker may sleep now.
    pub fn wait(&self) -> Wait {
        let to_read = !self.unread.is_empty();
        let to_send = !self.dirty.is_empty() || !self.replaying.is_empty();
        let to_do = to_read || to_send || !self.scheduled.is_empty();
        // A send that was taken whole is only known to be by the turn that follows it.
        let to_vet = self.vetted_to.is_some();
        if to_do || to_vet || self.accept == Accept::Wanted || !self.outgoing.is_settled() {
            return Wait::No;
        }
        if !self.waiting.is_empty() || !self.leaves.is_empty() {
            return Wait::AtMost(PUBLISH_RETRY_PAUSE);
        }
        let checks_at = self.checks.next_at(self.now);
        let times = [self.deadlines.next(), self.next_sweep(), checks_at, self.next_drain_step()];
        let wake_at = times.into_iter().flatten().min();
        match wake_at {
            Some(at) if at <= self.now => Wait::No,
            Some(at) => Wait::AtMost(at - self.now),
            None => Wait::Forever,
        }
    }

    /// What the shell knows of a turn.
    pub fn note_turn(&self, took: Duration, driver: DriverStats) {
        let metrics = &self.metrics;
        metrics.turns.add(1);
        metrics.turn_time.observe_us(took.as_micros() as u64);
        metrics.turned_at_ms.set(self.now.as_millis() as u64);
        metrics.channels.set(self.channels.len() as u64);
        metrics.replica_bytes.set(self.channels.held_bytes() as u64);
        metrics.ring_enters.set(driver.enters);
        metrics.ring_sq_full.set(driver.sq_full);
        metrics.ring_cq_overflows.set(driver.cq_overflows);
        metrics.ring_no_buffers.set(driver.no_buffers);
        metrics.ring_stale.set(driver.stale);
    }

    /// How much waited in the log's lane.
    pub fn note_lane_depth(&self, notices: usize) {
        self.metrics.lane_depth.set(notices as u64);
    }

    // --- connections ---

    /// Whether the token's connection is still there.
    pub(super) fn is_current(&self, token: Token) -> bool {
        let slot = token.slot as usize;
        self.generations.get(slot) == Some(&token.generation)
            && self.slots[slot].phase != Phase::Free
    }

    pub(super) fn token(&self, index: u32) -> Token {
        Token { slot: index, generation: self.generations[index as usize] }
    }

    fn accepted(&mut self, index: u32, peer: Option<IpAddr>) {
        let needed = index as usize + 1;
        if self.slots.len() < needed {
            self.slots.resize_with(needed, Slot::free);
            self.generations.resize(needed, 0);
        }
        debug_assert_eq!(self.slots[index as usize].phase, Phase::Free);
        self.open += 1;
        self.metrics.accepts.add(1);
        let now_s = self.now.as_secs() as u32;
        let slot = &mut self.slots[index as usize];
        *slot = Slot { phase: Phase::Http, heard_s: now_s, opened_s: now_s, ..Slot::free() };
        slot.flags.set(Flags::RECV_ARMED);
        self.metrics.open[slot.phase.kind()].add(1);
        self.batch.ops.push(Op::RecvStart(self.token(index)));
        self.await_head(index);
        self.admit(index, peer);
    }

    /// Accepts again once enough of a full table is free.
    pub(super) fn accept_again(&mut self) {
        let free = self.setup.slots.saturating_sub(self.open);
        let needed = SLOTS_FREE_TO_ACCEPT.min(self.setup.slots);
        if self.accept == Accept::Full && free >= needed {
            self.accept = Accept::Wanted;
        }
    }

    fn accept_ended(&mut self, errno: i32) {
        let full = errno == rustix::io::Errno::NFILE.raw_os_error()
            || errno == rustix::io::Errno::MFILE.raw_os_error();
        self.accept = match self.accept {
            Accept::Ending | Accept::Stopped => Accept::Stopped,
            _ if full => Accept::Full,
            _ => Accept::Wanted,
        };
    }

    fn receive_ended(&mut self, token: Token, why: RecvEnd) {
        let index = token.slot;
        self.slots[index as usize].flags.clear(Flags::RECV_ARMED);
        match why {
            RecvEnd::Eof => self.peer_ended(index),
            RecvEnd::NoBuffers | RecvEnd::Disarmed => self.rearm(index),
            RecvEnd::Failed(_) => self.close(index, CloseReason::PeerGone),
        }
    }

    /// Receives again, unless the connection is paused.
    pub(super) fn rearm(&mut self, index: u32) {
        let flags = &mut self.slots[index as usize].flags;
        if !flags.has(Flags::PAUSED) && !flags.has(Flags::EOF) && flags.raise(Flags::RECV_ARMED) {
            let token = self.token(index);
            self.batch.ops.push(Op::RecvStart(token));
        }
    }

    /// Leaves the rest of what the peer sends to its socket buffer for now.
    pub(super) fn pause(&mut self, index: u32) {
        let flags = &mut self.slots[index as usize].flags;
        if flags.raise(Flags::PAUSED) && flags.has(Flags::RECV_ARMED) {
            let token = self.token(index);
            self.batch.ops.push(Op::RecvStop(token));
        }
    }

    /// Takes input again.
    pub(super) fn resume(&mut self, index: u32) {
        let flags = &mut self.slots[index as usize].flags;
        if flags.has(Flags::PAUSED) {
            flags.clear(Flags::PAUSED);
            self.rearm(index);
        }
    }

    /// Changes what a connection is.
    pub(super) fn set_phase(&mut self, index: u32, phase: Phase) {
        let slot = &mut self.slots[index as usize];
        self.metrics.open[slot.phase.kind()].sub(1);
        slot.phase = phase;
        self.metrics.open[slot.phase.kind()].add(1);
    }

    /// Ends a connection now: nothing more is sent, and its slot is free. If it was decided before
    /// that it ends, the reason is the one of then.
    pub(super) fn close(&mut self, index: u32, reason: CloseReason) {
        let token = self.token(index);
        let reason = self.slots[index as usize].ending.unwrap_or(reason);
        self.note_closed(index, reason);
        self.leave_all(index);
        let slot = &mut self.slots[index as usize];
        debug_assert_ne!(slot.phase, Phase::Free);
        let (address, counted) = (slot.address, !slot.flags.has(Flags::UNCOUNTED));
        self.metrics.open[slot.phase.kind()].sub(1);
        self.metrics.closes[reason.index()].add(1);
        if let Some(work) = slot.work.take() {
            self.spare_work(work);
        }
        self.slots[index as usize] = Slot::free();
        self.forget_client(index);
        let generation = &mut self.generations[index as usize];
        *generation = generation.wrapping_add(1);
        self.open -= 1;
        self.leave_census(address, counted);
        self.batch.ops.push(Op::Close(token));
        self.accept_again();
    }

    // --- work ---

    /// The connection's work, from the pool if it has none.
    pub(super) fn work(&mut self, index: u32) -> &mut Work {
        let spare = &mut self.spare;
        self.slots[index as usize].work.get_or_insert_with(|| spare.pop().unwrap_or_default())
    }

    pub(super) fn free_idle_work(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if slot.flags.has(Flags::SENT) || slot.flags.has(Flags::BLOCKED) {
            return;
        }
        if let Some(work) = slot.work.take_if(|work| work.is_idle()) {
            self.spare_work(work);
        }
    }

    fn spare_work(&mut self, mut work: Box<Work>) {
        self.forget_unfinished(&mut work);
        if self.spare.len() < SPARE_WORK_MAX {
            work.clear();
            self.spare.push(work);
        }
    }

    /// The connection has something to send, or may have.
    pub(super) fn mark_dirty(&mut self, index: u32) {
        if self.slots[index as usize].flags.has(Flags::LIVE) {
            let cursor = self.live_cursor(index);
            self.make_explicit(index, cursor);
        }
        if self.slots[index as usize].flags.raise(Flags::DIRTY) {
            self.dirty.push_back(index);
        }
    }

    // --- the log ---

    /// Asks the log on behalf of no connection, when there is credit for it.
    pub(super) fn ask(&mut self, body: RequestBody) {
        self.waiting.push(Request::Worker { worker: self.setup.worker, body }, 0);
    }

    /// The same for a connection, which then waits for the answer.
    pub(super) fn ask_for(&mut self, index: u32, body: RequestBody) {
        let outstanding = self.outstanding(index);
        self.work(index).outstanding = outstanding + 1;
        self.waiting.push(Request::Worker { worker: self.setup.worker, body }, outstanding);
    }

    /// Requests of the connection that are at the log or on their way there.
    pub(super) fn outstanding(&self, index: u32) -> u16 {
        self.slots[index as usize].work.as_ref().map_or(0, |work| work.outstanding)
    }

    /// Puts into the log's lane what there is credit and room for.
    pub(super) fn send_requests(&mut self) {
        let Self { waiting, log, at_log, .. } = self;
        let send = |request: Request, at_log: &mut usize| {
            let unanswered =
                matches!(request, Request::Worker { body: RequestBody::Forward { .. }, .. });
            log.try_send(request).map_err(TrySendError::into_inner)?;
            *at_log += usize::from(!unanswered);
            Ok(())
        };
        while *at_log < LANE_ANSWERS_MAX && waiting.send(|request| send(request, at_log)) {}
        // Behind the joins: what leaves may be about to join again.
        if self.waiting.is_empty() && !self.leaves.is_empty() && self.now >= self.leave_at {
            self.send_leaves();
        }
    }

    /// Tells the log who has left. Of very many, as when thousands of connections with a hundred
    /// channels each are cut, a piece at a time: others have requests for the log, too.
    fn send_leaves(&mut self) {
        let count = self.leaves.len();
        let piece = LEAVES_AT_ONCE_MIN.max(count / LEAVE_PIECES).min(count);
        let body = RequestBody::Leave(self.leaves.split_off(count - piece));
        let request = Request::Worker { worker: self.setup.worker, body };
        match self.log.try_send(request) {
            Ok(()) if self.leaves.is_empty() => self.leaves = Vec::new(),
            Ok(()) => self.leave_at = self.now + PUBLISH_RETRY_PAUSE,
            Err(TrySendError::Full(request) | TrySendError::Disconnected(request)) => {
                if let Request::Worker { body: RequestBody::Leave(piece), .. } = request {
                    self.leaves.extend(piece);
                }
            }
        }
    }
}

fn date_of(unix_s: u64) -> Date {
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_s));
    text.as_bytes().try_into().unwrap_or(*b"Thu, 01 Jan 1970 00:00:00 GMT")
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::super::census::ByAddress;
    use super::*;
    use crate::log::ChannelName;

    #[test]
    fn very_many_leaves_go_to_the_log_in_pieces_and_all_of_them_go() {
        const COUNT: usize = 500_000;
        let (ask, asked) = unbounded();
        let setup = Setup {
            worker: 0,
            epoch: Epoch::from_random(1),
            hasher: SharedHasher::from_seed(1),
            proof_key: ProofKey::new(&[1; 32]),
            settings: Arc::new(Settings::default()),
            slots: 128,
            census: Arc::new(Census::new(1, ByAddress::Ignored)),
            gate: Arc::new(Gate::open()),
            seed: 1,
        };
        let mut core = Core::new(setup, ask, Arc::default());
        let name = Arc::new(ChannelName::new("c"));
        let leave = || LeaveChannel { name: name.clone(), subscribers: 1 };
        core.leaves.resize_with(COUNT, leave);
        let (mut now, mut left) = (Duration::from_secs(1), 0);
        while left < COUNT {
            core.begin_turn(now, 0, &[]);
            core.end_turn();
            for request in asked.try_iter() {
                let Request::Worker { body: RequestBody::Leave(piece), .. } = request else {
                    panic!("{request:?}")
                };
                assert!(piece.len() <= COUNT / LEAVE_PIECES, "{} at once", piece.len());
                left += piece.len();
            }
            assert!(now < Duration::from_secs(11), "{left} have left");
            now += PUBLISH_RETRY_PAUSE;
        }
        assert_eq!((left, core.leaves.capacity()), (COUNT, 0));
    }
}
