//! The state that orders all events: takes requests, returns events and answers.

use std::sync::Arc;
use std::time::Duration;

use super::ahead::Ahead;
use super::carry::{CARRY_PAUSE, HURRIED_CARRY_PAUSE};
use super::channel::{Channel, Channels, Facts};
use super::channel_name::ChannelName;
use super::event::Publication;
use super::hash::SharedHasher;
use super::history::{Chain, EVENTS_MAX, Gone, History, Oldest};
use super::interest::Interest;
use super::join::Join;
use super::message::{Answer, Ask, FromLog, Share, Ticket, ToLog};
use super::older::OlderChannel;
use super::order::Order;
use super::pending::{Pending, PendingAnswer};
use super::policy::LogSettings;
use super::presence::Presence;
use super::sent::Sent;
use super::stats::LogCounters;
use super::store::memory::Memory;
use super::store::{Shortage, Store};
use super::stream::Streams;
use super::tombstone::{TOMBSTONES_MAX, Tombstones};
use crate::proto::cursor::Epoch;

/// Events one call of [`Sequencer::expire`] drops: about 50 microseconds, so that requests do not
/// wait for a history that ages all at once.
pub const EXPIRED_PER_CALL: usize = 500;

/// Where [`FromLog`] goes: real lanes, or queues in a test. Each worker's lane has one producer at
/// a time, the thread that runs the log.
pub trait Outlet {
    /// Whether one more event fits this share of the worker's lane when `reserved` places of it are
    /// reserved. (Answers have room of their own, which the workers' request credit keeps free.)
    fn has_room(&self, worker: u16, share: Share, reserved: usize) -> bool;

    /// Puts a message into the worker's lane.
    fn send(&mut self, worker: u16, told: FromLog);

    /// Puts the answer to the request with this ticket there.
    fn answer(&mut self, worker: u16, ticket: Ticket, answer: Answer) {
        self.send(worker, FromLog::Answer { ticket, answer });
    }
}

/// The log: assigns `seq`, keeps history, and knows which worker wants which channel.
#[derive(Debug)]
pub struct Sequencer {
    pub(super) settings: LogSettings,
    pub(super) epoch: Epoch,
    pub(super) workers: u16,
    pub(super) hasher: SharedHasher,
    pub(super) now: Duration,
    pub(super) order: Order,
    pub(super) channels: Channels,
    pub(super) history: History,
    pub(super) tombstones: Tombstones,
    pub(super) streams: Streams,
    pub(super) store: Box<dyn Store>,
    pub(super) store_is_up: bool,
    /// Events ordered and not committed, or not shown for want of room.
    pub(super) pending: Pending,
    /// Publications on their way to a broker.
    pub(super) sent: Sent,
    /// The store reads values that are to be ordered again.
    pub(super) is_reading_values: bool,
    /// Joins that wait for events that other nodes have shown already.
    pub(super) ahead: Ahead,
    /// Who is on which channel.
    pub(super) presence: Presence,
    pub(super) counters: LogCounters,
}

/// Why an event left history.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    Count,
    Age,
    Bytes,
}

impl Sequencer {
    /// An empty log in memory. All threads that use `Event::channel_hash` hold a clone of `hasher`.
    pub fn new(settings: LogSettings, epoch: Epoch, workers: u16, hasher: SharedHasher) -> Self {
        let history = History::new(hasher.clone(), settings.policies.shares());
        let presence = Presence::new(hasher.clone());
        Self {
            settings,
            epoch,
            workers,
            now: Duration::ZERO,
            order: Order::default(),
            channels: Channels::new(),
            history,
            hasher,
            tombstones: Tombstones::new(TOMBSTONES_MAX),
            streams: Streams::default(),
            store: Box::new(Memory),
            store_is_up: true,
            pending: Pending::new(),
            sent: Sent::new(),
            is_reading_values: false,
            ahead: Ahead::new(),
            presence,
            counters: LogCounters::default(),
        }
    }

    /// Moves the log to this store from now on. All events of the store must have been fed; the
    /// next one gets a place after `resume_at`, and channels the store does not know may have lost
    /// events up to `removed_to`.
    pub fn move_to(
        &mut self,
        store: Box<dyn Store>,
        epoch: Epoch,
        resume_at: u64,
        removed_to: u64,
    ) {
        debug_assert!(self.pending.is_empty());
        self.store = store;
        self.epoch = epoch;
        self.order.resume_at(resume_at);
        self.tombstones.forget_to(removed_to);
        self.streams.begin_behind(removed_to);
        self.streams.lose_all(self.now + self.settings.streams.grace);
        if resume_at > 0 && !self.store.is_elsewhere() {
            self.presence.resume(self.now);
        }
        for (_, channel) in self.channels.iter_mut() {
            let is_first = self.presence.is_first_to_tell(channel.last_seq);
            channel.facts.set(Facts::TELLS_PRESENCE, is_first);
        }
    }

