//! What a worker does in which turn.

use std::collections::VecDeque;
use std::time::Duration;

use crate::common::http2::{DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, framed, head};
use crate::common::{request, ws};
use bytes::Bytes;
use crossbeam_channel::Receiver;
use pushline::auth::Gate;
use pushline::config::{Settings, SlowPolicy};
use pushline::limits::{FANOUT_BYTES_PER_TURN, REPLAY_TIME_PER_TURN, TICK};
use pushline::log::event::{Kind, Publication};
use pushline::log::message::{Answer, Ask, Counts, FromLog, Share, Ticket, ToLog};
use pushline::log::{Outlet, Sequencer, SharedHasher};
use pushline::proto::cursor::{Epoch, EventId};
use pushline::proto::h2::{PREFACE, frame};
use pushline::ring::{BufferId, Completion, Layer, Op, Token, Wait};
use pushline::worker::Core;
use pushline::worker::command::Command;
use serde_json::json;

const SLOT: Token = Token { slot: 0, generation: 0 };

fn worker() -> Core {
    crate::common::core(Gate::open(), 1000).0
}

/// One turn with these completions; returns what it wants done.
fn turn(core: &mut Core, completions: &[Completion], bytes: &[u8]) -> Vec<Op> {
    turn_at(Duration::from_millis(1), core, completions, bytes)
}

fn turn_at(now: Duration, core: &mut Core, completions: &[Completion], bytes: &[u8]) -> Vec<Op> {
    core.batch().ops.clear();
    core.begin_turn(now, 1_800_000_000, completions);
    for completion in completions {
        core.complete(*completion, bytes);
    }
    core.end_turn();
    core.batch().ops.to_vec()
}

/// One connection of HTTP/2 may ask for a thousand things in one buffer. Others do not wait for all
/// of them.
#[test]
fn a_connection_with_many_streams_begins_a_few_requests_a_turn() {
    assert_eq!(answers_by_turn(1), [64, 36, 0, 0]);
}

/// A thousand such connections may come back at once. Whatever else there is waits for a part of
/// what they ask, and none of them is left behind.
#[test]
fn all_connections_together_begin_a_limited_number_of_requests_a_turn() {
    assert_eq!(answers_by_turn(12), [512, 512, 172, 4]);
}

/// Answers sent in each turn after so many connections have asked for a hundred things at once.
fn answers_by_turn(connections: u32) -> [usize; 4] {
    let mut core = worker();
    let token = |slot| Token { slot, generation: 0 };
    let accepted = |slot| Completion::Accepted { slot, peer: None, layer: Layer::Plain };
    turn(&mut core, &(0..connections).map(accepted).collect::<Vec<_>>(), b"");
    let request = |at: u32| {
        let block = head("GET", "/nothing", &[]);
        framed(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, &block)
    };
    let mut bytes = [PREFACE, &framed(SETTINGS, 0, 0, b"")].concat();
    bytes.extend((0..100).flat_map(request));
    let received = |slot| Completion::Received { token: token(slot), buffer: BufferId(0) };
    let mut completions: Vec<_> = (0..connections).map(received).collect();
    [(); 4].map(|()| {
        let ops = turn(&mut core, &std::mem::take(&mut completions), &bytes);
        core.check_invariants();
        let arena = &core.batch().arena;
        let sent = ops.iter().filter_map(|op| match *op {
            Op::Send { from, to, .. } => Some(&arena[from as usize..to as usize]),
            _ => None,
        });
        sent.map(heads_in).sum()
    })
}

/// A client's streams share the place of their connection: twenty that publish at once are one
/// publisher, and another connection's event is not behind all of them.
#[test]
fn many_streams_that_publish_are_one_client_to_the_log() {
    let (mut core, asked) = crate::common::core(Gate::open(), 1000);
    two_clients_ask(&mut core, "POST", "/channels/many", "/channels/one");
    let channels = asked.try_iter().filter_map(|request| match request {
        ToLog::Worker { body: Ask::Publish { publications, .. }, .. } => {
            Some(publications[0].channel.to_string())
        }
        _ => None,
    });
    let channels: Vec<String> = channels.collect();
    assert_eq!(&channels[..3], ["many", "one", "many"]);
}

