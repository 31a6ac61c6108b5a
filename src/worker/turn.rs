//! A worker without its driver: the order of a turn. It does no I/O: it takes completions, what the
//! log says and the time, and leaves a batch of operations. This file and its parts (`input`,
//! `carry_out`, `sending`, `ending`, `drain`) alone know sockets, sessions and subscribers.
//!
//! A turn: settle the last batch's sends, decide over completions, ask the log, take the lanes,
//! then deadlines, fan-out to live subscribers, sends to explicit ones, and heartbeats. A
//! connection has at most one send in a batch; that is why the phases are in this order.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::clock::{Clock, Why};
use super::drain::Drain;
use super::effect::{Effects, Ending};
use super::gathering::Gathering;
use super::hub::{Beats, Hub};
use super::link::Link;
use super::net::Net;
use super::net::admission::Clients;
use super::session::{self, LogLine, Look, Sessions};
use super::setup::Setup;
use crate::config::Settings;
use crate::limits::{GATHER_TIME, PUBLISH_RETRY_PAUSE};
use crate::log::message::{FromLog, ToLog};
use crate::metrics::WorkerMetrics;
use crate::reason::CloseReason;
use crate::ring::{Batch, Completion, DriverStats, Wait};

/// A worker's state.
#[derive(Debug)]
pub struct Core {
    pub(super) worker: u16,
    pub(super) settings: Arc<Settings>,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) now: Duration,
    unix_s: u64,
    pub(super) net: Net,
    pub(super) clock: Clock,
    pub(super) gathering: Gathering,
    pub(super) sessions: Sessions,
    pub(super) hub: Hub,
    pub(super) link: Link,
    pub(super) drain: Drain,
    /// Empty except while a session acts.
    pub(super) effects: Effects,
}

impl Core {
    /// An empty worker that sends its requests into `log`.
    pub fn new(setup: Setup, log: Sender<ToLog>, metrics: Arc<WorkerMetrics>) -> Self {
        let sessions = Sessions::new(&setup, metrics.clone());
        let home = sessions.home();
        let Setup { worker, epoch, hasher, settings, slots, connection_count, .. } = setup;
        let clients = Clients::new(slots, connection_count, hasher.clone());
        Self {
            worker,
            now: Duration::ZERO,
            unix_s: 0,
            net: Net::new(slots, clients, settings.clone(), metrics.clone()),
            clock: Clock::new(settings.heartbeat),
            gathering: Gathering::default(),
            sessions,
            hub: Hub::new((home, epoch, hasher), slots, settings.clone(), metrics.clone()),
            link: Link::new(worker, log),
            drain: Drain::No,
            effects: Effects::default(),
            settings,
            metrics,
        }
    }

    /// Sends log lines into this lane from now on.
    pub fn log_to(&mut self, lane: Sender<LogLine>) {
        self.sessions.log_to(lane);
    }

    /// Applies new settings.
    pub(super) fn apply_settings(&mut self, settings: Arc<Settings>) {
        self.clock.set_period(settings.heartbeat);
        self.net.apply_settings(settings.clone());
        self.hub.apply_settings(settings.clone());
        self.sessions.apply_settings(settings.clone());
        self.settings = settings;
    }

    // --- the turn ---

    /// Begins a turn by settling the last batch's sends.
    pub fn begin_turn(&mut self, now: Duration, unix_s: u64, completions: &[Completion]) {
        self.now = now;
        self.unix_s = unix_s;
        self.gathering.begin_turn(now);
        self.net.set_now(now);
        self.hub.set_now(now);
        self.sessions.begin_turn(now, unix_s);
        self.settle_sends(completions);
        self.read_on();
        self.call_checks();
    }

