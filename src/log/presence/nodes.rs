//! Members over many nodes. Each node announces its own subscribers under its name, and learns those
//! of the others from their announcements: what it knows of them is a function of the log.
//!
//! | event | channel | says |
//! |---|---|---|
//! | `pushline.presence` | the members' | who came to a node, or left it |
//! | `pushline.node` | [`NODES_CHANNEL`] | the node is up (a beat); with `new` it knows no members yet |
//! | `pushline.node` with `channel` | [`NODES_CHANNEL`] | a page: members of a node, repeated for a new one |
//! | `pushline.node` with `all` | [`NODES_CHANNEL`] | the pages are complete; a new node gives no list until all nodes have said so |
//! | `pushline.node` with `closing` | [`NODES_CHANNEL`] | the node is shutting down |
//!
//! A node that is silent during [`SILENT_BEATS`] beats of another one counts as ended. Of the nodes
//! that are left, the first by name says so on each channel with members of the ended one; clients
//! and nodes then forget these. If it was only slow, it reads that and announces its members again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::members::HERE;
use super::publication;
use crate::log::event::{Attributes, Event, Publication};
use crate::log::sent::Asker;
use crate::log::sequencer::Sequencer;
use crate::proto::envelope::{
    Changes, NODE_TYPE, News, NodeSays, PRESENCE_TYPE, Said, write_node_says, write_page,
};
use crate::proto::identity::{Identity, NodeId};
use crate::proto::name::channel_name;

/// Where nodes announce themselves. Clients cannot name it.
pub const NODES_CHANNEL: &str = "#nodes";

/// How many beats of one node another may miss before it counts as ended.
const SILENT_BEATS: u8 = 3;

/// Nodes that may have members at one time, this one included: a bit each in every member.
const SEATS: usize = 16;

/// Members in a page. With [`PAGES_PER_CALL`] and [`PAGES_PAUSE`], 20,000 members a second.
const PAGE_MEMBERS: usize = 256;
const PAGES_PER_CALL: usize = 4;
const PAGES_PAUSE: Duration = Duration::from_millis(50);

/// What this node has announced of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log) enum NodeTold {
    Itself,
    Page,
    All,
}

/// One bit of [`Listed::nodes`](crate::proto::envelope::Listed): free, or of a node with members.
#[derive(Clone, Copy, Debug, Default)]
struct Seat {
    node: Option<NodeId>,
    channels: u32,
}

/// Another node.
#[derive(Debug)]
struct Peer {
    /// Beats of this node since that one was last heard.
    silent: u8,
    heard_at: Duration,
    /// This node knows all its members.
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
    /// Its first beat has come back: the others have heard it, too.
    is_known: bool,
    peers: HashMap<NodeId, Peer>,
    /// Which node has which bit, and on how many channels; the first is this one's.
    seats: [Seat; SEATS],
    /// Channels whose members are to be repeated.
    again: VecDeque<u32>,
    /// Those of the first such channel that remain.
    page: VecDeque<Arc<Identity>>,
    /// Pages that have not been answered yet.
    pages: u32,
    /// After the last page, `all` is to be said.
    owes_all: bool,
}

impl Nodes {
    /// `lease`: how long a silent node keeps its members.
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

    /// Whether it knows the members of all other nodes.
    pub fn knows_all(&self) -> bool {
        self.is_known && self.peers.values().all(|peer| peer.is_known || peer.has_ended())
    }

    /// The nodes that have a bit, with it.
    pub fn seated(&self) -> Vec<(u16, NodeId)> {
        let seats = self.seats.iter().enumerate();
        seats.filter_map(|(place, seat)| Some((HERE << place, seat.node?))).collect()
    }

    /// The bit of a node, if it has one.
    fn bit(&self, node: NodeId) -> Option<u16> {
        let place = self.seats.iter().position(|seat| seat.node == Some(node))?;
        Some(HERE << place)
    }

    /// The bit of a node. One that has none is given one if any is free.
    fn seat(&mut self, node: NodeId) -> Option<u16> {
        if self.bit(node).is_none() {
            self.seats.iter_mut().find(|seat| seat.node.is_none())?.node = Some(node);
        }
        self.bit(node)
    }

    /// The nodes that have members on a channel have changed. A node without any gives its bit back.
    pub fn count(&mut self, before: u16, now: u16) {
        for (place, seat) in self.seats.iter_mut().enumerate().skip(1) {
            let bit = HERE << place;
            seat.channels =
                seat.channels + u32::from(now & bit != 0) - u32::from(before & bit != 0);
            seat.node = seat.node.filter(|_| seat.channels > 0);
        }
    }

    /// Another node was heard. If that is for the first time and this one was up already, it is new,
    /// and this one has heard all it said.
    fn note(&mut self, said: &Said<'_>, now: Duration) {
        let Self { is_known, peers, .. } = self;
        let new = || Peer { silent: 0, heard_at: now, is_known: *is_known };
        let peer = peers.entry(said.node).or_insert_with(new);
        peer.silent = 0;
        peer.heard_at = now;
        peer.is_known |= said.all && *is_known || said.closing;
    }

    /// The others have heard this node. It expects nothing from those that had ended before.
    fn note_begun(&mut self, now: Duration) {
        self.is_known = true;
        for peer in self.peers.values_mut() {
            peer.is_known |= peer.heard_at + self.lease < now;
        }
    }

