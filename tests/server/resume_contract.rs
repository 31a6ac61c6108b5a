//! One contract for both transports: a client that is cut at any byte and comes back with the last
//! id it saw is given every event once, in order. Random schedules by seed, and the two
//! demonstrations of a publisher that streams while its subscriber keeps losing its connection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use crate::common::http::Chunked;
use crate::common::relay::Relay;
use crate::common::ws::RawWs;
use crate::common::{Conn, Sse, TestServer, fetch};
use serde_json::{Value, json};

const CHANNELS: [&str; 4] = ["a", "b", "c", "d"];

/// Something that reads a stream and knows where it was when it was cut.
enum Reader {
    Sse(Box<Sse>),
    Ws(Box<RawWs>),
}

/// One message: id and data; `None` when the connection ended.
type Seen = Option<(String, String)>;

impl Reader {
    fn open(addr: SocketAddr, transport: usize, channels: &[&str], last_id: &str) -> Self {
        let query: Vec<String> = channels.iter().map(|name| format!("channel={name}")).collect();
        let query = query.join("&");
        let cursor = if last_id.is_empty() { "earliest" } else { last_id };
        match transport {
            0 => Self::Sse(Box::new(Sse::open(
                addr,
                &format!("{query}&envelope=json&last_event_id={cursor}"),
            ))),
            _ => {
                Self::Ws(Box::new(RawWs::envelope(addr, &format!("{query}&lastEventId={cursor}"))))
            }
        }
    }

    fn next(&mut self) -> Seen {
        let json: Value = match self {
            Self::Sse(sse) => sse.next_event()?.json(),
            Self::Ws(ws) => serde_json::from_slice(&ws.answer().payload).expect("JSON"),
        };
        assert_ne!(json["event"], "pushline.gap", "{json}");
        let text = |name: &str| json[name].as_str().expect("text").to_owned();
        Some((text("id"), text("data")))
    }

    fn conn(&self) -> &Conn {
        match self {
            Self::Sse(sse) => &sse.conn,
            Self::Ws(ws) => &ws.conn,
        }
    }
}

/// Reads until `total` events were seen, dropping the connection at random moments: sometimes in
/// the middle of an event, sometimes with much unread.
fn read_with_cuts(
    addr: SocketAddr,
    transport: usize,
    channels: &[&str],
    total: usize,
    rng: &mut fastrand::Rng,
) -> Vec<(String, String)> {
    let mut seen: Vec<(String, String)> = Vec::new();
    while seen.len() < total {
        let last_id = seen.last().map_or(String::new(), |(id, _)| id.clone());
        let mut reader = Reader::open(addr, transport, channels, &last_id);
        let until = (seen.len() + rng.usize(0..total / 6 + 2)).min(total);
        while seen.len() < until {
            seen.extend(reader.next());
        }
        if rng.bool() {
            // With a reset instead of a close.
            let stream = socket2::SockRef::from(&reader.conn().stream);
            stream.set_linger(Some(Duration::ZERO)).expect("linger");
        }
    }
    seen
}

#[test]
fn a_client_that_is_cut_and_resumes_sees_every_event_once_and_in_order() {
    for seed in 0..6 {
        run_schedule(seed);
    }
}

fn run_schedule(seed: u64) {
    const EVENTS: usize = 600;
    let server = TestServer::with(|settings| {
        settings.channel_default.history_count = EVENTS as u32;
        settings.send_buffer = seed.is_multiple_of(2).then_some(8 << 10);
    });
    let addr = server.addr;
    let mut rng = fastrand::Rng::with_seed(seed);
    // Every reader knows from the start how much it will see.
    let plan: Vec<(usize, usize)> =
        (0..EVENTS).map(|_| (rng.usize(0..4), [3, 40, 2000][rng.usize(0..3)])).collect();
    let sets: [&[usize]; 4] = [&[0], &[1], &[0, 2, 3], &[0, 1, 2, 3]];
    let start = Arc::new(Barrier::new(sets.len() * 2 + 1));
    let mut readers = Vec::new();
    for transport in 0..2 {
        for set in sets {
            let channels: Vec<&'static str> = set.iter().map(|&at| CHANNELS[at]).collect();
            let expected: Vec<usize> =
                (0..EVENTS).filter(|&event| set.contains(&plan[event].0)).collect();
            let start = start.clone();
            let mut rng = rng.fork();
            readers.push(std::thread::spawn(move || {
                start.wait();
                let seen = read_with_cuts(addr, transport, &channels, expected.len(), &mut rng);
                let numbers: Vec<usize> = seen
                    .iter()
                    .map(|(_, data)| data.split(' ').next().expect("a word").parse().expect("n"))
                    .collect();
                assert_eq!(numbers, expected, "seed {seed}, {channels:?}, transport {transport}");
                let seqs: Vec<u64> = seen.iter().map(|(id, _)| crate::common::seq_of(id)).collect();
                assert!(seqs.iter().zip(&expected).all(|(&seq, &n)| seq == n as u64 + 1));
            }));
        }
    }
    start.wait();
    let mut conn = Conn::open(addr);
    for (n, (channel, size)) in plan.iter().enumerate() {
        let data = format!("{n} {}", "x".repeat(*size));
        let target = format!("/channels/{}", CHANNELS[*channel]);
        conn.send(crate::common::request("POST", &target, &[], Some(data.as_bytes())));
        assert_eq!(conn.response().status, 200);
    }
    for reader in readers {
        reader.join().expect("a reader saw what it should");
    }
}

