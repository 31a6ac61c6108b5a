//! Who is on a channel: the subjects of its subscribers, each once however many connections it has.
//!
//! A member that comes or goes is *untold* until an event of the channel says where it is now:
//! `join` if it is here, `leave` if it is not. So a list of members and the events after its cursor
//! give exact membership, even if members were untold when the list was taken. A member that comes
//! back within the grace has not left, and no event mentions it.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitflags::bitflags;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::bits::Change;
use crate::log::hash::SharedHasher;
use crate::proto::envelope::Listed;
use crate::proto::identity::Identity;

/// A subject that is on a channel, or whose leave is untold.
#[derive(Debug)]
struct Member {
    identity: Arc<Identity>,
    /// How many connections it has. Without any, the end of its grace in milliseconds of the log's
    /// clock, which wraps around.
    connections_or_end: u32,
    /// The nodes it is on, one bit each; [`HERE`] is this one. 0 while its leave is untold.
    nodes: u16,
    flags: Flags,
}

/// The bit of this node.
pub const HERE: u16 = 1;

bitflags! {
    /// Facts about a member.
    #[derive(Clone, Copy, Debug)]
    struct Flags: u8 {
        /// It has connections.
        const CONNECTED = 1 << 0;
        /// It is in [`Members::leaving`].
        const LEAVING = 1 << 1;
        /// It is in [`Members::untold`].
        const UNTOLD = 1 << 2;
    }
}

const _: () = assert!(size_of::<Member>() <= 16, "a channel may have a hundred thousand");

impl Member {
    fn unknown(identity: Arc<Identity>) -> Self {
        Self { identity, connections_or_end: 0, nodes: 0, flags: Flags::empty() }
    }

    fn is_here(&self) -> bool {
        self.nodes & HERE != 0
    }

    /// Whether it can be forgotten.
    fn is_over(&self) -> bool {
        self.nodes == 0 && !self.flags.contains(Flags::UNTOLD)
    }

    fn connections(&self) -> u32 {
        if self.flags.contains(Flags::CONNECTED) { self.connections_or_end } else { 0 }
    }

    /// For a member without a connection: how long it remains one.
    fn grace_left(&self, now: Duration) -> Option<Duration> {
        let left_ms = self.connections_or_end.wrapping_sub(clock_ms(now));
        // More than half of the range is a time in the past.
        let is_ahead = (1..u32::MAX / 2).contains(&left_ms);
        is_ahead.then(|| Duration::from_millis(left_ms.into()))
    }
}

/// The clock in milliseconds, rounded up. It wraps around.
fn clock_ms(at: Duration) -> u32 {
    at.as_nanos().div_ceil(1_000_000) as u32
}

/// A channel's members.
#[derive(Debug, Default)]
pub(in crate::log) struct Members {
    members: HashTable<Member>,
    /// Members that are on any node.
    count: u32,
    /// Nodes that have members. May have nodes too many until [`Self::settle_nodes`].
    nodes: u16,
    /// Nodes that ended while they had members: an event has to say so.
    pub ended: u16,
    untold: VecDeque<Arc<Identity>>,
    /// Members that have lost their last connection, each once, and when to look at each again.
    leaving: BinaryHeap<Reverse<(Duration, Arc<Identity>)>>,
    /// When all that was announced is to be taken back, if it is.
    pub reset_at: Option<Duration>,
    /// The next event takes back all that was announced.
    is_resetting: bool,
    /// An event has been sent to the broker, and no answer has come yet.
    pub is_on_its_way: bool,
    /// The earliest time of the next event.
    pub next_at: Duration,
    /// Its time in the agenda of [`Presence`](super::Presence), if it is there.
    pub on_agenda: Option<Duration>,
}

impl Members {
    /// Members on all nodes.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Members that are not only on this node.
    pub fn count_without(&self, node: u16) -> u32 {
        self.members.iter().filter(|member| member.nodes & !node != 0).count() as u32
    }

    /// Nodes that have members.
    pub fn nodes(&self) -> u16 {
        self.nodes
    }

    /// Whether it can be forgotten.
    pub fn is_empty(&self) -> bool {
        let is_silent = self.reset_at.is_none() && !self.is_resetting && !self.is_on_its_way;
        self.members.is_empty() && is_silent && self.ended == 0
    }

    /// Up to `limit` members.
    pub fn list(&self, limit: usize) -> Vec<Listed> {
        let there = self.members.iter().filter(|member| member.nodes != 0);
        let listed = |of: &Member| Listed { identity: Arc::clone(&of.identity), nodes: of.nodes };
        there.take(limit).map(listed).collect()
    }

