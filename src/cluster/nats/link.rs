//! A connection to one of the broker's servers: a socket that never blocks once it is open, and what
//! is to be read and written.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::json;

use super::auth::Credentials;
use super::socket::Socket;
use super::wire::{Op, Parsed, parse, write_line};

/// How long a server may take to let us in.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

/// Read at once, at most: what it becomes is handed on before more is read.
const READ_BYTES_MAX: usize = 256 << 10;

/// Where NATS listens if an address does not say it.
const PORT: u16 = 4222;

/// A server's address: `nats://user:password@host:port`, or with a token instead of the two, or `tls://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    user: Option<User>,
    secure: bool,
}

/// Who we are, by an address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum User {
    Named(String, String),
    Token(String),
}

impl User {
    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((name, password)) => Self::Named(name.to_owned(), password.to_owned()),
            None => Self::Token(text.to_owned()),
        }
    }
}

impl Address {
    /// Reads one; none: it is none.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let secure = match scheme {
            "nats" => false,
            "tls" => true,
            _ => return None,
        };
        let rest = rest.trim_end_matches('/');
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let (host, port) = match place.rsplit_once(':') {
            // An IPv6 address without a port.
            Some(_) if place.ends_with(']') => (place, PORT),
            Some((host, port)) => (host, port.parse().ok()?),
            None => (place, PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let user = user.map(User::parse);
        (!host.is_empty()).then_some(Self { host, port, user, secure })
    }
}

