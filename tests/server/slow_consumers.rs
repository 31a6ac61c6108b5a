//! Slow consumers: a reader that stops holds up no other, and is later either given exactly what it
//! missed, told in an `overrun` gap exactly what it lost, or disconnected, as the channel's policy
//! says.

use std::time::{Duration, Instant};

use pushline::config::SlowPolicy;
use pushline::limits::{TICK, WS_CLOSE_TIME_MAX};
use serde_json::Value;

use crate::common::ws::{CLOSE, RawWs, TEXT};
use crate::common::{Conn, Sse, TestServer, await_that, describe, fetch, metric, publish, seq_of};

const EVENT_BYTES: usize = 10_000;

fn payload(n: usize) -> String {
    format!("{n:08}{}", "x".repeat(EVENT_BYTES - 8))
}

fn server(replica_bytes: usize, slow: SlowPolicy) -> TestServer {
    server_with_history(2000, replica_bytes, slow)
}

fn server_with_history(events: u32, replica_bytes: usize, slow: SlowPolicy) -> TestServer {
    TestServer::with(|settings| {
        settings.send_buffer = Some(16 << 10);
        settings.replica_bytes = replica_bytes;
        settings.channel_default.history_count = events;
        settings.channel_default.slow = slow;
    })
}

fn narrow(server: &TestServer) -> Conn {
    Conn::open_narrow(server.addr, 8 << 10)
}

/// Publishes this many events, and `reader` has each before the next one is sent.
fn publish_and_read(server: &TestServer, reader: &mut Sse, count: usize) {
    for n in 0..count {
        let id = publish(server.addr, "c", &payload(n));
        let event = reader.event();
        assert_eq!(event.id, id);
        assert_eq!(event.data[..8], format!("{n:08}"));
    }
}

#[test]
fn a_stalled_reader_holds_up_no_other_and_loses_nothing_within_bounds() {
    const COUNT: usize = 400;
    let server = server(8 << 20, SlowPolicy::Skip);
    let mut stalled_sse = Sse::over(narrow(&server), "channel=c", &[]);
    let mut stalled_many = Sse::over(narrow(&server), "channel=c&channel=d", &[]);
    let mut stalled_ws = RawWs::over(narrow(&server), "channel=c", &[]);
    let protocol = [("Sec-WebSocket-Protocol", "pushline.v1")];
    let mut stalled_envelope = RawWs::over(narrow(&server), "channel=c", &protocol);
    let mut reader = Sse::open(server.addr, "channel=c");
    publish_and_read(&server, &mut reader, COUNT);
    for n in 0..COUNT {
        let (id, data) = (server.id(n as u64 + 1), payload(n));
        let event = stalled_sse.event();
        assert!(event.id == id && event.data == data, "{n}: {}", event.id);
        let event = stalled_many.event();
        assert!(event.id == id && event.json()["data"] == data.as_str(), "{n}: {}", event.id);
        let frame = stalled_ws.answer();
        assert!(frame.opcode == TEXT && frame.payload == data.as_bytes(), "{n}");
        let json: Value = serde_json::from_slice(&stalled_envelope.answer().payload).expect("JSON");
        assert!(json["id"] == id && json["data"] == data.as_str(), "{n}: {}", json["id"]);
    }
    publish_and_read(&server, &mut reader, 3);
    for n in 0..3 {
        let (data, next) = (payload(n), "and all are in step again");
        assert!(stalled_sse.event().data == data, "{n} {next}");
        assert!(stalled_many.event().json()["data"] == data.as_str(), "{n} {next}");
        assert!(stalled_ws.answer().payload == data.as_bytes(), "{n} {next}");
    }
}

/// Reads ids until `last`; checks that exactly what gaps name is missing. Returns how many gaps: on
/// a slow machine a probe of the kernel's makes room for the first while the loss still grows.
fn check_overruns(
    channels: usize,
    mut next: impl FnMut() -> (String, Option<Value>),
    last: u64,
) -> usize {
    let (mut at, mut gaps) = (0, 0);
    while at < last {
        let (id, gap) = next();
        let seq = seq_of(&id);
        match gap {
            None => {
                assert_eq!(seq, at + 1, "lost or doubled without a word");
                at = seq;
            }
            Some(gap) => {
                assert_eq!(gap["reason"], "overrun", "{gap}");
                let after = seq_of(gap["after"].as_str().expect("an id"));
                let first = seq_of(gap["first"].as_str().expect("an id"));
                assert_eq!(after, at, "the gap begins where the reader was: {gap}");
                assert!(first > after + 1, "the gap names nothing: {gap}");
                // With one channel its id is the end of the loss; with several it must not go
                // beyond what the stream has reached, or resuming there would lose events of the
                // others.
                assert!(
                    if channels == 1 { seq + 1 == first } else { seq == after },
                    "a client that resumes at the gap's id loses nothing more: {gap}"
                );
                at = first - 1;
                gaps += 1;
            }
        }
    }
    gaps
}