    /// Counts a beat of this node. Returns the nodes that have ended, and whether this is the one
    /// that has to say so.
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
    /// Makes this log the one of a node of many.
    pub fn be_node(&mut self, name: NodeId, lease: Duration) {
        self.presence.nodes = Some(Nodes::new(name, lease));
    }

    /// A producer of a token stream is at this node: it is there.
    pub(in crate::log) fn note_home(&mut self, node: NodeId) {
        let now = self.now;
        let Some(nodes) = self.presence.nodes.as_mut().filter(|nodes| nodes.own != node) else {
            return;
        };
        let new = Peer { silent: 0, heard_at: now, is_known: nodes.is_known };
        nodes.peers.entry(node).or_insert(new).silent = 0;
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

    /// Another node took this one for ended.
    fn tell_channel_again(&mut self, index: u32) {
        self.change_members(index, |members, _| members.tell_all());
        self.forget_if_empty(index);
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

    /// A node has ended. Once its members are forgotten on all channels, so is it.
    fn note_end(&mut self, node: NodeId, is_to_tell: bool) {
        let bit = self.presence.nodes.as_ref().and_then(|nodes| nodes.bit(node)).unwrap_or(0);
        let of_node =
            self.presence.by_channel.iter().filter(|(_, members)| members.nodes() & bit != 0);
        let channels: Vec<u32> = of_node.map(|(channel, _)| *channel).collect();
        if is_to_tell {
            self.lose_home(node);
        }
        for channel in channels.iter().filter(|_| is_to_tell) {
            self.presence.change(*channel, |members, _| members.ended |= bit);
        }
        if channels.is_empty()
            && !self.streams.has_home(node)
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
        // It has no members, or all bits are taken and its members are not seen here.
        let Some(bit) = bit else { return };
        self.change_members(channel, |members, hasher| {
            if said.reset {
                members.forget_node(bit);
            }
            for member in &said.join {
                members.join_elsewhere(bit, &member.identity(), hasher);
            }
            for subject in &said.leave {
                members.leave_elsewhere(bit, subject, hasher);
            }
            if said.reset || !said.leave.is_empty() {
                members.settle_nodes();
            }
        });
        // The event's own channel is freed after the event has been kept.
        if self.forget_if_empty(channel) && channel != index {
            self.free_if_idle(channel);
        }
    }

    /// The channel whose members the event is about, if it is about members.
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

    /// The event that says that a node has ended, if this channel has to say so.
    pub(super) fn end_of_node(&mut self, index: u32) -> Option<(Publication, Option<usize>)> {
        let members = self.presence.by_channel.get(&index)?;
        let seated = self.presence.nodes.as_ref()?.seated();
        let (bit, node) = seated.into_iter().find(|(bit, _)| members.ended & bit != 0)?;
        let count = members.count_without(bit);
        let news = News { count, node: Some(node), reset: true, ended: true };
        let channel = &self.channels.at(index).name;
        Some((publication(channel, Changes::default().finish(&news)), None))
    }

    // --- what this node says of itself ---

    /// Beats, and repeats members for new nodes. Returns when to call again.
    pub(in crate::log) fn tend_nodes(&mut self) -> Option<Duration> {
        let is_needed = self.settings.policies.have_presence() || self.streams.open() > 0;
        if !is_needed || !self.can_send_own() {
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

    /// Tells the others not to wait for this node.
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
        let of_node =
            self.presence.by_channel.iter().filter(|(_, members)| members.nodes() & HERE != 0);
        nodes.again = of_node.map(|(channel, _)| *channel).collect();
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

    /// What was said to the others has arrived, or is lost.
    pub(in crate::log) fn node_answered(&mut self, told: NodeTold, is_kept: bool) {
        let Some(nodes) = &mut self.presence.nodes else { return };
        nodes.pages -= u32::from(told == NodeTold::Page);
        match told {
            NodeTold::Page if !is_kept => self.tell_all_again(),
            NodeTold::All if !is_kept => nodes.owes_all = true,
            _ => self.say_all_if_due(),
        }
    }

    /// Repeats the next few members of a channel.
    fn send_page(&mut self) {
        let can_send = self.can_send_own();
        let Some(nodes) = self.presence.nodes.as_mut().filter(|_| can_send) else { return };
        let Some(&channel) = nodes.again.front() else { return };
        let members = self.presence.by_channel.get(&channel);
        let (Some(members), Some(of)) = (members, self.channels.try_at(channel)) else {
            nodes.again.pop_front();
            return nodes.page.clear();
        };
        if nodes.page.is_empty() {
            nodes.page = members.list_here().into();
        }
        // The leave of a member that has left since may have been announced already.
        let listed: Vec<_> = nodes.page.drain(..PAGE_MEMBERS.min(nodes.page.len())).collect();
        let hasher = &self.presence.hasher;
        let here = listed.iter().filter(|of| members.has_here(&of.subject, hasher));
        let page = write_page(nodes.own, &of.name, here.map(|of| &**of));
        if nodes.page.is_empty() {
            nodes.again.pop_front();
        }
        nodes.pages += 1;
        self.send_own(to_nodes(page), Asker::Node(NodeTold::Page));
    }
}

/// An event for other nodes. It is of no use later, so it is not kept.
fn to_nodes(data: Vec<u8>) -> Publication {
    let attributes = Attributes { ephemeral: true, ..Attributes::default() };
    Publication {
        event_type: Some(NODE_TYPE.into()),
        attributes: attributes.boxed(),
        ..publication(NODES_CHANNEL, data)
    }
}