/// The same of pages of history.
#[test]
fn many_streams_that_read_history_are_one_client_to_the_log() {
    let mut desk = Desk::new();
    desk.publish("many", vec![b'x']);
    desk.publish("one", vec![b'x']);
    let path = |channel| format!("/sse?channel={channel}&last_event_id=earliest");
    two_clients_ask(&mut desk.core, "GET", &path("many"), &path("one"));
    while !desk.asked.is_empty() {
        for request in desk.asked.try_iter() {
            desk.log.handle(request, Duration::ZERO, &mut desk.lane);
        }
        turn(&mut desk.core, &[], b"");
    }
    // All have joined, the other connection as the last.
    let mut joined: Vec<FromLog> = desk.lane.0.drain(..).collect();
    let is_others = |told: &FromLog| matches!(told, FromLog::Answer { answer: Answer::Joined { channels, .. }, .. } if format!("{channels:?}").contains("one"));
    joined.sort_by_key(is_others);
    desk.core.begin_turn(Duration::from_millis(1), 1_800_000_000, &[]);
    joined.into_iter().for_each(|told| desk.core.from_log(told));
    desk.core.end_turn();
    let channels = |desk: &Desk| -> Vec<String> {
        let read = |request| match request {
            ToLog::Worker { body: Ask::Read { channels, .. }, .. } => channels[0].name.to_string(),
            other => panic!("{other:?}"),
        };
        desk.asked.try_iter().map(read).collect()
    };
    // It is sent its head first, which the others' connection takes at once.
    assert_eq!(channels(&desk), ["many"; 8]);
    turn(&mut desk.core, &[], b"");
    desk.core.check_invariants();
    assert_eq!(&channels(&desk)[..3], ["many", "one", "many"]);
}

/// One client requests the first path on twenty streams of a connection, another one the second
/// path, in the same turn.
fn two_clients_ask(core: &mut Core, method: &str, many: &str, one: &str) {
    let accepted = |slot| Completion::Accepted { slot, peer: None, layer: Layer::Plain };
    turn(core, &[accepted(0), accepted(1)], b"");
    let ends = if method == "GET" { END_STREAM } else { 0 };
    let ask = |at: u32| {
        let id = 2 * at + 1;
        let head = framed(HEADERS, END_HEADERS | ends, id, &head(method, many, &[]));
        [head, if ends == 0 { framed(DATA, END_STREAM, id, b"x") } else { Vec::new() }].concat()
    };
    let preface = [PREFACE, &framed(SETTINGS, 0, 0, b"")].concat();
    let streams = [preface, (0..20).flat_map(ask).collect()].concat();
    let body = (method == "POST").then_some(&b"x"[..]);
    let other = request(method, one, &[], body);
    core.begin_turn(Duration::from_millis(1), 1_800_000_000, &[]);
    for (slot, bytes) in [(0, &streams), (1, &other)] {
        let token = Token { slot, generation: 0 };
        core.complete(Completion::Received { token, buffer: BufferId(0) }, bytes);
    }
    core.end_turn();
    core.check_invariants();
}

fn heads_in(mut frames: &[u8]) -> usize {
    let mut count = 0;
    while let Ok(Some((_, length))) = frame::read(frames) {
        count += usize::from(frames[3] == HEADERS);
        frames = &frames[length..];
    }
    count
}

/// A worker and the log, without threads and sockets.
pub struct Desk {
    core: Core,
    asked: Receiver<ToLog>,
    log: Sequencer,
    lane: Lane,
    pub now: Duration,
}

#[derive(Default)]
struct Lane(VecDeque<FromLog>);