/// What a worker holds for slow readers is a quarter of what they are behind: the rest they read
/// from history, which has all of it.
#[test]
fn a_slow_reader_loses_nothing_that_history_still_has() {
    const COUNT: usize = 400;
    let server = server(1 << 20, SlowPolicy::Skip);
    let mut stalled_sse = Sse::over(narrow(&server), "channel=c", &[]);
    let mut stalled_many = Sse::over(narrow(&server), "channel=c&channel=d", &[]);
    let mut bare_ws = RawWs::over(narrow(&server), "channel=c", &[]);
    let mut reader = Sse::open(server.addr, "channel=c");
    publish_and_read(&server, &mut reader, COUNT);
    for n in 0..COUNT {
        let event = stalled_sse.event();
        assert!((event.id, event.data) == (server.id(n as u64 + 1), payload(n)), "{n}");
        let event = stalled_many.event();
        assert!(event.id == server.id(n as u64 + 1) && event.json()["data"] == payload(n), "{n}");
        assert!(bare_ws.answer().payload == payload(n).as_bytes(), "{n}");
    }
    publish_and_read(&server, &mut reader, 3);
    for n in 0..3 {
        assert!(stalled_sse.event().data == payload(n), "{n}: live again");
        assert!(bare_ws.answer().payload == payload(n).as_bytes(), "{n}: live again");
    }
}

#[test]
fn a_reader_that_is_too_slow_is_told_exactly_what_it_lost() {
    const COUNT: usize = 600;
    // Neither history nor what the worker holds for slow readers goes back more than 100 events.
    let server = server_with_history(100, 1 << 20, SlowPolicy::Skip);
    let mut stalled_sse = Sse::over(narrow(&server), "channel=c", &[]);
    let mut stalled_many = Sse::over(narrow(&server), "channel=c&channel=d", &[]);
    let protocol = [("Sec-WebSocket-Protocol", "pushline.v1")];
    let mut stalled_ws = RawWs::over(narrow(&server), "channel=c", &protocol);
    let mut bare_ws = RawWs::over(narrow(&server), "channel=c", &[]);
    let mut reader = Sse::open(server.addr, "channel=c");
    publish_and_read(&server, &mut reader, COUNT);
    let gaps = check_overruns(
        1,
        || {
            let event = stalled_sse.event();
            let gap = (event.event == "pushline.gap").then(|| event.json());
            (event.id, gap)
        },
        COUNT as u64,
    );
    assert!(gaps >= 1);
    let gaps = check_overruns(
        2,
        || {
            let event = stalled_many.event();
            let gap = (event.event == "pushline.gap").then(|| event.json()["data"].clone());
            (event.id, gap)
        },
        COUNT as u64,
    );
    assert!(gaps >= 1);
    let gaps = check_overruns(
        1,
        || {
            let json: Value = serde_json::from_slice(&stalled_ws.answer().payload).expect("JSON");
            let gap = (json["event"] == "pushline.gap").then(|| json["data"].clone());
            (json["id"].as_str().expect("an id").to_owned(), gap)
        },
        COUNT as u64,
    );
    assert!(gaps >= 1);
    // Bare mode has no way to tell but to close.
    let mut whole = 0;
    loop {
        let frame = bare_ws.answer();
        if frame.opcode == CLOSE {
            assert_eq!(frame.close(), (4000, "gap".to_owned()));
            break;
        }
        assert!(frame.payload == payload(whole).as_bytes(), "message {whole}");
        whole += 1;
    }
    assert!(whole < COUNT);
    publish_and_read(&server, &mut reader, 3);
    assert!(stalled_sse.event().data == payload(0));
}

