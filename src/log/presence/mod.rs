//! Presence: who is on each channel that asks for it, and the events that announce changes.
//!
//! A channel announces changes in at most one event a second. The event names only as many members
//! as [`NAMES_TOLD_PER_SECOND`] allows for all its subscribers together. If a hundred thousand join
//! at once, the list has them from the start, and events announce them little by little.
//!
//! An announcement can turn out to be wrong: an earlier process announced members that are not here,
//! or the store lost the event. Then an event with `reset` takes back all of them and starts again.

pub(super) mod members;
mod nodes;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use self::members::Members;
pub use self::nodes::NODES_CHANNEL;
pub(super) use self::nodes::NodeTold;
use self::nodes::Nodes;
use super::channel::Facts;
use super::event::{Event, Kind, Publication};
use super::hash::SharedHasher;
use super::message::{MemberList, NoMembers, Share};
use super::sent::Asker;
use super::sequencer::{Outlet, Sequencer};
use crate::bits::Change;
use crate::proto::envelope::{Changes, News, PRESENCE_TYPE};
use crate::proto::identity::Identity;

/// Shortest time between two events about a channel's members.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Of the members that have changed, an event names at least this many, and at most that many.
const NAMES_PER_EVENT: (u32, u32) = (8, 256);

/// Names a second that a channel sends to all its subscribers together, unless the least an event
/// names is more.
const NAMES_TOLD_PER_SECOND: u32 = 1_000_000;

/// Bytes of an event's data after which it names no further member.
const TOLD_BYTES: usize = 16 * 1024;

/// Channels looked after in one call: each may cost an event, 20 microseconds at most.
const CHANNELS_PER_CALL: usize = 100;

/// Most members in a list: copying it takes the log a fraction of a millisecond.
pub const LISTED_MAX: usize = 10_000;

/// The members of all channels that have any, by the channels' indices.
#[derive(Debug)]
pub(super) struct Presence {
    by_channel: HashMap<u32, Members>,
    /// The channels that have something to do, by when.
    agenda: BTreeSet<(Duration, u32)>,
    hasher: SharedHasher,
    /// When this process took over the log of an earlier one, if it did.
    resumed_at: Option<Duration>,
    /// How many there are on all channels together.
    count: u64,
    /// `None` unless this is a node of many.
    pub nodes: Option<Nodes>,
}

impl Presence {
    pub fn new(hasher: SharedHasher) -> Self {
        Self {
            by_channel: HashMap::new(),
            agenda: BTreeSet::new(),
            hasher,
            resumed_at: None,
            count: 0,
            nodes: None,
        }
    }

    /// An earlier process may have announced members.
    pub fn resume(&mut self, now: Duration) {
        self.resumed_at = Some(now);
    }

    /// Whether no members of a channel can have been announced before, if the channel may have lost
    /// events up to `evicted_to`.
    pub fn is_first_to_tell(&self, evicted_to: u64) -> bool {
        self.resumed_at.is_none() || evicted_to == 0
    }

    /// Members of all channels together.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Changes a channel's members, who may be its first.
    fn change(&mut self, channel: u32, change: impl FnOnce(&mut Members, &SharedHasher)) {
        let members = self.by_channel.entry(channel).or_default();
        let (before, nodes_before) = (members.count(), members.nodes());
        change(members, &self.hasher);
        self.count = self.count + u64::from(members.count()) - u64::from(before);
        if let Some(nodes) = self.nodes.as_mut().filter(|_| members.nodes() != nodes_before) {
            nodes.count(nodes_before, members.nodes());
        }
        let due = members.due_at();
        if members.on_agenda == due {
            return;
        }
        if let Some(at) = std::mem::replace(&mut members.on_agenda, due) {
            self.agenda.remove(&(at, channel));
        }
        self.agenda.extend(due.map(|at| (at, channel)));
    }

    /// A connection has left. If it was the member's last one, its grace ends at `until`.
    pub fn leave(&mut self, channel: u32, identity: &Arc<Identity>, until: Duration) {
        if self.by_channel.contains_key(&channel) {
            self.change(channel, |members, hasher| members.leave(identity, until, hasher));
        }
    }

    /// The next channel that has something to do by now.
    fn next_due(&self, now: Duration) -> Option<u32> {
        self.agenda.first().filter(|(at, _)| *at <= now).map(|(_, channel)| *channel)
    }

    pub fn check_invariants(&self, mut note: impl FnMut(u32)) {
        for (channel, members) in &self.by_channel {
            members.check_invariants();
            assert_eq!(members.on_agenda, members.due_at());
            note(*channel);
        }
        let on_agenda = self.by_channel.values().filter(|members| members.on_agenda.is_some());
        assert_eq!(on_agenda.count(), self.agenda.len());
        let count = self.by_channel.values().map(|members| u64::from(members.count())).sum::<u64>();
        assert_eq!(self.count, count);
    }
}

impl Sequencer {
    /// Called for each subscriber that joins. Returns whether it is now a member.
    pub(super) fn become_member(&mut self, index: u32, who: Option<&Arc<Identity>>) -> bool {
        let channel = self.channels.at_mut(index);
        if !self.settings.policies.at(channel.policy).presence {
            return false;
        }
        if channel.facts.raise(Facts::TELLS_PRESENCE) {
            // Members from before have the grace to come back.
            let resumed_at = self.presence.resumed_at.unwrap_or_default();
            self.reset_presence(index, resumed_at + self.settings.presence_grace);
        }
        if let Some(who) = who {
            self.change_members(index, |members, hasher| members.join(who, hasher));
        }
        who.is_some()
    }

