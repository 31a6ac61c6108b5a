//! Access at one worker, without threads: what happens between the moments that a real server would
//! hardly ever hit, and what a connection that shows new tokens for ever costs.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::ws::{TEXT, frame, upgrade};
use common::{bearer_token, gate_of, request};
use crossbeam_channel::{Receiver, bounded};
use pushline::config::Settings;
use pushline::log::message::{JoinedChannel, Letter, Notice, RefreshOutcome, Request, RequestBody};
use pushline::log::{Roster, SharedHasher};
use pushline::metrics::WorkerMetrics;
use pushline::proto::cursor::Epoch;
use pushline::ring::{BufferId, Completion, Op, Token, Wait};
use pushline::worker::census::{ByAddress, Census};
use pushline::worker::core::{Core, Setup};
use pushline::worker::order::Order;
use pushline::worker::slot::Phase;
use serde_json::json;

const NOW: u64 = 1_800_000_000;
const SLOT: Token = Token { slot: 0, generation: 0 };
const RECEIVED: Completion = Completion::Received { token: SLOT, buffer: BufferId(0) };
const RULES: &str = "hmac_secrets = [{ env = 'PUSHLINE_SECRET' }]";
const OTHER_RULES: &str = "hmac_secrets = [{ value = 'a-second-secret-of-32-bytes-or-more' }]";

/// A guarded worker with one connection, and what it asks of the log.
struct Worker {
    core: Core,
    asked: Receiver<Request>,
}

impl Worker {
    fn new() -> Self {
        let setup = Setup {
            worker: 0,
            epoch: Epoch::from_random(1),
            hasher: SharedHasher::from_seed(1),
            settings: Arc::new(Settings::default()),
            slots: 20_000,
            census: Arc::new(Census::new(20_000, ByAddress::Ignored)),
            gate: Arc::new(gate_of(RULES)),
            seed: 1,
        };
        let (ask, asked) = bounded(8);
        let core = Core::new(setup, ask, Arc::new(WorkerMetrics::default()));
        let mut worker = Self { core, asked };
        worker.turn(|core| core.complete(Completion::Accepted { slot: 0, peer: None }, b""));
        worker
    }

    /// A turn in which this happens; what the worker wants done.
    fn turn(&mut self, happens: impl FnOnce(&mut Core)) -> Vec<Op> {
        self.turn_at(NOW, happens)
    }

    fn turn_at(&mut self, unix_s: u64, happens: impl FnOnce(&mut Core)) -> Vec<Op> {
        self.core.batch().ops.clear();
        self.core.begin_turn(Duration::from_millis(1), unix_s, &[]);
        happens(&mut self.core);
        self.core.end_turn();
        self.core.check_invariants();
        self.core.batch().ops.to_vec()
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.turn(|core| core.complete(RECEIVED, bytes));
    }

    fn open_websocket(&mut self) {
        self.receive(&websocket_request());
    }

    fn phase(&mut self, slot: u32) -> Phase {
        let (reply, glance) = bounded(1);
        self.core.order(Order::List { from: slot, limit: 1, reply });
        glance.try_recv().expect("an answer").connections[0].phase
    }

    fn take_other_rules(&mut self) {
        self.turn(|core| core.order(Order::Gate(Arc::new(gate_of(OTHER_RULES)))));
    }
}

fn websocket_request() -> Vec<u8> {
    let offer = format!("pushline.v1, bearer.{}", token(1));
    upgrade("/ws", &[("Sec-WebSocket-Protocol", &offer)])
}

fn token(hours: u64) -> String {
    let rights = json!({"subscribe": ["*"], "publish": ["*"]});
    bearer_token(&json!({"exp": NOW + 3600 * hours, "pushline": rights}))
}

/// The ends of earlier tokens, hours away, are not kept for each renewal.
#[test]
fn renewals_do_not_pile_up() {
    let mut worker = Worker::new();
    worker.open_websocket();
    let renewals = [token(2), token(3)].map(|token| {
        frame(true, TEXT, json!({"op": "auth", "token": token}).to_string().as_bytes())
    });
    for renewal in renewals.iter().cycle().take(5000) {
        worker.receive(renewal);
    }
}

