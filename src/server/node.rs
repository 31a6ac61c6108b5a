//! A node of many: its log is the broker's stream, which the store's thread follows.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use rustls::ClientConfig;

use super::store_threads::Reports;
use super::{ServerError, random};
use crate::cluster::broker::{self, Nodes};
use crate::cluster::metrics::ClusterMetrics;
use crate::cluster::nats::{self, NatsSettings};
use crate::cluster::peers::Asked;
use crate::cluster::redis::{self, RedisSettings};
use crate::cluster::{LogSide, Revocation, ToNodes};
use crate::config::{ClusterSettings, Settings};
use crate::log::Sequencer;
use crate::log::message::{Fed, ToLog};
use crate::log::older::OlderPage;
use crate::log::restore::Nowhere;
use crate::log::store::Stored;
use crate::proto::identity::NodeId;
use crate::ring::{monotonic_now, unix_now};
use crate::tools::wire::tls::Trust;
use crate::worker::connection_count::ConnectionCount;

/// JetStream takes no shorter age.
const AGE_MIN: Duration = Duration::from_secs(1);

/// A node that has read its stream.
#[derive(Debug)]
pub(super) struct Opened {
    stream: broker::Opened,
    to_nodes: ToNodes,
    /// What the stream says was revoked.
    revoked: Vec<Revocation>,
}

/// Revokes tokens on this node. Returns whether that was possible.
pub(super) type Revoke = Box<dyn Fn(&[Revocation]) -> bool + Send>;

/// What this server does for other nodes.
pub(super) struct ForNodes {
    pub revoke: Revoke,
    /// Takes what they ask of its operator.
    pub asked: Sender<Asked>,
    pub connections: Arc<ConnectionCount>,
}

impl Opened {
    /// Finds the stream, and reads it into an empty log.
    pub fn new(
        settings: &Settings,
        metrics: &Arc<ClusterMetrics>,
        nodes: &Nodes,
        log: &mut Sequencer,
    ) -> Result<Self, ServerError> {
        let (mut opened, beginning) = match settings.cluster.redis.is_empty() {
            true => {
                let nats = nats_settings(settings)?;
                let begin = |ends| nats::begin(&nats, ends);
                broker::open(begin, monotonic_now, metrics.clone(), nodes.clone())?
            }
            false => {
                let redis = redis_settings(settings)?;
                let begin = |ends| redis::begin(&redis, ends);
                broker::open(begin, monotonic_now, metrics.clone(), nodes.clone())?
            }
        };
        log.be_node(NodeId(random()? as u32), settings.cluster.lease);
        let (mut near, mut events) = (Some(beginning.near), 0);
        let revoked = opened.catch_up(monotonic_now, |behind, fed| {
            if let Some(near) = near.take() {
                log.move_to(Box::new(near), beginning.epoch, behind, behind);
            }
            events += fed.len();
            log.handle(ToLog::Feed(fed), monotonic_now(), &mut Nowhere);
        })?;
        tracing::info!(events, stream = %settings.cluster.stream, "the stream was read");
        Ok(Self { stream: opened, to_nodes: beginning.to_nodes, revoked })
    }

    /// How the operator's listener reaches the other nodes.
    pub fn to_nodes(&self) -> ToNodes {
        self.to_nodes.clone()
    }

    /// Revokes here what the stream says was revoked, before the workers let anyone in.
    pub fn revoke(&self, server: &ForNodes) {
        if !self.revoked.is_empty() {
            (server.revoke)(&self.revoked);
        }
    }

    /// Follows it, until it is told to end or the log ends.
    pub fn follow(self, to_log: Reports, server: ForNodes) -> io::Result<()> {
        match self.stream.run(&mut Side { to_log, server }) {
            None => Ok(()),
            Some(ended) => Err(io::Error::other(ended)),
        }
    }
}

struct Side {
    to_log: Reports,
    server: ForNodes,
}

impl LogSide for Side {
    fn now(&self) -> Duration {
        monotonic_now()
    }

    fn feed(&mut self, events: Vec<Fed>) -> bool {
        self.to_log.tell_first(ToLog::Feed(events))
    }

    fn tell(&mut self, stored: Stored) -> bool {
        self.to_log.tell_first(ToLog::Store(stored))
    }

    fn hand_out(&mut self, page: OlderPage) -> bool {
        self.to_log.tell_first(ToLog::Older(page))
    }

    fn subscribers(&mut self, channel: &str) -> u32 {
        self.to_log.subscribers(channel)
    }

    fn connections(&self) -> u64 {
        self.server.connections.open()
    }

    fn asked(&mut self, asked: Asked) {
        // One too many is not answered, as if this node were silent.
        let _ = self.server.asked.try_send(asked);
    }

    fn revoke(&mut self, revocations: &[Revocation]) -> bool {
        (self.server.revoke)(revocations)
    }
}

/// The configuration for TLS to the broker's servers, if any of them is reached by TLS.
fn trust(cluster: &ClusterSettings) -> Result<Option<Arc<ClientConfig>>, ServerError> {
    let mut urls = cluster.nats.iter().chain(&cluster.redis);
    if !urls.any(|url| url.starts_with("tls://") || url.starts_with("rediss://")) {
        return Ok(None);
    }
    let trust = Trust { ca: cluster.ca.clone(), insecure: false };
    trust.config().map(Some).map_err(|error| ServerError::io("cluster.ca", io::Error::other(error)))
}

fn redis_settings(settings: &Settings) -> Result<RedisSettings, ServerError> {
    let cluster = &settings.cluster;
    Ok(RedisSettings {
        servers: cluster.redis.clone(),
        tls: trust(cluster)?,
        stream: cluster.stream.clone(),
        clock_began: unix_now().saturating_sub(monotonic_now()),
        node: random()?,
    })
}

fn nats_settings(settings: &Settings) -> Result<NatsSettings, ServerError> {
    let cluster = &settings.cluster;
    let ages = settings.channels.iter().map(|(_, of)| of.history_age);
    let age_max = ages.chain([settings.channel_default.history_age]).max();
    Ok(NatsSettings {
        servers: cluster.nats.clone(),
        credentials: cluster.credentials.clone(),
        tls: trust(cluster)?,
        stream: cluster.stream.clone(),
        replicas: cluster.replicas,
        bytes_max: settings.history_bytes,
        age_max: age_max.unwrap_or_default().max(AGE_MIN),
        event_bytes_max: settings.event_bytes_max,
        clock_began: unix_now().saturating_sub(monotonic_now()),
        node: random()?,
    })
}
