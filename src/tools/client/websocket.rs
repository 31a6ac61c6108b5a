//! The client's side of a WebSocket.

use std::io::Write;

use bytes::Bytes;

use super::connection::Connection;
use super::error::ClientError;
use crate::proto::ws::frame::{self, Fin, Opcode, Sender};
use crate::proto::ws::handshake::{ENVELOPE_PROTOCOL, accept_key};
use crate::proto::ws::message::{MessageLimits, Received, Receiver};
use crate::tools::wire::UNIT_BYTES_MAX;
use crate::tools::wire::head::Head;

const LIMITS: MessageLimits =
    MessageLimits { message_bytes_max: UNIT_BYTES_MAX, fragments_max: 100_000 };

/// The request's nonce (RFC 6455 section 4.1): 16 random bytes in base64.
pub(super) fn nonce() -> String {
    use base64::Engine;
    let bytes: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Header lines of the request for an upgrade.
pub(super) fn upgrade_lines(nonce: &str) -> String {
    format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {nonce}\r\nSec-WebSocket-Protocol: {ENVELOPE_PROTOCOL}\r\n"
    )
}

/// Checks a 101 answer (RFC 6455 section 4.1).
pub(super) fn check_upgrade(head: &Head, nonce: &str) -> Result<(), ClientError> {
    let accepted = head.field("sec-websocket-accept").map(str::as_bytes);
    if accepted != Some(accept_key(nonce.as_bytes()).as_slice()) {
        return Err(ClientError::not_understood("its WebSocket answer is not for our key"));
    }
    if head.field("sec-websocket-protocol") != Some(ENVELOPE_PROTOCOL) {
        return Err(ClientError::not_understood("it does not speak pushline.v1"));
    }
    Ok(())
}

/// An open WebSocket.
#[derive(Debug)]
pub(super) struct WebSocket {
    connection: Connection,
    receiver: Receiver,
}

impl WebSocket {
    /// On a connection whose upgrade was answered.
    pub fn new(connection: Connection) -> Self {
        Self { connection, receiver: Receiver::new(Sender::Server) }
    }

    /// The next text message, if it is here already.
    pub fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while !self.connection.received.is_empty() {
            let bytes = self.connection.received.as_slice();
            let (taken, received) =
                self.receiver.receive(bytes, &LIMITS).map_err(ClientError::Frame)?;
            self.connection.received.drain(..taken);
            match received {
                Some(Received::Text(text)) => return Ok(Some(text)),
                Some(Received::Ping(payload)) => self.send(Opcode::Pong, &payload)?,
                Some(Received::Close { code, reason }) => {
                    let code_bytes = code.map(|code| code.0.to_be_bytes());
                    // The server may be gone already; what it said is what counts.
                    let _ = self.send(Opcode::Close, code_bytes.as_slice().as_flattened());
                    let reason = String::from_utf8_lossy(&reason).into_owned();
                    return Err(ClientError::ClosedWith(code, reason));
                }
                Some(Received::Binary(_) | Received::Pong) | None => {}
            }
        }
        Ok(None)
    }

    /// Waits for more bytes.
    pub fn read(&mut self) -> Result<(), ClientError> {
        Ok(self.connection.read()?)
    }

    /// A client's frames are masked with an unpredictable key (RFC 6455 section 5.3).
    fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), ClientError> {
        let mut frame = Vec::new();
        let key = fastrand::u32(..).to_ne_bytes();
        frame::write_masked(&mut frame, opcode, Fin::Last, key, payload);
        Ok(self.connection.socket.write_all(&frame)?)
    }
}
