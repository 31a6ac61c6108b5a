//! What an operator should know about the servers before relying on them. They are asked one after
//! the other.

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::link::{Address, Link};
use super::resp::Reply;
use super::scripts::{head_key, log_key};
use super::talk::Server;
use super::{RedisError, RedisSettings};

/// What a server is found to be.
#[derive(Debug)]
pub struct Examined {
    /// What it says about itself.
    pub server: Server,
    /// When it syncs what it appends (`appendfsync`); none: it does not tell us.
    pub append_sync: Option<String>,
    /// How far its clock is ahead of ours (negative: behind), and how long it took to ask.
    pub clock: Option<(f64, Duration)>,
    /// The stream, if there is one.
    pub stream: Option<StreamFound>,
}

/// What a stream holds.
#[derive(Clone, Copy, Debug)]
pub struct StreamFound {
    /// Events it has had.
    pub last: u64,
    /// Those it still has.
    pub kept: u64,
}

/// Asks each server of the settings, in their order.
///
/// # Errors
/// The settings can't be used. That a server is not there is a finding.
pub fn examine(
    settings: &RedisSettings,
) -> Result<Vec<(String, io::Result<Examined>)>, RedisError> {
    let examined = settings.servers.iter().map(|url| {
        let address = Address::parse(url).ok_or_else(|| RedisError::Address(url.clone()))?;
        let link = Link::connect(&address, settings.tls.as_ref());
        let examined = link.and_then(|mut link| Examined::ask(&mut link, &settings.stream));
        Ok((address.to_string(), examined))
    });
    examined.collect()
}

impl Examined {
    /// We may not be allowed to ask for more than what it is.
    fn ask(link: &mut Link, stream: &str) -> io::Result<Self> {
        let server =
            link.ask(&[b"INFO"], |reply| Server::read(reply.text().unwrap_or_default()))?;
        let append_sync = link.ask(&[b"CONFIG", b"GET", b"appendfsync"], |reply| {
            reply.list().get(1).and_then(Reply::text).map(str::to_owned)
        });
        Ok(Self {
            server,
            append_sync: append_sync.unwrap_or_default(),
            clock: clock(link),
            stream: find_stream(link, stream),
        })
    }
}

fn clock(link: &mut Link) -> Option<(f64, Duration)> {
    let began = Instant::now();
    let theirs = link.ask(&[b"TIME"], |reply| {
        let [seconds, micros] = reply.list() else { return None };
        Some(seconds.number()? as f64 + micros.number()? as f64 / 1e6)
    });
    let took = began.elapsed();
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    theirs.ok()?.map(|theirs| (theirs - ours.as_secs_f64(), took))
}

fn find_stream(link: &mut Link, stream: &str) -> Option<StreamFound> {
    let (head, log) = (head_key(stream), log_key(stream));
    let mut number = |words: &[&[u8]]| link.ask(words, |reply| reply.number()).ok().flatten();
    let last = number(&[b"HGET", head.as_bytes(), b"last"])?;
    let kept = number(&[b"XLEN", log.as_bytes()])?;
    Some(StreamFound { last, kept })
}