impl Outlet for Lane {
    fn has_room(&self, _worker: u16, _share: Share, _reserved: usize) -> bool {
        true
    }

    fn send(&mut self, _worker: u16, told: FromLog) {
        self.0.push_back(told);
    }
}

impl Desk {
    pub fn new() -> Self {
        Self::of(Settings::default())
    }

    fn of(settings: Settings) -> Self {
        let hasher = SharedHasher::from_seed(1);
        let log = Sequencer::new(settings.log_settings(), Epoch::from_random(1), 1, hasher);
        let (core, asked) = crate::common::core_of(settings, Gate::open(), 1000);
        let now = Duration::from_millis(1);
        Self { core, asked, log, lane: Lane::default(), now }
    }

    pub fn publish(&mut self, channel: &str, data: Vec<u8>) {
        let publication = Publication {
            channel: channel.into(),
            kind: Kind::Text,
            data: Bytes::from(data),
            event_type: None,
            key: None,
            attributes: None,
        };
        let body = Ask::Publish {
            ticket: Ticket(0),
            publications: vec![publication],
            share: Share::Whole,
            counts: Counts::Here,
        };
        self.log.handle(ToLog::Worker { worker: 0, body }, Duration::ZERO, &mut self.lane);
        // This answer is not waited for.
        assert!(matches!(
            self.lane.0.pop_back(),
            Some(FromLog::Answer { answer: Answer::Published { .. }, .. })
        ));
    }

    /// One turn; returns what is sent, and to which slot. What the turn asks of the log is answered
    /// after it.
    pub fn turn(&mut self, completions: &[Completion], bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let core = &mut self.core;
        core.batch().ops.clear();
        core.begin_turn(self.now, 1_800_000_000, completions);
        completions.iter().for_each(|completion| core.complete(*completion, bytes));
        self.lane.0.drain(..).for_each(|told| core.from_log(told));
        core.end_turn();
        core.check_invariants();
        for request in self.asked.try_iter() {
            self.log.handle(request, Duration::ZERO, &mut self.lane);
        }
        let batch = core.batch();
        let sent = batch.ops.iter().filter_map(|op| match *op {
            Op::Send { token, from, to } => {
                Some((token.slot, batch.arena[from as usize..to as usize].to_vec()))
            }
            _ => None,
        });
        sent.collect()
    }

    /// Takes turns until something is sent; returns how many bytes. A page may have to be read
    /// first.
    fn next_send(&mut self, completions: &[Completion]) -> usize {
        let mut sent = self.turn(completions, b"");
        for _ in 0..10 {
            if let Some((_, bytes)) = sent.first() {
                return bytes.len();
            }
            sent = self.turn(&[], b"");
        }
        panic!("nothing more is sent");
    }

    /// A client in this slot requests `target`.
    fn ask(&mut self, slot: u32, target: &str) -> Vec<(u32, Vec<u8>)> {
        let token = Token { slot, generation: 0 };
        self.turn(&[Completion::Accepted { slot, peer: None, layer: Layer::Plain }], b"");
        let received = Completion::Received { token, buffer: BufferId(0) };
        self.turn(&[received], &request("GET", target, &[], None))
    }

    /// Publishes this many events in each of these channels; returns a stream's query for all of
    /// them.
    fn fill(&mut self, channels: usize, events_each: usize, data: &[u8]) -> String {
        let names: Vec<String> = (0..channels).map(|n| format!("c{n}")).collect();
        for _ in 0..events_each {
            names.iter().for_each(|name| self.publish(name, data.to_vec()));
        }
        let query: Vec<String> = names.iter().map(|name| format!("channel={name}")).collect();
        format!("/sse?{}&last_event_id=earliest", query.join("&"))
    }
}

fn events(sent: &[u8]) -> usize {
    String::from_utf8_lossy(sent).matches("\ndata: ").count()
}

