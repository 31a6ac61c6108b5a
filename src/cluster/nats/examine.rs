//! What to know about a broker before relying on it, for `pushline doctor`. One connection, which waits
//! for each answer.

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;
use serde_json::Value;

use super::api::{self, Api, ApiError, StreamInfo};
use super::auth::Credentials;
use super::codec;
use super::link::{Address, Link, ServerInfo};
use super::wire::{Op, write_line, write_message};
use super::{NatsError, NatsSettings};

/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// What a broker says of itself and of the stream.
#[derive(Debug)]
pub struct Examined {
    /// For each server of the settings, in their order: what it says of itself, or why it can't be
    /// reached.
    pub servers: Vec<(String, io::Result<ServerInfo>)>,
    /// The account's limits; `None`: JetStream does not answer.
    pub account: Option<Account>,
    /// The stream, or why there is no answer about it.
    pub stream: Result<StreamInfo, ApiError>,
    /// How far the broker's clock is ahead of ours (negative: behind), and how long it took to ask.
    pub clock: Option<(f64, Duration)>,
    /// How often a server syncs its files, if it says so.
    pub sync_interval: Option<Duration>,
}

/// What an account may have.
#[derive(Clone, Debug, Deserialize)]
pub struct Account {
    /// Bytes it uses on disk.
    #[serde(default)]
    pub storage: u64,
    /// Limits for all its streams together.
    pub limits: Limits,
}

/// The limits of an account; -1 is no limit.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Limits {
    /// Bytes on disk.
    pub max_storage: i64,
}

/// Asks each server, and one of them about the stream.
///
/// # Errors
/// The settings can't be used. A server that can't be reached is no error but a finding.
pub fn examine(settings: &NatsSettings) -> Result<Examined, NatsError> {
    let credentials = settings.credentials.as_deref().map(Credentials::read).transpose();
    let credentials = credentials.map_err(NatsError::Credentials)?;
    let mut found = Examined {
        servers: Vec::new(),
        account: None,
        stream: Err(ApiError::Away),
        clock: None,
        sync_interval: None,
    };
    let mut asker = None;
    for url in &settings.servers {
        let address = Address::parse(url).ok_or_else(|| NatsError::Address(url.clone()))?;
        let link = Link::connect(&address, credentials.as_ref(), settings.tls.as_ref());
        let info = link.as_ref().map(|link| link.info().clone());
        let info = info.map_err(|error| io::Error::new(error.kind(), error.to_string()));
        found.servers.push((address.to_string(), info));
        asker = asker.or(link.ok());
    }
    if let Some(link) = asker {
        Asker::new(link, settings.node).ask_all(&settings.stream, &mut found);
    }
    Ok(found)
}

struct Asker {
    link: Link,
    inbox: String,
    out: Vec<u8>,
    asked: u64,
}

impl Asker {
    fn new(link: Link, node: u64) -> Self {
        let inbox = format!("_INBOX.{node:016x}");
        let mut out = Vec::new();
        write_line(&mut out, format_args!("SUB {inbox}.* 1"));
        Self { link, inbox, out, asked: 0 }
    }

    fn ask_all(&mut self, stream: &str, found: &mut Examined) {
        let account = self.ask("$JS.API.INFO", "");
        found.account = account.and_then(|payload| api::answer(&payload).ok());
        let (subject, body) = Api::new(stream).info();
        let began = Instant::now();
        if let Some(payload) = self.ask(&subject, &body) {
            let took = began.elapsed();
            let said: Option<Value> = serde_json::from_slice(&payload).ok();
            let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let theirs = said.as_ref().and_then(|said| codec::time(said["ts"].as_str()?));
            found.clock = theirs.map(|theirs| (theirs.as_secs_f64() - ours.as_secs_f64(), took));
            found.stream = api::answer(&payload);
        }
        // Only a user of the system's account is answered.
        let varz = self.ask("$SYS.REQ.SERVER.PING.JSZ", "{\"config\":true}");
        let varz: Option<Value> = varz.and_then(|payload| serde_json::from_slice(&payload).ok());
        let interval = varz.and_then(|said| said["data"]["config"]["sync_interval"].as_u64());
        found.sync_interval = interval.map(Duration::from_nanos);
    }

    fn ask(&mut self, subject: &str, body: &str) -> Option<Vec<u8>> {
        self.asked += 1;
        let reply = format!("{}.{}", self.inbox, self.asked);
        write_message(&mut self.out, subject, Some(&reply), &[], body.as_bytes());
        let deadline = Instant::now() + ANSWER_TIME_MAX;
        self.await_answer(&reply, deadline).unwrap_or_default()
    }

    /// Returns the answer, or `None` if there is none by the deadline.
    fn await_answer(&mut self, reply: &str, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        loop {
            self.link.pipe().send(&mut self.out)?;
            let time = deadline.saturating_duration_since(Instant::now());
            if time.is_zero() {
                return Ok(None);
            }
            let time =
                Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
            poll(&mut [PollFd::new(self.link.pipe().tcp(), PollFlags::IN)], Some(&time))?;
            self.link.pipe().fill()?;
            let take = |op: Op<'_>| match op {
                Op::Message(message) if message.subject == reply => Some(message.payload.to_vec()),
                _ => None,
            };
            while let Some(taken) = self.link.next_op(take)? {
                if let Some(payload) = taken {
                    return Ok((!payload.is_empty()).then_some(payload));
                }
            }
        }
    }
}
