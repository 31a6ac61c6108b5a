//! The memory of one socket.

use super::h2_streams::CarrierKey;
use bitflags::bitflags;

use super::output::Own;
use crate::reason::CloseReason;

bitflags! {
    /// Facts about a socket.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: u16 {
        /// A connection or a stream has this index.
        const OPEN = 1 << 0;
        /// It was refused and is not counted.
        const UNCOUNTED = 1 << 1;
        /// In the queue of sockets with output of their own, or with little to read.
        const DIRTY = 1 << 2;
        /// In the queue of sockets that are further behind.
        const BEHIND = 1 << 3;
        /// In the queue of sockets that carry streams.
        const CARRIES = 1 << 4;
        /// The batch being decided has a composed send for it.
        const SENT = 1 << 5;
        /// The socket was full and waits for `Writable`.
        const BLOCKED = 1 << 6;
        /// Receiving is armed.
        const RECV_ARMED = 1 << 7;
        /// Receiving is to stop until the input received is parsed.
        const PAUSED = 1 << 8;
        /// The peer sent FIN.
        const EOF = 1 << 9;
        /// It ends when all its output is sent.
        const CLOSE_AFTER_OUT = 1 << 10;
        /// It then half-closes and waits for the peer, instead of closing at once.
        const LINGER = 1 << 11;
        /// Half-closed after its last output: what still comes is thrown away until the peer ends.
        const LINGERING = 1 << 12;
    }
}

/// What every connection and every stream has, busy or not.
#[derive(Debug)]
pub struct Socket {
    pub flags: Flags,
    /// Why it is ending, once that is decided; a closing handshake or a last answer may still be
    /// under way.
    pub ending: Option<CloseReason>,
    /// Second of the worker's clock in which bytes last arrived.
    pub heard_s: u32,
    /// Second of the worker's clock in which it was accepted.
    pub opened_s: u32,
    /// What it carries, if that is streams.
    pub carrier: Option<CarrierKey>,
    /// Output of its own that the peer has not taken yet; an idle socket has none.
    pub own: Option<Box<Own>>,
}

const _: () = assert!(size_of::<Socket>() <= 24, "with session and subscriber: one cache line");

impl Socket {
    /// A slot without a connection.
    pub const fn free() -> Self {
        let flags = Flags::empty();
        Self { flags, ending: None, heard_s: 0, opened_s: 0, carrier: None, own: None }
    }

    /// Whether a connection or a stream has this index.
    pub fn is_open(&self) -> bool {
        self.flags.contains(Flags::OPEN)
    }
}