/// Its publisher was answered, and the worker learns of the shutdown before it looks into the lane.
#[test]
fn what_was_published_before_a_shutdown_reaches_streams_before_their_end() {
    let mut desk = Desk::new();
    desk.ask(0, "/sse?channel=c");
    (0..3).for_each(|_| drop(desk.turn(&[], b"")));
    desk.core.command(Command::Drain);
    desk.turn(&[], b"");
    desk.publish("c", b"the last one".to_vec());
    let mut sent = Vec::new();
    for _ in 0..10 {
        sent.extend(desk.turn(&[], b"").into_iter().flat_map(|(_, bytes)| bytes));
        if desk.core.batch().ops.iter().any(|op| matches!(op, Op::Close(_))) {
            let sent = String::from_utf8_lossy(&sent);
            return assert!(sent.contains("data: the last one"), "{sent:?}");
        }
    }
    panic!("it does not end");
}

/// A replica holds what history has lost while one of its readers is behind, and lets a newcomer in
/// there. When a page for its other channel tells of that loss, the newcomer was not too slow: cut, it
/// would come back to the same place, and be cut again.
#[test]
fn a_reader_whom_the_replica_would_serve_is_not_cut_for_what_history_has_lost() {
    let mut settings = Settings::default();
    settings.channel_default.history_count = 1;
    settings.channel_default.slow = SlowPolicy::Disconnect;
    let mut desk = Desk::of(settings);
    desk.ask(0, "/sse?channel=c");
    while desk.turn(&[], b"").is_empty() {}
    desk.turn(&[Completion::SendShort { token: SLOT, taken: 1 }], b"");
    for (channel, data) in [("c", "1"), ("c", "2"), ("c", "3"), ("d", "4"), ("d", "5")] {
        desk.publish(channel, data.into());
    }
    desk.turn(&[], b"");
    let place = EventId { epoch: Epoch::from_random(1), seq: 1 };
    let subscribe = |channel: &str| {
        let op = json!({ "op": "subscribe", "channel": channel, "after": place.to_string() });
        ws::frame(true, 1, op.to_string().as_bytes())
    };
    let token = Token { slot: 1, generation: 0 };
    let received = [Completion::Received { token, buffer: BufferId(0) }];
    desk.turn(&[Completion::Accepted { slot: 1, peer: None, layer: Layer::Plain }], b"");
    desk.turn(&received, &ws::upgrade("/ws", &[("Sec-WebSocket-Protocol", "pushline.v1")]));
    let mut sent = desk.turn(&received, &[subscribe("d"), subscribe("c")].concat());
    (0..10).for_each(|_| sent.extend(desk.turn(&[], b"")));
    let sent: Vec<u8> = sent.into_iter().flat_map(|(_, sent)| sent).collect();
    let sent = String::from_utf8_lossy(&sent);
    assert!(sent.contains(r#""reason":"overrun""#), "{sent:?}");
    assert!(sent.contains(r#""data":"3""#) && sent.contains(r#""data":"5""#), "{sent:?}");
    assert!(!sent.contains("slow consumer"), "{sent:?}");
}

/// A turn has a bounded time for replays, however many there are, and another connection's answer
/// comes in the very next turn.
#[test]
fn replays_hold_up_no_answer() {
    const REPLAYS: u32 = 40;
    let mut desk = Desk::new();
    let replay = desk.fill(64, 300, b"x");
    for slot in 0..REPLAYS {
        desk.ask(slot, &replay);
    }
    // An event is priced at a quarter of a microsecond; the last send may exceed the time.
    let events_max = 2 * REPLAY_TIME_PER_TURN.as_nanos() as usize / 250;
    for slot in REPLAYS..REPLAYS + 10 {
        let sent = desk.ask(slot, "/");
        let answer = sent.iter().find(|(to, _)| *to == slot).expect("it is answered at once");
        assert!(answer.1.starts_with(b"HTTP/1.1 200"));
        let replayed: usize = sent.iter().map(|(_, bytes)| events(bytes)).sum();
        assert!((1..=events_max).contains(&replayed), "{replayed} events in one turn");
    }
}

/// What a full socket does not take was composed for nothing.
#[test]
fn a_slow_socket_is_offered_little_more_than_it_takes() {
    const TAKEN: u32 = 10_000;
    let token = Token { slot: 0, generation: 0 };
    let mut desk = Desk::new();
    let replay = desk.fill(16, 200, &[b'x'; 1000]);
    desk.ask(0, &replay);
    while desk.next_send(&[]) <= TAKEN as usize {}
    desk.turn(&[Completion::SendShort { token, taken: TAKEN }], b"");
    let offered = desk.next_send(&[Completion::Writable { token }]);
    assert!(offered < 2 * TAKEN as usize + 2000, "{offered} bytes");
    // One that takes all of it is not a slow socket.
    assert!(desk.next_send(&[]) > 3 * TAKEN as usize);
}

/// Events of the largest encodings, all at once: offsets into a batch's bytes are `u32`.
#[test]
fn what_is_encoded_for_live_subscribers_in_one_turn_is_bounded() {
    const CHANNELS: u32 = 12;
    const ENCODED_MAX: usize = 6 * 100_000 + 1000;
    let mut desk = Desk::new();
    for slot in 0..CHANNELS {
        desk.ask(slot, &format!("/sse?envelope=json&channel=c{slot}"));
    }
    while desk.core.wait() == Wait::No {
        desk.turn(&[], b"");
    }
    for slot in 0..CHANNELS {
        desk.publish(&format!("c{slot}"), vec![1; 100_000]);
    }
    let mut delivered = 0;
    while delivered < CHANNELS as usize {
        let sent = desk.turn(&[], b"");
        let bytes: usize = sent.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes <= FANOUT_BYTES_PER_TURN + ENCODED_MAX, "{bytes} bytes in one turn");
        delivered += sent.len();
    }
}

// --- what lets it sleep: what a send became is known one turn after it was submitted, without a
// completion; a worker that slept over it would close an answered connection, or go on with a long
// replay, a tick later ---

#[test]
fn an_answered_connection_is_closed_in_the_next_turn_and_that_turn_comes_at_once() {
    let mut core = worker();
    turn(&mut core, &[Completion::Accepted { slot: 0, peer: None, layer: Layer::Plain }], b"");
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let received = Completion::Received { token: SLOT, buffer: pushline::ring::BufferId(0) };
    let answered = turn(&mut core, &[received], request);
    assert!(answered.iter().any(|op| matches!(op, Op::Send { .. })), "{answered:?}");
    assert_eq!(core.wait(), Wait::No, "the send has to be settled");
    let closed = turn(&mut core, &[], b"");
    assert!(closed.iter().any(|op| matches!(op, Op::Close(_) | Op::Shutdown(_))), "{closed:?}");
    assert_ne!(core.wait(), Wait::No, "there is nothing left to do");
}

/// The process may have used its descriptors for something else, or another process the kernel's
/// memory, so the worker cannot wait for a connection to end.
#[test]
fn where_something_is_lacking_and_without_connections_accepting_is_tried_now_and_then() {
    const LACKING: [i32; 5] =
        [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::ENOSPC];
    let mut core = worker();
    assert_eq!(turn(&mut core, &[], &[]), [Op::AcceptStart]);
    for second in 1..=3 {
        let now = Duration::from_secs(second);
        let mut tries = 0;
        for errno in LACKING {
            let end = [Completion::AcceptEnded { errno }];
            tries += turn_at(now, &mut core, &end, &[]).len();
        }
        assert!(tries <= 1, "it does not spin");
        let Wait::AtMost(pause) = core.wait() else { panic!("{:?}", core.wait()) };
        assert!(pause > Duration::ZERO && pause <= TICK);
        assert_eq!(turn_at(now + pause, &mut core, &[], &[]), [Op::AcceptStart]);
    }
}
