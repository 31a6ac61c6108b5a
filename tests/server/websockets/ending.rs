//! A connection that ends because of what its peer sent: what was published before still comes
//! back, what follows does not count, and a peer that broke the protocol is not waited for.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use super::closing::close;
use crate::common::http::Conn;
use crate::common::ws::{BINARY, CLOSE, CONTINUATION, PING, PONG, RawFrame, RawWs, TEXT, frame};
use crate::common::{TestServer, assert_ever, assert_ever_within, await_that, describe, publish};

/// How soon a peer that broke the protocol is dropped: before a closing handshake would be given
/// up.
const SOON: Duration = Duration::from_secs(3);

fn numbered(count: usize) -> Vec<u8> {
    (0..count).flat_map(|number| frame(true, TEXT, number.to_string().as_bytes())).collect()
}

fn expect_numbered(ws: &mut RawWs, count: usize) {
    for number in 0..count {
        let expected = number.to_string().into_bytes();
        assert_eq!(ws.answer(), RawFrame { fin: true, opcode: TEXT, payload: expected });
    }
}

#[test]
fn what_was_published_before_a_close_comes_back_before_it_is_answered() {
    let server = TestServer::start();
    for count in [1, 2, 63, 64, 200] {
        let mut ws = RawWs::bare(server.addr, &format!("channel=c{count}"));
        let behind = [frame(true, TEXT, b"after"), frame(true, PING, b"after")].concat();
        ws.send([numbered(count), close(1000, "done"), behind].concat());
        expect_numbered(&mut ws, count);
        assert_eq!(ws.answer().close().0, 1000);
        ws.conn.expect_gone();
        assert_eq!(describe(server.addr, &format!("c{count}"))["events"], count);
    }
}

#[test]
fn a_large_message_comes_back_before_the_close_is_answered() {
    let server = TestServer::with(|settings| settings.event_bytes_max = 4 << 20);
    let mut ws = RawWs::bare(server.addr, "channel=c");
    let large = vec![7; 4 << 20];
    ws.send([frame(true, BINARY, &large), close(1001, "")].concat());
    let answer = ws.answer();
    assert!(answer.opcode == BINARY && answer.payload == large, "{} bytes", answer.payload.len());
    assert_eq!(ws.answer().close().0, 1001);
    ws.conn.expect_gone();
}

#[test]
fn what_was_published_before_a_violation_comes_back_before_the_connection_fails() {
    let server = TestServer::start();
    for (violation, code) in [
        (frame(true, 3, b""), 1002),
        (frame(true, CONTINUATION, b""), 1002),
        (frame(true, TEXT, b"\xff"), 1007),
        (frame(true, CLOSE, b"\x03"), 1002),
    ] {
        let mut ws = RawWs::bare(server.addr, "channel=c");
        ws.send([numbered(3), violation, numbered(3)].concat());
        expect_numbered(&mut ws, 3);
        assert_eq!(ws.answer().close().0, code);
        ws.conn.expect_gone();
    }
    assert_eq!(describe(server.addr, "c")["events"], 4 * 3);
}

#[test]
fn an_operation_before_a_close_is_answered_before_it() {
    let server = TestServer::start();
    let mut ws = RawWs::envelope(server.addr, "channel=c");
    let op = json!({"op": "publish", "channel": "c", "data": "last words", "ref": 1});
    ws.send([frame(true, TEXT, op.to_string().as_bytes()), close(1000, "")].concat());
    let mut seen = [ws.answer(), ws.answer()].map(|answer| {
        let message: serde_json::Value = serde_json::from_slice(&answer.payload).expect("JSON");
        (message["ok"].clone(), message["data"].clone())
    });
    seen.sort_by_key(|(ok, _)| ok.is_null());
    assert_eq!(seen, [(json!(true), json!(null)), (json!(null), json!("last words"))]);
    assert_eq!(ws.answer().close().0, 1000);
    ws.conn.expect_gone();
}

#[test]
fn a_close_is_answered_although_the_peer_sends_no_more() {
    let server = TestServer::start();
    for count in [0, 2, 80] {
        let mut ws = RawWs::bare(server.addr, "channel=c");
        ws.send([numbered(count), close(1000, "")].concat());
        ws.conn.half_close();
        expect_numbered(&mut ws, count);
        assert_eq!(ws.answer().close().0, 1000);
        ws.conn.expect_gone();
    }
    await_that("its place is free", || server.open() == 0);
}

/// RFC 6455 section 7.1.7: of a failed connection nothing further is processed, so there is no
/// close frame to wait for.
#[test]
fn a_peer_that_broke_the_protocol_is_not_waited_for() {
    let server = TestServer::start();
    let reserved_code = close(1005, "");
    for violation in [frame(true, 3, b""), frame(true, TEXT, b"\xff"), reserved_code] {
        assert_ever_within(SOON, || {
            let mut ws = RawWs::bare(server.addr, "channel=c");
            ws.send(&violation);
            assert_eq!(ws.answer().opcode, CLOSE);
            ws.conn.expect_gone();
        });
    }
}

/// It asked for the end and does not read what comes before it: it is cut.
#[test]
fn a_peer_that_does_not_read_holds_its_close_up_only_for_a_while() {
    let server = TestServer::with(|settings| settings.channel_default.history_count = 1000);
    let conn = Conn::open_narrow(server.addr, 4096);
    let mut ws = RawWs::over(conn, "channel=c", &[]);
    for _ in 0..200 {
        publish(server.addr, "c", &"x".repeat(60_000));
    }
    ws.send([frame(true, TEXT, b"never seen"), close(1000, "")].concat());
    await_that("it is published", || describe(server.addr, "c")["events"] == 201);
    await_that("its place is free", || server.open() == 0);
}

/// How long a message may make no progress in the next test.
const BODY_TIME: Duration = Duration::from_millis(300);

/// Neither an empty fragment nor a pong brings a message nearer to its end.
#[test]
fn a_message_that_has_begun_must_go_on() {
    let server = TestServer::with(|settings| settings.body_time = BODY_TIME);
    for drips in [vec![], frame(false, CONTINUATION, b""), frame(true, PONG, b"")] {
        let mut ws = RawWs::bare(server.addr, "channel=c");
        ws.send(frame(false, TEXT, b"half"));
        let mut drops = 0;
        while ws.conn.is_silent_for(BODY_TIME / 3) {
            drops += 1;
            assert!(drops < 30, "it may drip for ever: {drips:?}");
            ws.send(&drips);
        }
        assert_eq!(ws.answer().close(), (1001, "timeout".to_owned()));
    }
    // One that continues slowly may, unless the machine slows it down further.
    assert_ever("a slow message comes through", || {
        let mut ws = RawWs::bare(server.addr, "channel=slow");
        ws.send(frame(false, TEXT, b"a"));
        let goes_on = (0..6).all(|_| {
            let is_silent = ws.conn.is_silent_for(BODY_TIME / 2);
            is_silent && ws.conn.stream.write_all(&frame(false, CONTINUATION, b"b")).is_ok()
        });
        let ends = goes_on && ws.conn.stream.write_all(&frame(true, CONTINUATION, b"c")).is_ok();
        // And so may one that says nothing.
        ends && ws.answer().payload == b"abbbbbbc" && ws.conn.is_silent_for(2 * BODY_TIME)
    });
}
