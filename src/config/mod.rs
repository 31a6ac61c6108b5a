//! The operator's settings.
//!
//! [`Settings`] is what the server runs with. `define` has every key once: its name, its bounds,
//! its help, and whether it can change while the server runs. The file's schema, the environment
//! variables, the options of the command line and `pushline config default` are all derived from
//! it. An option overrides the environment, which overrides the file, which overrides the default.
//! The file is the one named by `--config`, otherwise by `PUSHLINE_CONFIG`, otherwise the first of
//! [`DEFAULT_FILES`].

mod access;
mod bounds;
mod define;
mod error;
mod file;
mod keys;
mod load;
mod suggest;
mod template;
mod units;
mod values;
mod words;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::journal::writer::Durability;
use crate::limits::{JSON_GROWTH_MAX, REPLICA_EVENTS_MIN};
use crate::log::policy::{Keeps, LogSettings, POLICIES_MAX, Policies, Policy};
use crate::log::stream::StreamTimes;
use crate::proto::name::{Pattern, first_match};
use crate::proto::path_map::PathMap;

pub use error::{ConfigError, ConfigErrors, Fault, Place};
pub use keys::{Change, KEYS, Key};
pub use load::{
    Config, DEFAULT_FILES, Sources, check_text, default_file, load, misspelt_variables,
};
pub use template::template;
pub use words::{
    ClientAddress, DriverWanted, LogFormat, LogLevel, PublisherShown, SlowPolicy, Steer, TlsVersion,
};

/// What applies to the channels of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSettings {
    /// Most events that history keeps of the channel.
    pub history_count: u32,
    /// Longest time an event is kept.
    pub history_age: Duration,
    /// What happens to slow readers.
    pub slow: SlowPolicy,
    /// Events a second; `None`: no limit.
    pub publish_rate: Option<u32>,
    /// Bytes of history that the channels of the pattern keep together even when others need room.
    pub history_share: u64,
    /// Which events are kept.
    pub history: Keeps,
    /// Whether its subscribers may know of each other.
    pub presence: bool,
    /// What its events say about their publishers.
    pub publisher: PublisherShown,
    /// Bytes of a stream that are kept beside what history keeps of it.
    pub stream_bytes: u64,
    /// How large the events may be that the text of a stream becomes when it has ended; 0: it stays
    /// as it is.
    pub stream_compact: u64,
}

impl ChannelSettings {
    /// Most events a worker holds for slow readers: as many as history, so that a reader that is a
    /// little behind need not ask the log.
    pub(crate) fn replica_events_max(&self) -> usize {
        (self.history_count as usize).max(REPLICA_EVENTS_MIN)
    }
}

/// Which log lines are written, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogLines {
    /// The form of the lines.
    pub format: LogFormat,
    /// How serious lines must be.
    pub level: LogLevel,
    /// Whether each request has a line.
    pub access: bool,
}

/// The broker whose stream is the log of many nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// NATS servers. If these and `redis` are empty, there is no other node.
    pub nats: Vec<String>,
    /// Redis servers, of which one is the primary.
    pub redis: Vec<String>,
    /// The name of the broker's stream that all nodes follow.
    pub stream: String,
    /// On how many servers a new stream is kept; `None`: on three if there are as many.
    pub replicas: Option<u64>,
    /// A file of NATS credentials.
    pub credentials: Option<PathBuf>,
    /// Authorities that sign the brokers' certificates; `None`: those the host trusts.
    pub ca: Option<PathBuf>,
    /// How long a node may be away or behind and still count as ready.
    pub unready_after: Duration,
    /// How long a silent node keeps its members.
    pub lease: Duration,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            nats: Vec::new(),
            redis: Vec::new(),
            stream: "PUSHLINE".to_owned(),
            replicas: None,
            credentials: None,
            ca: None,
            unready_after: Duration::from_secs(10),
            // Longer than a broker takes to elect a leader.
            lease: Duration::from_secs(15),
        }
    }
}

