//! Clients that do too much of what costs us more than them: each kind has a limit and is counted.

use pushline::limits::{FIELD_BLOCK_BYTES_MAX, STREAMS_OUT_BYTES_MAX};
use pushline::proto::h2::ErrorCode;
use pushline::proto::h2::frame::PAYLOAD_BYTES_MAX;

use crate::common::http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, INITIAL_WINDOW, PING,
    RESET, SETTINGS, WINDOW_UPDATE, framed, head,
};
use crate::common::{TestServer, fetch, metric};

const HEADS: &str = "pushline_http2_floods_total{kind=\"head\"}";

/// A page that is larger than its request.
const PAGE: &str = "/pushline.js";

/// Sends this over and over, in one go, and expects to be told to calm down.
fn flood(kind: &str, prepare: impl Fn(&mut Http2) -> u32, frames: impl Fn(u32, u32) -> Vec<u8>) {
    let server = TestServer::start();
    let mut client = Http2::open(server.addr);
    client.credits = false;
    let stream = prepare(&mut client);
    let flood: Vec<u8> = (0..10_000).flat_map(|at| frames(stream, at)).collect();
    let mut sender = client.conn.stream.try_clone().expect("a socket");
    // It may be cut before all of it is taken.
    let sending = std::thread::spawn(move || {
        let _ = std::io::Write::write_all(&mut sender, &flood);
    });
    client.expect_calm();
    drop(client);
    sending.join().expect("it ends");
    let key = format!("pushline_http2_floods_total{{kind=\"{kind}\"}}");
    assert_eq!(metric(server.admin, &key), 1, "{kind}");
    // Others are served.
    let mut other = Http2::open(server.addr);
    let stream = other.get("/");
    assert_eq!(other.answer(stream).status, 200);
}

fn none(_: &mut Http2) -> u32 {
    0
}

/// CVE-2023-44487.
#[test]
fn requests_that_are_taken_back_at_once() {
    flood("rapid_reset", none, |_, at| {
        let (id, block) = (2 * at + 1, head("POST", "/channels/a", &[]));
        [framed(HEADERS, END_HEADERS, id, &block), framed(RESET, 0, id, &[0, 0, 0, 8])].concat()
    });
}

/// CVE-2025-8671: the server is made to reset them.
#[test]
fn requests_that_have_to_be_reset() {
    flood("made_reset", none, |_, at| {
        let (id, block) = (2 * at + 1, head("GET", "/sse?channel=a", &[]));
        let opens = framed(HEADERS, END_HEADERS | END_STREAM, id, &block);
        [opens, framed(WINDOW_UPDATE, 0, id, &[0; 4])].concat()
    });
}

/// CVE-2024-27316.
#[test]
fn a_head_that_does_not_end() {
    let begin = |client: &mut Http2| {
        client.send(HEADERS, 0, 1, b"");
        1
    };
    flood("head", begin, |stream, _| framed(CONTINUATION, 0, stream, &[0x82]));
}

/// The same in few frames that are full.
#[test]
fn a_head_that_is_larger_than_any_other() {
    let server = TestServer::start();
    for (value, is_flood) in [(FIELD_BLOCK_BYTES_MAX - 1000, false), (FIELD_BLOCK_BYTES_MAX, true)]
    {
        let mut client = Http2::open(server.addr);
        let block = head("GET", "/", &[("x", &"y".repeat(value))]);
        let pieces: Vec<&[u8]> = block.chunks(PAYLOAD_BYTES_MAX).collect();
        client.send(HEADERS, END_STREAM, 1, pieces[0]);
        client.send(CONTINUATION, 0, 1, pieces[1]);
        client.send(CONTINUATION, END_HEADERS, 1, pieces.get(2).copied().unwrap_or_default());
        match is_flood {
            true => client.expect_calm(),
            false => assert_eq!(client.answer(1).status, 431),
        }
        assert_eq!(metric(server.admin, HEADS), u64::from(is_flood));
    }
}