#[test]
fn the_policy_may_be_to_disconnect() {
    const COUNT: usize = 250;
    let server = server(1 << 20, SlowPolicy::Disconnect);
    let mut stalled_sse = Sse::over(narrow(&server), "channel=c", &[]);
    let mut stalled_many = Sse::over(narrow(&server), "channel=c&channel=d", &[]);
    let mut stalled_ws = RawWs::over(narrow(&server), "channel=c", &[]);
    let mut reader = Sse::open(server.addr, "channel=c");
    publish_and_read(&server, &mut reader, COUNT);
    await_that("only the reader is left", || describe(server.addr, "c")["subscribers"] == 1);
    // Before its time for the closing handshake is over.
    let mut whole = 0;
    loop {
        let frame = stalled_ws.answer();
        if frame.opcode == CLOSE {
            assert_eq!(frame.close(), (1013, "slow consumer".to_owned()));
            break;
        }
        assert!(frame.payload == payload(whole).as_bytes(), "message {whole}");
        whole += 1;
    }
    // Every event before the end is complete and in order; the client resumes after the last one.
    for stalled in [&mut stalled_sse, &mut stalled_many] {
        let mut at = 0;
        while let Ok(Some(event)) =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stalled.next_event()))
        {
            at += 1;
            assert_eq!(event.id, server.id(at));
        }
        assert!(at < COUNT as u64);
        let mut resumed = Sse::resume(server.addr, "channel=c", &server.id(at));
        for seq in at + 1..=COUNT as u64 {
            assert_eq!(resumed.event().id, server.id(seq));
        }
    }
}

/// A close frame may wait longer for its reader than a closing handshake may take: it cannot be
/// sent while the reader accepts nothing.
#[test]
fn a_reader_that_wakes_late_still_reads_why_it_was_disconnected() {
    let server = server(1 << 20, SlowPolicy::Disconnect);
    let mut stalled = RawWs::over(narrow(&server), "channel=c", &[]);
    let mut reader = Sse::open(server.addr, "channel=c");
    publish_and_read(&server, &mut reader, 250);
    await_that("only the reader is left", || describe(server.addr, "c")["subscribers"] == 1);
    let began = Instant::now();
    await_that("a closing handshake's time is over", || {
        began.elapsed() > WS_CLOSE_TIME_MAX + 2 * TICK
    });
    let frame = std::iter::repeat_with(|| stalled.answer()).find(|frame| frame.opcode == CLOSE);
    assert_eq!(frame.expect("it ends").close(), (1013, "slow consumer".to_owned()));
}

/// The last subscriber of a channel on its worker leaves, and with it the worker's replica.
#[test]
fn disconnecting_the_only_subscriber_harms_no_other_client() {
    let server = TestServer::with(|settings| {
        settings.workers = Some(1);
        settings.send_buffer = Some(16 << 10);
        settings.replica_bytes = 1 << 20;
        settings.channel_default.slow = SlowPolicy::Disconnect;
    });
    for _ in 0..3 {
        let _stalled = Sse::over(narrow(&server), "channel=c", &[]);
        let mut n = 0;
        await_that("it is disconnected", || {
            n += 1;
            publish(server.addr, "c", &payload(n));
            describe(server.addr, "c")["subscribers"] == 0
        });
    }
    publish(server.addr, "c", "still here");
}

/// History is larger than what a worker holds for slow readers: a replay of it must still be
/// complete, also when events come meanwhile.
#[test]
fn a_long_replay_is_not_overrun_by_what_comes_meanwhile() {
    const COUNT: usize = 400;
    let server = server(1 << 20, SlowPolicy::Skip);
    for n in 0..COUNT {
        publish(server.addr, "c", &payload(n));
    }
    let mut replaying = Sse::over(narrow(&server), "channel=c&last_event_id=earliest", &[]);
    for n in 0..20 {
        publish(server.addr, "c", &payload(COUNT + n));
    }
    for n in 0..COUNT + 20 {
        let event = replaying.event();
        assert_eq!(event.event, "message", "{}", event.data);
        assert!(event.data == payload(n), "{n}");
    }
}

