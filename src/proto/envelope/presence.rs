//! Members of channels as JSON: lists, events about changes, and what nodes tell each other.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{EventId, json, write_id, write_reference};
use crate::proto::identity::{Identity, NodeId};

/// The type of events about members that came or went.
pub const PRESENCE_TYPE: &str = "pushline.presence";

/// The type of events by which nodes tell each other about themselves.
pub const NODE_TYPE: &str = "pushline.node";

/// What a node says, by an event of either type.
#[derive(Debug, Deserialize)]
pub struct Said<'a> {
    /// The node that says it.
    pub node: NodeId,
    /// It has just started, and knows nothing of the members of others.
    #[serde(default)]
    pub new: bool,
    /// It has repeated all its members for new nodes.
    #[serde(default)]
    pub all: bool,
    /// It is shutting down.
    #[serde(default)]
    pub closing: bool,
    /// What it said about the channel before is taken back.
    #[serde(default)]
    pub reset: bool,
    /// It has ended. (Another node says so.)
    #[serde(default)]
    pub ended: bool,
    /// The channel, if it is not that of the event.
    #[serde(borrow)]
    pub channel: Option<Cow<'a, str>>,
    /// Members it has.
    #[serde(borrow, default)]
    pub join: Vec<SaidMember<'a>>,
    /// Members it does not have any more.
    #[serde(borrow, default)]
    pub leave: Vec<Cow<'a, str>>,
}

/// A member as an event has it.
#[derive(Debug, Deserialize)]
pub struct SaidMember<'a> {
    #[serde(borrow)]
    subject: Cow<'a, str>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
}

impl<'a> Said<'a> {
    /// Reads the data of an event; `None` if no node wrote it.
    pub fn read(data: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(data).ok()
    }
}

impl SaidMember<'_> {
    /// Who it is.
    pub fn identity(&self) -> Arc<Identity> {
        let info = self.info.map(|info| info.get().into());
        Arc::new(Identity { subject: (*self.subject).into(), info })
    }
}

/// The data of an event by which a node tells the others about itself.
pub fn write_node_says(node: NodeId, what: NodeSays) -> Vec<u8> {
    let flag = match what {
        NodeSays::Alive => "",
        NodeSays::New => ",\"new\":true",
        NodeSays::All => ",\"all\":true",
        NodeSays::Closing => ",\"closing\":true",
    };
    format!("{{\"node\":\"{node}\"{flag}}}").into()
}

/// What a node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeSays {
    /// It is up.
    Alive,
    /// It has just started, and knows nothing of the members of others.
    New,
    /// It has repeated all its members for new nodes.
    All,
    /// It is shutting down.
    Closing,
}

/// The data of an event by which a node repeats members of a channel.
pub fn write_page<'m>(
    node: NodeId,
    channel: &str,
    members: impl Iterator<Item = &'m Identity>,
) -> Vec<u8> {
    let mut out = b"{\"channel\":".to_vec();
    json::write_string(&mut out, channel);
    write_node(&mut out, node);
    out.extend_from_slice(b",\"join\":[");
    for member in members {
        begin_entry(&mut out);
        write_member(&mut out, member);
    }
    out.extend_from_slice(b"]}");
    out
}

/// Members of a channel that came or went, as the data of an event.
#[derive(Debug)]
pub struct Changes {
    join: Vec<u8>,
    leave: Vec<u8>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { join: b"{\"join\":[".to_vec(), leave: b"],\"leave\":[".to_vec() }
    }
}

impl Changes {
    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.join.len() + self.leave.len()
    }

    /// Adds a member that is there.
    pub fn join(&mut self, who: &Identity) {
        begin_entry(&mut self.join);
        write_member(&mut self.join, who);
    }

    /// Adds a member that is not there any more.
    pub fn leave(&mut self, who: &Identity) {
        begin_entry(&mut self.leave);
        json::write_string(&mut self.leave, &who.subject);
    }

    /// The data of the event.
    pub fn finish(self, of: &News) -> Vec<u8> {
        let mut out = self.join;
        out.extend_from_slice(&self.leave);
        out.extend_from_slice(b"],\"count\":");
        out.extend_from_slice(itoa::Buffer::new().format(of.count).as_bytes());
        if let Some(node) = of.node {
            write_node(&mut out, node);
        }
        for (flag, is_set) in [("reset", of.reset), ("ended", of.ended)] {
            if is_set {
                out.extend_from_slice(format!(",\"{flag}\":true").as_bytes());
            }
        }
        out.push(b'}');
        out
    }
}

