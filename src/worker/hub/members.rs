//! How subscribers enter and leave channels, and change between live and explicit. Each of these
//! has one place here, where it is counted.

use std::sync::Arc;

use super::Hub;
use super::live::Live;
use super::reading::Reading;
use super::replica::{Moved, Replica};
use super::subscriber::{Explicit, Gap, Sub, Subscriber};
use crate::config::ChannelSettings;
use crate::log::message::{GapReason, JoinedChannel, LeaveChannel};
use crate::log::{ChannelName, Keeps};
use crate::proto::cursor::Cursor;
use crate::proto::dialect::Dialect;
use crate::proto::identity::Identity;

impl Hub {
    // --- joining ---

    /// Joins channels that this worker's replicas know all about: either all of them or none. The
    /// log has to hear of a subscriber with an identity where that makes it a member.
    pub fn join_here(
        &mut self,
        index: u32,
        dialect: Dialect,
        names: &[Box<str>],
        cursor: Cursor,
        has_identity: bool,
    ) -> bool {
        let mut stands = std::mem::take(&mut self.stands);
        stands.extend(names.iter().map_while(|name| {
            let replica = self.find(name)?;
            let rule = self.rule_of(replica);
            // A newcomer is given all of a state.
            let is_new = cursor == Cursor::Now && self.is_state(replica);
            if is_new || has_identity && rule.presence {
                return None;
            }
            Some((replica, self.channels[replica].stand(cursor, self.head_seen)?))
        }));
        let here = stands.len() == names.len();
        for (replica, from) in stands.drain(..).filter(|_| here) {
            self.channels[replica].join_here();
            self.enter(index, dialect, replica, from, None, "");
        }
        self.stands = stands;
        here
    }

    /// The replicas of these channels, made where there are none, and kept until the log has
    /// answered their join.
    pub fn hold(&mut self, names: &[Box<str>]) -> Vec<u32> {
        let replicas = names.iter().map(|name| {
            let replica = self.find(name).unwrap_or_else(|| self.make_replica(name));
            self.channels[replica].hold();
            replica
        });
        replicas.collect()
    }

    fn make_replica(&mut self, name: &str) -> u32 {
        let bounds = self.settings.channel_index(name) as u16;
        let hash = self.hasher.channel(name);
        self.channels.insert(Replica::new(Arc::new(ChannelName::new(name)), hash, bounds))
    }

    /// The log has joined channels when `head_seq` was its newest event. `subscriber` comes with
    /// the cursor it gave; `None`: it is gone.
    pub fn joined(
        &mut self,
        subscriber: Option<(u32, Dialect, &str)>,
        identity: Option<&Arc<Identity>>,
        replicas: &[u32],
        head_seq: u64,
        channels: Vec<JoinedChannel>,
    ) {
        debug_assert_eq!(replicas.len(), channels.len());
        self.head_seen = self.head_seen.max(head_seq);
        for (&replica, joined) in replicas.iter().zip(channels) {
            let JoinedChannel { name, after: from, last_seq, gap, is_member } = joined;
            let member = identity.filter(|_| is_member).cloned();
            self.channels[replica].join_at_log(name, head_seq);
            match subscriber {
                Some((index, dialect, after)) => {
                    let nothing_between = gap.is_none() && last_seq <= from;
                    let cursor = if nothing_between { from.max(head_seq) } else { from };
                    self.members.extend(member.map(|member| ((index, replica), member)));
                    self.enter(index, dialect, replica, cursor, gap, after);
                }
                None => self.left(replica, member),
            }
        }
    }

    /// The log refused to join these channels.
    pub fn join_refused(&mut self, replicas: &[u32]) {
        for &replica in replicas {
            self.channels.change(replica, Replica::join_refused);
            self.forget_if_unused(replica);
        }
    }

