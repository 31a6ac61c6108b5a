//! Sessions: protocol machines. A session takes its connection's bytes and returns `Effects`; it
//! knows neither slots of the ring nor replicas, and asks a [`World`] what it must know about them.

mod access;
mod answer;
mod backend;
mod checks;
mod client;
mod closing;
mod describe;
mod flags;
mod history;
mod http;
mod http2;
mod log_line;
mod ndjson;
mod presence;
mod produce;
mod producer;
mod publish;
mod publish_head;
mod redirect;
mod refresh;
mod route;
mod subscribe;
mod unfinished;
mod view;
mod waits;
mod websocket;
mod work;
mod world;
mod ws_streams;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use crossbeam_channel::Sender;
use hashbrown::HashMap;

use self::backend::Answers;
use self::checks::Checks;
use self::flags::Flags;
use self::http2::HeadSpace;
use self::work::Work;
use super::pool::Pool;
use super::setup::Setup;
use super::table::Table;
use crate::auth::{Gate, Grant, ProofKey, Revoked};
use crate::bucket::Bucket;
use crate::config::Settings;
use crate::metrics::WorkerMetrics;
use crate::proto::cursor::Epoch;
use crate::proto::dialect::{Dialect, Heartbeat};
use crate::proto::http::head::HeaderSpace;
use crate::proto::http::response::Date;
use crate::proto::sender::Home;
use crate::ring::{Layer, Token};

pub use self::http::Step;
pub use self::http2::ForStream;
pub use self::log_line::{Asked, LogLine};
pub use self::refresh::{ConnectionId, RefreshLetter, RefreshOutcome};
pub use self::waits::Look;
pub use self::world::{Cx, World};

/// What a session speaks at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP: requests and answers.
    Http,
    /// HTTP/2, whose streams are sessions of their own.
    Http2,
    /// An SSE stream.
    Sse,
    /// A WebSocket.
    Ws,
    /// A WebSocket that has sent its close frame and waits for the peer's.
    WsClosing,
}

impl Protocol {
    /// Its place in counts by kind, as in `metrics::TRANSPORTS`.
    pub fn index(self) -> usize {
        match self {
            Self::Http => 0,
            Self::Sse => 1,
            Self::Ws | Self::WsClosing => 2,
            Self::Http2 => 3,
        }
    }
}

/// One session. An idle one is this and nothing else.
#[derive(Debug)]
struct Session {
    protocol: Protocol,
    /// How events are written to it (only meaningful for streams).
    dialect: Dialect,
    flags: Flags,
    /// Requests it has begun; shows a head's deadline whether it still concerns that head.
    requests: u32,
    /// What it may do; `None` while it is anonymous on an open server.
    grant: Option<Arc<Grant>>,
    /// Everything that only a busy session has.
    work: Option<Box<Work>>,
}

const _: () = assert!(size_of::<Session>() <= 24, "an idle connection costs one cache line");

impl Session {
    const fn new() -> Self {
        Self {
            protocol: Protocol::Http,
            dialect: Dialect::SseBare,
            flags: Flags::NONE,
            requests: 0,
            grant: None,
            work: None,
        }
    }
}

/// A worker's sessions, by index, and what they share.
#[derive(Debug)]
pub struct Sessions {
    home: Home,
    epoch: Epoch,
    proof_key: ProofKey,
    settings: Arc<Settings>,
    metrics: Arc<WorkerMetrics>,
    gate: Arc<Gate>,
    revoked: Arc<Revoked>,
    turn: u32,
    now: Duration,
    unix_s: u64,
    /// The present second, formatted for `Date`.
    date: Date,
    random: fastrand::Rng,
    is_draining: bool,
    of: Table<Session>,
    pool: Pool<Work>,
    /// How fast each session publishes, by slot; empty if there is no such limit.
    publishes: Vec<Bucket>,
    /// Requests of HTTP/2 begun in this turn, on all connections.
    http2_begun: u32,
    /// Sessions that left input unread until their output is sent or until the next turn.
    unread: VecDeque<Token>,
    checks: Checks,
    answers: Answers,
    /// The connection that produces each channel's stream.
    producing: HashMap<Box<str>, Token>,
    /// The slot up to which sessions have been checked against changed access rules; `None` if all
    /// were.
    vetted_to: Option<u32>,
    /// Memory held for unfinished input, all sessions together.
    unfinished_bytes: usize,
    header_space: Option<Box<HeaderSpace>>,
    head_space: Option<Box<HeadSpace>>,
    /// Lane for access-log and debug lines; `None` when they are off.
    lines: Option<Sender<LogLine>>,
}