/// What an event says about a channel's members besides who came and went.
#[derive(Clone, Copy, Debug, Default)]
pub struct News {
    /// How many members the channel has now.
    pub count: u32,
    /// With many nodes, the one whose subscribers they are.
    pub node: Option<NodeId>,
    /// What was said about them (by this node) before is taken back.
    pub reset: bool,
    /// The node has ended. (Another node says so.)
    pub ended: bool,
}

fn write_node(out: &mut Vec<u8>, node: NodeId) {
    out.extend_from_slice(format!(",\"node\":\"{node}\"").as_bytes());
}

/// A member of a channel.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// The nodes it is on, one bit each.
    pub nodes: u16,
}

/// A list of a channel's members.
#[derive(Clone, Copy, Debug)]
pub struct MembersView<'a> {
    /// The channel's name.
    pub channel: &'a str,
    /// The events up to this one are in the list.
    pub id: EventId,
    /// How many members there are.
    pub count: u32,
    /// The members, or some of them.
    pub members: &'a [Listed],
    /// The nodes, each with its bit; empty without other nodes.
    pub nodes: &'a [(u16, NodeId)],
    /// Bytes after which the list is cut off.
    pub bytes_max: usize,
}

/// Appends `{"channel","id","count","members"}` and, where not all members are listed,
/// `"complete":false`.
pub fn write_members(out: &mut Vec<u8>, of: &MembersView<'_>) {
    out.push(b'{');
    write_fields(out, of);
}

/// Appends the same as the answer to an operation.
pub fn write_members_answer(out: &mut Vec<u8>, reference: Option<&str>, of: &MembersView<'_>) {
    write_reference(out, reference);
    out.extend_from_slice(b"\"ok\":true,");
    write_fields(out, of);
}

fn write_fields(out: &mut Vec<u8>, of: &MembersView<'_>) {
    out.extend_from_slice(b"\"channel\":");
    json::write_string(out, of.channel);
    out.extend_from_slice(b",\"id\":");
    write_id(out, of.id);
    out.extend_from_slice(b",\"count\":");
    out.extend_from_slice(itoa::Buffer::new().format(of.count).as_bytes());
    out.extend_from_slice(b",\"members\":[");
    let (from, mut listed) = (out.len(), 0);
    for member in of.members {
        if out.len() - from >= of.bytes_max {
            break;
        }
        begin_entry(out);
        write_listed(out, member, of.nodes);
        listed += 1;
    }
    out.push(b']');
    if listed < of.count {
        out.extend_from_slice(b",\"complete\":false");
    }
    out.push(b'}');
}

fn begin_entry(out: &mut Vec<u8>) {
    if !out.ends_with(b"[") {
        out.push(b',');
    }
}

fn write_listed(out: &mut Vec<u8>, member: &Listed, nodes: &[(u16, NodeId)]) {
    write_member(out, &member.identity);
    if nodes.is_empty() {
        return;
    }
    out.pop();
    out.extend_from_slice(b",\"nodes\":[");
    for (_, node) in nodes.iter().filter(|(bit, _)| member.nodes & bit != 0) {
        begin_entry(out);
        out.extend_from_slice(format!("\"{node}\"").as_bytes());
    }
    out.extend_from_slice(b"]}");
}

fn write_member(out: &mut Vec<u8>, who: &Identity) {
    out.extend_from_slice(b"{\"subject\":");
    json::write_string(out, &who.subject);
    if let Some(info) = &who.info {
        out.extend_from_slice(b",\"info\":");
        json::write_one_line(out, info);
    }
    out.push(b'}');
}