impl fmt::Display for Address {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServerInfo {
    /// Its version.
    pub version: String,
    /// Largest message it takes.
    pub max_payload: usize,
    /// Whether it knows JetStream.
    pub jetstream: bool,
    /// Servers of its cluster that take clients.
    pub connect_urls: Vec<String>,
    /// Whether it takes no connection without TLS.
    tls_required: bool,
    nonce: Option<String>,
}

/// The oldest server that has all that a node needs: reading batches by direct get.
const VERSION_MIN: (u32, u32) = (2, 11);

impl ServerInfo {
    /// Whether its version has all that a node needs.
    pub fn is_recent(&self) -> bool {
        let mut parts = self.version.split('.').map_while(|part| part.parse::<u32>().ok());
        parts.next().zip(parts.next()) >= Some(VERSION_MIN)
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Link {
    socket: Socket,
    info: ServerInfo,
    input: Vec<u8>,
    /// Bytes at the front of `input` that are done with.
    read_to: usize,
    /// As much was read as is at once.
    was_full: bool,
}

impl Link {
    /// Connects and introduces us; waits for at most [`CONNECT_TIME_MAX`] at each step.
    ///
    /// # Errors
    /// The server is not there, or does not let us in.
    pub fn connect(
        address: &Address,
        credentials: Option<&Credentials>,
        tls: Option<&Arc<ClientConfig>>,
    ) -> io::Result<Self> {
        let socket = reach(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(CONNECT_TIME_MAX))?;
        socket.set_write_timeout(Some(CONNECT_TIME_MAX))?;
        let info = ServerInfo::default();
        let socket = Socket::Plain(socket);
        let mut link = Self { socket, info, input: Vec::new(), read_to: 0, was_full: false };
        link.info = link.await_op(|op| match op {
            Op::Info(text) => Some(serde_json::from_slice(text).map_err(io::Error::from)),
            _ => None,
        })?;
        link = match (address.secure, tls, link.info.tls_required) {
            (true, Some(tls), _) => link.secured(tls, &address.host)?,
            (true, None, _) => return Err(refused("there is no authority to believe")),
            (false, _, true) => return Err(refused("it wants TLS: its address is tls://...")),
            (false, _, false) => link,
        };
        let said = introduction(address, credentials, &link.info);
        let mut out = Vec::new();
        write_line(&mut out, format_args!("CONNECT {said}\r\nPING"));
        link.socket.write_all(&out)?;
        link.await_op(|op| match op {
            Op::Pong => Some(Ok(())),
            Op::Error(why) => Some(Err(refused(why))),
            _ => None,
        })?;
        link.socket.tcp().set_nonblocking(true)?;
        Ok(link)
    }

    /// With TLS. Nothing that came before is believed to come from the server.
    fn secured(self, tls: &Arc<ClientConfig>, host: &str) -> io::Result<Self> {
        if self.input.len() > self.read_to {
            return Err(refused("it said more than it may before TLS"));
        }
        Ok(Self { socket: self.socket.secured(tls, host)?, ..self })
    }

    /// What the server said of itself.
    pub fn info(&self) -> &ServerInfo {
        &self.info
    }

    /// To wait on.
    pub fn socket(&self) -> &TcpStream {
        self.socket.tcp()
    }

    /// Whether something that was sent is still held back.
    pub fn holds_back(&self) -> bool {
        self.socket.holds_back()
    }

    /// Whether there may be more to read, of which the socket says nothing.
    pub fn may_hold_more(&self) -> bool {
        self.was_full
    }

    /// Reads what has come; whether anything has.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn fill(&mut self) -> io::Result<bool> {
        self.input.drain(..std::mem::take(&mut self.read_to));
        let mut room = READ_BYTES_MAX;
        let mut piece = [0; 32 << 10];
        while room > 0 {
            match self.socket.read(&mut piece) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.input.extend_from_slice(&piece[..count]);
                    room = room.saturating_sub(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.was_full = room == 0;
        Ok(room < READ_BYTES_MAX)
    }

    /// The next operation of what was read.
    ///
    /// # Errors
    /// What was read is no NATS.
    pub fn next_op<T>(&mut self, take: impl FnOnce(Op<'_>) -> T) -> io::Result<Option<T>> {
        match parse(&self.input[self.read_to..]) {
            Parsed::Complete(op, length) => {
                let taken = take(op);
                self.read_to += length;
                Ok(Some(taken))
            }
            Parsed::Partial => Ok(None),
            Parsed::Malformed => Err(io::Error::new(ErrorKind::InvalidData, "this is no NATS")),
        }
    }

    /// Sends what the socket takes, from the front.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn send(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let mut sent = 0;
        while sent < out.len() {
            match self.socket.write(&out[sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        out.drain(..sent);
        self.socket.push()
    }

    /// While the socket blocks: reads until an operation is the one.
    fn await_op<T>(&mut self, wanted: impl Fn(Op<'_>) -> Option<io::Result<T>>) -> io::Result<T> {
        let mut piece = [0; 4096];
        loop {
            while let Some(taken) = self.next_op(&wanted)? {
                if let Some(found) = taken {
                    return found;
                }
            }
            match self.socket.read(&mut piece)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => self.input.extend_from_slice(&piece[..count]),
            }
        }
    }
}

/// Connects to the first of the name's addresses that takes us.
fn reach(address: &Address) -> io::Result<TcpStream> {
    let mut last = refused("the name has no address");
    for place in (address.host.as_str(), address.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&place, CONNECT_TIME_MAX) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn refused(why: &str) -> io::Error {
    io::Error::new(ErrorKind::ConnectionRefused, why.to_owned())
}

fn introduction(
    address: &Address,
    credentials: Option<&Credentials>,
    info: &ServerInfo,
) -> serde_json::Value {
    let mut said = json!({
        "verbose": false,
        "pedantic": false,
        "lang": "rust",
        "name": "pushline",
        "version": env!("CARGO_PKG_VERSION"),
        "protocol": 1,
        "echo": true,
        "headers": true,
        "no_responders": true,
    });
    match &address.user {
        Some(User::Named(name, password)) => {
            said["user"] = json!(name);
            said["pass"] = json!(password);
        }
        Some(User::Token(token)) => said["auth_token"] = json!(token),
        None => {}
    }
    if let (Some(credentials), Some(nonce)) = (credentials, &info.nonce) {
        said["jwt"] = json!(credentials.jwt());
        said["sig"] = json!(credentials.sign(nonce));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (version, recent) in
            [("2.15.1", true), ("2.11.0", true), ("2.9.10", false), ("3.0", true), ("", false)]
        {
            let info = ServerInfo { version: version.to_owned(), ..ServerInfo::default() };
            assert_eq!(info.is_recent(), recent, "{version}");
        }
    }

    #[test]
    fn an_address_has_a_host_and_perhaps_a_port_and_a_user() {
        let parts = |url: &str| Address::parse(url).map(|of| (of.host, of.port, of.user));
        let user = Some(User::Named("u".to_owned(), "p@s:s".to_owned()));
        let token = Some(User::Token("s3cret".to_owned()));
        for (url, parts_wanted) in [
            ("nats://localhost", Some(("localhost".to_owned(), 4222, None))),
            ("nats://10.0.0.1:4333/", Some(("10.0.0.1".to_owned(), 4333, None))),
            ("nats://u:p@s:s@h:1", Some(("h".to_owned(), 1, user))),
            ("nats://s3cret@h", Some(("h".to_owned(), 4222, token))),
            ("tls://h:1", Some(("h".to_owned(), 1, None))),
            ("nats://[::1]:7", Some(("::1".to_owned(), 7, None))),
            ("nats://[::1]", Some(("::1".to_owned(), 4222, None))),
            ("nats://", None),
            ("nats://h:x", None),
            ("http://h", None),
        ] {
            assert_eq!(parts(url), parts_wanted, "{url}");
        }
        let shown = Address::parse("nats://u:secret@h:1").expect("one").to_string();
        assert_eq!(shown, "h:1");
    }
}
