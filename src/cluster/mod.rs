//! Many nodes, one log: a broker's stream gives events their place, and every node follows it. So any
//! node can resume any client from its cursor.
//!
//! | part | what |
//! |---|---|
//! | [`Near`] | the sequencer's end: publications leave through it |
//! | [`follower`] | how far this node has come, and whether the stream is still the one it follows; sans-IO |
//! | [`broker`] | what both brokers have in common: the start, and the thread that follows |
//! | [`peers`] | what nodes say to each other beside the stream; sans-IO |
//! | [`nats`] | NATS JetStream: the stream's sequence is `seq` |
//! | [`redis`] | Redis or Valkey: a script gives each entry of a stream the next number |
//!
//! A publish goes to the broker and is answered when the broker has it. The event comes back on the
//! stream like those of all other nodes, and only then do subscribers see it. A node whose broker is
//! away refuses publishes but keeps its clients; when the broker is back it goes on where it was.
//!
//! The epoch is derived from the stream's [`Identity`], so all nodes have the same one. A node that
//! finds that the stream has lost events it has shown writes a higher generation into the stream,
//! ends ([`Ended`]), and starts again in the new epoch. The others do the same when they read it.

pub mod broker;
mod doorbell;
pub mod follower;
pub mod metrics;
pub mod nats;
pub mod peers;
mod pipe;
pub mod redis;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::peers::{Answer, Aside, Asked, QUESTION_TIME_MAX, Question};
use crate::log::NODES_CHANNEL;
use crate::log::event::{Event, Publication};
use crate::log::message::{Counts, Fed};
use crate::log::older::{OlderPage, OlderRead};
use crate::log::store::{Shortage, Store, Stored, Taken};
use crate::proto::cursor::Epoch;
use crate::proto::name::channel_name;

/// The log, as the broker's thread sees it. No call waits for long.
pub trait LogSide {
    /// The log's clock.
    fn now(&self) -> Duration;

    /// Hands over events that have their place. Returns whether the log has no room for more for now.
    fn feed(&mut self, events: Vec<Fed>) -> bool;

    /// Reports as the store. Returns whether the log has no room for events for now.
    fn tell(&mut self, stored: Stored) -> bool;

    /// Hands over a page that was asked for. Returns whether the log has no room for events for now.
    fn hand_out(&mut self, page: OlderPage) -> bool;

    /// Subscribers of a channel at this node.
    fn subscribers(&mut self, channel: &str) -> u32;

    /// Connections at this node.
    fn connections(&self) -> u64;

    /// Another node asks something of this one's operator, who answers by [`ToNodes::say`], or is silent.
    fn asked(&mut self, asked: Asked);

    /// Revokes tokens here, too. Returns whether that was possible; if not, it has to be tried again.
    fn revoke(&mut self, revocations: &[Revocation]) -> bool;
}

/// A subject whose tokens are void on every node. It travels on the stream like an event, so that a
/// node that is away or starts later gets it, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// As its tokens name it in `sub`.
    pub subject: String,
    /// Those issued before this second.
    pub before_unix_s: u64,
}

/// The lane to the broker's thread. None of it waits.
pub trait Post: Send + Sync {
    /// Puts something into it, bounded by what the log lets be on its way.
    fn put(&self, message: ToBroker);

    /// All that belongs together is in the lane, which may be sent now.
    fn flush(&self);
}

/// How the operator's listener reaches the other nodes.
#[derive(Clone)]
pub struct ToNodes {
    node: Arc<str>,
    post: Arc<dyn Post>,
}

impl ToNodes {
    /// From this node, by this lane.
    pub fn new(node: &str, post: Arc<dyn Post>) -> Self {
        Self { node: node.into(), post }
    }

    fn send(&self, message: ToBroker) {
        self.post.put(message);
        self.post.flush();
    }

    /// This node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// What another node answers, if it does in time.
    pub fn ask(&self, node: &str, question: Question) -> Option<Answer> {
        let (tell, told) = bounded(1);
        self.send(ToBroker::Ask(node.to_owned(), question, tell));
        told.recv_timeout(QUESTION_TIME_MAX).ok()
    }

    /// Tells all other nodes, or one of them; may get lost.
    pub fn say(&self, aside: Aside) {
        self.send(ToBroker::Say(aside));
    }

    /// Writes it into the stream. Returns whether the stream has it by `deadline`.
    pub fn revoke(&self, revocation: Revocation, deadline: Instant) -> bool {
        let (tell, told) = bounded(1);
        self.send(ToBroker::Revoke(revocation, tell));
        told.recv_deadline(deadline).unwrap_or(false)
    }
}

impl fmt::Debug for ToNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToNodes").finish_non_exhaustive()
    }
}

/// Whether events of the stream may have this channel: one that clients can name, or the nodes' own.
pub(crate) fn is_channel(name: &str) -> bool {
    channel_name(name.as_bytes()).is_ok() || name == NODES_CHANNEL
}

