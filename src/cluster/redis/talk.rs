//! The connection for publications and questions. A server answers in the order in which it was asked,
//! so the place of an answer tells which question it is for.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use rustls::ClientConfig;

use super::link::{Address, Link};
use super::resp::Reply;
use super::scripts;

/// The oldest version with all that a node needs. Valkey says that it is 7.2.
const MAJOR_MIN: u32 = 7;

/// The `maxmemory-policy` that keeps everything.
const NO_EVICTION: &str = "noeviction";

/// A question that waits for its answer.
#[derive(Debug)]
pub enum Asked {
    /// To add this publication.
    Publish(u64),
    /// To add a revocation; the sender hears whether it was added.
    Revoke(Sender<bool>),
    /// Whether the server is still the primary.
    Role,
    /// The state of the stream.
    Look,
    /// To raise the generation.
    Raise,
    /// To drop entries that no node needs.
    Trim,
    /// To tell the other nodes something.
    Say,
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// `redis_version`.
    pub version: String,
    /// Of `valkey_version`, if it is one.
    valkey: Option<String>,
    /// Changes whenever another server takes over, or this one starts again.
    pub replication: String,
    /// Whether it takes writes.
    pub is_primary: bool,
    /// Whether it still reads what is on its disk.
    pub is_loading: bool,
    /// Servers that follow it.
    pub replicas: u64,
    /// Bytes it may use; 0: all there are.
    pub memory_max: u64,
    /// What it does when they are used: `maxmemory-policy`.
    pub eviction: String,
    /// Whether it writes to disk as it goes.
    pub appends: bool,
}

impl Server {
    /// Reads the answer to INFO.
    pub fn read(text: &str) -> Self {
        let of = |name: &str| {
            text.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
        };
        let is = |name: &str, value: &str| of(name) == Some(value);
        let number = |name: &str| of(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        Self {
            version: of("redis_version").unwrap_or_default().to_owned(),
            valkey: of("valkey_version").map(str::to_owned),
            replication: of("master_replid").unwrap_or_default().to_owned(),
            is_primary: is("role", "master"),
            is_loading: is("loading", "1"),
            replicas: number("connected_slaves"),
            memory_max: number("maxmemory"),
            eviction: of("maxmemory_policy").unwrap_or(NO_EVICTION).to_owned(),
            appends: !is("aof_enabled", "0"),
        }
    }

    /// Its name and version.
    pub fn program(&self) -> String {
        match &self.valkey {
            Some(version) => format!("Valkey {version}"),
            None => format!("Redis {}", self.version),
        }
    }

    /// Whether its version has all that a node needs.
    pub fn is_recent(&self) -> bool {
        let major = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        major >= Some(MAJOR_MIN)
    }

    /// Whether it throws keys away when its memory is full.
    pub fn forgets(&self) -> bool {
        self.memory_max > 0 && self.eviction != NO_EVICTION
    }

    /// Why it can't be used, if that is so.
    pub fn obstacle(&self) -> Option<&'static str> {
        if !self.is_recent() {
            Some("it is older than Redis 7")
        } else if !self.is_primary {
            Some("it is a replica")
        } else if self.is_loading {
            Some("it is still loading")
        } else {
            None
        }
    }

    /// Dangers in how it is configured, in words.
    pub fn dangers(&self) -> impl Iterator<Item = &'static str> {
        let forgets = "it may drop keys when its memory is full: set maxmemory-policy noeviction";
        let keeps_nothing = "it does not write each change to disk: set appendonly yes";
        let forgets = self.forgets().then_some(forgets);
        [forgets, (!self.appends).then_some(keeps_nothing)].into_iter().flatten()
    }
}

/// The connection for questions, and those that wait for an answer, in order.
#[derive(Debug)]
pub struct Talk {
    /// The connection it uses.
    pub link: Link,
    /// What the server said when it was connected to.
    pub server: Server,
    /// The name that the server has for the script that publishes.
    publish: String,
    asked: VecDeque<(Asked, Duration)>,
}

impl Talk {
    /// Connects. It blocks, but not for long.
    ///
    /// # Errors
    /// The server can't be reached, or can't be used.
    pub fn connect(address: &Address, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let mut link = Link::connect(address, tls)?;
        let server =
            link.ask(&[b"INFO"], |reply| Server::read(reply.text().unwrap_or_default()))?;
        if let Some(why) = server.obstacle() {
            return Err(io::Error::other(why));
        }
        let load: [&[u8]; 3] = [b"SCRIPT", b"LOAD", scripts::PUBLISH.as_bytes()];
        let publish = link.ask(&load, |reply| reply.text().unwrap_or_default().to_owned())?;
        link.never_block()?;
        Ok(Self { link, server, publish, asked: VecDeque::new() })
    }

    pub fn ask(&mut self, asked: Asked, words: &[&[u8]], now: Duration) {
        self.link.write(words);
        self.asked.push_back((asked, now));
    }

    /// Queues a call of the script that publishes.
    pub fn ask_publish(&mut self, asked: Asked, words: &[&[u8]], now: Duration) {
        let publish = std::mem::take(&mut self.publish);
        let call: [&[u8]; 2] = [b"EVALSHA", publish.as_bytes()];
        self.ask(asked, &[&call[..], words].concat(), now);
        self.publish = publish;
    }

    /// Whether a question of this kind is not answered yet.
    pub fn awaits(&self, is_one: impl Fn(&Asked) -> bool) -> bool {
        self.asked.iter().any(|(asked, _)| is_one(asked))
    }

    /// The next answer, with what it answers and when that was asked.
    ///
    /// # Errors
    /// The input is not RESP, or nothing was asked.
    pub fn next<T>(
        &mut self,
        take: impl FnOnce(Asked, Duration, &Reply<'_>) -> T,
    ) -> io::Result<Option<T>> {
        let asked = &mut self.asked;
        let taken = self.link.next_reply(|reply| {
            let (what, since) = asked.pop_front()?;
            Some(take(what, since, reply))
        })?;
        match taken {
            Some(Some(taken)) => Ok(Some(taken)),
            Some(None) => Err(io::Error::other("an answer without a question")),
            None => Ok(None),
        }
    }

    /// Since when the oldest question has waited.
    pub fn waits_since(&self) -> Option<Duration> {
        self.asked.front().map(|(_, since)| *since)
    }

    /// All that is not answered.
    pub fn into_asked(self) -> impl Iterator<Item = Asked> {
        self.asked.into_iter().map(|(asked, _)| asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_what_it_is() {
        let text = "# Server\r\nredis_version:7.2.4\r\nloading:0\r\nrole:master\r\n\
                    master_replid:abc\r\nmaster_replid2:000\r\nmaxmemory:100\r\n\
                    maxmemory_policy:allkeys-lru\r\naof_enabled:1\r\n";
        let server = Server::read(text);
        assert_eq!((&*server.version, &*server.replication), ("7.2.4", "abc"));
        assert_eq!((server.obstacle(), server.dangers().count()), (None, 1));
        let obstacle = |from, to| Server::read(&text.replace(from, to)).obstacle();
        assert!(obstacle("role:master", "role:slave").is_some());
        assert!(obstacle("7.2.4", "6.2.0").is_some());
        assert!(obstacle("loading:0", "loading:1").is_some());
    }
}
