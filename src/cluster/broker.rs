//! What a node does at either broker: it finds the stream, reads what it holds, and follows it. All of
//! it runs on one thread, the store's.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::doorbell::Doorbell;
use super::follower::Follower;
use super::metrics::ClusterMetrics;
use super::nats::NatsError;
use super::peers::{Aside, Asked, Heeded, Here, Peers};
use super::redis::RedisError;
use super::{Ended, LogSide, Near, Post, Revocation, Tail, ToBroker, ToNodes};
use crate::log::message::Fed;
use crate::log::older::OlderPage;
use crate::log::store::Stored;
use crate::proto::cursor::Epoch;

/// How long a start waits for a broker before it gives up, and the service manager tries again.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// Reading at a start has failed after this long without progress.
const READ_PAUSE_MAX: Duration = Duration::from_secs(20);

/// Time between two looks at the clock.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Pause before a failed attempt is repeated.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Events given to the log at once: they cost it some hundred microseconds.
pub(super) const FED_AT_ONCE: usize = 1024;

/// A node at its broker.
pub trait Broker: fmt::Debug + Send {
    /// Waits for something to do, for a moment at most, and does it.
    fn turn(&mut self, log: &mut dyn LogSide) -> Flow;

    /// How far it has come; `None` until the stream is found.
    fn follower(&self) -> Option<&Follower>;

    /// Whether it follows the stream, and has all that the stream held when it was found.
    fn begun(&mut self) -> bool;

    fn node(&self) -> &str;

    /// How others than the broker's thread may send, if they may.
    fn shortcut(&self) -> Option<Arc<dyn Shortcut>> {
        None
    }

    /// Why the stream can't be used, if it can't.
    fn take_refusal(&mut self) -> Option<BrokerError>;
}

/// A way to the broker that does without its thread while that sleeps.
pub trait Shortcut: fmt::Debug + Send + Sync {
    /// Sends what is in the lane, if that can be done at once and without waiting; whether nothing is
    /// left for the broker's thread.
    fn send(&self, lane: &Receiver<ToBroker>, now: Duration) -> bool;
}

/// The lane to the broker's thread.
struct Lane<N> {
    to_node: Sender<ToBroker>,
    near: Receiver<ToBroker>,
    bell: Arc<Doorbell>,
    shortcut: Option<Arc<dyn Shortcut>>,
    now: N,
}

impl<N: Fn() -> Duration + Send + Sync> Post for Lane<N> {
    fn put(&self, message: ToBroker) {
        // A thread that is gone has told its server to end.
        let _ = self.to_node.send(message);
    }

    fn flush(&self) {
        let is_sent = |shortcut: &Arc<dyn Shortcut>| {
            self.bell.is_asleep() && shortcut.send(&self.near, (self.now)())
        };
        if !self.shortcut.as_ref().is_some_and(is_sent) {
            self.bell.ring();
        }
    }
}

/// What one turn came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    On,
    /// It has ended, as it was told.
    Closed,
    End(Ended),
}

/// What connects a node at its broker with the rest of the server.
#[derive(Debug)]
pub struct Ends {
    /// Messages of the log and the operator.
    pub near: Receiver<ToBroker>,
    /// Rings when there are any.
    pub bell: Arc<Doorbell>,
    /// Tells the log about the ends of the stream.
    pub tail: Arc<Tail>,
    pub metrics: Arc<ClusterMetrics>,
    /// The nodes that are there, for the operator.
    pub nodes: Nodes,
}

/// The nodes that are there, this one first, as the broker's thread last knew; empty without a broker.
pub type Nodes = Arc<Mutex<Vec<Here>>>;

impl Ends {
    /// Does what other nodes said, and says now and then that this one is here.
    pub fn heed(
        &self,
        peers: &mut Peers,
        follower: Option<&Follower>,
        log: &mut dyn LogSide,
    ) -> Heeded {
        let mut heeded = peers.heed(log);
        if peers.is_here_due(log.now()) {
            let here = self.here(peers, follower, log);
            heeded.say.push(Aside::Here(here));
        }
        heeded
    }

    /// This node, as it and the operator tell of it, beside the others.
    fn here(&self, peers: &mut Peers, follower: Option<&Follower>, log: &dyn LogSide) -> Here {
        let here = Here {
            node: peers.node().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            head: follower.map_or(0, Follower::head),
            connections: log.connections(),
            behind_ms: self.metrics.behind_ms.value(),
        };
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        *nodes = vec![here.clone()];
        nodes.append(&mut peers.others(log.now()));
        here
    }

    /// This node has begun to follow the stream, or has lost it.
    pub fn note_turned(&self, is_up: bool, now: Duration) {
        self.metrics.up.set(u64::from(is_up));
        let since = now.as_millis().max(1) as u64;
        self.metrics.away_since_ms.set(if is_up { 0 } else { since });
        if is_up {
            tracing::info!("this node follows the stream: publishes are taken");
        } else {
            tracing::warn!("this node does not follow the stream: publishes are refused");
            self.tail.note(None);
        }
    }
}

