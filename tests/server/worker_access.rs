//! Access at one worker, without threads: moments that a real server would hardly ever hit, and
//! what a connection costs that sends new tokens for ever.

use std::sync::Arc;
use std::time::Duration;

use crate::common::ws::{TEXT, frame, upgrade};
use crate::common::{bearer_token, gate_of, request};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crossbeam_channel::{Receiver, bounded};
use pushline::auth::Gate;
use pushline::limits::OUTSTANDING_MAX;
use pushline::log::ChannelName;
use pushline::log::message::{Answer, Ask, FromLog, JoinedChannel, ToLog};
use pushline::ring::{BufferId, Completion, Layer, Op, RecvEnd, Token, Wait};
use pushline::worker::Core;
use pushline::worker::command::Command;
use pushline::worker::inspect::Phase;
use pushline::worker::{RefreshLetter, RefreshOutcome};
use serde_json::json;

const NOW: u64 = 1_800_000_000;
const SLOT: Token = Token { slot: 0, generation: 0 };
const RECEIVED: Completion = Completion::Received { token: SLOT, buffer: BufferId(0) };
const RULES: &str = "hmac_secrets = [{ env = 'PUSHLINE_SECRET' }]";
const OTHER_RULES: &str = "hmac_secrets = [{ value = 'a-second-secret-of-32-bytes-or-more' }]";

/// A guarded worker with one connection, and what it asks of the log.
struct Worker {
    core: Core,
    asked: Receiver<ToLog>,
    now: Duration,
}

impl Worker {
    /// What the log was asked.
    fn request(&self) -> Ask {
        match self.asked.try_recv() {
            Ok(ToLog::Worker { body, .. }) => body,
            other => panic!("not a request: {other:?}"),
        }
    }

    fn new() -> Self {
        Self::with(RULES)
    }

    fn with(rules: &str) -> Self {
        let (core, asked) = crate::common::core(gate_of(rules), 20_000);
        let mut worker = Self { core, asked, now: Duration::from_millis(1) };
        worker.turn(|core| {
            core.complete(Completion::Accepted { slot: 0, peer: None, layer: Layer::Plain }, b"")
        });
        worker
    }

    /// A turn with these completions; returns what the worker wants done.
    fn turn(&mut self, happens: impl FnOnce(&mut Core)) -> Vec<Op> {
        self.turn_at(NOW, happens)
    }

    fn turn_at(&mut self, unix_s: u64, happens: impl FnOnce(&mut Core)) -> Vec<Op> {
        self.core.batch().ops.clear();
        self.core.begin_turn(self.now, unix_s, &[]);
        happens(&mut self.core);
        self.core.end_turn();
        self.core.check_invariants();
        self.core.batch().ops.to_vec()
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.turn(|core| core.complete(RECEIVED, bytes));
    }

    /// This many further connections send this in one turn; returns the last of them.
    fn receive_from(&mut self, count: u32, bytes: &[u8], last: &[u8]) -> Vec<Op> {
        self.turn(|core| {
            for slot in 1..=count {
                core.complete(Completion::Accepted { slot, peer: None, layer: Layer::Plain }, b"");
                let token = Token { slot, generation: 0 };
                let received = Completion::Received { token, buffer: BufferId(0) };
                core.complete(received, if slot == count { last } else { bytes });
            }
        })
    }

    fn open_websocket(&mut self) {
        self.receive(&websocket_request());
    }

    /// Sleeps as long as it wants to, then takes a turn.
    fn turn_on(&mut self) -> Vec<Op> {
        match self.core.wait() {
            Wait::No => {}
            Wait::AtMost(time) | Wait::Gather(time) => self.now += time,
            Wait::Forever => panic!("it never turns again"),
        }
        self.turn(|_| {})
    }

    /// How many tokens the last turn refused.
    fn refusals(&mut self) -> usize {
        String::from_utf8_lossy(&self.core.batch().arena).matches("token_signature").count()
    }

    /// A connection from this address sends this.
    fn receive_at(core: &mut Core, slot: u32, peer: [u8; 4], bytes: &[u8]) {
        core.complete(
            Completion::Accepted { slot, peer: Some(peer.into()), layer: Layer::Plain },
            b"",
        );
        let token = Token { slot, generation: 0 };
        core.complete(Completion::Received { token, buffer: BufferId(0) }, bytes);
    }

    fn phase(&mut self, slot: u32) -> Phase {
        let (reply, glance) = bounded(1);
        self.core.command(Command::List { from: slot, limit: 1, subject: None, reply });
        glance.try_recv().expect("an answer").connections[0].phase
    }

