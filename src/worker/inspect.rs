//! What an operator sees of a worker's connections, and how one is cut.
//!
//! A worker answers with what a few hundred slots hold and where to look on: nothing is kept
//! between two looks, and no look takes longer than a small fan-out.

use std::net::IpAddr;
use std::sync::Arc;

use super::session::Protocol;
use super::turn::Core;
use crate::auth::Grant;
use crate::log::ChannelName;
use crate::ring::Token;

/// Slots one look goes over: some 50 µs, and the worker does nothing else meanwhile.
pub const SLOTS_PER_LOOK: u32 = 256;

/// Channels of one connection that are named; the others are only counted.
pub const CHANNELS_NAMED_MAX: usize = 16;

/// What a look found.
#[derive(Debug)]
pub struct Page {
    /// In the order of their slots.
    pub connections: Vec<ConnectionInfo>,
    /// Where the next look begins; `None` after the last slot.
    pub next: Option<u32>,
}

/// One connection as it was then.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Which.
    pub token: Token,
    /// What it is.
    pub phase: Phase,
    /// Seconds since it was accepted.
    pub age_s: u32,
    /// Whose it is, if addresses are known.
    pub client: Option<IpAddr>,
    /// Its channels, [`CHANNELS_NAMED_MAX`] at most.
    pub channels: Vec<Arc<ChannelName>>,
    /// How many channels it has.
    pub channel_count: usize,
    /// Whether it is live: has no cursor of its own, because all there is has been sent to it.
    pub live: bool,
    /// Events its worker holds that were not sent to it yet, all its channels together.
    pub behind: usize,
    /// What it may do, and who it is; none while it is anonymous on an open server.
    pub grant: Option<Arc<Grant>>,
}

/// What a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Speaks HTTP.
    Http,
    /// An SSE stream.
    Sse,
    /// A WebSocket.
    Ws,
    /// A WebSocket whose close frame is sent.
    WsClosing,
    /// Waits for its peer to end.
    Lingering,
}

impl Core {
    /// Looks at connections from this slot on; shows `limit` at most, of all or of one subject.
    pub(super) fn look(&self, from: u32, limit: usize, subject: Option<&str>) -> Page {
        let end = self.net.len();
        let stop = end.min(from.saturating_add(SLOTS_PER_LOOK));
        let mut connections = Vec::new();
        for index in from..stop {
            if connections.len() >= limit {
                return Page { connections, next: Some(index) };
            }
            if !self.net.is_open(index) {
                continue;
            }
            let own_subject = self.sessions.grant(index).and_then(|grant| grant.subject());
            if subject.is_none() || own_subject == subject {
                connections.push(self.describe(index));
            }
        }
        Page { connections, next: (stop < end).then_some(stop) }
    }

    fn describe(&self, index: u32) -> ConnectionInfo {
        let named = self.hub.channels_of(index).take(CHANNELS_NAMED_MAX);
        ConnectionInfo {
            token: self.net.token(index),
            phase: self.phase(index),
            age_s: self.net.age_s(index),
            client: self.net.client(index),
            channels: named.cloned().collect(),
            channel_count: self.hub.channels_of(index).count(),
            live: self.hub.is_live(index),
            behind: self.hub.events_behind(index),
            grant: self.sessions.grant(index).cloned(),
        }
    }

    fn phase(&self, index: u32) -> Phase {
        match self.sessions.protocol(index) {
            _ if self.net.is_lingering(index) => Phase::Lingering,
            Protocol::Http => Phase::Http,
            Protocol::Sse => Phase::Sse,
            Protocol::Ws => Phase::Ws,
            Protocol::WsClosing => Phase::WsClosing,
        }
    }
}

impl Phase {
    /// Place in `metrics::TRANSPORTS`.
    pub fn transport(self) -> usize {
        match self {
            Self::Http | Self::Lingering => Protocol::Http.index(),
            Self::Sse => Protocol::Sse.index(),
            Self::Ws | Self::WsClosing => Protocol::Ws.index(),
        }
    }
}
