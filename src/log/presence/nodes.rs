//! Members over many nodes. Each node tells of its own subscribers, by its name, and knows those of
//! the others by what they tell: what it knows of them is a function of the log.
//!
//! | event | channel | says |
//! |---|---|---|
//! | `pushline.presence` | the members' | who came to a node, or left it |
//! | `pushline.node` | [`NODES_CHANNEL`] | the node is there; with `new` it knows no one yet |
//! | `pushline.node` with `channel` | [`NODES_CHANNEL`] | members of a node, told again for one that is new |
//! | `pushline.node` with `all` | [`NODES_CHANNEL`] | these were all; until all have said so a new node has no list |
//!
//! A node of which nothing is heard while another one is heard [`SILENT_BEATS`] times has ended. Of
//! those that are left the first by name says so, channel by channel; clients and nodes then forget
//! the members of the one that ended. If it was only slow, it reads that and tells of them again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::publication;
use super::roster::HERE;
use crate::log::event::{Attributes, Event, Publication};
use crate::log::sent::Asker;
use crate::log::sequencer::Sequencer;
use crate::proto::envelope::{
    Changes, NODE_TYPE, News, NodeSays, PRESENCE_TYPE, Said, write_node_says, write_page,
};
use crate::proto::identity::{Identity, NodeId};
use crate::proto::name::channel_name;

/// Where nodes tell of themselves. No client can name it.
pub const NODES_CHANNEL: &str = "#nodes";

/// Beats of a node during which another one may be silent.
const SILENT_BEATS: u8 = 3;

/// Nodes that may have members at one time, this one included: a bit each in every member.
const SEATS: usize = 16;

/// Members in a page, and pages in one call: tens of thousands of members a second.
const PAGE_MEMBERS: usize = 256;
const PAGES_PER_CALL: usize = 4;
const PAGES_PAUSE: Duration = Duration::from_millis(50);

/// What this node has told of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log) enum NodeTold {
    Itself,
    Page,
    All,
}

/// A bit in every member, free or of a node that has or had members.
#[derive(Clone, Copy, Debug, Default)]
struct Seat {
    node: Option<NodeId>,
    channels: u32,
}

/// Another node.
#[derive(Debug)]
struct Peer {
    /// Beats of this node since it was heard of.
    silent: u8,
    heard_at: Duration,
    /// What it tells is all that this node has to know.
    is_known: bool,
}

impl Peer {
    fn has_ended(&self) -> bool {
        self.silent > SILENT_BEATS
    }
}

/// What a node knows of itself and of others.
#[derive(Debug)]
pub(in crate::log) struct Nodes {
    pub own: NodeId,
    lease: Duration,
    beat_at: Duration,
    /// The others know that it is there.
    is_known: bool,
    peers: HashMap<NodeId, Peer>,
    /// Which node has which bit, and on how many channels; the first is this one's.
    seats: [Seat; SEATS],
    /// Channels whose members are to be told again, and those of the first that are.
    again: VecDeque<u32>,
    page: VecDeque<Arc<Identity>>,
    /// Pages on their way.
    pages: u32,
    /// Then it is to say that these were all.
    owes_all: bool,
}

impl Nodes {
    /// `lease`: how long a node of which nothing is heard keeps its members.
    pub fn new(own: NodeId, lease: Duration) -> Self {
        let mut seats = [Seat::default(); SEATS];
        seats[0].node = Some(own);
        Self {
            own,
            lease,
            beat_at: Duration::ZERO,
            is_known: false,
            peers: HashMap::new(),
            seats,
            again: VecDeque::new(),
            page: VecDeque::new(),
            pages: 0,
            owes_all: false,
        }
    }

    /// Whether it has been told of all members of all others.
    pub fn knows_all(&self) -> bool {
        self.is_known && self.peers.values().all(|peer| peer.is_known || peer.has_ended())
    }

    /// Each node that may have members, and its bit.
    pub fn seated(&self) -> Vec<(u16, NodeId)> {
        let seats = self.seats.iter().enumerate();
        seats.filter_map(|(place, seat)| Some((HERE << place, seat.node?))).collect()
    }

    /// The bit of a node, if it has one.
    fn bit(&self, node: NodeId) -> Option<u16> {
        let place = self.seats.iter().position(|seat| seat.node == Some(node))?;
        Some(HERE << place)
    }

    /// The bit of a node that has members; a new one if it has none and one is free.
    fn seat(&mut self, node: NodeId) -> Option<u16> {
        if self.bit(node).is_none() {
            self.seats.iter_mut().find(|seat| seat.node.is_none())?.node = Some(node);
        }
        self.bit(node)
    }

    /// A channel has members of other nodes than before. A node without any gives its bit back.
    pub fn count(&mut self, before: u16, now: u16) {
        for (place, seat) in self.seats.iter_mut().enumerate().skip(1) {
            let bit = HERE << place;
            seat.channels =
                seat.channels + u32::from(now & bit != 0) - u32::from(before & bit != 0);
            seat.node = seat.node.filter(|_| seat.channels > 0);
        }
    }

