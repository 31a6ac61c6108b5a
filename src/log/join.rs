//! Joins and leaves: which worker reads which channel, from where, and who its subscribers are.

use std::sync::Arc;

use super::message::{Answer, GapReason, JoinedChannel, LeaveChannel, Refusal, Ticket};
use super::policy::Keeps;
use super::sequencer::{Outlet, Sequencer};
use crate::proto::cursor::Cursor;
use crate::proto::identity::Identity;

/// A worker's request for a subscriber, as [`Ask::Join`](super::message::Ask::Join) has it.
#[derive(Debug)]
pub(super) struct Join {
    pub worker: u16,
    pub ticket: Ticket,
    pub channels: Vec<Box<str>>,
    pub cursor: Cursor,
    pub identity: Option<Arc<Identity>>,
}

impl Sequencer {
    pub(super) fn answer_join(&mut self, join: Join, outlet: &mut impl Outlet) {
        let (worker, ticket) = (join.worker, join.ticket);
        let answer = match self.join(join) {
            Ok(channels) => Answer::Joined { head_seq: self.order.head(), channels },
            Err(refusal) => Answer::JoinRefused(refusal),
        };
        outlet.answer(worker, ticket, answer);
    }

    fn join(&mut self, join: Join) -> Result<Vec<JoinedChannel>, Refusal> {
        if !self.has_room_for(&join.channels) {
            self.expire(self.now);
            if !self.has_room_for(&join.channels) {
                self.counters.refused.count(Refusal::Channels);
                return Err(Refusal::Channels);
            }
        }
        join.channels.iter().map(|name| self.join_one(&join, name)).collect()
    }

    /// Refuses only a reader of a stream, who joins nothing else.
    fn join_one(&mut self, join: &Join, name: &str) -> Result<JoinedChannel, Refusal> {
        let hash = self.hasher.channel(name);
        let found = self.channels.find(hash, name);
        let cursor = self.resolve(found, join.cursor)?;
        let index = found.unwrap_or_else(|| self.create(hash, name));
        let is_member = self.become_member(index, join.identity.as_ref());
        let channel = self.channels.at_mut(index);
        channel.interest.join(join.worker);
        let lost_to = self.streams.lost_to(index, channel.evicted_to);
        let policy = self.settings.policies.at(channel.policy);
        let (after, gap) = match (cursor, policy.keeps) {
            // A newcomer to a state has lost nothing: it never had any of it.
            (Cursor::Now, Keeps::Latest) => (lost_to, None),
            _ => stand(cursor, self.order.head(), lost_to),
        };
        let last_seq = channel.last_seq;
        self.counters.replays += u64::from(last_seq > after);
        self.counters.gaps += u64::from(gap.is_some());
        let name = channel.name.clone();
        Ok(JoinedChannel { name, after, last_seq, gap, is_member })
    }

    fn has_room_for(&self, wanted: &[Box<str>]) -> bool {
        let room = self.settings.channels_max.saturating_sub(self.channels.len());
        let is_missing = |name: &str| self.channels.find(self.hasher.channel(name), name).is_none();
        let missing = || wanted.iter().filter(|name| is_missing(name)).count();
        wanted.len() <= room || missing() <= room
    }

    pub(super) fn leave(&mut self, worker: u16, channels: Vec<LeaveChannel>) {
        for left in channels {
            let found = self.channels.find(self.hasher.channel(&left.name), &left.name);
            debug_assert!(found.is_some(), "worker {worker} left what it had not joined");
            let Some(index) = found else { continue };
            self.channels.at_mut(index).interest.leave(worker, left.subscribers);
            if let Some(identity) = &left.member {
                let until = self.now + self.settings.presence_grace;
                self.presence.leave(index, identity, until);
            }
            self.free_if_idle(index);
        }
    }
}

/// Where a subscriber with this cursor starts, and whether it may have lost events on the way
/// there.
pub(super) fn stand(cursor: Cursor, head_seq: u64, evicted_to: u64) -> (u64, Option<GapReason>) {
    match cursor {
        // Where its stream begins is settled before.
        Cursor::Now | Cursor::Stream(_) => (head_seq, None),
        Cursor::Earliest => (evicted_to, (evicted_to > 0).then_some(GapReason::Evicted)),
        Cursor::Foreign => (evicted_to, Some(GapReason::Epoch)),
        Cursor::After(seq) if seq > head_seq => (evicted_to, Some(GapReason::Epoch)),
        Cursor::After(seq) if seq < evicted_to => (evicted_to, Some(GapReason::Evicted)),
        Cursor::After(seq) => (seq, None),
    }
}