    /// Decides over one completion; `bytes` are those of a `Received`.
    pub fn complete(&mut self, completion: Completion, bytes: &[u8]) {
        match completion {
            Completion::Accepted { slot, peer, layer } => self.accepted(slot, peer, layer),
            Completion::AcceptEnded { errno } => self.net.accept_ended(errno),
            Completion::Received { token, .. } if self.net.is_current(token) => {
                self.metrics.bytes_in.add(bytes.len() as u64);
                self.gathering.begin_receiving();
                self.received(token, bytes);
                self.gathering.end_receiving();
                if self.net.is_current(token) {
                    self.sessions.count_unfinished(token.slot);
                }
            }
            Completion::Certified { token } if self.net.is_current(token) => {
                self.sessions[token.slot].certify();
            }
            Completion::RecvEnded { token, why } if self.net.is_current(token) => {
                self.receive_ended(token.slot, why);
            }
            Completion::Writable { token } if self.net.is_current(token) => {
                self.net.writable(token.slot);
                self.go_on(token.slot);
            }
            // Sends were settled when the turn began; a doorbell says to look into the lanes, which
            // every turn does; the others belong to connections that have ended.
            Completion::SendShort { .. }
            | Completion::SendFailed { .. }
            | Completion::Doorbell
            | Completion::Received { .. }
            | Completion::RecvEnded { .. }
            | Completion::Certified { .. }
            | Completion::Writable { .. } => {}
        }
    }

    /// Takes one message of the log.
    pub fn from_log(&mut self, told: FromLog) {
        match told {
            FromLog::Event(event) => {
                self.hub.event(event);
                self.disconnect_too_slow();
            }
            FromLog::Letter(letter) => self.letter(letter),
            FromLog::StreamEnded { channel, at } => self.token_stream_ended(&channel, &at),
            FromLog::Answer { ticket, answer } => self.answer_of_log(ticket, answer),
        }
    }

    /// Puts requests into the log's lane; returns whether there were any.
    pub fn send_requests(&mut self) -> bool {
        self.link.send(self.now, self.hub.leaves())
    }

    /// Ends a turn: adds to the batch what does not come from completions. Returns whether it put
    /// requests into the log's lane.
    pub fn end_turn(&mut self) -> bool {
        self.check_deadlines();
        self.check_expiries();
        self.vet();
        self.drain_on();
        self.hub.relieve();
        self.disconnect_too_slow();
        self.bound_unfinished();
        self.hub.fan_out(&mut self.net);
        self.send_queued();
        self.look_around();
        self.net.accept_if_wanted();
        self.send_requests()
    }

    /// When this turn began.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The batch this turn made, for the driver.
    pub fn batch(&mut self) -> &mut Batch {
        self.net.batch()
    }

    /// How long the worker may sleep.
    pub fn wait(&self) -> Wait {
        let to_send = !self.net.is_flushed() || self.hub.has_scheduled();
        let to_do = to_send || self.sessions.has_unread() || self.sessions.has_to_vet();
        if to_do || self.net.wants_to_accept() || self.net.has_to_settle() {
            return Wait::No;
        }
        if self.link.waiting() > 0 || self.hub.has_leaves() {
            return Wait::AtMost(PUBLISH_RETRY_PAUSE);
        }
        let clock_at = self.clock.next(self.net.is_watched());
        let times = [clock_at, self.sessions.next_check_at(), self.next_drain_step()];
        match times.into_iter().flatten().min() {
            Some(at) if at <= self.now => Wait::No,
            Some(at) if self.gathering.pays() => Wait::Gather(GATHER_TIME.min(at - self.now)),
            None if self.gathering.pays() => Wait::Gather(GATHER_TIME),
            Some(at) => Wait::AtMost(at - self.now),
            None => Wait::Forever,
        }
    }

    /// Counts what the shell measured of a turn.
    pub fn count_turn(&self, took: Duration, driver: DriverStats) {
        let metrics = &self.metrics;
        metrics.turns.add(1);
        metrics.turn_time.observe_us(took.as_micros() as u64);
        metrics.turned_at_ms.set(self.now.as_millis() as u64);
        metrics.channels.set(self.hub.channel_count() as u64);
        metrics.replica_bytes.set(self.hub.held_bytes() as u64);
        metrics.ring_enters.set(driver.enters);
        metrics.ring_sq_full.set(driver.sq_full);
        metrics.ring_cq_overflows.set(driver.cq_overflows);
        metrics.ring_no_buffers.set(driver.no_buffers);
        metrics.ring_stale.set(driver.stale);
        let tls = driver.tls;
        metrics.tls13.set(tls.open - tls.open_tls12);
        metrics.tls12.set(tls.open_tls12);
        metrics.tls_waiting.set(tls.waiting);
        metrics.handshakes_full.set(tls.handshakes_full);
        metrics.handshakes_resumed.set(tls.handshakes_resumed);
        metrics.handshakes_failed.set(tls.handshakes_failed);
    }