/// A table's entry of 4 KB is named by one byte.
#[test]
fn a_head_that_names_a_large_entry_over_and_over() {
    let server = TestServer::start();
    let mut client = Http2::open(server.addr);
    let mut block = head("GET", "/", &[]);
    block.extend([0x40, 1, b'a', 0x7f, 0xa1, 0x1e]);
    block.extend([b'x'; 4000]);
    block.extend([0xbe; 10_000]);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    client.expect_calm();
    assert_eq!(metric(server.admin, HEADS), 1);
}

/// CVE-2026-49975: windows stay closed, and what waits for them is our memory.
#[test]
fn answers_that_are_never_taken() {
    let server = TestServer::start();
    let mut client = Http2::open_with(server.addr, &[(INITIAL_WINDOW, 0)]);
    let page = fetch(server.addr, "GET", PAGE, &[], None).body.len();
    let pages: Vec<u32> =
        (0..STREAMS_OUT_BYTES_MAX.div_ceil(page)).map(|_| client.get(PAGE)).collect();
    client.sync();
    assert!(pages.iter().all(|page| client.answers[page].status == 200));
    let refused = client.get("/");
    assert_eq!(client.answer(refused).reset, Some(ErrorCode::RefusedStream as u32));
    let held = "pushline_http2_floods_total{kind=\"held_answers\"}";
    assert_eq!(metric(server.admin, held), 1);
    // One that is taken, and one that is given up, make room.
    client.widen(pages[0], page as u32);
    assert_eq!(client.answer(pages[0]).body.len(), page);
    client.send(RESET, 0, pages[1], &[0, 0, 0, 8]);
    let served = client.get("/");
    client.widen(served, 1 << 20);
    assert_eq!(client.answer(served).status, 200);
}

/// Each costs us its head, although it is refused.
#[test]
fn requests_that_are_refused_because_answers_are_never_taken() {
    let closed = |client: &mut Http2| {
        client.send(SETTINGS, 0, 0, &[0, INITIAL_WINDOW as u8, 0, 0, 0, 0]);
        0
    };
    flood("made_reset", closed, |_, at| {
        framed(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, &head("GET", PAGE, &[]))
    });
}

#[test]
fn pings() {
    flood("ping", none, |_, _| framed(PING, 0, 0, &[0; 8]));
}

#[test]
fn settings() {
    flood("settings", none, |_, _| framed(SETTINGS, 0, 0, b""));
}

#[test]
fn frames_of_a_body_with_nothing_in_them() {
    let begin = |client: &mut Http2| client.request("POST", "/channels/a", &[], false);
    flood("empty_data", begin, |stream, _| framed(DATA, 0, stream, b""));
}

#[test]
fn updates_of_windows_for_nothing_that_was_sent() {
    flood("window_update", none, |_, _| framed(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]));
}

#[test]
fn frames_that_mean_nothing() {
    flood("ignored", none, |_, _| framed(0xee, 0, 0, b""));
}

#[test]
fn acknowledgements_of_what_was_never_said_and_goodbyes() {
    flood("ignored", none, |_, _| framed(SETTINGS, ACK, 0, b""));
    flood("ignored", none, |_, _| framed(PING, ACK, 0, &[0; 8]));
    flood("ignored", none, |_, _| framed(GOAWAY, 0, 0, &[0; 8]));
}

#[test]
fn frames_for_a_stream_that_is_gone() {
    let gone = |client: &mut Http2| {
        let stream = client.request("POST", "/nothing", &[], false);
        client.send(RESET, 0, stream, &[0, 0, 0, 8]);
        client.sync();
        stream
    };
    flood("late", gone, |stream, _| framed(DATA, 0, stream, b"x"));
}

#[test]
fn streams_that_are_given_up_faster_than_pages_close() {
    // Those that come to a channel that is read here already are answered at once.
    let reads = |client: &mut Http2| {
        let stream = client.get("/sse?channel=a");
        client.until(stream, |answer| answer.status == 200);
        stream
    };
    flood("reset", reads, |first, at| {
        let (id, block) = (2 * at + first + 2, head("GET", "/sse?channel=a", &[]));
        let opens = framed(HEADERS, END_HEADERS | END_STREAM, id, &block);
        [opens, framed(RESET, 0, id, &[0, 0, 0, 8])].concat()
    });
}