    /// The members on this node.
    pub fn list_here(&self) -> Vec<Arc<Identity>> {
        let here = self.members.iter().filter(|member| member.is_here());
        here.map(|member| Arc::clone(&member.identity)).collect()
    }

    /// Whether a subject is a member on this node.
    pub fn has_here(&self, subject: &str, hasher: &SharedHasher) -> bool {
        let same = |of: &Member| *of.identity.subject == *subject;
        self.members.find(hasher.channel(subject), same).is_some_and(Member::is_here)
    }

    /// A connection of this subject has joined. What its token says about it replaces what earlier
    /// ones said.
    pub fn join(&mut self, identity: &Arc<Identity>, hasher: &SharedHasher) {
        let Self { members, count, nodes, untold, .. } = self;
        let member = known_or_new(members, identity, hasher);
        member.connections_or_end = member.connections() + 1;
        member.flags.insert(Flags::CONNECTED);
        let is_told_otherwise = member.identity.info != identity.info;
        let is_news = !member.is_here() || is_told_otherwise;
        *count += u32::from(member.nodes == 0);
        member.nodes |= HERE;
        *nodes |= HERE;
        if is_told_otherwise {
            member.identity = Arc::clone(identity);
        }
        if is_news && member.flags.raise(Flags::UNTOLD) {
            untold.push_back(Arc::clone(identity));
        }
    }

    /// A connection of this subject has left. If it was the last one, the grace ends at `until`.
    pub fn leave(&mut self, identity: &Arc<Identity>, until: Duration, hasher: &SharedHasher) {
        let Entry::Occupied(mut known) = entry(&mut self.members, &identity.subject, hasher) else {
            return;
        };
        let member = known.get_mut();
        if member.connections() > 1 {
            member.connections_or_end -= 1;
            return;
        }
        if !member.flags.take(Flags::CONNECTED) {
            return;
        }
        member.connections_or_end = clock_ms(until);
        // A member that keeps coming and going has one entry, which `expire` puts back.
        if member.flags.raise(Flags::LEAVING) {
            self.leaving.push(Reverse((until, Arc::clone(identity))));
        }
    }

    /// Members whose grace is over have left.
    pub fn expire(&mut self, now: Duration, hasher: &SharedHasher) {
        while let Some(identity) = self.pop_due(now) {
            let Entry::Occupied(mut known) = entry(&mut self.members, &identity.subject, hasher)
            else {
                continue;
            };
            let member = known.get_mut();
            member.flags.remove(Flags::LEAVING);
            if member.flags.contains(Flags::CONNECTED) {
                continue;
            }
            if let Some(left) = member.grace_left(now) {
                member.flags.insert(Flags::LEAVING);
                self.leaving.push(Reverse((now + left, identity)));
                continue;
            }
            member.nodes &= !HERE;
            self.count -= u32::from(member.nodes == 0);
            if member.flags.raise(Flags::UNTOLD) {
                self.untold.push_back(identity);
            }
        }
    }

    /// Another node says that it has this member.
    pub fn join_elsewhere(&mut self, node: u16, identity: &Arc<Identity>, hasher: &SharedHasher) {
        let member = known_or_new(&mut self.members, identity, hasher);
        self.count += u32::from(member.nodes == 0);
        member.nodes |= node;
        self.nodes |= node;
        if !member.is_here() {
            member.identity = Arc::clone(identity);
        }
    }

    /// Another node says that this member has left it.
    pub fn leave_elsewhere(&mut self, node: u16, subject: &str, hasher: &SharedHasher) {
        let Entry::Occupied(mut known) = entry(&mut self.members, subject, hasher) else { return };
        let member = known.get_mut();
        let was_there = member.nodes != 0;
        member.nodes &= !node;
        self.count -= u32::from(was_there && member.nodes == 0);
        if member.is_over() {
            known.remove();
        }
    }

    /// Finds out which nodes have members, after some have left.
    pub fn settle_nodes(&mut self) {
        self.nodes = self.members.iter().fold(0, |nodes, member| nodes | member.nodes);
        self.ended &= self.nodes;
    }

    /// Forgets that another node has members.
    pub fn forget_node(&mut self, node: u16) {
        self.members.retain(|member| {
            member.nodes &= !node;
            !member.is_over()
        });
        let there = self.members.iter().filter(|member| member.nodes != 0);
        self.count = there.count() as u32;
    }

