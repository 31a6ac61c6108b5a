//! Facts about a session, one bit each.

#[derive(Clone, Copy, Debug, Default)]
pub struct Flags(u8);

impl Flags {
    pub const NONE: Self = Self(0);

    /// A ping was sent and nothing was heard since.
    pub const PING_OUT: u8 = 1 << 0;
    /// Two pings were sent and nothing was heard since.
    pub const PING_LATE: u8 = 1 << 1;
    /// In the queue of sessions whose input is to be read on.
    pub const UNREAD: u8 = 1 << 2;
    /// An SSE stream whose heartbeats are events.
    pub const BEAT_EVENT: u8 = 1 << 3;
    /// Its connection has TLS.
    pub const SECURE: u8 = 1 << 4;
    /// Its peer has shown a certificate that was verified.
    pub const CERTIFIED: u8 = 1 << 5;

    /// What its connection has, and each stream of it, too.
    pub fn of_connection(self) -> u8 {
        self.0 & (Self::SECURE | Self::CERTIFIED)
    }

    pub fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    pub fn set(&mut self, bit: u8) {
        self.0 |= bit;
    }

    pub fn clear(&mut self, bits: u8) {
        self.0 &= !bits;
    }

    /// Sets the bit and returns whether it was clear before.
    pub fn raise(&mut self, bit: u8) -> bool {
        let was_clear = !self.has(bit);
        self.set(bit);
        was_clear
    }
}
