//! A connection to one of the broker's servers.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::json;

use super::auth::Credentials;
use super::wire::{Op, Parsed, parse, write_line};
use crate::cluster::pipe::{Pipe, refused};

/// The port of an address without one.
const PORT: u16 = 4222;

/// A server's address: `nats://user:password@host:port` or `nats://token@host:port`, or with `tls://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    user: Option<User>,
    secure: bool,
}

/// How an address says to log in.
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
    /// Reads one; `None` if it is not an address.
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

/// The oldest server that has all that a node needs: notes in a stream's configuration.
const VERSION_MIN: (u32, u32) = (2, 10);

impl ServerInfo {
    /// Whether its version has all that a node needs.
    pub fn is_recent(&self) -> bool {
        let mut parts = self.version.split('.').map_while(|part| part.parse::<u32>().ok());
        parts.next().zip(parts.next()) >= Some(VERSION_MIN)
    }
}

#[derive(Debug)]
pub struct Link {
    pipe: Pipe,
    info: ServerInfo,
}

impl Link {
    /// Connects and logs in. It blocks, but not for long.
    ///
    /// # Errors
    /// The server can't be reached, or refuses us.
    pub fn connect(
        address: &Address,
        credentials: Option<&Credentials>,
        tls: Option<&Arc<ClientConfig>>,
    ) -> io::Result<Self> {
        let pipe = Pipe::connect(&address.host, address.port)?;
        let mut link = Self { pipe, info: ServerInfo::default() };
        link.info = link.await_op(|op| match op {
            Op::Info(text) => Some(serde_json::from_slice(text).map_err(io::Error::from)),
            _ => None,
        })?;
        link.pipe = match (address.secure, tls, link.info.tls_required) {
            (true, Some(tls), _) => link.pipe.secured(tls, &address.host)?,
            (true, None, _) => {
                return Err(refused("it wants TLS, and no certificates to trust are known"));
            }
            (false, _, true) => {
                return Err(refused("it wants TLS: write its address as tls://..."));
            }
            (false, _, false) => link.pipe,
        };
        let said = introduction(address, credentials, &link.info);
        let mut out = Vec::new();
        write_line(&mut out, format_args!("CONNECT {said}\r\nPING"));
        link.pipe.send_all(&out)?;
        link.await_op(|op| match op {
            Op::Pong => Some(Ok(())),
            Op::Error(why) => Some(Err(refused(why))),
            _ => None,
        })?;
        link.pipe.never_block()?;
        Ok(link)
    }

    /// What the server said of itself.
    pub fn info(&self) -> &ServerInfo {
        &self.info
    }

    /// The connection's bytes.
    pub fn pipe(&mut self) -> &mut Pipe {
        &mut self.pipe
    }

    /// The socket to wait on, and whether to wait until it is writable, too.
    pub fn waits(&self, has_more: bool) -> (&TcpStream, bool) {
        (self.pipe.tcp(), has_more || self.pipe.holds_back())
    }

    /// Whether there may be more to read although the socket does not become readable.
    pub fn may_hold_more(&self) -> bool {
        self.pipe.may_hold_more()
    }

    /// The next operation in the input.
    ///
    /// # Errors
    /// The input is not NATS.
    pub fn next_op<T>(&mut self, take: impl FnOnce(Op<'_>) -> T) -> io::Result<Option<T>> {
        match parse(self.pipe.unread()) {
            Parsed::Complete(op, length) => {
                let taken = take(op);
                self.pipe.take(length);
                Ok(Some(taken))
            }
            Parsed::Partial => Ok(None),
            Parsed::Malformed => {
                Err(io::Error::new(ErrorKind::InvalidData, "this is not a NATS server"))
            }
        }
    }

    /// While the socket blocks: reads until the wanted operation comes.
    fn await_op<T>(&mut self, wanted: impl Fn(Op<'_>) -> Option<io::Result<T>>) -> io::Result<T> {
        loop {
            while let Some(taken) = self.next_op(&wanted)? {
                if let Some(found) = taken {
                    return found;
                }
            }
            self.pipe.await_more()?;
        }
    }
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
        credentials.prove(nonce, &mut said);
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (version, recent) in
            [("2.15.1", true), ("2.10.0", true), ("2.9.10", false), ("3.0", true), ("", false)]
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
