//! The answer to one request over a blocking socket, within a deadline.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::door::Arrived;
use super::reply::Reply;
use crate::proto::http::head::{self, Framing, HeaderSpace, Method};
use crate::proto::http::head::{Parsed, Request};
use crate::proto::http::response::BodyMode;

/// How long a client that was answered may keep sending. Closing at once would reset the
/// connection, and the answer could be lost on its way.
const LINGER_TIME: Duration = Duration::from_millis(500);

/// Answers a request and ends the connection.
///
/// # Errors
/// The peer left, or the deadline passed.
pub(super) fn serve(
    arrived: &Arrived,
    deadline: Instant,
    answer: impl Fn(&Request<'_>) -> Reply,
) -> io::Result<()> {
    let Arrived { stream, received } = arrived;
    stream.set_nonblocking(false)?;
    let mut space = HeaderSpace::new();
    let (bytes, more_may_come) = match head::parse_prefix(received, &mut space) {
        Ok(Parsed::Complete(request)) => {
            let mode = match request.method() {
                Method::Head => BodyMode::HeadOnly,
                _ => BodyMode::Whole,
            };
            (answer(&request).into_bytes(mode), has_body(&request))
        }
        // The door only lets complete heads in.
        Ok(Parsed::Partial) => return Ok(()),
        Err(error) => (Reply::reject(&error.into()).into_bytes(BodyMode::Whole), true),
    };
    write(stream, deadline, &bytes)?;
    if more_may_come {
        linger(stream, deadline.min(Instant::now() + LINGER_TIME))?;
    }
    Ok(())
}

/// Whether a body follows the head.
pub(super) fn has_body(request: &Request<'_>) -> bool {
    !matches!(request.framing(), Framing::None | Framing::Length(0))
}

fn read(mut stream: &TcpStream, deadline: Instant, into: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn write(mut stream: &TcpStream, deadline: Instant, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Lets the peer close first, for a moment; what it still sends is thrown away.
fn linger(stream: &TcpStream, deadline: Instant) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let mut piece = [0; 4096];
    while read(stream, deadline, &mut piece)? > 0 {}
    Ok(())
}

/// Time left until the deadline, never zero: as a socket timeout, zero would mean none.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}
