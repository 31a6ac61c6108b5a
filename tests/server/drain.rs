//! Shutting down after SIGTERM: streams end in a way that clients come back from, publishes in
//! progress are answered, new requests are refused, and the server says what it had to cut.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::common::http::Chunked;
use crate::common::sse::expect_empty_stream;
use crate::common::ws::{RawWs, Ws};
use crate::common::{Conn, PATIENCE, Sse, TestServer, await_that, fetch, publish, request};
use serde_json::json;

/// Far longer than anything else here takes.
const LONG: Duration = Duration::from_secs(600);

fn server(drain_time: Duration) -> TestServer {
    TestServer::with(|settings| settings.drain_time = drain_time)
}

#[test]
fn an_idle_server_ends_at_once() {
    let began = Instant::now();
    let ended = server(LONG).drain();
    assert_eq!(ended.cut, 0);
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[test]
fn streams_end_and_websockets_are_told_to_come_back() {
    let server = server(LONG);
    let addr = server.addr;
    let mut streams: Vec<Sse> = (0..8).map(|_| Sse::open(addr, "channel=c")).collect();
    let mut sockets: Vec<Ws> = (0..8).map(|_| Ws::bare(addr, "channel=c")).collect();
    let mut idle = Conn::open(addr);
    idle.send(request("GET", "/", &[], None));
    assert_eq!(idle.response().status, 200);
    publish(addr, "c", "the last one");
    let draining = std::thread::spawn(move || server.drain());
    for stream in &mut streams {
        assert_eq!(stream.event().data, "the last one");
        assert_eq!(stream.next_event(), None);
    }
    for socket in &mut sockets {
        assert_eq!(socket.text(), "the last one");
        socket.expect_close(1012, "restart");
    }
    idle.expect_end();
    assert_eq!(draining.join().expect("it ends").cut, 0);
    await_closed(addr);
}

/// Waits until the workers have been told to drain: that is after the admin listener.
fn await_draining(admin: SocketAddr, addr: SocketAddr) {
    await_that("it says that it is draining", || {
        fetch(admin, "GET", "/readyz", &[], None).status == 503
    });
    await_closed(addr);
}

/// Not at once: for a moment, a process that another test starts has a copy of the listener.
fn await_closed(addr: SocketAddr) {
    await_that("its port is closed", || {
        TcpStream::connect(addr).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
}

/// A connection in the middle of its first request's head, for which a draining server waits.
fn half_asked(server: &TestServer, target: &str, headers: &str) -> Conn {
    let open = server.open();
    let mut conn = Conn::open(server.addr);
    conn.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}"));
    await_that("it is accepted", || server.open() > open);
    conn
}

#[test]
fn a_draining_server_leaves_its_port_and_closes_idle_connections_at_once() {
    let server = server(LONG);
    let (addr, admin) = (server.addr, server.admin);
    let mut idle: Vec<Conn> = (0..12).map(|_| Conn::open(addr)).collect();
    for conn in &mut idle {
        conn.send(request("GET", "/", &[], None));
        assert_eq!(conn.response().status, 200);
    }
    let mut busy = half_asked(&server, "/", "");
    let draining = std::thread::spawn(move || server.drain());
    await_draining(admin, addr);
    assert_eq!(fetch(admin, "GET", "/healthz", &[], None).status, 200);
    idle.iter_mut().for_each(Conn::expect_end);
    busy.send("\r\n");
    let refused = busy.response();
    assert_eq!((refused.status, refused.error_code()), (503, "draining".into()));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.header("connection"), Some("close"));
    busy.expect_end();
    drop(busy);
    let began = Instant::now();
    assert_eq!(draining.join().expect("it ends").cut, 0);
    assert!(began.elapsed() < PATIENCE, "none is left, so none is waited for");
}

/// Any status but 200 would be final to it (WHATWG HTML 9.2.3).
#[test]
fn an_event_source_that_comes_too_late_is_told_when_to_come_back() {
    let server = server(LONG);
    let (addr, admin) = (server.addr, server.admin);
    let mut late = half_asked(&server, "/sse?channel=c", "Accept: text/event-stream\r\n");
    let mut upgrade = half_asked(&server, "/ws?channel=c", "Accept: text/event-stream\r\n");
    let draining = std::thread::spawn(move || server.drain());
    await_draining(admin, addr);
    late.send("Last-Event-ID: x-1\r\n\r\n");
    expect_empty_stream(&mut late, "draining");
    upgrade.send("\r\n");
    assert_eq!(upgrade.response().status, 503);
    drop((late, upgrade));
    assert_eq!(draining.join().expect("it ends").cut, 0);
}

#[test]
fn a_few_streams_are_not_spread_over_the_drain_time() {
    let server = server(LONG);
    let mut stream = Sse::open(server.addr, "channel=c");
    let mut socket = Ws::bare(server.addr, "channel=c");
    let began = Instant::now();
    let draining = std::thread::spawn(move || server.drain());
    assert_eq!(stream.next_event(), None);
    socket.expect_close(1012, "restart");
    drop((stream, socket));
    assert_eq!(draining.join().expect("it ends").cut, 0);
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[test]
fn a_publish_in_progress_is_finished_and_answered() {
    let server = server(LONG);
    let (addr, admin) = (server.addr, server.admin);
    let id = server.id(1);
    let mut half = Conn::open(addr);
    let head = "POST /channels/c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n";
    half.send(format!("{head}Expect: 100-continue\r\n\r\n"));
    assert_eq!(half.response().status, 100, "it is in progress before the server drains");
    half.send("bo");
    let mut lines = Chunked::open(addr, "/publish", &[("Expect", "100-continue")]);
    assert_eq!(lines.conn.response().status, 100, "its body has begun");
    let draining = std::thread::spawn(move || server.drain());
    await_draining(admin, addr);
    half.send("dy");
    let response = half.response();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("connection"), Some("close"), "it is the last one");
    half.expect_end();
    assert_eq!(response.json()["id"], id);
    lines.chunk(format!("{}\n", json!({"channel": "c", "data": "still taken"})));
    assert_eq!(lines.finish().json()["published"], 1);
    assert_eq!(draining.join().expect("it ends").cut, 0);
}

#[test]
fn connections_that_stay_are_cut_when_the_time_is_over() {
    let server = server(Duration::from_millis(500));
    let mut lines = Chunked::open(server.addr, "/publish", &[("Expect", "100-continue")]);
    assert_eq!(lines.conn.response().status, 100);
    let began = Instant::now();
    assert_eq!(server.drain().cut, 1);
    assert!(began.elapsed() >= Duration::from_millis(500));
    lines.conn.expect_gone();
}

#[test]
fn a_second_signal_cuts_the_waiting_short() {
    let server = server(LONG);
    let mut lines = Chunked::open(server.addr, "/publish", &[("Expect", "100-continue")]);
    assert_eq!(lines.conn.response().status, 100);
    let (tell, told) = crossbeam_channel::bounded(1);
    tell.send(()).expect("there is room");
    let began = Instant::now();
    assert_eq!(server.into_server().drain(&told).cut, 1);
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn stopping_ends_everything_at_once() {
    let server = server(LONG);
    let mut sse = Sse::open(server.addr, "channel=c");
    let mut ws = RawWs::bare(server.addr, "channel=c");
    let began = Instant::now();
    server.into_server().stop();
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(sse.next_or_cut(), None);
    ws.conn.expect_gone();
    crate::common::assert_no_server_panic();
}
