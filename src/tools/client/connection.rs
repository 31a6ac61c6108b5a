//! One connection to a server: blocking HTTP/1.1, over TLS where the URL says so.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::answer::Answer;
use super::error::ClientError;
use super::server::Server;
use crate::tools::wire::connection;
use crate::tools::wire::tls::{self, Socket};

/// How long a connect may take before the next address, or the next attempt.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// How long one write may take before the server counts as stuck.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

pub(super) type Connection = connection::Connection<Socket>;

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
                return Ok(Connection::over(match &server.tls {
                    None => Socket::Plain(socket),
                    Some((config, host)) => Socket::secured(socket, tls::connection(config, host)?),
                }));
            }
            Err(error) => failure = error,
        }
    }
    Err(unreachable(failure))
}

pub(super) fn answer(connection: &mut Connection) -> Result<Answer, ClientError> {
    let head = connection.head()?;
    let body = connection.body(&head)?;
    Ok(Answer { head, body })
}
