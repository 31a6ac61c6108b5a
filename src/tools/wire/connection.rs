//! Answers over a blocking connection.

use std::fmt;
use std::io::{self, Read};

use super::head::{Head, HeadError};
use crate::proto::http::body::{BodyDecoder, BodyError};
use crate::proto::reject::Reject;

/// Longest body of an answer: ours contain an id and a few numbers.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Bytes read at once.
const READ_BYTES: usize = 32 * 1024;

/// A connection, and the bytes that have come and were not used yet.
#[derive(Debug)]
pub struct Connection<S> {
    /// For sending; reads go through this type.
    pub socket: S,
    /// Received bytes, in order.
    pub received: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum WireError {
    /// The connection broke, or nothing came in time.
    Io(io::Error),
    /// The server closed the connection.
    Closed,
    /// It does not begin like an HTTP answer.
    Head(HeadError),
    /// Its body breaks the chunked coding.
    Body(BodyError),
    /// Its body is longer than [`BODY_BYTES_MAX`].
    BodyTooLong,
}

impl<S: Read> Connection<S> {
    /// Over an open socket.
    pub fn over(socket: S) -> Self {
        Self { socket, received: Vec::new() }
    }

    /// Reads on.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn read(&mut self) -> Result<(), WireError> {
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
            Ok(0) => Err(WireError::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(WireError::Io(error)),
        }
    }

    /// The head of the next answer that is not interim; its body comes next.
    ///
    /// # Errors
    /// There is no answer.
    pub fn head(&mut self) -> Result<Head, WireError> {
        loop {
            match Head::parse(&self.received).map_err(WireError::Head)? {
                Some((head, length)) => {
                    self.received.drain(..length);
                    if !head.is_interim() {
                        return Ok(head);
                    }
                }
                None => self.read()?,
            }
        }
    }

    /// The body after a head. One without a length counts as empty: we ask for none.
    ///
    /// # Errors
    /// It has no end that we would wait for.
    pub fn body(&mut self, head: &Head) -> Result<Vec<u8>, WireError> {
        let mut body = Vec::new();
        let Some(framing) = head.framing() else { return Ok(body) };
        let mut decoder = BodyDecoder::new(framing);
        while !decoder.is_done() {
            if self.received.is_empty() {
                self.read()?;
            }
            let decoded = decoder.decode(&self.received).map_err(WireError::Body)?;
            body.extend_from_slice(decoded.payload);
            let consumed = decoded.consumed;
            self.received.drain(..consumed);
            if body.len() > BODY_BYTES_MAX {
                return Err(WireError::BodyTooLong);
            }
        }
        Ok(body)
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Head(HeadError::NotHttp) => f.write_str("its answer is not HTTP"),
            Self::Head(HeadError::TooLong) => f.write_str("its answer has a head without an end"),
            Self::Body(error) => {
                write!(f, "the answer is broken: {}", Reject::from(*error).message)
            }
            Self::BodyTooLong => f.write_str("its answer is too long"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes one at a time.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.len().min(1).min(buffer.len());
            let (now, later) = self.0.split_at(length);
            buffer[..length].copy_from_slice(now);
            self.0 = later;
            Ok(length)
        }
    }

    const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
    const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n";

    fn answer(socket: impl Read) -> Result<(u16, Vec<u8>, Vec<u8>), WireError> {
        let mut connection = Connection::over(socket);
        let head = connection.head()?;
        let body = connection.body(&head)?;
        Ok((head.status, body, connection.received))
    }

    #[test]
    fn answers_are_read_to_their_end_and_no_further() {
        for (bytes, status, body) in
            [(PLAIN, 200, &b"hello"[..]), (CHUNKED, 202, b"hello"), (INTERIM, 204, b"")]
        {
            let followed = [bytes, b"next"].concat();
            let whole = answer(followed.as_slice()).expect("an answer");
            assert_eq!(whole, (status, body.to_vec(), b"next".to_vec()));
            let mut drip = Drip(&followed);
            let dripped = answer(&mut drip).expect("an answer");
            assert_eq!((dripped, drip.0), ((status, body.to_vec(), vec![]), &b"next"[..]));
        }
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        for bytes in [PLAIN, CHUNKED, INTERIM] {
            let cut = answer(&bytes[..bytes.len() - 1]);
            assert!(matches!(cut, Err(WireError::Closed)), "{cut:?}");
        }
    }
}