    /// Makes the subscriber a reader of a channel.
    fn enter(
        &mut self,
        index: u32,
        dialect: Dialect,
        replica: u32,
        cursor: u64,
        gap: Option<GapReason>,
        after: &str,
    ) {
        let asked = Cursor::parse(after.as_bytes(), self.epoch);
        // A client whose dialect cannot tell gaps is closed instead; one that asks for all there is
        // would then never get any of it.
        let untold = asked == Cursor::Earliest && !dialect.tells_gaps();
        let gap = gap.filter(|_| !untold);
        self.count_gap(gap);
        let gap = gap.map(|reason| Box::new(Gap { reason, after: after.into(), first: None }));
        let position = match (&gap, asked) {
            // The oldest event of one channel may be older than that of another.
            (None, Cursor::Earliest | Cursor::Stream(_)) => 0,
            // A newcomer to a state has none of it yet.
            (None, Cursor::Now) if self.is_state(replica) => 0,
            (None, Cursor::After(seq)) => seq,
            (None, _) => cursor,
            (Some(gap), Cursor::After(seq)) if gap.reason == GapReason::Evicted => seq,
            (Some(_), _) => 0,
        };
        let place = self.channels[replica].add_follower(index);
        self.metrics.subscriptions.add(1);
        // With two channels it needs a cursor for each.
        self.make_explicit(index);
        let explicit = self.take_explicit(index, dialect);
        // A newcomer to a state and to other channels has none of the state yet.
        let lacks_all = position == 0 || explicit.position == 0 && !explicit.subs.is_empty();
        explicit.position = match dialect.has_one_cursor() && lacks_all {
            true => 0,
            false => explicit.position.max(position),
        };
        explicit.read_anew();
        explicit.subs.push(Sub { replica, place, cursor, gap });
    }

    fn rule_of(&self, replica: u32) -> &ChannelSettings {
        self.settings.channel_at(usize::from(self.channels[replica].bounds()))
    }

    fn is_state(&self, replica: u32) -> bool {
        self.rule_of(replica).history == Keeps::Latest
    }

    fn count_gap(&self, gap: Option<GapReason>) {
        match gap {
            Some(GapReason::Evicted) => self.metrics.gaps_evicted.add(1),
            Some(GapReason::Epoch) => self.metrics.gaps_epoch.add(1),
            Some(GapReason::Overrun) => self.metrics.gaps_overrun.add(1),
            None => {}
        }
    }

    /// The subscriber's cursors, which it has unless it has no channel yet.
    fn take_explicit(&mut self, index: u32, dialect: Dialect) -> &mut Explicit {
        self.subscribers.reach(index, Subscriber::default);
        let subscriber = &mut self.subscribers[index];
        if matches!(subscriber, Subscriber::None) {
            *subscriber = Subscriber::Explicit(dialect, self.pool.take());
        }
        match subscriber {
            Subscriber::Explicit(_, explicit) => explicit,
            Subscriber::None | Subscriber::Live { .. } => unreachable!("made explicit before"),
        }
    }

    // --- live and explicit ---

    /// Gives a live subscriber a cursor of its own: its socket is about to be sent something else.
    pub fn make_explicit(&mut self, index: u32) {
        if let &Subscriber::Live { replica, place, .. } = self.subscriber(index) {
            let cursor = self.channels[replica].live_cursor(place);
            self.make_explicit_at(index, cursor);
        }
    }

    pub(super) fn make_explicit_at(&mut self, index: u32, cursor: u64) -> Option<&mut Explicit> {
        let &Subscriber::Live { dialect, replica, place } = self.subscriber(index) else {
            return None;
        };
        let moves = self.channels[replica].remove_live(place);
        self.move_live(moves);
        let place = self.channels[replica].add_follower(index);
        self.metrics.live.sub(1);
        self.subscribers[index] = Subscriber::None;
        let explicit = self.take_explicit(index, dialect);
        debug_assert!(explicit.subs.is_empty());
        explicit.subs.push(Sub { replica, place, cursor, gap: None });
        explicit.position = cursor;
        Some(explicit)
    }

    /// Makes a subscriber live if it has one channel, has caught up with it and has nothing half
    /// sent.
    pub fn make_live_if_caught_up(&mut self, index: u32) {
        let &Subscriber::Explicit(dialect, ref explicit) = self.subscriber(index) else { return };
        // It has an end of its own, and what others are sent behind that is not for it.
        if dialect.ends() {
            return;
        }
        let [sub] = explicit.subs.as_slice() else { return };
        let replica = &self.channels[sub.replica];
        let follows = matches!(explicit.reading, Reading::Replicas) && sub.cursor >= replica.base();
        let caught_up = follows && sub.gap.is_none() && replica.is_live_cursor(sub.cursor);
        if caught_up && explicit.rest.is_none() {
            self.make_live(index, dialect);
        }
    }

    fn make_live(&mut self, index: u32, dialect: Dialect) {
        let Some(sub) = self.explicit_mut(index).and_then(|(_, explicit)| explicit.subs.pop())
        else {
            return;
        };
        let replica = sub.replica;
        let moved = self.channels[replica].remove_follower(sub.place);
        self.move_follower(replica, moved);
        let (place, moved) = self.channels[replica].add_live(Live::new(index, dialect));
        let before = std::mem::replace(
            &mut self.subscribers[index],
            Subscriber::Live { dialect, replica, place },
        );
        if let Subscriber::Explicit(_, explicit) = before {
            self.pool.give(explicit);
        }
        self.move_live([moved, None]);
        self.metrics.live.add(1);
        self.trim(replica);
    }

