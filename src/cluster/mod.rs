//! Many nodes, one log: a broker's stream gives events their place, every node follows it, and so any
//! node can go on with any client's cursor.
//!
//! | part | what |
//! |---|---|
//! | [`Near`] | what the sequencer sees: publications leave by it |
//! | [`follower`] | how far this node has come, and whether the stream is still the one it follows; sans-IO |
//! | [`broker`] | what is the same at any broker: a start, and a thread that follows |
//! | [`peers`] | what nodes say to each other beside the stream; sans-IO |
//! | [`nats`] | NATS JetStream: the stream's sequence is `seq` |
//! | [`redis`] | Redis or Valkey: a script gives each entry of a stream the next number |
//!
//! A publish goes to the broker and is answered when the broker has it. The event comes back on the
//! stream like those of all other nodes, and only then it is seen. A node whose broker is away refuses
//! publishes and keeps its streams; when the broker is back it goes on where it was.
//!
//! The epoch is made of what the stream is ([`Identity`]), so all nodes have the same one. When a node
//! finds that the stream went back behind what it has shown, it writes a higher generation into the
//! stream, ends ([`Ended`]), and starts again in the new epoch, as all others do when they read it.

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

use crate::log::NODES_CHANNEL;
use crate::log::event::{Event, Publication};
use crate::log::message::{Counts, Fed};
use crate::log::older::{OlderPage, OlderRead};
use crate::log::store::{Store, Stored, Taken};
use crate::proto::cursor::Epoch;
use crate::proto::name::channel_name;

/// What the log is to the broker's thread. None of it waits for long.
pub trait LogSide {
    /// The log's clock.
    fn now(&self) -> Duration;

    /// Events that have their place; whether the log has no room for more for now.
    fn feed(&mut self, events: Vec<Fed>) -> bool;

    /// The store reports; whether the log has no room for events for now.
    fn tell(&mut self, stored: Stored) -> bool;

    /// A page that was asked for; whether the log has no room for events for now.
    fn hand_out(&mut self, page: OlderPage) -> bool;

    /// Subscribers of a channel at this node.
    fn subscribers(&mut self, channel: &str) -> u32;

    /// Connections at this node.
    fn connections(&self) -> u64;

    /// Nodes have revoked tokens; whether that could be done here, or has to be told again.
    fn revoke(&mut self, revocations: &[Revocation]) -> bool;
}

/// A subject whose tokens are void, on every node: it goes by the stream like an event, so that a node
/// that is away, or starts later, has it, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Whose.
    pub subject: String,
    /// Those issued before this second.
    pub before_unix_s: u64,
}

/// A way for the operator's listener to the other nodes.
#[derive(Clone)]
pub struct ToNodes {
    post: Arc<dyn Fn(ToBroker) + Send + Sync>,
}

impl ToNodes {
    /// With what takes messages to the broker's thread, and must not wait.
    pub fn new(post: Arc<dyn Fn(ToBroker) + Send + Sync>) -> Self {
        Self { post }
    }

    /// Whether the stream has it, within this time.
    pub fn revoke(&self, revocation: Revocation, deadline: Instant) -> bool {
        let (tell, told) = bounded(1);
        (self.post)(ToBroker::Revoke(revocation, tell));
        told.recv_deadline(deadline).unwrap_or(false)
    }
}

impl fmt::Debug for ToNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToNodes").finish_non_exhaustive()
    }
}

/// Whether events of the stream may be of this channel: of a client's, or the nodes' own.
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
    /// To all nodes, and whether the stream has it.
    Revoke(Revocation, Sender<bool>),
    /// End in order.
    Close,
}

/// The near end of the way to the broker: what the sequencer sees.
pub struct Near {
    /// Bounded by what the log lets be on its way.
    post: Arc<dyn Fn(ToBroker) + Send + Sync>,
    tail: Arc<Tail>,
}

impl Near {
    /// With what takes messages to the broker's thread, and must not wait.
    pub fn new(post: Arc<dyn Fn(ToBroker) + Send + Sync>, tail: Arc<Tail>) -> Self {
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

    fn give_up(&mut self) {}

    fn read_older(&mut self, read: OlderRead) {
        (self.post)(ToBroker::ReadOlder(read));
    }

    fn close(&mut self) {
        (self.post)(ToBroker::Close);
    }

    fn is_elsewhere(&self) -> bool {
        true
    }

    fn send(&mut self, number: u64, publication: Publication, counts: Counts) {
        (self.post)(ToBroker::Publish(number, publication, counts));
    }

    fn newest(&self) -> Option<u64> {
        self.tail.newest()
    }

    fn keeps_from(&mut self, seq: u64) -> u64 {
        self.tail.kept_from.store(seq, Ordering::Relaxed);
        self.tail.first.load(Ordering::Relaxed)
    }
}

/// What the broker's thread knows of the stream's end.
#[derive(Debug, Default)]
pub struct Tail {
    /// The oldest message, when last heard of.
    first: AtomicU64,
    /// The log's history holds nothing before this.
    kept_from: AtomicU64,
    newest: AtomicU64,
    is_known: AtomicBool,
}

impl Tail {
    /// The newest message of the stream, when it was last asked for; none: the broker is away.
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

    /// The broker said so; none: it is away.
    pub fn note(&self, newest: Option<u64>) {
        self.newest.store(newest.unwrap_or(0), Ordering::Relaxed);
        self.is_known.store(newest.is_some(), Ordering::Relaxed);
    }
}

/// What makes a stream the one it is. While it stays the same, no place is given twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// When it was created, as the broker says it, or what else changes when it begins again.
    pub created: String,
    /// How often it is known to have gone back.
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

/// Why this node can't go on with the log it has. It starts again, and reads what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The stream went back: what this node has shown is not in it any more.
    RolledBack,
    /// Another node has seen that.
    NewGeneration,
    /// It is another stream of the same name.
    Recreated,
    /// The stream has let go of events that have not come here.
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
                "the stream has let go of events that have not come here: the log is read again, and \
                 clients that miss some are told of a gap"
            }
        })
    }
}

impl std::error::Error for Ended {}