    /// A node was heard of. One that was not when this one began has told all there is since.
    fn note(&mut self, said: &Said<'_>, now: Duration) {
        let Self { is_known, peers, .. } = self;
        let new = || Peer { silent: 0, heard_at: now, is_known: *is_known };
        let peer = peers.entry(said.node).or_insert_with(new);
        peer.silent = 0;
        peer.heard_at = now;
        peer.is_known |= said.all && *is_known || said.closing;
    }

    /// The others know that this node is there. Those that have ended before do not answer.
    fn note_begun(&mut self, now: Duration) {
        self.is_known = true;
        for peer in self.peers.values_mut() {
            peer.is_known |= peer.heard_at + self.lease < now;
        }
    }

    /// This node was: the others should have been, too. Those that have ended, and whether this is
    /// the node that has to say so.
    fn beat(&mut self) -> (Vec<NodeId>, bool) {
        for peer in self.peers.values_mut() {
            peer.silent = peer.silent.saturating_add(1);
        }
        let (ended, others): (Vec<_>, Vec<_>) =
            self.peers.iter().partition(|(_, peer)| peer.has_ended());
        let is_first = others.iter().all(|(node, _)| self.own < **node);
        (ended.into_iter().map(|(node, _)| *node).collect(), is_first)
    }
}

impl Sequencer {
    /// This log is a node of many from now on.
    pub fn be_node(&mut self, name: NodeId, lease: Duration) {
        self.presence.nodes = Some(Nodes::new(name, lease));
    }

    /// Takes what a node says in an event that is shown.
    pub(in crate::log) fn hear(&mut self, index: u32, event: &Event) {
        let Some(nodes) = &mut self.presence.nodes else { return };
        if !matches!(event.event_type.as_deref(), Some(PRESENCE_TYPE | NODE_TYPE)) {
            return;
        }
        let Some(said) = Said::read(&event.data) else { return };
        let is_own = said.node == nodes.own;
        if !is_own && !said.ended {
            nodes.note(&said, event.ordered_at());
        }
        let is_of_node = event.event_type.as_deref() == Some(NODE_TYPE) && said.channel.is_none();
        let is_beat = is_of_node && !said.all && !said.closing;
        match is_own {
            true if said.ended => self.tell_channel_again(index),
            true if is_beat => self.note_beat(event.ordered_at()),
            true => {}
            false => self.hear_other(index, &said),
        }
    }

    /// This node was taken for one that has ended.
    fn tell_channel_again(&mut self, index: u32) {
        self.change_roster(index, |roster, _| roster.tell_all());
        self.drop_empty_roster(index);
    }

    fn note_beat(&mut self, now: Duration) {
        let Some(nodes) = &mut self.presence.nodes else { return };
        if !nodes.is_known {
            nodes.note_begun(now);
        }
        let (ended, is_first) = nodes.beat();
        for node in ended {
            self.note_end(node, is_first);
        }
    }

    /// A node has ended: where it has members that is to be told, and then it is forgotten.
    fn note_end(&mut self, node: NodeId, is_to_tell: bool) {
        let bit = self.presence.nodes.as_ref().and_then(|nodes| nodes.bit(node)).unwrap_or(0);
        let rosters = self.presence.rosters.iter().filter(|(_, roster)| roster.nodes() & bit != 0);
        let channels: Vec<u32> = rosters.map(|(channel, _)| *channel).collect();
        for channel in channels.iter().filter(|_| is_to_tell) {
            self.presence.change(*channel, |roster, _| roster.ended |= bit);
        }
        if channels.is_empty()
            && let Some(nodes) = &mut self.presence.nodes
        {
            nodes.peers.remove(&node);
        }
    }

    fn hear_other(&mut self, index: u32, said: &Said<'_>) {
        if said.new {
            self.tell_all_again();
        }
        let Some(channel) = self.channel_of(index, said) else { return };
        let Some(nodes) = &mut self.presence.nodes else { return };
        let bit = match said.join.is_empty() {
            true => nodes.bit(said.node),
            false => nodes.seat(said.node),
        };
        // It has no members; or it is one node too many, and those it has are not seen here.
        let Some(bit) = bit else { return };
        self.change_roster(channel, |roster, hasher| {
            if said.reset {
                roster.forget_node(bit);
            }
            for member in &said.join {
                roster.join_elsewhere(bit, &member.identity(), hasher);
            }
            for subject in &said.leave {
                roster.leave_elsewhere(bit, subject, hasher);
            }
            if said.reset || !said.leave.is_empty() {
                roster.settle_nodes();
            }
        });
        // The channel of the event itself is freed when that is kept.
        if self.drop_empty_roster(channel) && channel != index {
            self.free_if_idle(channel);
        }
    }