/// What comes in the very turn in which the token runs out is before the close, and too late.
#[test]
fn an_operation_in_the_second_of_the_end_is_not_done() {
    let leeway_s = 5;
    for (early_s, asks) in [(1, true), (0, false)] {
        for op in [
            json!({"op": "subscribe", "channel": "news"}),
            json!({"op": "publish", "channel": "news", "data": 1}),
        ] {
            let mut worker = Worker::new();
            worker.open_websocket();
            let bytes = frame(true, TEXT, op.to_string().as_bytes());
            let moment = NOW + 3600 + leeway_s - early_s;
            worker.turn_at(moment, |core| core.complete(RECEIVED, &bytes));
            assert_eq!(worker.asked.try_recv().is_ok(), asks, "{op}, {early_s} s before");
        }
    }
}

/// Rules that have changed are applied to a slice of the connections a turn, and to all of them.
#[test]
fn new_rules_reach_every_connection() {
    const CONNECTIONS: u32 = 10_000;
    let mut worker = Worker::new();
    worker.open_websocket();
    let request = websocket_request();
    worker.turn(|core| {
        for slot in 1..CONNECTIONS {
            core.complete(Completion::Accepted { slot, peer: None }, b"");
            let token = Token { slot, generation: 0 };
            core.complete(Completion::Received { token, buffer: BufferId(0) }, &request);
        }
    });
    assert_eq!(worker.phase(CONNECTIONS - 1), Phase::Ws);
    worker.take_other_rules();
    assert_eq!(worker.phase(0), Phase::WsClosing);
    assert_eq!(worker.phase(CONNECTIONS - 1), Phase::Ws, "a turn has its limits");
    while worker.phase(CONNECTIONS - 1) == Phase::Ws {
        assert_eq!(worker.core.wait(), Wait::No);
        worker.turn(|_| {});
    }
}

/// The key is taken away while the log is asked for the stream's channel.
#[test]
fn a_stream_does_not_open_with_a_key_that_is_gone_by_then() {
    let mut worker = Worker::new();
    let bearer = format!("Bearer {}", token(1));
    let headers = [("Authorization", bearer.as_str())];
    worker.receive(&request("GET", "/sse?channel=news", &headers, None));
    let Ok(Request { body: RequestBody::Join { token, ticket, .. }, .. }) = worker.asked.try_recv()
    else {
        panic!("the log is asked");
    };
    worker.take_other_rules();
    let channel = JoinedChannel {
        name: Arc::new(Roster::new("news")),
        hash: SharedHasher::from_seed(1).channel("news"),
        backlog: Vec::new(),
        after: 0,
        gap: None,
    };
    let joined = Notice::Joined { token, ticket, head_seq: 0, channels: vec![channel] };
    let ops = worker.turn(|core| core.notice(joined));
    assert!(ops.iter().any(|op| matches!(op, Op::Close(closed) if *closed == SLOT)), "{ops:?}");
}

/// Another worker checked the new token before it heard of the change of rules.
#[test]
fn a_new_token_is_not_taken_by_rules_of_yesterday() {
    let yesterday = gate_of(OTHER_RULES);
    let mut worker = Worker::new();
    worker.open_websocket();
    let today = gate_of(RULES).authenticate_token(&token(1), NOW).expect("a good token");
    let mut outcome_of = |grant| {
        let letter = Letter::Refresh { from: 1, asker: SLOT, target: SLOT, grant };
        worker.turn(|core| core.notice(Notice::Letter(letter)));
        match worker.asked.try_recv().expect("an answer").body {
            RequestBody::Forward { letter: Letter::Refreshed { outcome, .. }, .. } => outcome,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(outcome_of(today), RefreshOutcome::Refreshed);
    let claims = json!({"exp": NOW + 60, "pushline": {"subscribe": ["*"]}});
    let key = jsonwebtoken::EncodingKey::from_secret(b"a-second-secret-of-32-bytes-or-more");
    let stale = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key);
    let stale = yesterday.authenticate_token(&stale.expect("a token"), NOW).expect("a good token");
    assert_eq!(outcome_of(stale), RefreshOutcome::Denied);
}
