//! The closing handshake, begun by either side (RFC 6455 section 7).

use std::time::Instant;

use pushline::limits::WS_CLOSE_TIME_MAX;

use crate::common::ws::{CLOSE, PING, RawWs, TEXT, frame};
use crate::common::{TestServer, await_subscribers, await_that, publish};

pub fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    frame(true, CLOSE, &payload)
}

#[test]
fn a_clients_close_is_answered_with_its_code_and_then_the_server_ends() {
    let server = TestServer::start();
    for code in [1000, 1001, 1002, 1011, 3000, 4999] {
        let mut ws = RawWs::bare(server.addr, "channel=c");
        ws.send(close(code, "goodbye"));
        assert_eq!(ws.answer().close().0, code);
        ws.conn.expect_gone();
    }
    let mut ws = RawWs::bare(server.addr, "channel=c");
    ws.send(frame(true, CLOSE, b""));
    let answer = ws.answer();
    assert_eq!((answer.opcode, answer.payload), (CLOSE, Vec::new()));
    ws.conn.expect_gone();
    await_subscribers(server.addr, "c", 0);
}

#[test]
fn a_close_inside_a_fragmented_message_is_a_close() {
    let server = TestServer::start();
    let mut ws = RawWs::bare(server.addr, "channel=c");
    ws.send([frame(false, TEXT, b"half"), close(1001, "")].concat());
    assert_eq!(ws.answer().close().0, 1001);
    ws.conn.expect_gone();
}

/// The server has begun to close: it sends no more events, and waits for the client's close frame,
/// whatever comes before that.
#[test]
fn a_close_of_the_servers_waits_for_the_clients() {
    let server = TestServer::start();
    let mut ws = RawWs::envelope(server.addr, "channel=c");
    ws.send(frame(true, 2, b"binary is not spoken here"));
    assert_eq!(ws.answer().close().0, 1003);
    publish(server.addr, "c", "unheard");
    ws.send(frame(true, TEXT, br#"{"op":"ping"}"#));
    ws.send(frame(true, PING, b"unanswered"));
    ws.send(frame(false, TEXT, b"half a mess"));
    ws.send(close(1003, ""));
    ws.conn.expect_gone();
}

#[test]
fn a_client_that_never_answers_a_close_is_cut() {
    let server = TestServer::start();
    let mut ws = RawWs::envelope(server.addr, "channel=c");
    ws.send(frame(true, 2, b""));
    assert_eq!(ws.answer().close().0, 1003);
    let began = Instant::now();
    ws.conn.expect_gone();
    // A peer that answers no ping would be cut later.
    assert!(began.elapsed() < 5 * WS_CLOSE_TIME_MAX, "{:?}", began.elapsed());
    await_that("its place is free", || server.open() == 0);
}