    fn pop_due(&mut self, now: Duration) -> Option<Arc<Identity>> {
        let first = self.leaving.peek_mut().filter(|first| first.0.0 <= now)?;
        let Reverse((_, identity)) = PeekMut::pop(first);
        Some(identity)
    }

    /// At `reset_at`, takes back what was announced.
    pub fn reset_if_due(&mut self, now: Duration) {
        if self.reset_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        self.is_resetting = true;
        self.tell_all();
    }

    /// Makes all members on this node untold, and no others.
    pub fn tell_all(&mut self) {
        let untold = &mut self.untold;
        untold.clear();
        self.members.retain(|member| {
            member.flags.set(Flags::UNTOLD, member.is_here());
            if member.is_here() {
                untold.push_back(Arc::clone(&member.identity));
            }
            !member.is_over()
        });
    }

    /// Whether the next event takes back all that was announced.
    pub fn is_resetting(&self) -> bool {
        self.is_resetting
    }

    /// Whether there is something to announce.
    pub fn has_news(&self) -> bool {
        self.is_resetting || !self.untold.is_empty() || self.ended != 0
    }

    /// When there is something to do: an event may be sent, or a grace ends.
    pub fn due_at(&self) -> Option<Duration> {
        let news = self.has_news().then_some(self.next_at);
        let reset = self.reset_at.map(|at| at.max(self.next_at));
        let told = news.into_iter().chain(reset).filter(|_| !self.is_on_its_way);
        let leaves = self.leaving.peek().map(|Reverse((at, _))| *at);
        told.chain(leaves).min()
    }

    /// Untold members, longest waiting first, and whether each is on this node.
    pub fn news(&self, hasher: &SharedHasher) -> impl Iterator<Item = (&Identity, bool)> {
        self.untold.iter().filter_map(|identity| {
            let hash = hasher.channel(&identity.subject);
            let member = self.members.find(hash, |of| of.identity.subject == identity.subject)?;
            Some((&*member.identity, member.is_here()))
        })
    }

    /// The first `count` of [`Self::news`] have been announced.
    pub fn told(&mut self, count: usize, hasher: &SharedHasher) {
        self.is_resetting = false;
        for identity in self.untold.drain(..count) {
            let Entry::Occupied(mut known) = entry(&mut self.members, &identity.subject, hasher)
            else {
                continue;
            };
            known.get_mut().flags.remove(Flags::UNTOLD);
            if known.get().is_over() {
                known.remove();
            }
        }
        if self.untold.is_empty() {
            self.untold = VecDeque::new();
        }
    }

    /// Memory of the members, without the identities, which their connections hold anyway.
    #[cfg(test)]
    pub fn held_bytes(&self) -> usize {
        let untold = self.untold.capacity() * size_of::<Arc<Identity>>();
        self.members.allocation_size() + untold
    }

    /// Panics if the parts contradict each other.
    pub fn check_invariants(&self) {
        let count = |holds: fn(&Member) -> bool| self.members.iter().filter(|of| holds(of)).count();
        assert_eq!(count(|of| of.nodes != 0), self.count as usize);
        assert_eq!(count(|of| of.flags.contains(Flags::UNTOLD)), self.untold.len());
        assert_eq!(count(Member::is_over), 0);
        assert_eq!(
            count(|of| !of.is_here()
                && (of.flags.contains(Flags::CONNECTED) || of.flags.contains(Flags::LEAVING))),
            0
        );
        assert_eq!(
            count(|of| of.is_here()
                && !of.flags.contains(Flags::CONNECTED)
                && !of.flags.contains(Flags::LEAVING)),
            0
        );
        assert_eq!(
            count(|of| of.flags.contains(Flags::LEAVING)),
            self.leaving.len(),
            "a grace ends by itself"
        );
        assert!(self.members.iter().all(|of| of.nodes & !self.nodes == 0));
    }
}

fn known_or_new<'m>(
    members: &'m mut HashTable<Member>,
    identity: &Arc<Identity>,
    hasher: &SharedHasher,
) -> &'m mut Member {
    match entry(members, &identity.subject, hasher) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(free) => free.insert(Member::unknown(Arc::clone(identity))).into_mut(),
    }
}

fn entry<'m>(
    members: &'m mut HashTable<Member>,
    subject: &str,
    hasher: &SharedHasher,
) -> Entry<'m, Member> {
    let same = |other: &Member| *other.identity.subject == *subject;
    let hash_of = |member: &Member| hasher.channel(&member.identity.subject);
    members.entry(hasher.channel(subject), same, hash_of)
}