    fn take_other_rules(&mut self) {
        self.turn(|core| core.command(Command::Gate(Arc::new(gate_of(OTHER_RULES)))));
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

/// Expiries of earlier tokens, hours away, are not kept for each renewal.
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

/// What comes in the very turn in which the token expires is before the close, and too late.
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

/// Changed rules are applied to a slice of the connections per turn, and in the end to all.
#[test]
fn new_rules_reach_every_connection() {
    const CONNECTIONS: u32 = 10_000;
    let mut worker = Worker::new();
    // The others have nothing to lose, so nothing else keeps the worker awake.
    worker.receive_from(CONNECTIONS, b"", &websocket_request());
    worker.turn(|_| {});
    worker.take_other_rules();
    assert_eq!(worker.phase(CONNECTIONS), Phase::Ws, "a turn has its limits");
    while worker.phase(CONNECTIONS) == Phase::Ws {
        assert_eq!(worker.core.wait(), Wait::No);
        worker.turn(|_| {});
    }
    assert_eq!(worker.phase(CONNECTIONS), Phase::WsClosing);
}

/// A public-key check takes long, so a request whose token fails it is the last on its connection.
#[test]
fn a_connection_has_one_bad_token() {
    let mut worker = Worker::with(&es256_rules());
    let ended = Completion::RecvEnded { token: SLOT, why: RecvEnd::Eof };
    worker.turn(|core| {
        core.complete(RECEIVED, &forged_request().repeat(20));
        core.complete(ended, b"");
    });
    assert_eq!(worker.refusals(), 1);
    let closed = worker.turn(|_| {});
    assert!(closed.iter().any(|op| matches!(op, Op::Close(_))), "{closed:?}");
}

/// A WebSocket that sends bad tokens stays, as its present token may be good; all are answered, but
/// events and other connections are served in between.
#[test]
fn bad_new_tokens_of_a_websocket_are_answered_one_after_the_other() {
    let rules = format!("anonymous = {{ subscribe = ['a'] }}\n{}", es256_rules());
    let mut worker = Worker::with(&rules);
    worker.receive(&upgrade("/ws", &[("Sec-WebSocket-Protocol", "pushline.v1")]));
    let op = json!({"op": "auth", "token": forged_es256(), "ref": 1}).to_string();
    worker.receive(&frame(true, TEXT, op.as_bytes()).repeat(20));
    let (mut refused, mut turns) = (worker.refusals(), 1);
    while refused < 20 {
        worker.turn_on();
        (refused, turns) = (refused + worker.refusals(), turns + 1);
    }
    assert_eq!(refused, 20);
    assert!(turns > 4, "{turns} turns");
}

/// The same for many connections: one that brings no token, or one that is cheap to check, waits
/// for none of them.
#[test]
fn bad_tokens_of_many_wait_for_their_turn_and_others_do_not() {
    const CONNECTIONS: u32 = 300;
    let good = format!("Bearer {}", token(1));
    let good = request("GET", "/channels/a", &[("Authorization", &good)], None);
    for (others, is_answered) in [(request("GET", "/", &[], None), true), (good, false)] {
        let mut worker = Worker::with(&format!("{RULES}\n{}", es256_rules()));
        let first = slots_of(&worker.receive_from(CONNECTIONS, &forged_request(), &others));
        assert_eq!(first.contains(&CONNECTIONS), is_answered);
        assert_eq!(worker.asked.try_recv().is_ok(), !is_answered, "what is good goes to the log");
        let mut refused = worker.refusals();
        assert!(refused < CONNECTIONS as usize / 2, "{refused} in a turn");
        while refused < CONNECTIONS as usize - 1 {
            worker.turn_on();
            refused += worker.refusals();
        }
    }
}

/// The same with good tokens; nothing is sent meanwhile, but the worker does not sleep while some
/// wait.
#[test]
fn who_waits_for_a_turn_has_it_at_once() {
    const CONNECTIONS: u32 = 300;
    let mut worker = Worker::with(&es256_rules());
    let good = good_es256_request("a");
    let sent = slots_of(&worker.receive_from(CONNECTIONS, &good, &good));
    assert_eq!((sent, worker.core.wait()), (Vec::new(), Wait::No));
}

/// An address that has sent several bad tokens waits behind others, but is not refused: behind a
/// proxy all clients share one address.
#[test]
fn bad_tokens_of_an_address_do_not_keep_others_waiting() {
    const BAD: u32 = 50;
    let mut worker = Worker::with(&es256_rules());
    let (one, other) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    let (forged, good) = (forged_request(), good_es256_request("a"));
    let mut refused = 0;
    for slot in 1..=10 {
        worker.turn(|core| Worker::receive_at(core, slot, one, &forged));
        refused += worker.refusals();
    }
    assert!((1..10).contains(&refused), "{refused} before it is suspected");
    worker.turn(|core| {
        for slot in 11..BAD {
            Worker::receive_at(core, slot, one, &forged);
        }
        Worker::receive_at(core, BAD, one, &good);
        Worker::receive_at(core, BAD + 1, other, &good_es256_request("b"));
    });
    let at_log = worker.request();
    assert!(matches!(at_log, Ask::Describe { channel, .. } if *channel == *"b"));
    let mut turns = 0;
    while worker.asked.is_empty() {
        worker.turn_on();
        turns += 1;
    }
    assert!(turns >= BAD - 11, "{turns} turns for those before it");
}

fn good_es256_request(channel: &str) -> Vec<u8> {
    let key = include_bytes!("../fixtures/keys/ec_p256_private.pem");
    let key = jsonwebtoken::EncodingKey::from_ec_pem(key).expect("a key");
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    let claims = json!({"exp": NOW + 60, "pushline": {"subscribe": ["*"]}});
    let token = jsonwebtoken::encode(&header, &claims, &key).expect("a token");
    let path = format!("/channels/{channel}");
    request("GET", &path, &[("Authorization", &format!("Bearer {token}"))], None)
}

/// The connections something is sent to.
fn slots_of(ops: &[Op]) -> Vec<u32> {
    let sent_to = |op: &Op| match op {
        Op::Send { token, .. } => Some(token.slot),
        _ => None,
    };
    ops.iter().filter_map(sent_to).collect()
}

fn forged_request() -> Vec<u8> {
    let authorization = format!("Bearer {}", forged_es256());
    request("GET", "/channels/a", &[("Authorization", &authorization)], None)
}

fn es256_rules() -> String {
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys");
    format!("public_keys = [{{ file = '{keys}/ec_p256_public.pem' }}]")
}

fn forged_es256() -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!("{}.{}.{}", encode(br#"{"alg":"ES256"}"#), encode(b"{}"), encode(&[7; 64]))
}

/// The key is removed while the log is asked for the stream's channel.
#[test]
fn a_stream_does_not_open_with_a_key_that_is_gone_by_then() {
    let mut worker = Worker::new();
    let bearer = format!("Bearer {}", token(1));
    let headers = [("Authorization", bearer.as_str())];
    worker.receive(&request("GET", "/sse?channel=news", &headers, None));
    let Ask::Join { ticket, .. } = worker.request() else {
        panic!("the log is asked");
    };
    worker.take_other_rules();
    let channel = JoinedChannel {
        name: Arc::new(ChannelName::new("news")),

        last_seq: 0,
        after: 0,
        gap: None,
        is_member: false,
    };
    let joined =
        FromLog::Answer { ticket, answer: Answer::Joined { head_seq: 0, channels: vec![channel] } };
    let ops = worker.turn(|core| core.from_log(joined));
    assert!(ops.iter().any(|op| matches!(op, Op::Close(closed) if *closed == SLOT)), "{ops:?}");
}

/// Another worker checked the new token before it was told of the change of rules.
#[test]
fn a_new_token_is_not_taken_by_rules_of_yesterday() {
    let yesterday = gate_of(OTHER_RULES);
    let mut worker = Worker::new();
    worker.open_websocket();
    let today = gate_of(RULES).authenticate_token(&token(1), NOW).expect("a good token");
    let mut outcome_of = |grant| {
        let letter = RefreshLetter::Refresh { from: 1, asker: SLOT, target: SLOT, grant };
        worker.turn(|core| core.from_log(FromLog::Letter(Box::new(letter))));
        let Ask::Forward { letter, .. } = worker.request() else {
            panic!("a letter");
        };
        match *letter.downcast::<RefreshLetter>().expect("a letter of this kind") {
            RefreshLetter::Refreshed { outcome, .. } => outcome,
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

/// The log is slow and takes nothing: sixty-four WebSockets have as much under way as they may, and
/// another one's publish still finds room to wait.
#[test]
fn clients_that_publish_much_leave_room_for_others() {
    const CLIENTS: u32 = 64;
    let mut worker = Worker { core: crate::common::core(Gate::open(), 20_000).0, ..Worker::new() };
    let op = json!({"op": "publish", "channel": "a", "data": 1}).to_string();
    let burst = frame(true, TEXT, op.as_bytes()).repeat(OUTSTANDING_MAX.into());
    let upgrade = upgrade("/ws", &[("Sec-WebSocket-Protocol", "pushline.v1")]);
    let post = request("POST", "/channels/a", &[], Some(b"x"));
    worker.receive_from(CLIENTS + 1, &upgrade, b"");
    worker.turn(|core| {
        for slot in 1..=CLIENTS + 1 {
            let token = Token { slot, generation: 0 };
            let received = Completion::Received { token, buffer: BufferId(0) };
            core.complete(received, if slot > CLIENTS { &post } else { &burst });
        }
    });
    let sent = String::from_utf8_lossy(&worker.core.batch().arena).into_owned();
    assert!(sent.contains("busy"), "some of theirs were refused");
    assert!(!sent.contains("503"), "and nothing of the other's");
}