/// Why a node can't begin.
#[derive(Debug)]
pub enum BrokerError {
    /// No server could be used in time.
    Away,
    /// NATS can't be used.
    Nats(NatsError),
    /// Redis can't be used.
    Redis(RedisError),
    /// No descriptor for the thread's bell.
    Bell(io::Error),
    /// The log ended while it was read.
    Ended(Ended),
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away => write!(
                f,
                "no server of the cluster's broker could be used within {} s (the lines above say \
                 why). NATS: is JetStream on (nats-server -js), does it have a leader, and as many \
                 servers as cluster.replicas says? Redis: is one of them a primary?",
                START_TIME_MAX.as_secs()
            ),
            Self::Nats(error) => write!(f, "{error}"),
            Self::Redis(error) => write!(f, "{error}"),
            Self::Bell(error) => write!(f, "a bell for the broker's thread: {error}"),
            Self::Ended(ended) => write!(f, "{ended}"),
        }
    }
}

impl std::error::Error for BrokerError {}

impl From<NatsError> for BrokerError {
    fn from(error: NatsError) -> Self {
        Self::Nats(error)
    }
}

impl From<RedisError> for BrokerError {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

/// A node that has found its stream.
#[derive(Debug)]
pub struct Opened(Box<dyn Broker>);

/// Where a node's log begins.
#[derive(Debug)]
pub struct Beginning {
    /// What the sequencer sees of the broker.
    pub near: Near,
    /// What the operator's listener sees of it.
    pub to_nodes: ToNodes,
    pub epoch: Epoch,
}

/// Connects, and finds or creates the stream. Waits for a broker that is not there yet.
///
/// # Errors
/// See [`BrokerError`].
pub fn open(
    begin: impl FnOnce(Ends) -> Result<Box<dyn Broker>, BrokerError>,
    now: impl Fn() -> Duration + Send + Sync + Copy + 'static,
    metrics: Arc<ClusterMetrics>,
    nodes: Nodes,
) -> Result<(Opened, Beginning), BrokerError> {
    let (to_node, near) = unbounded();
    let bell = Arc::new(Doorbell::new().map_err(BrokerError::Bell)?);
    let tail = Arc::<Tail>::default();
    let ends = Ends { near: near.clone(), bell: bell.clone(), tail: tail.clone(), metrics, nodes };
    let mut broker = begin(ends)?;
    let shortcut = broker.shortcut();
    let post = Arc::new(Lane { to_node, near, bell, shortcut, now });
    let began = now();
    let mut start = Start { now: &now, feed: |_| {}, revoked: Vec::new() };
    let epoch = loop {
        broker.turn(&mut start);
        if let Some(refusal) = broker.take_refusal() {
            return Err(refusal);
        }
        if let Some(follower) = broker.follower() {
            break follower.identity().epoch();
        }
        if now().saturating_sub(began) > START_TIME_MAX {
            return Err(BrokerError::Away);
        }
    };
    let to_nodes = ToNodes::new(broker.node(), post.clone());
    Ok((Opened(broker), Beginning { near: Near::new(post, tail), to_nodes, epoch }))
}

impl Opened {
    /// Reads what the stream holds. Returns the revocations in it. `feed` is given events, and the
    /// place after which the log begins.
    ///
    /// # Errors
    /// The broker went away for too long, or the log ends.
    pub fn catch_up(
        &mut self,
        now: impl Fn() -> Duration,
        mut feed: impl FnMut(u64, Vec<Fed>),
    ) -> Result<Vec<Revocation>, BrokerError> {
        let mut revoked = Vec::new();
        let mut progress = (self.place(), now());
        while !self.0.begun() {
            let mut read = Vec::new();
            let gather = |mut events| read.append(&mut events);
            let mut start = Start { now: &now, feed: gather, revoked: Vec::new() };
            if let Flow::End(ended) = self.0.turn(&mut start) {
                return Err(BrokerError::Ended(ended));
            }
            revoked.append(&mut start.revoked);
            if !read.is_empty() {
                feed(self.place().1, read);
            }
            if self.place() != progress.0 {
                progress = (self.place(), now());
            } else if now().saturating_sub(progress.1) > READ_PAUSE_MAX {
                return Err(BrokerError::Away);
            }
        }
        feed(self.place().1, Vec::new());
        Ok(revoked)
    }

    /// How far it has come, and the place after which its log begins.
    fn place(&self) -> (u64, u64) {
        self.0.follower().map_or((0, 0), |of| (of.head(), of.began_behind()))
    }

    /// Follows the stream until it is told to end, or the log ends.
    pub fn run(mut self, log: &mut dyn LogSide) -> Option<Ended> {
        loop {
            match self.0.turn(log) {
                Flow::On => {}
                Flow::Closed => return None,
                Flow::End(ended) => return Some(ended),
            }
        }
    }
}

/// The log, while the stream is read at a start.
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

    fn subscribers(&mut self, _channel: &str) -> u32 {
        0
    }

    fn connections(&self) -> u64 {
        0
    }

    /// There is no operator's listener yet.
    fn asked(&mut self, _asked: Asked) {}

    fn revoke(&mut self, revocations: &[Revocation]) -> bool {
        self.revoked.extend_from_slice(revocations);
        true
    }
}
