//! One connection to a server: blocking, plain HTTP/1.1.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::answer::{Answer, AnswerHead};
use super::error::ClientError;
use super::server::Server;
use crate::proto::http::body::BodyDecoder;

/// How long a connect may take; then the next address is tried, or the next time.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// How long one write may take: the server takes nothing more.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

/// Longest body of an answer: ours say an id and a few numbers.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What is read at once.
const READ_BYTES: usize = 32 * 1024;

/// A connection and what has come of it but was not looked at yet.
#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    pub received: Vec<u8>,
}

impl Connection {
    /// Connects. Reading fails once nothing came for `silence_max`, if that is given.
    pub fn open(server: &Server, silence_max: Option<Duration>) -> Result<Self, ClientError> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        let unreachable = |error| ClientError::Unreachable(server.address.clone(), error);
        for address in server.address.to_socket_addrs().map_err(unreachable)? {
            match TcpStream::connect_timeout(&address, CONNECT_TIME_MAX) {
                Ok(socket) => {
                    // A line is sent when it comes, not when the last one was confirmed.
                    socket.set_nodelay(true)?;
                    socket.set_read_timeout(silence_max)?;
                    socket.set_write_timeout(Some(WRITE_TIME_MAX))?;
                    return Ok(Self { socket, received: Vec::new() });
                }
                Err(error) => failure = error,
            }
        }
        Err(unreachable(failure))
    }

    /// Another handle to write with, for another thread.
    pub fn writer(&self) -> Result<TcpStream, ClientError> {
        Ok(self.socket.try_clone()?)
    }

    /// Sends all of it.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        Ok(self.socket.write_all(bytes)?)
    }

    /// Reads on.
    pub fn read(&mut self) -> Result<(), ClientError> {
        let length = self.received.len();
        self.received.resize(length + READ_BYTES, 0);
        let read = loop {
            match self.socket.read(&mut self.received[length..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.received.truncate(length + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(ClientError::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The head of the next answer; its body is what comes next.
    pub fn head(&mut self) -> Result<AnswerHead, ClientError> {
        loop {
            match AnswerHead::parse(&self.received)? {
                Some((head, length)) => {
                    self.received.drain(..length);
                    if head.status / 100 != 1 || head.status == 101 {
                        return Ok(head);
                    }
                }
                None => self.read()?,
            }
        }
    }

    /// The next answer. A body without a length is taken to be empty: we ask for none.
    pub fn answer(&mut self) -> Result<Answer, ClientError> {
        let head = self.head()?;
        let body = self.body(&head)?;
        Ok(Answer { head, body })
    }

    /// An answer's body.
    pub fn body(&mut self, head: &AnswerHead) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        let Some(framing) = head.framing() else { return Ok(body) };
        let mut decoder = BodyDecoder::new(framing);
        while !decoder.is_done() {
            if self.received.is_empty() {
                self.read()?;
            }
            let decoded = decoder.decode(&self.received).map_err(ClientError::Body)?;
            body.extend_from_slice(decoded.payload);
            let consumed = decoded.consumed;
            self.received.drain(..consumed);
            if body.len() > BODY_BYTES_MAX {
                return Err(ClientError::not_understood("its answer is too long"));
            }
        }
        Ok(body)
    }
}