impl Sessions {
    /// No session yet.
    pub fn new(setup: &Setup, metrics: Arc<WorkerMetrics>) -> Self {
        Self {
            home: Home { process: setup.proof_key.process(), worker: setup.worker },
            epoch: setup.epoch,
            proof_key: setup.proof_key.clone(),
            settings: setup.settings.clone(),
            metrics,
            gate: setup.gate.clone(),
            revoked: Arc::default(),
            turn: 0,
            now: Duration::ZERO,
            unix_s: 0,
            date: date_of(0),
            random: fastrand::Rng::with_seed(setup.seed),
            is_draining: false,
            of: Table::with_room(setup.slots),
            pool: Pool::default(),
            publishes: Vec::new(),
            http2_begun: 0,
            unread: VecDeque::new(),
            checks: Checks::default(),
            answers: Answers::default(),
            producing: HashMap::new(),
            vetted_to: None,
            unfinished_bytes: 0,
            header_space: Some(Box::default()),
            head_space: None,
            lines: None,
        }
    }

    /// This worker, as senders are told apart by it.
    pub fn home(&self) -> Home {
        self.home
    }

    pub fn set_now(&mut self, now: Duration, unix_s: u64) {
        self.now = now;
        self.turn = self.turn.wrapping_add(1);
        self.http2_begun = 0;
        if self.unix_s != unix_s {
            self.unix_s = unix_s;
            self.date = date_of(unix_s);
        }
        self.checks.begin_turn();
    }

    pub fn apply_settings(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
    }

    /// Refuses requests from now on.
    pub fn begin_drain(&mut self) {
        self.is_draining = true;
    }

    // --- one session's life ---

    /// Takes up a connection that was accepted.
    pub fn opened(&mut self, index: u32, layer: Layer) {
        self.of.reach(index, Session::new);
        self.metrics.open[Protocol::Http.index()].add(1);
        if layer == Layer::Tls {
            self.of[index].flags.set(Flags::SECURE);
        }
    }

    /// Whether the connection has TLS.
    pub fn is_secure(&self, index: u32) -> bool {
        self.of[index].flags.has(Flags::SECURE)
    }

    /// The peer has shown a certificate that was verified.
    pub fn certify(&mut self, index: u32) {
        self.of[index].flags.set(Flags::CERTIFIED);
    }

    fn is_certified(&self, index: u32) -> bool {
        self.of[index].flags.has(Flags::CERTIFIED)
    }

    /// Drops all but a connection that only waits for its peer to close.
    pub fn lingers(&mut self, index: u32) {
        self.set_protocol(index, Protocol::Http);
        let outstanding = self.outstanding(index);
        self.drop_work(index);
        // The log may still answer it.
        if outstanding > 0 {
            self.work(index).outstanding = outstanding;
        }
    }

    /// Forgets a connection that is closed.
    pub fn closed(&mut self, index: u32) {
        let kind = self.of[index].protocol;
        self.metrics.open[kind.index()].sub(1);
        self.drop_work(index);
        self.of[index] = Session::new();
        if let Some(bucket) = self.publishes.get_mut(index as usize) {
            *bucket = Bucket::default();
        }
    }

    fn set_protocol(&mut self, index: u32, kind: Protocol) {
        let session = &mut self.of[index];
        self.metrics.open[session.protocol.index()].sub(1);
        session.protocol = kind;
        self.metrics.open[kind.index()].add(1);
    }

    // --- what others may know about it ---

    /// What it speaks.
    pub fn protocol(&self, index: u32) -> Protocol {
        self.of[index].protocol
    }

    /// How events are written to it.
    pub fn dialect(&self, index: u32) -> Dialect {
        self.of[index].dialect
    }

    /// What its heartbeats are.
    pub fn heartbeat(&self, index: u32) -> Heartbeat {
        match self.of[index].flags.has(Flags::BEAT_EVENT) {
            true => Heartbeat::Event,
            false => Heartbeat::Plain,
        }
    }

    /// Its grant: what it may do, and for whom.
    pub fn grant(&self, index: u32) -> Option<&Arc<Grant>> {
        self.of[index].grant.as_ref()
    }

    /// Whether events are delivered to it.
    pub fn is_stream(&self, index: u32) -> bool {
        matches!(self.protocol(index), Protocol::Sse | Protocol::Ws)
    }

    /// Whether it takes input.
    pub fn takes_input(&self, index: u32) -> bool {
        matches!(self.protocol(index), Protocol::Http | Protocol::Http2 | Protocol::Ws)
    }

    /// Whether it has begun a request.
    pub fn has_begun(&self, index: u32) -> bool {
        self.of[index].requests > 0
    }

    /// Whether it is between requests: none begun, none unanswered.
    pub fn is_idle(&self, index: u32) -> bool {
        self.work_of(index).is_none_or(|work| work.is_idle())
    }

    // --- work ---

    fn work_of(&self, index: u32) -> Option<&Work> {
        self.of[index].work.as_deref()
    }

    /// The session's work, from the pool if it has none.
    fn work(&mut self, index: u32) -> &mut Work {
        let pool = &mut self.pool;
        self.of[index].work.get_or_insert_with(|| pool.take())
    }