    /// Takes no more events; those it has are committed, then the store ends.
    pub fn close(&mut self) {
        self.say_closing();
        self.store_is_up = false;
        self.store.close();
    }

    /// The log's epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Carries out one request. Events go out before the answer to their publisher.
    pub fn handle(&mut self, request: ToLog, now: Duration, outlet: &mut impl Outlet) {
        self.now = self.now.max(now);
        self.release(outlet);
        match request {
            ToLog::Worker { worker, body } => self.ask(worker, body, outlet),
            ToLog::Store(stored) => self.stored(stored, outlet),
            ToLog::Older(page) => self.answer_older(page, outlet),
            ToLog::Feed(events) => events.into_iter().for_each(|fed| self.follow(fed, outlet)),
        }
        self.join_reached(outlet);
        self.flush();
    }

    /// The store is told once for each request: otherwise the first of many events would be committed,
    /// or sent, alone.
    fn flush(&mut self) {
        if !self.pending.is_empty() || self.sent.take_news() {
            self.store.flush();
        }
    }

    fn ask(&mut self, worker: u16, body: Ask, outlet: &mut impl Outlet) {
        assert!(worker < self.workers, "there is no such worker");
        match body {
            Ask::Join { ticket, channels, cursor, identity } => {
                let join = Join { worker, ticket, channels, cursor, identity };
                self.join_in_time(join, outlet);
            }
            Ask::Read { ticket, channels, bytes_max } => {
                self.read(worker, ticket, &channels, bytes_max, outlet);
            }
            Ask::List { ticket, channel, cursor, bytes_max } => {
                let channels = [self.list_from(&channel, cursor)];
                self.read(worker, ticket, &channels, bytes_max, outlet);
            }
            Ask::Leave(channels) => self.leave(worker, channels),
            Ask::Publish { ticket, share, counts, publications } => {
                let answer = PendingAnswer::new(worker, ticket);
                match self.store.is_elsewhere() {
                    false => self.publish_all(publications, share, answer, outlet),
                    true => self.send_all(publications, share, counts, answer, outlet),
                }
            }
            Ask::Forward { to, letter } => {
                // If it is dropped, the worker that waits for an answer gives up after a time.
                if to < self.workers && outlet.has_room(to, Share::Whole, 0) {
                    outlet.send(to, FromLog::Letter(letter));
                }
            }
            Ask::StreamLost { channel, id, attempt } => self.stream_lost(&channel, &id, attempt),
            Ask::Describe { ticket, channel } => {
                let description = self.describe(&channel);
                outlet.answer(worker, ticket, Answer::Described(description));
            }
            Ask::ListMembers { ticket, channel } => {
                let members = self.members(&channel);
                outlet.answer(worker, ticket, Answer::Members(members));
            }
        }
    }

    /// Does what is due without a request: shows what was committed and had no room, and ages
    /// history as [`Sequencer::expire`] does.
    pub fn tend(&mut self, now: Duration, outlet: &mut impl Outlet) -> Option<Duration> {
        self.release(outlet);
        self.join_reached(outlet);
        if self.is_held_up() {
            return Some(now);
        }
        self.now = self.now.max(now);
        let of_streams = self.tend_streams(outlet);
        let to_merge = self.merge_some().then_some(now);
        let aged = self.expire(now);
        let overdue = self.answer_overdue(outlet);
        let told = self.tell_presence(outlet);
        let of_nodes = self.tend_nodes();
        let of_room = self.make_room();
        self.flush();
        let due = [aged, of_streams, to_merge, overdue, told, of_nodes, of_room];
        due.into_iter().flatten().min()
    }

    /// Makes room where the store has none. Returns when to come again.
    fn make_room(&mut self) -> Option<Duration> {
        let oldest = [self.history.oldest().map(|of| of.seq), self.streams.oldest_seq()];
        let oldest = oldest.into_iter().flatten().min().unwrap_or(self.order.head() + 1);
        let Shortage { lost_before, scarce_before } = self.store.keeps_from(oldest);
        let carries_on = self.carry_some(scarce_before);
        // A value is not lost where it can still be ordered again, however fast the store fills up.
        let value = carries_on.then(|| self.oldest_value_before(lost_before)).flatten();
        if self.lose_before(value.unwrap_or(lost_before)) {
            return Some(self.now);
        }
        let is_urgent = value.is_some() && self.store_is_up;
        let pause = if is_urgent { HURRIED_CARRY_PAUSE } else { CARRY_PAUSE };
        carries_on.then_some(self.now + pause)
    }

