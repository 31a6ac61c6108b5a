//! Facts about a session.

use bitflags::bitflags;

bitflags! {
    /// One bit each.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Flags: u8 {
        /// A ping was sent and nothing was heard since.
        const PING_OUT = 1 << 0;
        /// Two pings were sent and nothing was heard since.
        const PING_LATE = 1 << 1;
        /// In the queue of sessions whose input is to be read on.
        const UNREAD = 1 << 2;
        /// An SSE stream whose heartbeats are events.
        const BEAT_EVENT = 1 << 3;
        /// Its connection has TLS.
        const SECURE = 1 << 4;
        /// Its peer has shown a certificate that was verified.
        const CERTIFIED = 1 << 5;
        /// A trusted proxy brings it, which says for each request, or has still to say, who the client
        /// is.
        const PROXIED = 1 << 6;

        /// What its connection has, and each stream of it, too.
        const OF_CONNECTION = Self::SECURE.bits() | Self::CERTIFIED.bits() | Self::PROXIED.bits();
    }
}
