//! What all sessions of a worker share. A session at work has this and itself; it sees no other one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use crossbeam_channel::Sender;
use hashbrown::HashMap;

use super::backend::Answers;
use super::checks::Checks;
use super::http2::HeadSpace;
use super::log_line::LogLine;
use super::state::Work;
use crate::auth::{Gate, ProofKey, Revoked};
use crate::bucket::Bucket;
use crate::config::Settings;
use crate::log::event::Publication;
use crate::metrics::WorkerMetrics;
use crate::proto::cursor::Epoch;
use crate::proto::http::head::HeaderSpace;
use crate::proto::http::response::Date;
use crate::proto::sender::Home;
use crate::ring::Token;
use crate::worker::pool::Pool;
use crate::worker::setup::Setup;

/// What the sessions of a worker share.
#[derive(Debug)]
pub struct Shared {
    /// This worker, as senders are told apart by it.
    pub home: Home,
    pub epoch: Epoch,
    pub proof_key: ProofKey,
    pub settings: Arc<Settings>,
    pub metrics: Arc<WorkerMetrics>,
    pub random: fastrand::Rng,
    /// No request is taken any more.
    pub is_draining: bool,
    /// Lane for access-log and debug lines; `None` when they are off.
    pub lines: Option<Sender<LogLine>>,

    // The present turn.
    pub turn: u32,
    pub now: Duration,
    pub unix_s: u64,
    /// The present second, formatted for `Date`.
    pub date: Date,
    /// Requests of HTTP/2 begun in this turn, on all connections.
    pub http2_begun: u32,

    // Who may do what.
    pub gate: Arc<Gate>,
    pub revoked: Arc<Revoked>,
    pub checks: Checks,
    pub answers: Answers,

    // Sessions by what they wait for or produce.
    /// Sessions that left input unread until their output is sent or until the next turn.
    pub unread: VecDeque<Token>,
    /// The connection that produces each channel's stream.
    pub producing: HashMap<Box<str>, Token>,
    /// How fast each session publishes, by slot; empty if there is no such limit.
    pub publishes: Vec<Bucket>,

    // Memory that is used again.
    pub pool: Pool<Work>,
    pub header_space: Option<Box<HeaderSpace>>,
    /// For the body of an answer to a publish.
    pub body_space: Vec<u8>,
    /// For the list of one publication.
    pub list_space: Vec<Publication>,
    pub head_space: Option<Box<HeadSpace>>,
}

impl Shared {
    pub fn new(setup: &Setup, metrics: Arc<WorkerMetrics>) -> Self {
        Self {
            home: Home { process: setup.proof_key.process(), worker: setup.worker },
            epoch: setup.epoch,
            proof_key: setup.proof_key.clone(),
            settings: setup.settings.clone(),
            metrics,
            random: fastrand::Rng::with_seed(setup.seed),
            is_draining: false,
            lines: None,
            turn: 0,
            now: Duration::ZERO,
            unix_s: 0,
            date: date_of(0),
            http2_begun: 0,
            gate: setup.gate.clone(),
            revoked: Arc::default(),
            checks: Checks::default(),
            answers: Answers::default(),
            unread: VecDeque::new(),
            producing: HashMap::new(),
            publishes: Vec::new(),
            pool: Pool::default(),
            header_space: Some(Box::default()),
            body_space: Vec::new(),
            list_space: Vec::new(),
            head_space: None,
        }
    }

    pub fn begin_turn(&mut self, now: Duration, unix_s: u64) {
        self.now = now;
        self.turn = self.turn.wrapping_add(1);
        self.http2_begun = 0;
        if self.unix_s != unix_s {
            self.unix_s = unix_s;
            self.date = date_of(unix_s);
        }
        self.checks.begin_turn();
    }
}

fn date_of(unix_s: u64) -> Date {
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_s));
    text.as_bytes().try_into().unwrap_or(*b"Thu, 01 Jan 1970 00:00:00 GMT")
}