/// Each channel alone stays within its bound; together they would hold eight times as much as they
/// may. A reader that keeps up with a channel loses nothing.
#[test]
fn slow_readers_of_many_channels_share_one_bound() {
    const CHANNELS: usize = 8;
    const COUNT: usize = 100;
    const BYTES_MAX: usize = CHANNELS * COUNT * EVENT_BYTES / 8;
    let server = TestServer::with(|settings| {
        settings.workers = Some(1);
        settings.send_buffer = Some(16 << 10);
        settings.history_bytes = BYTES_MAX as u64;
        settings.replica_bytes = BYTES_MAX;
        settings.worker_replica_bytes = BYTES_MAX;
    });
    let names: Vec<String> = (0..CHANNELS).map(|n| format!("c{n}")).collect();
    let query: Vec<String> = names.iter().map(|name| format!("channel={name}")).collect();
    let mut stalled: Vec<Sse> =
        query.iter().map(|query| Sse::over(narrow(&server), query, &[])).collect();
    let mut reader = Sse::open(server.addr, &query.join("&"));
    for n in 0..COUNT {
        for name in &names {
            let id = publish(server.addr, name, &payload(n));
            assert_eq!(reader.event().id, id);
        }
    }
    await_that("memory is given back", || {
        metric(server.admin, "pushline_replica_bytes{worker=\"0\"}") <= BYTES_MAX as u64
    });
    let overrun = stalled.iter_mut().filter_map(|reader| {
        let events = std::iter::repeat_with(|| reader.event()).take(COUNT);
        events.into_iter().find(|event| event.event == "pushline.gap")
    });
    assert!(overrun.count() > 0, "a reader has paid for it");
}

/// Events without data are not free: the memory that readers hold by stalling is reported at what
/// it costs, and bounded.
#[test]
fn empty_events_count_what_they_cost() {
    const EVENTS: usize = 400;
    const EVENT_COST: u64 = 150;
    let held = |bytes_max: usize| {
        let server = TestServer::with(|settings| {
            settings.workers = Some(1);
            settings.send_buffer = Some(4096);
            settings.history_bytes = 64 << 10;
            settings.replica_bytes = 64 << 10;
            settings.worker_replica_bytes = bytes_max;
        });
        let channels: Vec<String> = (0..16).map(|n| format!("c{n}")).collect();
        let query: Vec<String> = channels.iter().map(|name| format!("channel={name}")).collect();
        let stalled = Sse::over(Conn::open_narrow(server.addr, 2048), &query.join("&"), &[]);
        let lines: String = (0..EVENTS)
            .flat_map(|_| &channels)
            .map(|name| format!("{{\"channel\":\"{name}\",\"data\":\"\"}}\n"))
            .collect();
        let answer = fetch(server.addr, "POST", "/publish", &[], Some(lines.as_bytes()));
        assert_eq!(answer.status, 200);
        let name = "pushline_replica_bytes{worker=\"0\"}";
        await_that("it is within its bound", || metric(server.admin, name) <= bytes_max as u64);
        let held = metric(server.admin, name);
        drop(stalled);
        held
    };
    assert!(held(64 << 20) >= EVENTS as u64 * 16 / 2 * EVENT_COST);
    assert!(held(256 << 10) >= 64 << 10);
}

/// A socket that takes a few bytes at a time cuts events everywhere.
#[test]
fn a_trickling_reader_gets_every_byte_in_order() {
    let server = TestServer::with(|settings| {
        settings.send_buffer = Some(4096);
        settings.event_bytes_max = 1 << 20;
        settings.channel_default.history_count = 1000;
        settings.heartbeat = Duration::from_secs(2);
    });
    let mut sse = Sse::over(Conn::open_narrow(server.addr, 2048), "channel=c&channel=d", &[]);
    let mut ws = RawWs::over(Conn::open_narrow(server.addr, 2048), "channel=c", &[]);
    let sizes: Vec<usize> =
        (0..60).map(|n| [0, 1, 700, 5000, 40_000, 150_000][n % 6] + n).collect();
    for (n, size) in sizes.iter().enumerate() {
        let text: String = (0..*size).map(|at| char::from(b'a' + ((at + n) % 26) as u8)).collect();
        publish(server.addr, "c", &text);
    }
    for (n, size) in sizes.iter().enumerate() {
        let text: String = (0..*size).map(|at| char::from(b'a' + ((at + n) % 26) as u8)).collect();
        assert!(sse.event().json()["data"] == text.as_str(), "{n} over SSE");
        assert!(ws.answer().payload == text.as_bytes(), "{n} over WebSocket");
    }
}
