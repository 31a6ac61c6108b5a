//! The memory of one connection. An idle subscriber owns its slot and nothing else.

use std::sync::Arc;

use super::work::Work;
use crate::auth::Grant;
use crate::bucket::Bucket;
use crate::proto::variant::Variant;
use crate::reason::CloseReason;

/// No index.
pub const NONE: u32 = u32::MAX;

/// What the connection is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nobody is here.
    Free,
    /// Speaks HTTP: requests and answers.
    Http,
    /// An SSE stream.
    Sse,
    /// A WebSocket.
    Ws,
    /// A WebSocket that has sent its close frame and waits for the peer's.
    WsClosing,
    /// Answered for the last time; what it still sends is thrown away until it ends.
    Lingering,
}

/// Facts about a slot, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// In a replica's live list: cursor = tail.
    pub const LIVE: u16 = 1 << 0;
    /// In the dirty queue.
    pub const DIRTY: u16 = 1 << 1;
    /// An explicit send stands in the batch that is being decided.
    pub const SENT: u16 = 1 << 2;
    /// The socket was full: waits for `Writable`.
    pub const BLOCKED: u16 = 1 << 3;
    /// Receiving is armed.
    pub const RECV_ARMED: u16 = 1 << 4;
    /// Receiving is to stop until the carry is parsed.
    pub const PAUSED: u16 = 1 << 5;
    /// Close when all own output is sent.
    pub const CLOSE_AFTER_OUT: u16 = 1 << 6;
    /// Linger (half-close, then drain) instead of closing at once.
    pub const LINGER: u16 = 1 << 7;
    /// The peer sent FIN.
    pub const EOF: u16 = 1 << 8;
    /// A ping was sent and nothing was heard since.
    pub const PING_OUT: u16 = 1 << 9;
    /// Two pings were sent and nothing was heard since.
    pub const PING_LATE: u16 = 1 << 10;
    /// It was refused: the census does not count it.
    pub const UNCOUNTED: u16 = 1 << 11;
    /// In the queue of those whose input is read on.
    pub const UNREAD: u16 = 1 << 12;
    /// An SSE stream whose heartbeats are events.
    pub const BEAT_EVENT: u16 = 1 << 13;
    /// In the queue of those that are further behind.
    pub const REPLAYING: u16 = 1 << 14;
    /// A trusted proxy has to say whom it speaks for: first of all, or with each request.
    pub const PROXIED: u16 = 1 << 15;

    /// Whether the bit is set.
    pub fn has(self, bit: u16) -> bool {
        self.0 & bit != 0
    }

    /// Sets the bit.
    pub fn set(&mut self, bit: u16) {
        self.0 |= bit;
    }

    /// Clears the bits.
    pub fn clear(&mut self, bit: u16) {
        self.0 &= !bit;
    }

    /// Sets the bit; whether it was clear before.
    pub fn raise(&mut self, bit: u16) -> bool {
        let was_clear = !self.has(bit);
        self.set(bit);
        was_clear
    }
}

/// One connection.
#[derive(Debug)]
pub struct Slot {
    /// What it is.
    pub phase: Phase,
    /// How events are written to it (meaningful for subscribers).
    pub variant: Variant,
    /// Facts.
    pub flags: Flags,
    /// The replica of a live subscriber's channel.
    pub replica: u32,
    /// Place in that replica's live list.
    pub live_index: u32,
    /// Second of the worker's clock in which bytes last arrived.
    pub heard_s: u32,
    /// Second (unix time) at which its grant ends; `u32::MAX`: never.
    pub expires_unix_s: u32,
    /// Requests it has begun; tells a head's deadline whether it is still that head.
    pub requests: u32,
    /// Where its address is counted, if addresses are.
    pub address: u32,
    /// Its publishes.
    pub publishes: Bucket,
    /// Second of the worker's clock in which it was accepted.
    pub opened_s: u32,
    /// Why it is ending, once that is decided: a closing handshake or a last answer may still be
    /// on its way.
    pub ending: Option<CloseReason>,
    /// What it may do; none while it is anonymous on an open server.
    pub grant: Option<Arc<Grant>>,
    /// Everything that only a busy connection has.
    pub work: Option<Box<Work>>,
}

const _: () = assert!(size_of::<Slot>() <= 64, "an idle connection costs one cache line");

impl Phase {
    /// Place in counts by kind: HTTP, SSE, WebSocket.
    pub fn kind(self) -> usize {
        match self {
            Self::Free | Self::Http | Self::Lingering => 0,
            Self::Sse => 1,
            Self::Ws | Self::WsClosing => 2,
        }
    }
}

impl Slot {
    /// A slot nobody uses.
    pub const fn free() -> Self {
        Self {
            phase: Phase::Free,
            variant: Variant::SseBare,
            flags: Flags(0),
            replica: NONE,
            live_index: NONE,
            heard_s: 0,
            expires_unix_s: u32::MAX,
            requests: 0,
            address: NONE,
            publishes: Bucket::FULL,
            opened_s: 0,
            ending: None,
            grant: None,
            work: None,
        }
    }

    /// Whether it is in a replica's live list.
    pub fn is_live(&self) -> bool {
        self.flags.has(Flags::LIVE)
    }

    /// Whether nothing of it is under way: no request, no answer, no stream.
    pub fn is_idle(&self) -> bool {
        self.work.as_ref().is_none_or(|work| work.is_idle())
    }

    /// Whether events are delivered to it.
    pub fn is_subscriber(&self) -> bool {
        matches!(self.phase, Phase::Sse | Phase::Ws)
    }
}
