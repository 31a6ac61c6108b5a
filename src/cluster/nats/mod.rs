//! A node on NATS JetStream: connects, sees to the stream, reads what it holds, and then follows it
//! (`node`). All of it runs on one thread, that of the store.

pub mod api;
mod auth;
mod codec;
mod doorbell;
pub mod examine;
pub mod link;
mod message;
mod node;
mod publish;
mod socket;
mod wire;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::unbounded;
use rustls::ClientConfig;

use self::api::ApiError;
pub use self::api::KEYS_TIME;
use self::doorbell::Doorbell;
use self::node::{Flow, Node};
use super::metrics::ClusterMetrics;
use super::{Ended, LogSide, Near, Revocation, Tail, ToBroker, ToNodes};
use crate::log::message::Fed;
use crate::log::older::OlderPage;
use crate::log::store::Stored;
use crate::proto::cursor::Epoch;

/// How long a start waits for a broker: rather than to end and be started again.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// Without progress for as long, reading at a start has failed.
const READ_PAUSE_MAX: Duration = Duration::from_secs(20);

/// How to reach the broker.
#[derive(Clone, Debug)]
pub struct NatsSettings {
    /// Its servers, as `nats://host:port` or `tls://host:port`.
    pub servers: Vec<String>,
    /// A `.creds` file.
    pub credentials: Option<PathBuf>,
    /// For `tls://`; none: there is no such server.
    pub tls: Option<Arc<ClientConfig>>,
    /// The stream's name.
    pub stream: String,
    /// On how many servers a stream that is created is; none: three where there are as many.
    pub replicas: Option<u64>,
    /// What it keeps.
    pub bytes_max: u64,
    /// For how long.
    pub age_max: Duration,
    /// Unix time minus the log's clock.
    pub clock_began: Duration,
    /// Tells this node from all others.
    pub node: u64,
}

/// Why a node can't begin.
#[derive(Debug)]
pub enum NatsError {
    /// This is no server's address.
    Address(String),
    /// The credentials can't be used.
    Credentials(io::Error),
    /// No server is there, or none has JetStream.
    Away,
    /// JetStream refuses.
    Api(ApiError),
    /// The stream there is can't be used.
    Stream {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// No descriptor for the thread's bell.
    Bell(io::Error),
    /// The log ended while it was read.
    Ended(Ended),
}

impl fmt::Display for NatsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(url) => {
                write!(f, "{url} is no address as nats://10.0.0.1:4222 or tls://nats.internal")
            }
            Self::Credentials(error) => write!(f, "cluster.credentials: {error}"),
            Self::Away => write!(
                f,
                "no server of cluster.nats can be used within {} s (the lines above say why); is \
                 JetStream on (nats-server -js), has it a leader, and as many servers as \
                 cluster.replicas says?",
                START_TIME_MAX.as_secs()
            ),
            Self::Api(error) => {
                write!(f, "JetStream refuses: {error}; does the account have JetStream?")
            }
            Self::Stream { name, why } => write!(
                f,
                "the stream {name} can't be used: {why}; change it (`nats stream edit {name}`), or \
                 name another one in cluster.stream, which is then created"
            ),
            Self::Bell(error) => write!(f, "a bell for the broker's thread: {error}"),
            Self::Ended(ended) => write!(f, "{ended}"),
        }
    }
}

impl std::error::Error for NatsError {}

/// A node that has its stream.
#[derive(Debug)]
pub struct Opened(Node);

/// Where a node's log begins.
#[derive(Debug)]
pub struct Beginning {
    /// What the sequencer sees of the broker.
    pub near: Near,
    /// What the operator's listener sees of it.
    pub to_nodes: ToNodes,
    /// The stream's epoch.
    pub epoch: Epoch,
}

/// Connects and sees to the stream; waits for a broker that is not there yet.
///
/// # Errors
/// See [`NatsError`].
pub fn open(
    settings: &NatsSettings,
    now: impl Fn() -> Duration,
    metrics: Arc<ClusterMetrics>,
) -> Result<(Opened, Beginning), NatsError> {
    let (to_node, from_log) = unbounded();
    let bell = Arc::new(Doorbell::new().map_err(NatsError::Bell)?);
    let tail = Arc::<Tail>::default();
    let inbox = format!("_INBOX.{:016x}", settings.node);
    let mut node =
        Node::new(settings.clone(), inbox, from_log, bell.clone(), tail.clone(), metrics)?;
    let post = Arc::new(move |message: ToBroker| {
        // A thread that is gone has told its server to end.
        let _ = to_node.send(message);
        bell.ring();
    });
    let began = now();
    let mut start = Start { now: &now, feed: |_| {}, revoked: Vec::new() };
    while node.follower().is_none() {
        node.turn(&mut start);
        if let Some(refusal) = node.take_refusal() {
            return Err(refusal);
        }
        if now().saturating_sub(began) > START_TIME_MAX {
            return Err(NatsError::Away);
        }
    }
    let epoch = node.follower().map(|follower| follower.identity().epoch());
    let epoch = epoch.unwrap_or(Epoch::from_random(0));
    let to_nodes = ToNodes::new(post.clone());
    Ok((Opened(node), Beginning { near: Near::new(post, tail), to_nodes, epoch }))
}

impl Opened {
    /// Reads what the stream holds; returns what was revoked. `feed` is also told behind which place
    /// the log begins.
    ///
    /// # Errors
    /// The broker went away for too long, or the log ends.
    pub fn catch_up(
        &mut self,
        now: impl Fn() -> Duration,
        mut feed: impl FnMut(u64, Vec<Fed>),
    ) -> Result<Vec<Revocation>, NatsError> {
        let mut revoked = Vec::new();
        let place =
            |node: &Node| node.follower().map_or((0, 0), |of| (of.head(), of.began_behind()));
        let mut progress = (place(&self.0), now());
        while !self.0.begun() {
            let mut read = Vec::new();
            let feed = |mut events| read.append(&mut events);
            let mut start = Start { now: &now, feed, revoked: Vec::new() };
            if let Flow::End(ended) = self.0.turn(&mut start) {
                return Err(NatsError::Ended(ended));
            }
            revoked.append(&mut start.revoked);
            let (_, behind) = place(&self.0);
            if !read.is_empty() {
                feed(behind, read);
            }
            if place(&self.0) != progress.0 {
                progress = (place(&self.0), now());
            } else if now().saturating_sub(progress.1) > READ_PAUSE_MAX {
                return Err(NatsError::Away);
            }
        }
        feed(place(&self.0).1, Vec::new());
        Ok(revoked)
    }

    /// Follows the stream until it is told to end, or the log ends.
    pub fn run(mut self, log: &mut impl LogSide) -> Option<Ended> {
        loop {
            match self.0.turn(log) {
                Flow::On => {}
                Flow::Closed => return None,
                Flow::End(ended) => return Some(ended),
            }
        }
    }
}

/// The log while it is read.
struct Start<N, F> {
    now: N,
    feed: F,
    revoked: Vec<Revocation>,
}

impl<N: Fn() -> Duration, F: FnMut(Vec<Fed>)> LogSide for Start<N, F> {
    fn now(&self) -> Duration {
        (self.now)()
    }

    fn feed(&mut self, events: Vec<Fed>) -> bool {
        (self.feed)(events);
        false
    }

    fn tell(&mut self, _stored: Stored) -> bool {
        false
    }

    fn hand_out(&mut self, _page: OlderPage) -> bool {
        unreachable!("there are no readers yet")
    }

    fn revoke(&mut self, revocations: &[Revocation]) -> bool {
        self.revoked.extend_from_slice(revocations);
        true
    }
}
