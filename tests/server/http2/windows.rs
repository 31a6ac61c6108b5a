//! Flow control: a window that is closed is a full socket.

use std::time::Duration;

use pushline::proto::h2::{ErrorCode, WINDOW_DEFAULT, WINDOW_MAX};

use crate::common::http2::{
    ACK, DATA, END_STREAM, Frame, GOAWAY, Http2, INITIAL_WINDOW, SETTINGS, WINDOW_UPDATE,
};
use crate::common::{TestServer, await_subscribers, await_that, metric, publish};

#[test]
fn a_window_that_opens_a_little_at_a_time_gets_every_byte_once_and_in_order() {
    let server = TestServer::start();
    let mut client = Http2::open_with(server.addr, &[(INITIAL_WINDOW, 0)]);
    client.credits = false;
    let stream = client.get("/sse?channel=news");
    await_subscribers(server.addr, "news", 1);
    let large = "x".repeat(60_000);
    let sent: Vec<&str> = ["one", &large, "two", "three"].to_vec();
    for data in &sent {
        publish(server.addr, "news", data);
    }
    client.until(stream, |answer| answer.status == 200);
    client.sync();
    assert_eq!(client.answers[&stream].body, b"", "nothing fits a window of 0");
    client.widen(0, 1 << 20);
    for by in [1, 2, 3, 50, 20_000, 7, 30_000].into_iter().cycle().take(40) {
        let before = client.answers[&stream].body.len();
        client.widen(stream, by);
        client.sync();
        let came = client.answers[&stream].body.len() - before;
        assert!(came <= by as usize, "{came} bytes into a window of {by}");
        if client.answers[&stream].events().len() == sent.len() {
            break;
        }
        if came < by as usize {
            // It has had a moment: what it could be sent comes.
            client.until(stream, |answer| {
                answer.body.len() == before + by as usize || answer.events().len() == sent.len()
            });
        }
    }
    assert_eq!(client.answers[&stream].events(), sent);
}

#[test]
fn a_connection_that_is_full_lets_its_streams_take_turns() {
    let server = TestServer::start();
    let mut client = Http2::open(server.addr);
    client.credits = false;
    let streams: Vec<u32> = (0..10).map(|_| client.get("/sse?channel=news")).collect();
    await_subscribers(server.addr, "news", 10);
    let large = "y".repeat(30_000);
    for _ in 0..2 {
        publish(server.addr, "news", &large);
    }
    // 65,535 bytes of 600,000: then it has to wait.
    let came = |client: &Http2| -> usize {
        streams.iter().filter_map(|id| client.answers.get(id)).map(|of| of.body.len()).sum()
    };
    while came(&client) < 65_535 {
        client.frame().expect("it is open");
    }
    client.sync();
    assert_eq!(came(&client), 65_535);
    for &stream in &streams {
        client.widen(stream, 1 << 20);
    }
    let mut opened = 65_535;
    while streams.iter().any(|id| client.answers[id].events().len() < 2) {
        opened += 16_384;
        client.widen(0, 16_384);
        while came(&client) < opened
            && streams.iter().any(|id| client.answers[id].events().len() < 2)
        {
            client.frame().expect("it is open");
        }
        assert!(came(&client) <= opened);
    }
    assert!(streams.iter().all(|id| client.answers[id].events() == [&large[..], &large]));
}

#[test]
fn a_smaller_initial_window_takes_back_what_streams_have_and_an_update_gives_it_again() {
    let server = TestServer::start();
    let mut client = Http2::open_with(server.addr, &[(INITIAL_WINDOW, 1000)]);
    client.credits = false;
    let stream = client.get("/sse?channel=news");
    await_subscribers(server.addr, "news", 1);
    let smaller = [&INITIAL_WINDOW.to_be_bytes()[..], &0_u32.to_be_bytes()].concat();
    client.until(stream, |answer| answer.body.ends_with(b"\n\n"));
    let before = client.answers[&stream].body.len();
    client.send(SETTINGS, 0, 0, &smaller);
    client.sync();
    publish(server.addr, "news", "hello");
    client.sync();
    assert_eq!(client.answers[&stream].body.len(), before, "its window is below 0");
    client.widen(stream, before as u32 + 1000);
    let read = client.until(stream, |answer| answer.body.ends_with(b"hello\n\n"));
    assert_eq!(read.events(), ["hello"]);
}

/// Settings are acknowledged once they are in force (RFC 9113 sections 6.5.3 and 6.9.2).
#[test]
fn settings_that_would_make_a_window_too_wide_end_the_connection_unacknowledged() {
    let server = TestServer::start();
    let mut client = Http2::open(server.addr);
    let stream = client.get("/sse?channel=news");
    client.widen(stream, WINDOW_MAX - WINDOW_DEFAULT);
    client.sync();
    let initial = |by: u32| [&INITIAL_WINDOW.to_be_bytes()[..], &by.to_be_bytes()].concat();
    for by in [WINDOW_DEFAULT, 2 * WINDOW_DEFAULT] {
        client.send(SETTINGS, 0, 0, &initial(by));
    }
    let told: Vec<_> = std::iter::from_fn(|| client.frame()).collect();
    let acks = told.iter().filter(|frame| (frame.kind, frame.flags) == (SETTINGS, ACK));
    assert_eq!(acks.count(), 1, "the first of both: {told:?}");
    let codes: Vec<u32> = told.iter().filter(|of| of.kind == GOAWAY).map(Frame::code).collect();
    assert_eq!(codes, [ErrorCode::FlowControlError as u32]);
}