    /// Drops at most [`EXPIRED_PER_CALL`] events that are too old. Returns when to call it again:
    /// `None` if nothing ages, `now` if there is more to do.
    pub fn expire(&mut self, now: Duration) -> Option<Duration> {
        self.now = self.now.max(now);
        let mut budget = EXPIRED_PER_CALL;
        let mut wake_at: Option<Duration> = None;
        for policy in 0..self.settings.policies.count() {
            let age = self.settings.policies.at(policy).history_age;
            while let Some(Oldest { newest_at, channel, .. }) = self.history.oldest_under(policy) {
                // An age too long for the clock is never reached.
                let Some(due) = newest_at.checked_add(age) else { break };
                if due > self.now {
                    wake_at = Some(wake_at.map_or(due, |at| at.min(due)));
                    break;
                }
                if budget == 0 {
                    return Some(now);
                }
                budget -= 1;
                self.lose_oldest(channel, Loss::Age);
                self.free_if_idle(channel);
            }
        }
        wake_at
    }

    /// Applies new settings. Channels and events that no longer fit them are dropped at once,
    /// except that channels in use stay, however many there are.
    pub fn apply(&mut self, settings: LogSettings) {
        self.settings = settings;
        let policies = &self.settings.policies;
        for (_, channel) in self.channels.iter_mut() {
            channel.policy = policies.index_of(&channel.name);
        }
        let channels = &self.channels;
        self.history.line_up(policies.shares(), |index| channels.at(index).policy);
        let indices: Vec<u32> = self.channels.iter().map(|(index, _)| index).collect();
        for index in indices {
            self.trim_to_count(index);
            self.free_if_idle(index);
        }
        self.trim_to_bytes();
    }

    /// Drops events before `seq`, for which the store has no room, at most [`EXPIRED_PER_CALL`].
    /// Returns whether there are more.
    fn lose_before(&mut self, seq: u64) -> bool {
        for _ in 0..EXPIRED_PER_CALL {
            let Some(oldest) = self.history.oldest().filter(|oldest| oldest.seq < seq) else {
                return false;
            };
            self.lose_oldest(oldest.channel, Loss::Bytes);
            self.free_if_idle(oldest.channel);
        }
        true
    }

    /// So that a test need not free a quarter of a million channels.
    #[cfg(test)]
    pub(super) fn limit_tombstones(&mut self, count_max: usize) {
        self.tombstones = Tombstones::new(count_max);
    }

    fn publish_all(
        &mut self,
        mut publications: Vec<Publication>,
        share: Share,
        mut answer: PendingAnswer,
        outlet: &mut impl Outlet,
    ) {
        self.publish_each(publications.drain(..), share, &mut answer, outlet);
        if answer.unaccepted.is_empty() && self.pending.is_empty() {
            // Its memory serves the next request, which is soon.
            answer.unaccepted = publications;
        }
        self.answer_publish(answer, outlet);
    }

    /// Publishes them in order, up to the first that is refused.
    fn publish_each(
        &mut self,
        mut publications: impl Iterator<Item = Publication>,
        share: Share,
        answer: &mut PendingAnswer,
        outlet: &mut impl Outlet,
    ) {
        while let Some(publication) = publications.next() {
            let is_part = publication.mark().is_some();
            match self.publish(publication, share, Some(answer.worker), outlet) {
                Ok(accepted) => {
                    answer.accept(&accepted, !self.pending.is_empty());
                    if is_part {
                        answer.outcome.stream = self.streams.at(accepted.channel);
                    }
                }
                Err((refusal, publication)) => {
                    if is_part {
                        answer.outcome.stream = self.stream_at(&publication.channel);
                    }
                    self.counters.refused.count(refusal);
                    return answer.refuse(refusal, publication, publications);
                }
            }
        }
    }

