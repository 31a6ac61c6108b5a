//! What the parent and its client processes tell each other: one JSON value per line.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::args::{Channels, Transport};
use super::handshakes::KeyExchange;
use crate::tools::wire::tls::Trust;

/// The first line a client process reads: its whole task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ClientTask {
    /// Tells this run's events from others.
    pub run: u32,
    /// The server.
    pub target: SocketAddr,
    /// For the `Host` header.
    pub authority: String,
    /// Path template with `{channel}`.
    pub path: String,
    /// For `https`.
    pub secure: Option<Secure>,
    /// Header lines, each with its line end.
    pub header_lines: String,
    /// How to listen.
    pub transport: Transport,
    /// For HTTP/2: how many subscribers share a connection.
    pub streams: Option<u32>,
    /// How subscribers are spread over channels.
    pub channels: Channels,
    /// Subscribers of the whole run.
    pub connections: u32,
    /// Index of this process's first subscriber in the run.
    pub first: u32,
    /// Subscribers of this process.
    pub count: u32,
    /// How many of them begin per second.
    pub ramp_per_s: f64,
    /// Connects that may wait for their answer at once.
    pub connecting_max: u32,
    /// Address to connect from; `None`: the kernel chooses.
    pub source: Option<std::net::Ipv4Addr>,
    /// Where in the range of source ports to begin.
    pub port_offset: u32,
}

impl ClientTask {
    /// Subscribers of one connection.
    pub fn per_connection(&self) -> u32 {
        self.streams.unwrap_or(1)
    }

    /// The channel of this process's subscriber with this index.
    pub fn channel(&self, index: usize) -> u32 {
        (self.first + index as u32) % self.channels.count(self.connections)
    }
}

/// Whom to speak TLS to, and who is believed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Secure {
    /// The name that the certificate is for.
    pub host: String,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// What is offered to agree on keys by.
    pub key_exchange: KeyExchange,
    /// Whether later connections resume sessions of earlier ones.
    pub tickets: bool,
}

/// The lines that follow.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub(super) enum Command {
    /// Count heartbeats from now on.
    Watch,
    /// Give the result and end. `published` events went to the channels in turn.
    Finish {
        /// Events of the whole run.
        published: u64,
    },
}

/// What a client process writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub(super) enum Line {
    /// Its progress; several times a second while something happens.
    Progress(Progress),
    /// Its last line.
    Result(Box<ClientResult>),
}

/// The progress of a client process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Subscriptions that the server has accepted.
    pub connected: u64,
    /// Subscriptions that failed.
    pub failed: u64,
    pub ended: u64,
    pub deliveries: u64,
    /// Connections that have seen a heartbeat since [`Command::Watch`].
    pub beating: u64,
    /// Heartbeats since then.
    pub heartbeats: u64,
    /// When a connect was last answered, or given up, on the monotonic clock.
    pub answered_ns: u64,
}

impl std::ops::AddAssign for Progress {
    fn add_assign(&mut self, other: Self) {
        self.connected += other.connected;
        self.failed += other.failed;
        self.ended += other.ended;
        self.deliveries += other.deliveries;
        self.beating += other.beating;
        self.heartbeats += other.heartbeats;
        self.answered_ns = self.answered_ns.max(other.answered_ns);
    }
}

/// What a client process has seen.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct ClientResult {
    /// Failed connects by kind.
    pub failures: BTreeMap<String, u64>,
    /// Ended subscriptions by kind.
    pub endings: BTreeMap<String, u64>,
    /// Events that connections which were subscribed should have received.
    pub expected: u64,
    /// The counts of deliveries.
    pub counts: DeliveryCounts,
    /// Time of the last delivery, on the monotonic clock.
    pub last_delivery_ns: u64,
    /// Recorded latencies: (nanoseconds, count).
    pub latencies: Vec<(u64, u64)>,
    /// Deliveries per time slot: (slot number on the monotonic clock, count).
    pub timeline: Vec<(u64, u64)>,
    /// Memory of this process.
    pub rss_bytes: u64,
}

/// Deliveries by what was right or wrong with them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DeliveryCounts {
    /// Events of this run, for the channel subscribed to.
    pub received: u64,
    /// Of these: the same event as the one before.
    pub duplicated: u64,
    /// Of these: an event older than the one before.
    pub out_of_order: u64,
    /// Events for another channel.
    pub misrouted: u64,
    /// Events of another run.
    pub foreign: u64,
    /// Messages without an event: greetings, confirmations, or another publisher's data.
    pub unstamped: u64,
}

impl std::ops::AddAssign for DeliveryCounts {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.misrouted += other.misrouted;
        self.foreign += other.foreign;
        self.unstamped += other.unstamped;
    }
}
