//! What an operator sees of a worker's connections.
//!
//! A worker answers for a few hundred slots, and says where to go on: nothing is kept between two
//! requests, and none takes longer than a small fan-out.

use std::net::IpAddr;
use std::sync::Arc;

use super::session::Protocol;
use super::turn::Core;
use crate::auth::Grant;
use crate::log::ChannelName;
use crate::ring::Token;

/// Slots one request covers: about 50 µs, during which the worker does nothing else.
pub(crate) const SLOTS_PER_LOOK: usize = 256;

/// How many channels of a connection are named; the others are only counted.
pub const CHANNELS_NAMED_MAX: usize = 16;

/// The answer to one request.
#[derive(Debug)]
pub struct Page {
    /// Ordered by slot.
    pub connections: Vec<ConnectionInfo>,
    /// Where to go on; `None` after the last slot.
    pub next: Option<u32>,
}

/// One connection as it was at that moment.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The connection.
    pub token: Token,
    /// Its kind.
    pub phase: Phase,
    /// The HTTP/2 connection that carries it, if it is a stream of one.
    pub carrier: Option<Token>,
    /// Seconds since it was accepted.
    pub age_s: u32,
    /// Its client's address, if addresses are known.
    pub client: Option<IpAddr>,
    /// Its channels, at most [`CHANNELS_NAMED_MAX`].
    pub channels: Vec<Arc<ChannelName>>,
    /// How many channels it has.
    pub channel_count: usize,
    /// Whether it is live: it has no cursor of its own, as it has been sent everything.
    pub live: bool,
    /// Events its worker holds that were not sent to it yet, all its channels together.
    pub behind: usize,
    /// Its grant; `None` while it is anonymous on an open server.
    pub grant: Option<Arc<Grant>>,
}

/// The kinds of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Speaks HTTP.
    Http,
    /// Speaks HTTP/2: its streams are listed beside it.
    Http2,
    /// An SSE stream.
    Sse,
    /// A WebSocket.
    Ws,
    /// A WebSocket that has sent its close frame.
    WsClosing,
    /// Waiting for its peer to close.
    Lingering,
}

impl Core {
    /// Describes connections from this slot on: at most `limit`, of all subjects or of one.
    pub(super) fn look(&self, from: u32, limit: usize, subject: Option<&str>) -> Page {
        let mut connections = Vec::new();
        for (looked_at, index) in self.net.indices_from(from).enumerate() {
            if looked_at >= SLOTS_PER_LOOK || connections.len() >= limit {
                return Page { connections, next: Some(index) };
            }
            if !self.net.is_open(index) {
                continue;
            }
            let own_subject = self.sessions[index].grant().and_then(|grant| grant.subject());
            if subject.is_none() || own_subject == subject {
                connections.push(self.describe(index));
            }
        }
        Page { connections, next: None }
    }

    fn describe(&self, index: u32) -> ConnectionInfo {
        let named = self.hub.channels_of(index).take(CHANNELS_NAMED_MAX);
        ConnectionInfo {
            token: self.net.token(index),
            phase: self.phase(index),
            carrier: self.net.is_stream(index).then(|| self.net.token(self.net.carrier_of(index))),
            age_s: self.net.age_s(index),
            client: self.net.client(index),
            channels: named.cloned().collect(),
            channel_count: self.hub.channels_of(index).count(),
            live: self.hub.is_live(index),
            behind: self.hub.events_behind(index),
            grant: self.sessions[index].grant().cloned(),
        }
    }

    fn phase(&self, index: u32) -> Phase {
        match self.sessions[index].protocol() {
            _ if self.net.is_lingering(index) => Phase::Lingering,
            Protocol::Http => Phase::Http,
            Protocol::Http2 => Phase::Http2,
            Protocol::Sse => Phase::Sse,
            Protocol::Ws => Phase::Ws,
            Protocol::WsClosing => Phase::WsClosing,
        }
    }
}

impl Phase {
    /// Its place in `metrics::TRANSPORTS`.
    pub fn transport(self) -> usize {
        match self {
            Self::Http | Self::Lingering => Protocol::Http.index(),
            Self::Http2 => Protocol::Http2.index(),
            Self::Sse => Protocol::Sse.index(),
            Self::Ws | Self::WsClosing => Protocol::Ws.index(),
        }
    }
}
