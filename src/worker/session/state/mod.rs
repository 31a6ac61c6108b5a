//! One session: what it speaks, what it may do, and, while it is busy, its work. What is done with
//! it is beside this folder.

mod answer;
mod body;
mod flags;
mod http2;
mod ndjson;
mod producer;
mod work;
mod ws_streams;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::auth::Grant;
use crate::bits::Change;
use crate::metrics::WorkerMetrics;
use crate::proto::dialect::{Dialect, Heartbeat};
use crate::ring::Token;
use crate::worker::pool::Pool;

pub use self::answer::{Answer, LoggedRequest};
pub use self::body::Body;
pub use self::flags::Flags;
pub use self::http2::{Block, Http2};
pub use self::ndjson::{Ndjson, Publisher, add_publications, line_bytes_max};
pub use self::producer::Producer;
pub use self::work::{Farewell, HttpState, Shown, WantedChannel, Work};
pub use self::ws_streams::{Produced, Waiting, What, WsStreams};

/// What a session speaks at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP: requests and answers.
    Http,
    /// HTTP/2, whose streams are sessions of their own.
    Http2,
    /// An SSE stream.
    Sse,
    /// A WebSocket.
    Ws,
    /// A WebSocket that has sent its close frame and waits for the peer's.
    WsClosing,
}

impl Protocol {
    /// Its place in counts by kind, as in `metrics::TRANSPORTS`.
    pub fn index(self) -> usize {
        match self {
            Self::Http => 0,
            Self::Sse => 1,
            Self::Ws | Self::WsClosing => 2,
            Self::Http2 => 3,
        }
    }
}

/// One session. An idle one is this and nothing else.
#[derive(Debug)]
pub struct Session {
    pub(in crate::worker::session) protocol: Protocol,
    /// How events are written to it (only meaningful for streams).
    pub(in crate::worker::session) dialect: Dialect,
    pub(in crate::worker::session) flags: Flags,
    /// Requests it has begun; shows a head's deadline whether it still concerns that head.
    pub(in crate::worker::session) requests: u32,
    /// What it may do; `None` while it is anonymous on an open server.
    pub(in crate::worker::session) grant: Option<Arc<Grant>>,
    /// Everything that only a busy session has.
    pub(in crate::worker::session) work: Option<Box<Work>>,
}

const _: () = assert!(size_of::<Session>() <= 24, "an idle connection costs one cache line");

impl Session {
    pub(in crate::worker::session) const fn new() -> Self {
        Self {
            protocol: Protocol::Http,
            dialect: Dialect::SseBare,
            flags: Flags::empty(),
            requests: 0,
            grant: None,
            work: None,
        }
    }

    // --- what others may know about it ---

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// How events are written to it.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(in crate::worker::session) fn is_secure(&self) -> bool {
        self.flags.contains(Flags::SECURE)
    }

    pub(in crate::worker::session) fn is_proxied(&self) -> bool {
        self.flags.contains(Flags::PROXIED)
    }

    pub(in crate::worker::session) fn is_certified(&self) -> bool {
        self.flags.contains(Flags::CERTIFIED)
    }

    /// What its heartbeats are.
    pub fn heartbeat(&self) -> Heartbeat {
        match self.flags.contains(Flags::BEAT_EVENT) {
            true => Heartbeat::Event,
            false => Heartbeat::Plain,
        }
    }

    /// Its grant: what it may do, and for whom.
    pub fn grant(&self) -> Option<&Arc<Grant>> {
        self.grant.as_ref()
    }

    /// Whether events are delivered to it.
    pub fn is_subscriber(&self) -> bool {
        matches!(self.protocol, Protocol::Sse | Protocol::Ws)
    }

    /// Whether it takes input.
    pub fn takes_input(&self) -> bool {
        matches!(self.protocol, Protocol::Http | Protocol::Http2 | Protocol::Ws)
    }

    /// Whether it has begun a request.
    pub fn has_begun(&self) -> bool {
        self.requests > 0
    }

    /// Whether it is between requests: none begun, none unanswered.
    pub fn is_idle(&self) -> bool {
        self.work().is_none_or(Work::is_idle)
    }

    /// How many bytes of input it keeps unparsed.
    pub fn carried(&self) -> usize {
        self.work().map_or(0, |work| work.carry.len())
    }

    /// Its requests at the log.
    pub fn outstanding(&self) -> u16 {
        self.work().map_or(0, |work| work.outstanding)
    }

    // --- its peer ---

    /// The peer was heard.
    pub fn heard(&mut self) {
        self.flags.remove(Flags::PING_OUT | Flags::PING_LATE);
    }

    /// A ping is sent to the peer. A second one without an answer to the first makes it late.
    pub(in crate::worker::session) fn pinged(&mut self) {
        if !self.flags.raise(Flags::PING_OUT) {
            self.flags.insert(Flags::PING_LATE);
        }
    }

    /// Its connection has TLS.
    pub fn secure(&mut self) {
        self.flags.insert(Flags::SECURE);
    }

    /// Its peer is a trusted proxy, which speaks for others.
    pub fn come_by_proxy(&mut self) {
        self.flags.insert(Flags::PROXIED);
    }

    /// The peer has shown a certificate that was verified.
    pub fn certify(&mut self) {
        self.flags.insert(Flags::CERTIFIED);
    }

    // --- its work ---

    /// Reads its unread input when the next turn begins.
    pub(in crate::worker::session) fn read_on_later(
        &mut self,
        token: Token,
        unread: &mut VecDeque<Token>,
    ) {
        if self.flags.raise(Flags::UNREAD) {
            unread.push_back(token);
        }
    }

    /// Its unread input is being read on now.
    pub fn read_on(&mut self) {
        self.flags.remove(Flags::UNREAD);
    }

    pub(in crate::worker::session) fn work(&self) -> Option<&Work> {
        self.work.as_deref()
    }

    /// Its work, from the pool if it has none.
    pub(in crate::worker::session) fn begin_work(&mut self, pool: &mut Pool<Work>) -> &mut Work {
        self.work.get_or_insert_with(|| pool.take())
    }

    /// Speaks something else from now on.
    pub(in crate::worker::session) fn speak(
        &mut self,
        protocol: Protocol,
        metrics: &WorkerMetrics,
    ) {
        metrics.open[self.protocol.index()].sub(1);
        self.protocol = protocol;
        metrics.open[protocol.index()].add(1);
    }
}