/// How TLS is spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM files, each with a chain of certificates; their keys are in `keys`.
    pub certificates: Vec<PathBuf>,
    /// Their keys, in the same order.
    pub keys: Vec<PathBuf>,
    /// Older versions of TLS are refused.
    pub min_version: TlsVersion,
    /// Where the secret of tickets is; none: a random one.
    pub ticket_key_file: Option<PathBuf>,
    /// Whether a GET without TLS is sent to the same place with it.
    pub redirect: bool,
}

/// What an operator can set, with defaults for the rest.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address for clients.
    pub listen: SocketAddr,
    /// Where clients connect with TLS; none: nowhere.
    pub listen_tls: Option<SocketAddr>,
    /// How it is spoken.
    pub tls: TlsSettings,
    /// The address for the operator.
    pub admin: SocketAddr,
    /// The file with the operator's key; `None`: no key is needed.
    pub admin_key_file: Option<PathBuf>,
    /// Whether there are demos; `None`: if the server listens on loopback.
    pub demo: Option<bool>,
    /// Threads that own connections; `None`: one per core.
    pub workers: Option<u16>,
    /// Cores the workers are pinned to, in turn; `None`: not pinned.
    pub cpus: Option<Vec<usize>>,
    /// The kernel interface the workers use.
    pub driver: DriverWanted,
    /// What applies to channels that no pattern matches.
    pub channel_default: ChannelSettings,
    /// What applies to channels by pattern; the first match wins.
    pub channels: Vec<(Pattern, ChannelSettings)>,
    /// Bytes that the history of all channels together may take; older events make room for new ones.
    pub history_bytes: u64,
    /// Bytes of its newest part that are in memory, where a store keeps the rest.
    pub history_memory_bytes: u64,
    /// The journal's folder; `None`: the log is in memory.
    pub data_dir: Option<PathBuf>,
    /// How safe an event must be before it is seen, with a journal.
    pub durability: Durability,
    /// Whether to use a damaged journal without what cannot be read. Not a key: it is meant for a
    /// single start.
    pub accept_loss: bool,
    /// The broker; without one this is the only node.
    pub cluster: ClusterSettings,
    /// Bytes a worker holds for the slow readers of one channel.
    pub replica_bytes: usize,
    /// The same for all its channels together.
    pub worker_replica_bytes: usize,
    /// Bytes of unfinished input a worker holds.
    pub worker_input_bytes: usize,
    /// Events that may wait in a worker's lane.
    pub lane_events: usize,
    /// How often an idle stream gets a heartbeat.
    pub heartbeat: Duration,
    /// Most connections; `None`: as many as descriptors allow.
    pub connections_max: Option<u64>,
    /// Most connections of one client address; `None`: no limit.
    pub address_connections_max: Option<u32>,
    /// Proxies that are trusted to name the client's address.
    pub trusted_proxies: Vec<IpNet>,
    /// How they name it.
    pub client_address: ClientAddress,
    /// New connections a second and worker; `None`: no limit.
    pub accept_rate: Option<u32>,
    /// Publishes a second of one connection (batches, for a body of lines); `None`: no limit.
    pub connection_publish_rate: Option<u32>,
    /// Paths that are a channel's stream, for clients that know nothing of Pushline.
    pub stream_paths: Vec<PathMap>,
    /// Whether publishing clients are not told how many subscribers there are.
    pub hide_subscribers: bool,
    /// How new connections are spread.
    pub steer: Steer,
    /// Payload bytes of one event.
    pub event_bytes_max: usize,
    /// Fragments of one WebSocket message.
    pub fragments_max: u32,
    /// Whether connections may speak HTTP/2.
    pub http2: bool,
    /// Streams of one HTTP/2 connection at most.
    pub http2_streams_max: u32,
    /// Channels one connection may have.
    pub connection_channels_max: usize,
    /// Most channels that the log knows at once.
    pub channels_max: usize,
    /// `SO_SNDBUF` of connections, in bytes; `None`: the kernel decides, up to megabytes.
    pub send_buffer: Option<u32>,
    /// Bytes the kernel accepts for a reader beyond those in flight to it (`TCP_NOTSENT_LOWAT`);
    /// `None`: as much as the send buffer holds.
    pub unsent: Option<u32>,
    /// Mean of the `retry:` subscribers are told; each is told between half and one and a half
    /// times this.
    pub retry: Duration,
    /// How long a request head may take.
    pub head_time: Duration,
    /// How long a request body may pause.
    pub body_time: Duration,
    /// How long the producer of a stream may say nothing.
    pub stream_idle: Duration,
    /// How long a stream waits for a producer it has lost.
    pub stream_grace: Duration,
    /// How long a stream that has ended is kept whole.
    pub stream_keep: Duration,
    /// How long a connection without a request stays open.
    pub idle_time: Duration,
    /// How long one that has left a channel is still a member.
    pub presence_grace: Duration,
    /// How long a drain may take.
    pub drain_time: Duration,
    /// How long a peer may leave what was sent to it unacknowledged (`TCP_USER_TIMEOUT`).
    pub dead_time: Duration,
    /// Whether to listen beyond loopback without keys.
    pub open: bool,
    /// Their level can change while the server runs, their format cannot.
    pub log_lines: LogLines,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            listen_tls: None,
            tls: TlsSettings::default(),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            admin_key_file: None,
            demo: None,
            workers: None,
            cpus: Some(Vec::new()),
            driver: DriverWanted::Auto,
            channel_default: ChannelSettings {
                // A streamed answer and time to look back at it: at a token an event, some minutes.
                history_count: 1000,
                history_age: Duration::from_secs(600),
                slow: SlowPolicy::Skip,
                publish_rate: None,
                history_share: 0,
                history: Keeps::All,
                presence: false,
                publisher: PublisherShown::None,
                // Some fifteen thousand tokens: longer than models answer.
                stream_bytes: 4 << 20,
                stream_compact: 0,
            },
            channels: Vec::new(),
            history_bytes: 256 << 20,
            history_memory_bytes: 256 << 20,
            data_dir: None,
            durability: Durability::Sync,
            accept_loss: false,
            cluster: ClusterSettings::default(),
            replica_bytes: 8 << 20,
            worker_replica_bytes: 256 << 20,
            // Five hundred bodies of the largest event at once, which seldom take a second.
            worker_input_bytes: 32 << 20,
            lane_events: 2048,
            heartbeat: Duration::from_secs(25),
            connections_max: None,
            address_connections_max: None,
            trusted_proxies: Vec::new(),
            client_address: ClientAddress::XForwardedFor,
            accept_rate: None,
            // Half of what the log orders a second, and several times what one connection of a
            // backend that waits for its answers can use.
            connection_publish_rate: Some(50_000),
            stream_paths: Vec::new(),
            hide_subscribers: false,
            steer: Steer::Hash,
            event_bytes_max: 64 << 10,
            fragments_max: 1024,
            http2: true,
            http2_streams_max: 128,
            connection_channels_max: 128,
            channels_max: 4_000_000,
            // One largest event fits, and a reader that stalls holds 256 KiB of the kernel's memory
            // (which counts double) instead of the megabytes the buffer would grow to.
            send_buffer: Some(128 << 10),
            unsent: Some(64 << 10),
            retry: Duration::from_secs(2),
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(10),
            // A model may think for a while between two tokens.
            stream_idle: Duration::from_secs(60),
            stream_grace: Duration::from_secs(10),
            stream_keep: Duration::from_secs(60),
            idle_time: Duration::from_secs(75),
            // A browser that reconnects waits a few seconds first.
            presence_grace: Duration::from_secs(10),
            drain_time: Duration::from_secs(20),
            dead_time: Duration::from_secs(30),
            open: false,
            log_lines: LogLines::default(),
        }
    }
}