    /// Adds a channel that is unknown, or known only by its tombstone.
    pub(super) fn create(&mut self, hash: u64, name: &str) -> u32 {
        let stone = self.tombstones.unearth(hash);
        let (last_seq, rate) =
            stone.map_or(Default::default(), |stone| (stone.last_seq, stone.rate));
        let evicted_to = if last_seq > 0 { last_seq } else { self.tombstones.forgotten_to() };
        let mut facts = Facts::default();
        facts.set(Facts::TELLS_PRESENCE, self.presence.is_first_to_tell(evicted_to));
        self.channels.insert(Channel {
            name: Arc::new(ChannelName::new(name)),
            hash,
            evicted_to,
            last_seq,
            rate,
            interest: Interest::None,
            chain: Chain::EMPTY,
            pending: 0,
            facts,
            policy: self.settings.policies.index_of(name),
        })
    }

    pub(super) fn free_if_idle(&mut self, index: u32) {
        let is_kept = self.history.runs().first(index).is_some() || self.streams.has(index);
        if self.channels.at(index).is_idle() && !is_kept {
            let channel = self.channels.remove(index);
            // A channel that never had an event lost none that `forgotten_to` does not cover.
            if channel.last_seq > 0 {
                self.tombstones.bury(channel.hash, channel.last_seq, channel.rate);
            }
        }
    }

    pub(super) fn trim_to_count(&mut self, index: u32) {
        let events_max = self.settings.policies.at(self.channels.at(index).policy).events_max();
        while self.history.can_lose(&self.channels.at(index).chain, index, events_max) {
            self.lose_oldest(index, Loss::Count);
        }
    }

    /// Evicts events until the budget holds, by the shares of their policies and then in log order.
    /// Channels that lose their last event are freed.
    pub(super) fn trim_to_bytes(&mut self) {
        self.leave_to_store();
        while self.is_over_budget() && self.lose_oldest_of_all() {}
    }

    /// Returns whether there was one.
    pub(super) fn lose_oldest_of_all(&mut self) -> bool {
        let Some(index) = self.history.channel_to_press() else { return false };
        self.lose_oldest(index, Loss::Bytes);
        self.free_if_idle(index);
        true
    }

    /// The list of events that only the store has may take half of the memory.
    fn is_over_budget(&self) -> bool {
        self.history.bytes() > self.settings.history_bytes_max
            || self.history.in_memory() > EVENTS_MAX
            || self.history.runs().cost() > self.settings.history_memory_bytes_max / 2
    }

    /// Drops the oldest events that memory has no room for; they stay in the store.
    fn leave_to_store(&mut self) {
        while self.history.memory_bytes() > self.settings.history_memory_bytes_max {
            let Some(index) = self.history.oldest_in_memory() else { return };
            let Channel { chain, policy, .. } = self.channels.at_mut(index);
            let keeps = self.settings.policies.at(*policy).keeps;
            self.history.leave_to_store(chain, index, *policy, keeps);
        }
    }

    /// A channel has lost the newest event of all, which has this place, and so all before it.
    pub(super) fn lose_to(&mut self, index: u32, seq: u64) {
        if !self.pending.is_empty() {
            return; // Those before it are to be shown first.
        }
        while self.history.events_of(&self.channels.at(index).chain, index) > 0 {
            self.lose_oldest(index, Loss::Bytes);
        }
        let channel = self.channels.at_mut(index);
        (channel.evicted_to, channel.last_seq) = (seq, seq);
        self.order.show(seq);
        self.free_if_idle(index);
    }

    /// The store can't read what it has of a channel up to a place.
    pub(super) fn lose_unreadable(&mut self, of: &OlderChannel) {
        let Some(index) = self.channels.find(of.hash, &of.name) else { return };
        let first = |log: &Self| log.history.first_seq(&log.channels.at(index).chain, index);
        while first(self).is_some_and(|first| first <= of.lost_to) {
            self.lose_oldest(index, Loss::Bytes);
        }
        self.free_if_idle(index);
    }

    /// The only place where a channel loses events that were kept.
    fn lose_oldest(&mut self, index: u32, loss: Loss) {
        let channel = self.channels.at_mut(index);
        let gone = self.history.lose_oldest(&mut channel.chain, index, channel.policy);
        if let Some(Gone { last_seq, events, event }) = gone {
            channel.evicted_to = last_seq;
            let count = match loss {
                Loss::Count => &mut self.counters.evicted_by_count,
                Loss::Age => &mut self.counters.evicted_by_age,
                Loss::Bytes => &mut self.counters.evicted_by_bytes,
            };
            *count += u64::from(events);
            match event {
                Some(event) => self.keep_of_stream(index, &event),
                None => self.counters.cut_of_streams += self.streams.cut(index, last_seq),
            }
        }
    }
}