    /// The channel whose members it is about, if it is about any.
    fn channel_of(&mut self, index: u32, said: &Said<'_>) -> Option<u32> {
        let has_presence = |name: &str| self.settings.policies.of(name).presence;
        let Some(name) = said.channel.as_deref() else {
            let name = &self.channels.at(index).name;
            return (name[..] != *NODES_CHANNEL && has_presence(name)).then_some(index);
        };
        if channel_name(name.as_bytes()).is_err() || !has_presence(name) {
            return None;
        }
        let hash = self.hasher.channel(name);
        let found = self.channels.find(hash, name);
        Some(found.unwrap_or_else(|| self.create_in_room(hash, name)))
    }

    /// The event that says that a node has ended, if one is due on this channel.
    pub(super) fn end_of_node(&mut self, index: u32) -> Option<(Publication, Option<usize>)> {
        let roster = self.presence.rosters.get(&index)?;
        let seated = self.presence.nodes.as_ref()?.seated();
        let (bit, node) = seated.into_iter().find(|(bit, _)| roster.ended & bit != 0)?;
        let count = roster.count_without(bit);
        let news = News { count, node: Some(node), reset: true, ended: true };
        let channel = &self.channels.at(index).name;
        Some((publication(channel, Changes::default().finish(&news)), None))
    }

    // --- what this node tells of itself ---

    /// Beats, and tells of members again where that is due. Returns when to come again.
    pub(in crate::log) fn tend_nodes(&mut self) -> Option<Duration> {
        if !self.settings.policies.have_presence() || !self.can_send_own() {
            return None;
        }
        let (now, nodes) = (self.now, self.presence.nodes.as_mut()?);
        if nodes.beat_at <= now {
            nodes.beat_at = now + nodes.lease / u32::from(SILENT_BEATS);
            let says = if nodes.is_known { NodeSays::Alive } else { NodeSays::New };
            self.say(says, NodeTold::Itself);
        }
        for _ in 0..PAGES_PER_CALL {
            self.send_page();
        }
        self.say_all_if_due();
        let nodes = self.presence.nodes.as_ref()?;
        Some(if nodes.again.is_empty() { nodes.beat_at } else { now + PAGES_PAUSE })
    }

    /// The others need not wait for this node.
    pub(in crate::log) fn say_closing(&mut self) {
        self.say(NodeSays::Closing, NodeTold::Itself);
    }

    fn say(&mut self, what: NodeSays, told: NodeTold) {
        let Some(nodes) = &self.presence.nodes else { return };
        let said = to_nodes(write_node_says(nodes.own, what));
        self.send_own(said, Asker::Node(told));
    }

    fn tell_all_again(&mut self) {
        let Some(nodes) = &mut self.presence.nodes else { return };
        let rosters = self.presence.rosters.iter().filter(|(_, roster)| roster.nodes() & HERE != 0);
        nodes.again = rosters.map(|(channel, _)| *channel).collect();
        nodes.page.clear();
        nodes.owes_all = true;
    }

    fn say_all_if_due(&mut self) {
        let can_send = self.can_send_own();
        let Some(nodes) = self.presence.nodes.as_mut().filter(|_| can_send) else { return };
        if nodes.again.is_empty() && nodes.pages == 0 && std::mem::take(&mut nodes.owes_all) {
            self.say(NodeSays::All, NodeTold::All);
        }
    }

    /// What was told to the others has arrived, or is lost.
    pub(in crate::log) fn node_answered(&mut self, told: NodeTold, is_kept: bool) {
        let Some(nodes) = &mut self.presence.nodes else { return };
        nodes.pages -= u32::from(told == NodeTold::Page);
        match told {
            NodeTold::Page if !is_kept => self.tell_all_again(),
            NodeTold::All if !is_kept => nodes.owes_all = true,
            _ => self.say_all_if_due(),
        }
    }

    /// Tells of the next few members of a channel again.
    fn send_page(&mut self) {
        let can_send = self.can_send_own();
        let Some(nodes) = self.presence.nodes.as_mut().filter(|_| can_send) else { return };
        let Some(&channel) = nodes.again.front() else { return };
        let roster = self.presence.rosters.get(&channel);
        let (Some(roster), Some(of)) = (roster, self.channels.try_at(channel)) else {
            nodes.again.pop_front();
            return nodes.page.clear();
        };
        if nodes.page.is_empty() {
            nodes.page = roster.list_here().into();
        }
        // One that has left meanwhile may have been told to have.
        let members: Vec<_> = nodes.page.drain(..PAGE_MEMBERS.min(nodes.page.len())).collect();
        let hasher = &self.presence.hasher;
        let here = members.iter().filter(|of| roster.has_here(&of.subject, hasher));
        let page = write_page(nodes.own, &of.name, here.map(|of| &**of));
        if nodes.page.is_empty() {
            nodes.again.pop_front();
        }
        nodes.pages += 1;
        self.send_own(to_nodes(page), Asker::Node(NodeTold::Page));
    }
}

/// What nodes tell each other is of no use later.
fn to_nodes(data: Vec<u8>) -> Publication {
    let attributes = Attributes { ephemeral: true, ..Attributes::default() };
    Publication {
        event_type: Some(NODE_TYPE.into()),
        attributes: attributes.boxed(),
        ..publication(NODES_CHANNEL, data)
    }
}
