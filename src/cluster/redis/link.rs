//! A connection to one of the servers.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ClientConfig;

use super::resp::{Parsed, Reply, parse, write_command};
use crate::cluster::pipe::{Pipe, refused};

/// The port of an address without one.
const PORT: u16 = 6379;

/// A server's address: `redis://user:password@host:port/database`, or `rediss://` for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    user: Option<(String, String)>,
    database: u32,
    secure: bool,
}

impl Address {
    /// Reads one; `None` if it is not an address.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let secure = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return None,
        };
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let (place, database) = match rest.split_once('/') {
            Some((place, "")) => (place, 0),
            Some((place, database)) => (place, database.parse().ok()?),
            None => (rest, 0),
        };
        let (host, port) = match place.rsplit_once(':') {
            // An IPv6 address without a port.
            Some(_) if place.ends_with(']') => (place, PORT),
            Some((host, port)) => (host, port.parse().ok()?),
            None => (place, PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        // A password without a name is for the user `default`.
        let user = user.map(|user| user.split_once(':').unwrap_or(("", user)));
        let user = user.map(|(name, password)| {
            (if name.is_empty() { "default" } else { name }.to_owned(), password.to_owned())
        });
        (!host.is_empty()).then_some(Self { host, port, user, database, secure })
    }
}

impl fmt::Display for Address {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// An open connection, and what it has still to send.
#[derive(Debug)]
pub struct Link {
    pipe: Pipe,
    out: Vec<u8>,
}

impl Link {
    /// Connects and logs in. Blocks until [`Link::never_block`] is called.
    ///
    /// # Errors
    /// The server can't be reached, or refuses us.
    pub fn connect(address: &Address, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let pipe = Pipe::connect(&address.host, address.port)?;
        let pipe = match (address.secure, tls) {
            (true, Some(tls)) => pipe.secured(tls, &address.host)?,
            (true, None) => {
                return Err(refused("it wants TLS, and no certificates to trust are known"));
            }
            (false, _) => pipe,
        };
        let mut link = Self { pipe, out: Vec::new() };
        if let Some((name, password)) = &address.user {
            link.ask(&[b"AUTH", name.as_bytes(), password.as_bytes()], |_| ())?;
        }
        if address.database != 0 {
            link.ask(&[b"SELECT", address.database.to_string().as_bytes()], |_| ())?;
        }
        Ok(link)
    }

    /// While it blocks: sends a command and waits for the answer.
    ///
    /// # Errors
    /// The server refuses, or the connection has ended.
    pub fn ask<T>(&mut self, words: &[&[u8]], take: impl FnOnce(&Reply<'_>) -> T) -> io::Result<T> {
        let mut command = Vec::new();
        write_command(&mut command, words);
        self.pipe.send_all(&command)?;
        let mut take = Some(take);
        loop {
            let taken = self.next_reply(|reply| match reply {
                Reply::Error(why) => Err(refused(why)),
                _ => take.take().map(|take| take(reply)).ok_or(ErrorKind::Other.into()),
            })?;
            match taken {
                Some(taken) => return taken,
                None => self.pipe.await_more()?,
            }
        }
    }

    /// No call blocks any more.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn never_block(&self) -> io::Result<()> {
        self.pipe.never_block()
    }

    /// Queues a command for [`Self::send`].
    pub fn write(&mut self, words: &[&[u8]]) {
        write_command(&mut self.out, words);
    }

    /// Reads what has come. Returns whether anything has.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn fill(&mut self) -> io::Result<bool> {
        self.pipe.fill()
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn send(&mut self) -> io::Result<()> {
        self.pipe.send(&mut self.out)
    }

    /// The socket to wait on, and whether to wait until it is writable, too.
    pub fn waits(&self) -> (&TcpStream, bool) {
        (self.pipe.tcp(), !self.out.is_empty() || self.pipe.holds_back())
    }

    /// Whether there may be more to read although the socket does not become readable.
    pub fn may_hold_more(&self) -> bool {
        self.pipe.may_hold_more()
    }

    /// The next reply in the input.
    ///
    /// # Errors
    /// The input is not RESP.
    pub fn next_reply<T>(&mut self, take: impl FnOnce(&Reply<'_>) -> T) -> io::Result<Option<T>> {
        match parse(self.pipe.unread()) {
            Parsed::Complete(reply, length) => {
                let taken = take(&reply);
                drop(reply);
                self.pipe.take(length);
                Ok(Some(taken))
            }
            Parsed::Partial => Ok(None),
            Parsed::Malformed => {
                Err(io::Error::new(ErrorKind::InvalidData, "this is not a Redis server"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_perhaps_a_port_a_user_and_a_database() {
        let parts = |url: &str| {
            Address::parse(url).map(|of| (of.host, of.port, of.user, of.database, of.secure))
        };
        let user = |name: &str| Some((name.to_owned(), "p@:w".to_owned()));
        for (url, wanted) in [
            ("redis://h", Some(("h".to_owned(), 6379, None, 0, false))),
            ("rediss://u:p@:w@h:1/2", Some(("h".to_owned(), 1, user("u"), 2, true))),
            ("redis://:p@:w@h/", Some(("h".to_owned(), 6379, user("default"), 0, false))),
            ("redis://[::1]:7", Some(("::1".to_owned(), 7, None, 0, false))),
            ("redis://h/x", None),
            ("redis://", None),
            ("nats://h", None),
        ] {
            assert_eq!(parts(url), wanted, "{url}");
        }
        let shown = Address::parse("redis://u:secret@h:1").expect("one").to_string();
        assert_eq!(shown, "h:1");
    }
}
