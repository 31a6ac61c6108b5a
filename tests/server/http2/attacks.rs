//! Clients that do too much of what costs us more than them: each kind has a limit and is counted.

use crate::common::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, PING, RESET, SETTINGS,
    WINDOW_UPDATE, framed, head,
};
use crate::common::{TestServer, metric};

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
    assert_eq!(metric(server.admin, "pushline_http2_floods_total{kind=\"head\"}"), 1);
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
