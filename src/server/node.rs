//! A node of many: its log is the broker's stream, which the store's thread follows.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::store::Nowhere;
use super::store_threads::Reports;
use super::{ServerError, random};
use crate::cluster::LogSide;
use crate::cluster::metrics::ClusterMetrics;
use crate::cluster::nats::{self, NatsSettings};
use crate::config::Settings;
use crate::log::Sequencer;
use crate::log::message::{Fed, ToLog};
use crate::log::store::Stored;
use crate::ring::monotonic_now;

/// JetStream takes no shorter age.
const AGE_MIN: Duration = Duration::from_secs(1);

/// A node that has read its stream.
#[derive(Debug)]
pub(super) struct Opened(nats::Opened);

impl Opened {
    /// Finds the stream, and reads it into an empty log.
    pub fn new(
        settings: &Settings,
        metrics: &Arc<ClusterMetrics>,
        log: &mut Sequencer,
    ) -> Result<Self, ServerError> {
        let nats = nats_settings(settings)?;
        let (mut opened, beginning) = nats::open(&nats, monotonic_now, metrics.clone())?;
        let (mut near, mut events) = (Some(beginning.near), 0);
        opened.catch_up(monotonic_now, |behind, fed| {
            if let Some(near) = near.take() {
                log.move_to(Box::new(near), beginning.epoch, behind, behind);
            }
            events += fed.len();
            log.handle(ToLog::Feed(fed), monotonic_now(), &mut Nowhere);
        })?;
        tracing::info!(events, stream = %nats.stream, "the stream was read");
        Ok(Self(opened))
    }

    /// Follows it, until it is told to end or the log ends.
    pub fn follow(self, to_log: Reports) -> io::Result<()> {
        match self.0.run(&mut Side(to_log)) {
            None => Ok(()),
            Some(ended) => Err(io::Error::other(ended)),
        }
    }
}

struct Side(Reports);

impl LogSide for Side {
    fn now(&self) -> Duration {
        monotonic_now()
    }

    fn feed(&mut self, events: Vec<Fed>) -> bool {
        self.0.tell_first(ToLog::Feed(events))
    }

    fn tell(&mut self, stored: Stored) -> bool {
        self.0.tell_first(ToLog::Store(stored))
    }
}

fn nats_settings(settings: &Settings) -> Result<NatsSettings, ServerError> {
    let cluster = &settings.cluster;
    let ages = settings.channels.iter().map(|(_, of)| of.history_age);
    let age_max = ages.chain([settings.channel_default.history_age]).max();
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(NatsSettings {
        servers: cluster.nats.clone(),
        credentials: cluster.credentials.clone(),
        stream: cluster.stream.clone(),
        replicas: cluster.replicas,
        bytes_max: settings.history_bytes,
        age_max: age_max.unwrap_or_default().max(AGE_MIN),
        clock_began: unix.saturating_sub(monotonic_now()),
        node: random()?,
    })
}
