//! WebSockets (RFC 6455) on real sockets: the handshake, both modes, every operation, and every
//! way to break the protocol.

mod bare;
mod closing;
mod ending;
mod envelope;
mod framing;
mod handshake;