    /// Counts how much waited in the log's lane.
    pub fn count_lane_depth(&self, waiting: usize) {
        self.metrics.lane_depth.set(waiting as u64);
    }

    /// Connections still open.
    pub fn open(&self) -> u32 {
        self.net.open()
    }

    // --- time ---

    fn check_deadlines(&mut self) {
        while let Some((why, deadline)) = self.clock.pop_due(self.now) {
            let index = deadline.token.slot;
            if !self.net.is_current(deadline.token) {
                continue;
            }
            if self.net.is_lingering(index) {
                if why == Why::Linger {
                    self.end(index, Ending::Now(CloseReason::Answered));
                }
                continue;
            }
            if why == Why::Stalled {
                self.stall_due(&deadline);
                continue;
            }
            self.session(index, |cx| session::due(cx, why, deadline.mark));
            if why == Why::Letter && self.net.is_current(deadline.token) {
                self.take_carry(deadline.token);
            }
        }
    }

    /// Ends the streams whose grant has run out this second.
    fn check_expiries(&mut self) {
        while let Some(token) = self.clock.pop_expired(self.unix_s) {
            // Others are gone or were renewed: a new grant has an entry of its own.
            if self.net.is_current(token) && self.sessions.has_expired(token.slot) {
                self.disconnect(token.slot, CloseReason::TokenExpired);
            }
        }
        let Self { clock, net, sessions, .. } = self;
        if clock.is_crowded(net.open() + net.h2().open()) {
            clock.tidy_expiries(|at, token| {
                net.is_current(token) && sessions[token.slot].expires_at(at)
            });
        }
    }

    /// Ends streams that changed rules no longer let in, one slice per turn.
    fn vet(&mut self) {
        for place in self.sessions.next_to_vet() {
            let index = self.sessions.index_at(place);
            if self.net.is_open(index)
                && !self.net.is_lingering(index)
                && let Some(reason) = self.sessions.disowned(index)
            {
                self.disconnect(index, reason);
            }
        }
    }

    /// Moves the clock's hand to where it should be by now.
    fn look_around(&mut self) {
        if !self.net.is_watched() || !self.clock.is_hand_due(self.now) {
            return;
        }
        // A table that was full may have room by now, for reasons of the kernel's own.
        self.net.accept_again();
        let places = self.net.len();
        let mut beats = Beats::default();
        for _ in 0..self.clock.advance(self.now, places) {
            let index = self.net.index_at(self.clock.look_on(places));
            if self.net.is_open(index) && !self.net.is_lingering(index) {
                self.look_at(index, &mut beats);
            }
        }
    }

    fn look_at(&mut self, index: u32, beats: &mut Beats) {
        match self.sessions[index].look(self.net.is_blocked(index), self.net.stream_count(index)) {
            Look::Nothing => {}
            Look::EndIfIdle => {
                if self.is_idle(index) && self.net.is_silent(index) {
                    self.disconnect(index, CloseReason::IdleTimeout);
                }
            }
            Look::Beat(form) => self.beat(index, form, beats),
            Look::Ping => self.session(index, session::ping),
            Look::Dead => self.end(index, Ending::Now(CloseReason::PeerDead)),
        }
    }

    /// Whether the connection is between requests: none begun, none unanswered.
    pub(super) fn is_idle(&self, index: u32) -> bool {
        self.sessions[index].is_idle()
            && !self.has_output(index)
            && self.net.stream_count(index) == 0
    }
}
