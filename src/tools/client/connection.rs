//! One connection to a server: blocking, plain HTTP/1.1.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::answer::Answer;
use super::error::ClientError;
use super::server::Server;
use crate::tools::wire::connection;

/// How long a connect may take before the next address, or the next attempt.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// How long one write may take before the server counts as stuck.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

pub(super) type Connection = connection::Connection<TcpStream>;

/// Connects. Reading fails once nothing has come for `silence_max`, if that is given.
pub(super) fn open(
    server: &Server,
    silence_max: Option<Duration>,
) -> Result<Connection, ClientError> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    let unreachable = |error| ClientError::Unreachable(server.address.clone(), error);
    for address in server.address.to_socket_addrs().map_err(unreachable)? {
        match TcpStream::connect_timeout(&address, CONNECT_TIME_MAX) {
            Ok(socket) => {
                // A line is sent when it comes, not once the last one is acknowledged.
                socket.set_nodelay(true)?;
                socket.set_read_timeout(silence_max)?;
                socket.set_write_timeout(Some(WRITE_TIME_MAX))?;
                return Ok(Connection::over(socket));
            }
            Err(error) => failure = error,
        }
    }
    Err(unreachable(failure))
}

/// The next answer.
pub(super) fn answer(connection: &mut Connection) -> Result<Answer, ClientError> {
    let head = connection.head()?;
    let body = connection.body(&head)?;
    Ok(Answer { head, body })
}