    /// Returns what an idle session does not need to the pool.
    pub fn free_idle(&mut self, index: u32) {
        if self.work_of(index).is_some_and(Work::is_spare) {
            self.drop_work(index);
        }
    }

    fn drop_work(&mut self, index: u32) {
        if let Some(mut work) = self.of[index].work.take() {
            self.unfinished_bytes -= std::mem::take(&mut work.unfinished);
            self.pool.give(work);
        }
    }

    // --- input not parsed yet ---

    /// Keeps bytes, after those kept already.
    pub fn carry(&mut self, index: u32, bytes: &[u8]) {
        self.work(index).carry.extend_from_slice(bytes);
    }

    /// How many bytes are kept.
    pub fn carried(&self, index: u32) -> usize {
        self.work_of(index).map_or(0, |work| work.carry.len())
    }

    /// Takes the kept bytes out; `None` if the session is idle.
    pub fn take_carry(&mut self, index: u32) -> Option<Vec<u8>> {
        let work = self.of[index].work.as_mut()?;
        Some(std::mem::take(&mut work.carry))
    }

    /// Puts back the buffer with the bytes that are left in it. A connection of HTTP/2 has its work
    /// for good, and is not to keep an empty buffer with it.
    pub fn put_carry(&mut self, index: u32, carry: Vec<u8>) {
        let keeps = self.work_of(index).is_some_and(|work| work.http2.is_none());
        if !carry.is_empty() || keeps {
            self.work(index).carry = carry;
        }
    }

    /// Reads the session's unread input when the next turn begins.
    pub fn read_on_later(&mut self, token: Token) {
        if self.of[token.slot].flags.raise(Flags::UNREAD) {
            self.unread.push_back(token);
        }
    }

    /// Sessions whose input is to be read on; see [`Sessions::read_on`].
    pub fn take_unread(&mut self) -> VecDeque<Token> {
        std::mem::take(&mut self.unread)
    }

    /// Puts connections first in the next turn, because this one had no time for them.
    pub fn read_on_first(&mut self, mut unread: VecDeque<Token>) {
        unread.append(&mut self.unread);
        self.unread = unread;
    }

    /// Notes that the session's input is being read on now.
    pub fn read_on(&mut self, index: u32) {
        self.of[index].flags.clear(Flags::UNREAD);
    }

    /// Whether any session's input is to be read on.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    // --- requests at the log ---

    /// Counts one more request of the session at the log; returns how many there were before.
    pub fn begin_asking(&mut self, index: u32) -> u16 {
        let work = self.work(index);
        work.outstanding += 1;
        work.outstanding - 1
    }

    /// Counts one of them as answered.
    pub fn end_asking(&mut self, index: u32) {
        self.work(index).outstanding -= 1;
    }

    /// Requests of the session at the log.
    pub fn outstanding(&self, index: u32) -> u16 {
        self.work_of(index).map_or(0, |work| work.outstanding)
    }

    // --- invariants ---

    /// Whether nothing is left to read or to check.
    pub fn is_quiet(&self) -> bool {
        self.unread.is_empty() && self.checks.is_idle() && self.answers.is_idle()
    }

    /// Panics if the sessions contradict themselves. `open`: the connections that exist; `asked`:
    /// how many requests each has at the log.
    pub fn check_invariants(
        &self,
        open: impl Fn(u32) -> bool,
        token: impl Fn(u32) -> Token,
        asked: impl Fn(u32) -> usize,
    ) {
        let unfinished: usize =
            self.of.iter().filter_map(|of| of.work.as_ref()).map(|work| work.unfinished).sum();
        assert_eq!(self.unfinished_bytes, unfinished, "bytes of unfinished input");
        let indices = || self.of.indices().filter(|&index| open(index));
        for kind in 0..self.metrics.open.len() {
            let count =
                indices().filter(|&index| self.protocol(index).index() == kind).count() as u64;
            assert_eq!(self.metrics.open[kind].value(), count, "open connections of kind {kind}");
        }
        for (index, session) in self.of.indices().zip(self.of.iter()) {
            if !open(index) {
                assert!(session.work.is_none() && session.grant.is_none(), "slot {index} is free");
                continue;
            }
            let token = token(index);
            let unread = self.unread.contains(&token) || self.checks.has(token);
            let unread = unread || self.answers.has(token);
            assert_eq!(unread, session.flags.has(Flags::UNREAD), "slot {index}: {session:?}");
            let outstanding = usize::from(self.outstanding(index));
            assert_eq!(outstanding, asked(index), "slot {index} waits: {session:?}");
        }
    }
}

fn date_of(unix_s: u64) -> Date {
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_s));
    text.as_bytes().try_into().unwrap_or(*b"Thu, 01 Jan 1970 00:00:00 GMT")
}