    fn move_live(&mut self, moves: [Option<Moved>; 2]) {
        for moved in moves.into_iter().flatten() {
            if let Subscriber::Live { place, .. } = &mut self.subscribers[moved.slot] {
                *place = moved.index;
            }
        }
    }

    fn move_follower(&mut self, replica: u32, moved: Option<Moved>) {
        let Some(moved) = moved else { return };
        let explicit = self.explicit_mut(moved.slot).map(|(_, explicit)| explicit);
        let mut subs = explicit.into_iter().flat_map(|explicit| &mut explicit.subs);
        let sub = subs.find(|sub| sub.replica == replica);
        debug_assert!(sub.is_some(), "a follower has a subscription");
        if let Some(sub) = sub {
            sub.place = moved.index;
        }
    }

    // --- leaving ---

    /// Takes the subscriber out of all its channels. The rest of a half-sent event stays.
    pub fn leave_all(&mut self, index: u32) {
        if let &Subscriber::Live { replica, place, .. } = self.subscriber(index) {
            let moves = self.channels[replica].remove_live(place);
            self.move_live(moves);
            self.subscribers[index] = Subscriber::None;
            self.metrics.live.sub(1);
            self.metrics.subscriptions.sub(1);
            let member = self.members.remove(&(index, replica));
            return self.left(replica, member);
        }
        if let Some((_, explicit)) = self.explicit_mut(index) {
            explicit.read_anew();
        }
        while let Some(sub) = self.explicit_mut(index).and_then(|(_, explicit)| explicit.subs.pop())
        {
            self.drop_sub(index, sub);
        }
        self.free_idle(index);
    }

    /// Forgets a subscriber whose connection is gone.
    pub fn forget(&mut self, index: u32) {
        self.leave_all(index);
        if let Some((_, explicit)) = self.explicit_mut(index) {
            explicit.rest = None;
        }
        self.free_idle(index);
    }

    /// Takes the subscriber out of one channel; returns whether it was there.
    pub fn leave(&mut self, index: u32, name: &str) -> bool {
        let replica = self.find(name);
        self.make_explicit(index);
        let Some((_, explicit)) = self.explicit_mut(index) else { return false };
        let place = explicit.subs.iter().position(|sub| Some(sub.replica) == replica);
        let Some(place) = place else { return false };
        let sub = explicit.subs.remove(place);
        explicit.read_anew();
        self.drop_sub(index, sub);
        true
    }

    /// Returns what a subscriber without channels does not need to the pool.
    pub fn free_idle(&mut self, index: u32) {
        if self.explicit(index).is_some_and(Explicit::is_idle)
            && let Subscriber::Explicit(_, explicit) = std::mem::take(&mut self.subscribers[index])
        {
            self.pool.give(explicit);
        }
    }

    /// Ends a subscription that was taken out of its subscriber.
    fn drop_sub(&mut self, index: u32, sub: Sub) {
        let moved = self.channels[sub.replica].remove_follower(sub.place);
        self.move_follower(sub.replica, moved);
        self.metrics.subscriptions.sub(1);
        let member = self.members.remove(&(index, sub.replica));
        self.left(sub.replica, member);
    }

    /// A subscriber of this worker left. The log hears of it, if it counts it or if it was a member, at
    /// the end of the turn.
    fn left(&mut self, replica: u32, member: Option<Arc<Identity>>) {
        let of = &mut self.channels[replica];
        let subscribers = u32::from(of.leave());
        if subscribers > 0 || member.is_some() {
            let name = of.name().clone();
            match self.leaves.last_mut() {
                Some(last) if member.is_none() && last.is_more_of(&name) => last.subscribers += 1,
                _ => self.leaves.push(LeaveChannel { name, subscribers, member }),
            }
        }
        self.forget_if_unused(replica);
    }

    fn forget_if_unused(&mut self, replica: u32) {
        if self.channels[replica].is_unused() {
            self.channels.remove(replica);
        } else {
            self.trim(replica);
        }
    }

    /// Whether there are leaves the log has not been told of.
    pub fn has_leaves(&self) -> bool {
        !self.leaves.is_empty()
    }

    /// The leaves to tell the log of.
    pub fn leaves(&mut self) -> &mut Vec<LeaveChannel> {
        &mut self.leaves
    }
}