    /// Changes a channel's members, who may be its first.
    fn change_members(&mut self, index: u32, change: impl FnOnce(&mut Members, &SharedHasher)) {
        self.channels.at_mut(index).facts.insert(Facts::HAS_MEMBERS);
        self.presence.change(index, change);
    }

    /// From this time on, the channel's next event takes back what was announced of its members.
    fn reset_presence(&mut self, index: u32, at: Duration) {
        let at = at.max(self.now);
        self.change_members(index, |members, _| members.reset_at = Some(at));
    }

    /// The store has lost an event.
    pub(super) fn note_lost(&mut self, index: u32, event: &Event) {
        if event.event_type.as_deref() == Some(PRESENCE_TYPE) {
            self.reset_presence(index, self.now);
        }
    }

    /// Announces members that came and went, a few channels at a time. Returns when to call again.
    pub(super) fn tell_presence(&mut self, outlet: &mut impl Outlet) -> Option<Duration> {
        if !self.store_is_up {
            return None;
        }
        for _ in 0..CHANNELS_PER_CALL {
            let Some(channel) = self.presence.next_due(self.now) else { break };
            self.look_after(channel, outlet);
        }
        self.presence.agenda.first().map(|(at, _)| *at)
    }

    fn look_after(&mut self, index: u32, outlet: &mut impl Outlet) {
        let now = self.now;
        let mut may_tell = false;
        self.presence.change(index, |members, hasher| {
            members.expire(now, hasher);
            may_tell = members.next_at <= now && !members.is_on_its_way;
            if may_tell {
                members.reset_if_due(now);
            }
        });
        if may_tell {
            self.tell_channel(index, outlet);
        }
        if self.forget_if_empty(index) {
            self.free_if_idle(index);
        }
    }

    /// Returns whether the channel had no members, and none to tell of.
    fn forget_if_empty(&mut self, index: u32) -> bool {
        let is_empty = self.presence.by_channel.get(&index).is_some_and(Members::is_empty);
        if is_empty {
            self.presence.change(index, |members, _| members.settle_nodes());
            self.presence.by_channel.remove(&index);
            self.channels.at_mut(index).facts.remove(Facts::HAS_MEMBERS);
        }
        is_empty
    }

    fn tell_channel(&mut self, index: u32, outlet: &mut impl Outlet) {
        let ended = self.end_of_node(index);
        let Some((publication, told)) = ended.or_else(|| self.news_of(index)) else { return };
        // If it is refused, the same changes are announced later.
        let is_told = match self.store.is_elsewhere() {
            false => self.publish(publication, Share::Half, None, outlet).is_ok(),
            true => self.send_own(publication, Asker::Presence(index)),
        };
        let is_on_its_way = is_told && self.store.is_elsewhere();
        let next_at = self.now + TOLD_EVERY;
        self.presence.change(index, |members, hasher| {
            members.next_at = next_at;
            members.is_on_its_way = is_on_its_way;
            if let Some(count) = told.filter(|_| is_told) {
                members.told(count, hasher);
            }
        });
    }

    /// Whether the broker took an event that was sent to it.
    pub(super) fn presence_answered(&mut self, index: u32, is_kept: bool) {
        let now = self.now;
        self.presence.change(index, |members, _| {
            members.is_on_its_way = false;
            if !is_kept {
                members.reset_at = Some(now);
            }
        });
        if self.forget_if_empty(index) {
            self.free_if_idle(index);
        }
    }

    /// The event that announces the next few changes, and how many it announces; `None` if there are
    /// none.
    fn news_of(&self, index: u32) -> Option<(Publication, Option<usize>)> {
        let members = self.presence.by_channel.get(&index).filter(|members| members.has_news())?;
        let channel = self.channels.at(index);
        let (least, most) = NAMES_PER_EVENT;
        let names = (NAMES_TOLD_PER_SECOND / channel.subscribers().max(1)).clamp(least, most);
        let (mut changes, mut told) = (Changes::default(), 0);
        for (identity, is_here) in members.news(&self.presence.hasher).take(names as usize) {
            match is_here {
                true => changes.join(identity),
                false => changes.leave(identity),
            }
            told += 1;
            if changes.bytes() >= TOLD_BYTES {
                break;
            }
        }
        let news = News {
            count: members.count(),
            node: self.presence.nodes.as_ref().map(|nodes| nodes.own),
            reset: members.is_resetting(),
            ended: false,
        };
        Some((publication(&channel.name, changes.finish(&news)), Some(told)))
    }

    /// The members of a channel.
    pub(super) fn members(&self, name: &str) -> Result<MemberList, NoMembers> {
        if !self.settings.policies.of(name).presence {
            return Err(NoMembers::Off);
        }
        if self.presence.nodes.as_ref().is_some_and(|nodes| !nodes.knows_all()) {
            return Err(NoMembers::Behind);
        }
        let found = self.channels.find(self.hasher.channel(name), name);
        let members = found.and_then(|index| self.presence.by_channel.get(&index));
        let (count, listed) =
            members.map_or_else(Default::default, |of| (of.count(), of.list(LISTED_MAX)));
        let nodes = self.presence.nodes.as_ref().map_or_else(Vec::new, Nodes::seated);
        Ok(MemberList { head_seq: self.order.head(), count, listed, nodes })
    }
}

/// An event about a channel's members.
fn publication(channel: &str, data: Vec<u8>) -> Publication {
    Publication {
        channel: channel.into(),
        kind: Kind::Json,
        data: data.into(),
        event_type: Some(PRESENCE_TYPE.into()),
        key: None,
        attributes: None,
    }
}