/// What the near end sends.
#[derive(Debug)]
pub enum ToBroker {
    /// A publication, to be answered with this number.
    Publish(u64, Publication, Counts),
    /// A page of what memory has no room for.
    ReadOlder(OlderRead),
    /// To be written into the stream; the sender hears whether it was.
    Revoke(Revocation, Sender<bool>),
    /// To the node of this name, and what it answers.
    Ask(String, Question, Sender<Answer>),
    /// Tell other nodes.
    Say(Aside),
    /// End in order.
    Close,
}

/// The broker, as the sequencer sees it.
pub struct Near {
    post: Arc<dyn Post>,
    tail: Arc<Tail>,
}

impl Near {
    pub fn new(post: Arc<dyn Post>, tail: Arc<Tail>) -> Self {
        Self { post, tail }
    }
}

impl fmt::Debug for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Near").field("tail", &self.tail).finish_non_exhaustive()
    }
}

impl Store for Near {
    fn append(&mut self, _event: &Arc<Event>) -> Taken {
        unreachable!("the order is given by the broker")
    }

    fn flush(&mut self) {
        self.post.flush();
    }

    fn give_up(&mut self) {}

    fn read_older(&mut self, read: OlderRead) {
        self.post.put(ToBroker::ReadOlder(read));
        self.post.flush();
    }

    fn close(&mut self) {
        self.post.put(ToBroker::Close);
        self.post.flush();
    }

    fn is_elsewhere(&self) -> bool {
        true
    }

    fn send(&mut self, number: u64, publication: Publication, counts: Counts) {
        self.post.put(ToBroker::Publish(number, publication, counts));
    }

    fn newest(&self) -> Option<u64> {
        self.tail.newest()
    }

    fn keeps_from(&mut self, seq: u64) -> Shortage {
        self.tail.kept_from.store(seq, Ordering::Relaxed);
        let lost_before = self.tail.first.load(Ordering::Relaxed);
        Shortage { lost_before, ..Shortage::default() }
    }
}

/// What the broker's thread knows of both ends of the stream, for the sequencer.
#[derive(Debug, Default)]
pub struct Tail {
    /// The oldest message, when the broker was last asked.
    first: AtomicU64,
    /// The log's history holds nothing before this.
    kept_from: AtomicU64,
    newest: AtomicU64,
    is_known: AtomicBool,
}

impl Tail {
    /// The newest message of the stream, when the broker was last asked; `None` while it is away.
    pub fn newest(&self) -> Option<u64> {
        self.is_known.load(Ordering::Relaxed).then(|| self.newest.load(Ordering::Relaxed))
    }

    /// The log's history holds nothing before this.
    pub fn kept_from(&self) -> u64 {
        self.kept_from.load(Ordering::Relaxed)
    }

    /// The stream has nothing before this.
    pub fn note_first(&self, first: u64) {
        self.first.fetch_max(first, Ordering::Relaxed);
    }

    /// Notes the newest message; `None`: the broker is away.
    pub fn note(&self, newest: Option<u64>) {
        self.newest.store(newest.unwrap_or(0), Ordering::Relaxed);
        self.is_known.store(newest.is_some(), Ordering::Relaxed);
    }
}

/// What tells a stream from any other. While it stays the same, no place is given twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    /// The time of its creation as the broker gives it, or something else that a new stream of the
    /// same name does not share.
    pub created: String,
    /// How often it is known to have lost events.
    pub generation: u64,
}

impl Identity {
    /// The epoch of ids in it.
    pub fn epoch(&self) -> Epoch {
        let mut hash = Sha256::new();
        for part in [self.name.as_bytes(), self.created.as_bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(self.generation.to_le_bytes());
        let digest = hash.finalize();
        let bits = digest.iter().take(8).fold(0, |bits, &byte| bits << 8 | u64::from(byte));
        Epoch::from_random(bits)
    }
}

/// Why this node can't go on with the log it has. It starts again, and reads what the stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The stream has lost events that this node has shown.
    RolledBack,
    /// Another node found that.
    NewGeneration,
    /// It is another stream of the same name.
    Recreated,
    /// The stream has dropped events before they came here.
    Missed,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RolledBack => {
                "the stream has lost events that were shown: a new epoch begins, and every client \
                 that returns is told of a gap"
            }
            Self::NewGeneration => {
                "another node found that the stream has lost events that were shown: a new epoch \
                 begins, and every client that returns is told of a gap"
            }
            Self::Recreated => {
                "the stream was deleted and created again: a new epoch begins, and every client that \
                 returns is told of a gap"
            }
            Self::Missed => {
                "the stream has dropped events before this node had read them: the log is read again, \
                 and clients that miss some are told of a gap"
            }
        })
    }
}

impl std::error::Error for Ended {}
