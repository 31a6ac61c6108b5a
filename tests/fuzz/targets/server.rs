//! A whole server for one connection, without sockets or threads: a worker's core, the log, and a
//! driver that takes every send. Time does not pass.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use pushline::auth::{Gate, ProofKey};
use pushline::config::Settings;
use pushline::log::event::Kind;
use pushline::log::message::{Ask, FromLog, Share, ToLog};
use pushline::log::sequencer::{Outlet, Sequencer};
use pushline::log::{SharedHasher, event::Publication};
use pushline::metrics::WorkerMetrics;
use pushline::proto::cursor::Epoch;
use pushline::ring::{BufferId, Completion, Layer, Op, RecvEnd, Token, Wait};
use pushline::worker::connection_count::{ByAddress, ConnectionCount};
use pushline::worker::{Core, Setup};

/// Small, so that the fuzzer exceeds it.
pub const EVENT_BYTES_MAX: usize = 512;

/// More turns than any input needs to become quiet.
const TURNS_MAX: usize = 10_000;

const TOKEN: Token = Token { slot: 0, generation: 0 };

/// An event as it was published: channel, kind, data, type, key.
pub type Published = (String, Kind, Vec<u8>, Option<String>, Option<String>);

/// The server and its one connection.
pub struct Server {
    core: Core,
    log: Sequencer,
    requests: Receiver<ToLog>,
    lane: FromLogLane,
    /// What the peer has sent and the worker has not taken.
    inbox: VecDeque<Inbound>,
    completions: VecDeque<Completion>,
    state: Connection,
    /// What the peer was sent.
    pub sent: Vec<u8>,
    /// What the log was given, in order.
    pub published: Vec<Published>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Receiving,
    Paused,
    Ended,
    Closed,
}

enum Inbound {
    Bytes(Vec<u8>),
    Eof,
}

#[derive(Default)]
struct FromLogLane(VecDeque<FromLog>);

impl Outlet for FromLogLane {
    fn has_room(&self, _worker: u16, _share: Share, _reserved: usize) -> bool {
        true
    }

    fn send(&mut self, _worker: u16, told: FromLog) {
        self.0.push_back(told);
    }
}

impl Server {
    /// A server that has just accepted a connection.
    pub fn new() -> Self {
        let settings =
            Arc::new(Settings { event_bytes_max: EVENT_BYTES_MAX, ..Settings::default() });
        let (epoch, hasher) = (Epoch::from_random(0), SharedHasher::from_seed(1));
        let setup = Setup {
            worker: 0,
            epoch,
            hasher: hasher.clone(),
            proof_key: ProofKey::new(&[1; 32]),
            settings: settings.clone(),
            slots: 128,
            connection_count: Arc::new(ConnectionCount::new(64, ByAddress::Ignored)),
            gate: Arc::new(Gate::open()),
            seed: 1,
        };
        let (to_log, requests) = unbounded();
        let mut server = Self {
            core: Core::new(setup, to_log, Arc::new(WorkerMetrics::default())),
            log: Sequencer::new(settings.log_settings(), epoch, 1, hasher),
            requests,
            lane: FromLogLane::default(),
            inbox: VecDeque::new(),
            completions: VecDeque::from([Completion::Accepted {
                slot: TOKEN.slot,
                peer: None,
                layer: Layer::Plain,
            }]),
            state: Connection::Paused,
            sent: Vec::new(),
            published: Vec::new(),
        };
        server.settle();
        server
    }

    /// The peer sends. Nothing happens before [`Server::settle`].
    pub fn receive(&mut self, bytes: &[u8]) {
        self.inbox.push_back(Inbound::Bytes(bytes.to_vec()));
    }

    /// The peer sends no more.
    pub fn finish(&mut self) {
        self.inbox.push_back(Inbound::Eof);
    }

    /// Panics if the worker contradicts itself.
    pub fn check_invariants(&self) {
        self.core.check_invariants();
    }

    /// Turns until everything is quiet.
    pub fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            self.turn();
            let waits = self.completions.is_empty() && self.lane.0.is_empty();
            let deaf = self.inbox.is_empty() || self.state != Connection::Receiving;
            if waits && deaf && self.requests.is_empty() && self.core.wait() != Wait::No {
                return;
            }
        }
        panic!("the server does not come to rest");
    }

    fn turn(&mut self) {
        self.core.begin_turn(Duration::ZERO, 0, &[]);
        for completion in std::mem::take(&mut self.completions) {
            self.core.complete(completion, &[]);
        }
        while self.state == Connection::Receiving
            && let Some(inbound) = self.inbox.pop_front()
        {
            self.deliver(&inbound);
        }
        for told in std::mem::take(&mut self.lane.0) {
            self.core.from_log(told);
        }
        self.core.end_turn();
        self.submit();
        while let Ok(request) = self.requests.try_recv() {
            if let ToLog::Worker { body, .. } = &request {
                self.note_published(body);
            }
            self.log.handle(request, Duration::ZERO, &mut self.lane);
        }
    }

    fn deliver(&mut self, inbound: &Inbound) {
        match inbound {
            Inbound::Bytes(bytes) => {
                let completion = Completion::Received { token: TOKEN, buffer: BufferId(0) };
                self.core.complete(completion, bytes);
            }
            Inbound::Eof => {
                self.state = Connection::Ended;
                let why = RecvEnd::Eof;
                self.core.complete(Completion::RecvEnded { token: TOKEN, why }, &[]);
            }
        }
    }

    /// Does what the driver would do with the batch.
    fn submit(&mut self) {
        let batch = self.core.batch();
        let mut sends = 0;
        for op in batch.ops.drain(..) {
            match op {
                Op::AcceptStart | Op::AcceptStop | Op::ListenStop => {}
                Op::RecvStart(token) => {
                    assert_eq!((token, self.state), (TOKEN, Connection::Paused), "{op:?}");
                    self.state = Connection::Receiving;
                }
                Op::RecvStop(token) => {
                    assert_eq!((token, self.state), (TOKEN, Connection::Receiving), "{op:?}");
                    self.state = Connection::Paused;
                    let why = RecvEnd::Disarmed;
                    self.completions.push_back(Completion::RecvEnded { token, why });
                }
                Op::Send { token, from, to } => {
                    assert!(self.state != Connection::Closed && token == TOKEN, "{op:?}");
                    sends += 1;
                    self.sent.extend_from_slice(&batch.arena[from as usize..to as usize]);
                }
                Op::PollOut(_) => panic!("every send was taken"),
                Op::Shutdown(_) => {}
                Op::Close(token) => {
                    assert!(self.state != Connection::Closed && token == TOKEN, "{op:?}");
                    self.state = Connection::Closed;
                    self.inbox.clear();
                }
            }
        }
        assert!(sends <= 1, "two sends in one batch tear the stream");
    }

    fn note_published(&mut self, body: &Ask) {
        let Ask::Publish { publications, .. } = body else { return };
        self.published.extend(publications.iter().map(|publication| {
            let Publication { channel, kind, data, event_type, key, .. } = publication.clone();
            (channel.into(), kind, data.into(), event_type.map(Into::into), key.map(Into::into))
        }));
    }
}