impl Settings {
    /// Whether only this machine can connect.
    pub(crate) fn is_on_loopback(&self) -> bool {
        let tls = self.listen_tls.is_none_or(|address| address.ip().is_loopback());
        self.listen.ip().is_loopback() && tls
    }

    /// With what the demo pages need, if there are any: a rule for their channels, behind all others.
    /// Not on a node, where presence has all nodes tell of themselves.
    pub(crate) fn with_demos(mut self) -> Self {
        let is_node = !self.cluster.nats.is_empty() || !self.cluster.redis.is_empty();
        if self.shows_demos()
            && !is_node
            && self.channels.len() < POLICIES_MAX
            && let Ok(pattern) = Pattern::parse("demo:*")
        {
            // The same at every reload.
            let rule = ChannelSettings { presence: true, ..Self::default().channel_default };
            self.channels.push((pattern, rule));
        }
        self
    }

    /// Whether there are demo pages.
    pub(crate) fn shows_demos(&self) -> bool {
        self.demo.unwrap_or(self.is_on_loopback())
    }

    /// The index of the entry of `channels` for this channel; past the end: the default.
    pub fn channel_index(&self, name: &str) -> usize {
        first_match(&self.channels, name)
    }

    /// The settings for what `channel_index` returned.
    pub fn channel_at(&self, index: usize) -> &ChannelSettings {
        self.channels.get(index).map_or(&self.channel_default, |(_, settings)| settings)
    }

