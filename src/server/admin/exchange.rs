//! The answer to one request over a blocking socket, within a deadline.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::door::Arrived;
use super::reply::Reply;
use crate::proto::http::head::{self, Framing, HeaderSpace, Method};
use crate::proto::http::head::{Parsed, Request};
use crate::proto::http::response::BodyMode;
use crate::server::deadline::Timed;

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
    Timed { stream, until: deadline }.write_all(&bytes)?;
    if more_may_come {
        linger(stream, deadline.min(Instant::now() + LINGER_TIME))?;
    }
    Ok(())
}

/// Whether a body follows the head.
pub(super) fn has_body(request: &Request<'_>) -> bool {
    !matches!(request.framing(), Framing::None | Framing::Length(0))
}

/// Lets the peer close first, for a moment; what it still sends is thrown away.
fn linger(stream: &TcpStream, deadline: Instant) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    io::copy(&mut Timed { stream, until: deadline }, &mut io::sink())?;
    Ok(())
}