/// Issue 2, demonstration 4.
#[test]
fn ten_thousand_streamed_lines_survive_twenty_reconnects() {
    const LINES: usize = 10_000;
    const CUTS: usize = 20;
    let server = TestServer::with(|settings| {
        settings.channel_default.history_count = LINES as u32;
    });
    let relay = Relay::start(server.addr);
    let addr = server.addr;
    let first = Sse::open(relay.addr, "channel=feed");
    let publisher = std::thread::spawn(move || {
        let mut lines = Chunked::open(addr, "/publish", &[]);
        for batch in 0..LINES / 10 {
            let text: String = (batch * 10..batch * 10 + 10)
                .map(|n| format!("{}\n", json!({"channel": "feed", "data": format!("line {n}")})))
                .collect();
            lines.chunk(text);
        }
        lines.finish()
    });
    let mut seen: Vec<(String, String)> = Vec::new();
    let mut stream = first;
    let mut cuts = 0;
    while seen.len() < LINES {
        let event = stream.event();
        seen.push((event.id, event.data));
        if cuts < CUTS && seen.len() >= (cuts + 1) * LINES / (CUTS + 1) {
            cuts += 1;
            assert_eq!(relay.cut(), 1);
            // Whatever it had not looked at is lost with the connection.
            let (last_id, _) = seen.last().expect("there is one");
            stream = Sse::resume(relay.addr, "channel=feed", last_id);
        }
    }
    assert_eq!(cuts, CUTS);
    let summary = publisher.join().expect("it is answered");
    assert_eq!(summary.json()["published"], LINES);
    for (n, (id, data)) in seen.iter().enumerate() {
        assert_eq!(*data, format!("line {n}"));
        assert_eq!(*id, server.id(n as u64 + 1));
    }
}

/// Joins at the very moment of publishes: the first event seen is the one after the cursor, and
/// none is missing between replay and live.
#[test]
fn joining_while_events_are_published_misses_and_repeats_nothing() {
    const JOINS: usize = 200;
    let server = TestServer::with(|settings| settings.channel_default.history_count = 1_000_000);
    let addr = server.addr;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let publisher = std::thread::spawn(move || {
        let mut lines = Chunked::open(addr, "/publish", &[]);
        while !stopped.load(Ordering::Relaxed) {
            lines.chunk("{\"channel\":\"c\",\"data\":1}\n{\"channel\":\"d\",\"data\":1}\n");
            // So that history has what a reader misses whose thread stands still.
            std::thread::sleep(Duration::from_micros(50));
        }
        lines.finish().json()["published"].as_u64().expect("a number")
    });
    crate::common::await_that("it is under way", || {
        crate::common::describe(addr, "c")["events"] != 0
    });
    for joins in 0..JOINS {
        let last = fetch(addr, "GET", "/channels/c", &[], None).json()["last_id"].clone();
        let last = last.as_str().expect("an id").to_owned();
        let query = ["channel=c", "channel=c&channel=d"][joins % 2];
        let mut stream = Sse::resume(addr, query, &last);
        let mut at = crate::common::seq_of(&last);
        let step = if joins % 2 == 0 { 2 } else { 1 };
        for event in stream.events(50) {
            at += step;
            assert_eq!(crate::common::seq_of(&event.id), at, "after {joins} joins");
        }
    }
    stop.store(true, Ordering::Relaxed);
    publisher.join().expect("it is answered");
}