    /// The settings of a channel.
    pub fn channel(&self, name: &str) -> &ChannelSettings {
        self.channel_at(self.channel_index(name))
    }

    /// Bytes all replicas of a worker may hold: at least as much as one may.
    pub(crate) fn replicas_bytes_max(&self) -> usize {
        self.worker_replica_bytes.max(self.replica_bytes)
    }

    /// Bytes of unfinished input a worker may hold: at least a message with the largest event.
    pub(crate) fn input_bytes_max(&self) -> usize {
        let message = self.event_bytes_max.saturating_mul(2 * JSON_GROWTH_MAX);
        self.worker_input_bytes.max(message)
    }

    /// Whether a store keeps what memory has no room for: a journal, or a broker.
    pub(crate) fn has_store(&self) -> bool {
        self.data_dir.is_some() || !self.cluster.nats.is_empty()
    }

    /// Bytes of history that may be in memory where a store keeps the rest; none: all of it is.
    fn history_in_memory(&self) -> Option<u64> {
        self.has_store().then_some(self.history_memory_bytes)
    }

    /// Memory that history takes at most.
    pub(crate) fn history_memory_max(&self) -> u64 {
        self.history_in_memory().unwrap_or(u64::MAX).min(self.history_bytes)
    }

    /// Those of the settings that the log applies.
    pub fn log_settings(&self) -> LogSettings {
        let policy = |channel: &ChannelSettings| Policy {
            history_count: channel.history_count,
            history_age: channel.history_age,
            publish_rate: channel.publish_rate,
            history_share: channel.history_share,
            keeps: channel.history,
            stream_bytes: channel.stream_bytes,
            stream_compact: channel.stream_compact,
            presence: channel.presence,
        };
        let rules = self.channels.iter().map(|(pattern, of)| (pattern.clone(), policy(of)));
        let default = policy(&self.channel_default);
        let policies =
            Policies::new(rules.collect(), default).unwrap_or_else(|_| Policies::uniform(default));
        LogSettings {
            history_bytes_max: self.history_bytes,
            history_memory_bytes_max: self.history_in_memory().unwrap_or(u64::MAX),
            channels_max: self.channels_max,
            presence_grace: self.presence_grace,
            policies,
            streams: StreamTimes { grace: self.stream_grace, keep: self.stream_keep },
        }
    }
}
