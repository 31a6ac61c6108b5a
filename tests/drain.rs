//! Going away, as SIGTERM makes it: streams end in a way that clients come back from, publishes in
//! progress are answered, new requests are refused, and the server says whom it had to cut.

mod common;

use std::time::{Duration, Instant};

use common::http::Chunked;
use common::ws::{RawWs, Ws};
use common::{Conn, Sse, TestServer, fetch, publish, request};
use serde_json::json;

fn server(drain_time: Duration) -> TestServer {
    TestServer::with(|settings| settings.drain_time = drain_time)
}

#[test]
fn an_idle_server_ends_at_once() {
    let began = Instant::now();
    let ended = server(Duration::from_secs(60)).drain();
    assert_eq!(ended.cut, 0);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn streams_end_and_websockets_are_told_to_come_back() {
    let server = server(Duration::from_secs(2));
    let addr = server.addr;
    let mut streams: Vec<Sse> = (0..20).map(|_| Sse::open(addr, "channel=c")).collect();
    let mut sockets: Vec<Ws> = (0..20).map(|_| Ws::bare(addr, "channel=c")).collect();
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
    assert!(std::net::TcpStream::connect(addr).is_err(), "nobody listens any more");
}

/// Until the hand of the drain comes to it, a connection that makes a request is told.
#[test]
fn requests_on_open_connections_are_503() {
    let server = server(Duration::from_secs(60));
    let (addr, admin) = (server.addr, server.admin);
    let mut conns: Vec<Conn> = (0..50).map(|_| Conn::open(addr)).collect();
    for conn in &mut conns {
        conn.send(request("GET", "/", &[], None));
        assert_eq!(conn.response().status, 200);
    }
    let draining = std::thread::spawn(move || server.drain());
    common::await_that("it says that it is draining", || {
        fetch(admin, "GET", "/readyz", &[], None).status == 503
    });
    assert_eq!(fetch(admin, "GET", "/healthz", &[], None).status, 200);
    let mut refused = 0;
    // The order to drain reaches a worker after the admin listener has it.
    for mut conn in conns.into_iter().rev() {
        let target = "/channels/c";
        conn.send(request("POST", target, &[], Some(b"too late")));
        let response = conn.response();
        if response.status == 503 {
            refused += 1;
            assert!(response.header("retry-after").is_some());
            assert_eq!(response.header("connection"), Some("close"));
            conn.expect_end();
        }
        if refused == 3 {
            break;
        }
    }
    assert_eq!(refused, 3);
    let began = Instant::now();
    assert_eq!(draining.join().expect("it ends").cut, 0);
    assert!(began.elapsed() < Duration::from_secs(30), "nobody is left, so nobody is waited for");
}

#[test]
fn a_publish_in_progress_is_finished_and_answered() {
    let server = server(Duration::from_secs(5));
    let (addr, admin) = (server.addr, server.admin);
    let id = server.id(1);
    let mut half = Conn::open(addr);
    let head = "POST /channels/c HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n";
    half.send(format!("{head}Expect: 100-continue\r\n\r\n"));
    assert_eq!(half.response().status, 100, "it is in progress before the server drains");
    half.send("bo");
    let mut lines = Chunked::open(addr, "/publish", &[("Expect", "100-continue")]);
    assert_eq!(lines.conn.response().status, 100, "its body has begun");
    let draining = std::thread::spawn(move || server.drain());
    common::await_that("it says that it is draining", || {
        fetch(admin, "GET", "/readyz", &[], None).status == 503
    });
    half.send("dy");
    let response = half.response();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["id"], id);
    lines.chunk(format!("{}\n", json!({"channel": "c", "data": "still taken"})));
    assert_eq!(lines.finish().json()["published"], 1);
    assert_eq!(draining.join().expect("it ends").cut, 0);
}

#[test]
fn whoever_stays_is_cut_when_the_time_is_over() {
    let server = server(Duration::from_millis(500));
    let mut lines = Chunked::open(server.addr, "/publish", &[("Expect", "100-continue")]);
    assert_eq!(lines.conn.response().status, 100);
    let began = Instant::now();
    assert_eq!(server.drain().cut, 1);
    assert!(began.elapsed() >= Duration::from_millis(500));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    lines.conn.expect_gone();
}

#[test]
fn a_second_signal_cuts_the_waiting_short() {
    let server = server(Duration::from_secs(60));
    let mut lines = Chunked::open(server.addr, "/publish", &[("Expect", "100-continue")]);
    assert_eq!(lines.conn.response().status, 100);
    let (tell, told) = crossbeam_channel::bounded(1);
    tell.send(()).expect("there is room");
    let began = Instant::now();
    assert_eq!(server.into_server().drain(&told).cut, 1);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn stopping_ends_everything_at_once() {
    let server = server(Duration::from_secs(60));
    let mut sse = Sse::open(server.addr, "channel=c");
    let mut ws = RawWs::bare(server.addr, "channel=c");
    let began = Instant::now();
    server.into_server().stop();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(sse.next_or_cut(), None);
    ws.conn.expect_gone();
    common::assert_no_server_panic();
}
