//! The memory of one socket.

use super::output::Own;
use super::streams::CarrierKey;
use crate::reason::CloseReason;

/// Facts about a socket, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// In the queue of sockets with output of their own, or with little to read.
    pub const DIRTY: u16 = 1 << 0;
    /// In the queue of sockets that are further behind.
    pub const BEHIND: u16 = 1 << 1;
    /// The batch being decided has a composed send for it.
    pub const SENT: u16 = 1 << 2;
    /// The socket was full and waits for `Writable`.
    pub const BLOCKED: u16 = 1 << 3;
    /// Receiving is armed.
    pub const RECV_ARMED: u16 = 1 << 4;
    /// Receiving is to stop until the input received is parsed.
    pub const PAUSED: u16 = 1 << 5;
    /// It ends when all its output is sent.
    pub const CLOSE_AFTER_OUT: u16 = 1 << 6;
    /// It then half-closes and waits for the peer, instead of closing at once.
    pub const LINGER: u16 = 1 << 10;
    /// The peer sent FIN.
    pub const EOF: u16 = 1 << 7;
    /// It was refused and is not counted.
    pub const UNCOUNTED: u16 = 1 << 8;
    /// Its peer is a trusted proxy that has not said yet for which client it speaks.
    pub const PROXIED: u16 = 1 << 9;
    /// In the queue of sockets that carry streams.
    pub const CARRIES: u16 = 1 << 11;
    /// A connection or a stream has this index.
    pub const OPEN: u16 = 1 << 12;
    /// Half-closed after its last output: what still comes is thrown away until the peer ends.
    pub const LINGERING: u16 = 1 << 13;

    /// Whether the bit is set.
    pub fn has(self, bit: u16) -> bool {
        self.0 & bit != 0
    }

    /// Sets the bit.
    pub fn set(&mut self, bit: u16) {
        self.0 |= bit;
    }

    /// Clears the bit.
    pub fn clear(&mut self, bit: u16) {
        self.0 &= !bit;
    }

    /// Sets the bit and returns whether it was clear before.
    pub fn raise(&mut self, bit: u16) -> bool {
        let was_clear = !self.has(bit);
        self.set(bit);
        was_clear
    }
}

/// One socket.
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
        let flags = Flags(0);
        Self { flags, ending: None, heard_s: 0, opened_s: 0, carrier: None, own: None }
    }

    /// Whether a connection or a stream has this index.
    pub fn is_open(&self) -> bool {
        self.flags.has(Flags::OPEN)
    }
}