/// It stays behind the others' window, and they go on.
#[test]
fn a_stream_whose_window_closes_while_it_waits_for_the_connection_holds_up_no_other() {
    let server = TestServer::start();
    let mut client = Http2::open(server.addr);
    client.credits = false;
    let filler = client.get("/sse?channel=news");
    await_subscribers(server.addr, "news", 1);
    for _ in 0..2 {
        publish(server.addr, "news", &"x".repeat(40_000));
    }
    client.until(filler, |answer| answer.body.len() == 65_535);
    let [first, second] = [(); 2].map(|()| client.get("/"));
    client.sync();
    client.widen(second, 100_000);
    client.send(SETTINGS, 0, 0, &[0, INITIAL_WINDOW as u8, 0, 0, 0, 0]);
    client.sync();
    client.widen(0, 100_000);
    assert_eq!(client.answer(second).status, 200);
    assert_eq!(client.answers[&first].body, b"");
    client.widen(first, 100_000);
    assert!(client.answer(first).ended);
}

/// What a client sends is taken as it is read on; it is told that it may send more.
#[test]
fn a_body_larger_than_the_window_comes_in_whole() {
    let server = TestServer::with(|settings| settings.event_bytes_max = 1 << 20);
    let mut client = Http2::open(server.addr);
    let stream = client.request("POST", "/channels/large", &[], false);
    let (mut left, mut window, mut of_connection) = (300_000_usize, 65_535_usize, 65_535_usize);
    while left > 0 {
        let piece = left.min(16_384).min(window).min(of_connection);
        if piece > 0 {
            let flags = if piece == left { END_STREAM } else { 0 };
            client.send(DATA, flags, stream, &vec![b'z'; piece]);
            (left, window, of_connection) = (left - piece, window - piece, of_connection - piece);
            continue;
        }
        let frame = client.frame().expect("it is open");
        if frame.kind == WINDOW_UPDATE {
            let by = u32::from_be_bytes(*frame.payload.first_chunk().expect("a number")) as usize;
            match frame.stream {
                0 => of_connection += by,
                _ => window += by,
            }
        }
    }
    assert_eq!(client.answer(stream).status, 200);
}

/// Longer than the first part of the next tests takes, on a machine that stands still for a while, too.
const DEAD_TIME: Duration = Duration::from_secs(5);

/// CVE-2026-49975: what waits behind a window that stays closed is our memory.
#[test]
fn a_window_that_stays_closed_is_a_dead_peer_however_often_it_opens_by_a_byte() {
    let server = TestServer::with(|settings| settings.dead_time = DEAD_TIME);
    let mut client = Http2::open_with(server.addr, &[(INITIAL_WINDOW, 0)]);
    client.credits = false;
    let [closed, drips] = [(); 2].map(|()| client.get("/pushline.js"));
    let idle = client.get("/sse?channel=idle");
    client.until(drips, |answer| answer.status == 200);
    // The preamble of a stream that nothing is published to: once it is taken nothing waits.
    client.widen(idle, 1000);
    for length in 1..=50 {
        client.widen(drips, 1);
        client.until(drips, |answer| answer.body.len() == length);
    }
    client.answer(closed);
    client.answer(drips);
    await_that("both are counted", || {
        metric(server.admin, "pushline_http2_floods_total{kind=\"closed_window\"}") == 2
    });
    assert!(client.answers[&idle].reset.is_none(), "nothing waits for it");
}

/// The streams have open windows, but the connection has none: what waits is our memory, too.
#[test]
fn a_connection_whose_window_stays_closed_is_a_dead_peer_to_the_streams_that_wait_for_it() {
    let server = TestServer::with(|settings| settings.dead_time = DEAD_TIME);
    let mut client = Http2::open_with(server.addr, &[(INITIAL_WINDOW, 1 << 20)]);
    client.credits = false;
    let idle = client.get("/sse?channel=idle");
    client.until(idle, |answer| answer.body.ends_with(b"\n\n"));
    let pages = [(); 10].map(|()| client.get("/pushline.js"));
    let came = |client: &Http2| -> usize { client.answers.values().map(|of| of.body.len()).sum() };
    while came(&client) < 65_535 {
        client.frame().expect("it is open");
    }
    for by in 1..=50 {
        client.widen(0, 1);
        while came(&client) < 65_535 + by {
            client.frame().expect("it is open");
        }
    }
    let reset = pages.iter().filter(|&&page| client.answer(page).reset.is_some()).count();
    assert!(reset > 0);
    await_that("all are counted", || {
        metric(server.admin, "pushline_http2_floods_total{kind=\"closed_window\"}") == reset as u64
    });
    assert!(client.answers[&idle].reset.is_none(), "nothing waits for it");
}
