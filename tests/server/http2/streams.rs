//! What HTTP/1.1 has, over streams of one connection.

use std::time::Duration;

use serde_json::Value;

use crate::common::http2::{ACK, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, Http2, PING, head};
use crate::common::ws::{CLOSE, TEXT, frame};
use crate::common::{Conn, Sse, TestServer, await_subscribers, fetch, metric, publish};
use pushline::proto::h2::frame as h2_frame;
use pushline::proto::h2::hpack::encode::write_field;
use pushline::proto::h2::{ErrorCode, STREAM_ID_MAX};

#[test]
fn both_versions_publish_to_and_read_the_same_channels() {
    let server = TestServer::start();
    let mut client = Http2::open(server.addr);
    let stream = client.get("/sse?channel=news");
    let head = client.until(stream, |answer| answer.status != 0);
    assert_eq!((head.status, &*head.fields["content-type"]), (200, "text/event-stream"));
    assert!(!head.fields.contains_key("connection"), "{head:?}");
    let mut other = Sse::open(server.addr, "channel=news");
    await_subscribers(server.addr, "news", 2);
    publish(server.addr, "news", "one");
    let post = client.post("/channels/news", "two");
    let answer = client.answer(post);
    assert_eq!(answer.status, 200);
    let told: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(told["subscribers"], 2);
    let read = client.until(stream, |answer| answer.events().len() == 2).events();
    assert_eq!(read, ["one", "two"]);
    assert_eq!(
        other.events(2).iter().map(|event| &*event.data).collect::<Vec<_>>(),
        ["one", "two"]
    );
    // A reconnect with a cursor.
    let resumed =
        client.request("GET", "/sse?channel=news", &[("last-event-id", &server.id(1))], true);
    let read = client.until(resumed, |answer| !answer.events().is_empty()).events();
    assert_eq!(read, ["two"]);
}

#[test]
fn a_hundred_subscribers_share_a_connection_and_each_gets_each_event_once() {
    let server = TestServer::start();
    let mut client = Http2::open(server.addr);
    let path = |at: usize| {
        if at.is_multiple_of(2) { "/sse?channel=all" } else { "/sse?channel=all&envelope=json" }
    };
    let streams: Vec<u32> = (0..100).map(|at| client.get(path(at))).collect();
    await_subscribers(server.addr, "all", 100);
    for at in 0..20 {
        publish(server.addr, "all", &format!("{at:03}"));
    }
    for &stream in &streams {
        let read = client.until(stream, |answer| answer.events().len() == 20).events();
        let has = |(at, data): (usize, &String)| data.contains(&format!("{at:03}"));
        assert!(read.iter().enumerate().all(has), "{stream}: {read:?}");
    }
    client.sync();
    assert!(streams.iter().all(|id| client.answers[id].events().len() == 20), "none twice");
    drop(client);
    await_subscribers(server.addr, "all", 0);
}

#[test]
fn every_route_is_there() {
    let server = TestServer::start();
    let mut client = Http2::open(server.addr);
    for (method, path, status) in [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/pushline.js", 200),
        ("GET", "/nothing", 404),
        ("DELETE", "/channels/news", 405),
        ("OPTIONS", "*", 204),
        ("GET", "/channels/news", 200),
        ("GET", "/sse", 400),
        ("CONNECT", "/ws", 501),
    ] {
        let more: &[(&str, &str)] =
            if method == "CONNECT" { &[(":protocol", "other")] } else { &[] };
        let stream = client.request(method, path, more, true);
        let answer = client.answer(stream);
        assert_eq!((answer.status, answer.reset), (status, None), "{method} {path}: {answer:?}");
    }
    // Lines, in frames that end anywhere.
    let lines = client.request("POST", "/publish", &[], false);
    let text = "{\"channel\":\"a\",\"data\":\"1\"}\n{\"channel\":\"a\",\"data\":\"2\"}";
    for piece in text.as_bytes().chunks(7) {
        client.send(DATA, 0, lines, piece);
    }
    client.send(DATA, END_STREAM, lines, b"");
    let told: Value = serde_json::from_slice(&client.answer(lines).body).expect("JSON");
    assert_eq!(told["published"], 2);
    // A request that waits to be told to go on.
    let waits = client.request(
        "POST",
        "/channels/a",
        &[("expect", "100-continue"), ("content-length", "2")],
        false,
    );
    client.until(waits, |answer| answer.status == 100);
    client.send(DATA, END_STREAM, waits, b"ok");
    assert_eq!(client.answer(waits).status, 200);
}

#[test]
fn a_body_that_is_not_as_long_as_it_was_said_to_be_resets_its_stream_alone() {
    let server = TestServer::start();
    let mut client = Http2::open(server.addr);
    for body in ["", "x", "xxx"] {
        let stream = client.request("POST", "/channels/a", &[("content-length", "2")], false);
        client.send(DATA, END_STREAM, stream, body.as_bytes());
        let answer = client.answer(stream);
        assert_eq!(answer.reset, Some(ErrorCode::ProtocolError as u32), "{body:?} {answer:?}");
    }
    let stream = client.post("/channels/a", "ok");
    assert_eq!(client.answer(stream).status, 200);
    assert_eq!(metric(server.admin, "pushline_events_published_total"), 1);
}

/// RFC 8441.
#[test]
fn a_websocket_is_a_stream_too() {
    let server = TestServer::start();
    let mut client = Http2::open(server.addr);
    let more = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    let stream = client.request("CONNECT", "/ws?channel=chat", &more, false);
    let head = client.until(stream, |answer| answer.status != 0);
    assert_eq!((head.status, head.fields.contains_key("upgrade")), (200, false));
    client.send(DATA, 0, stream, &frame(true, TEXT, b"hello"));
    let read = client.until(stream, |answer| answer.body.ends_with(b"hello"));
    assert_eq!(read.body, [&[0x81, 5][..], b"hello"].concat());
    client.send(DATA, 0, stream, &frame(true, CLOSE, &1000_u16.to_be_bytes()));
    let read = client.answer(stream);
    assert!(read.body.ends_with(&[0x88, 2, 0x03, 0xe8]), "{read:?}");
    // A client that ends its side without a word is gone.
    let stream = client.request("CONNECT", "/ws?channel=chat", &more, false);
    await_subscribers(server.addr, "chat", 1);
    client.send(DATA, END_STREAM, stream, b"");
    client.answer(stream);
    await_subscribers(server.addr, "chat", 0);
}

#[test]
fn a_stream_that_is_given_up_leaves_and_the_others_go_on() {
    let server = TestServer::start();
    let mut client = Http2::open(server.addr);
    let [given_up, kept] = [(); 2].map(|()| client.get("/sse?channel=news"));
    await_subscribers(server.addr, "news", 2);
    client.until(given_up, |answer| answer.status == 200);
    let mut reset = Vec::new();
    h2_frame::write_reset(&mut reset, given_up, ErrorCode::Cancel);
    client.conn.send(&reset);
    await_subscribers(server.addr, "news", 1);
    publish(server.addr, "news", "x");
    let read = client.until(kept, |answer| !answer.events().is_empty());
    assert_eq!(read.events(), ["x"]);
}

#[test]
fn more_streams_than_a_connection_may_have_are_refused() {
    let server = TestServer::with(|settings| settings.http2_streams_max = 3);
    let mut client = Http2::open(server.addr);
    let streams = [(); 4].map(|()| client.get("/sse?channel=news"));
    let refused = client.answer(streams[3]);
    assert_eq!(refused.reset, Some(ErrorCode::RefusedStream as u32));
    await_subscribers(server.addr, "news", 3);
}

/// They were on their way when the request was refused (RFC 9113 section 5.1): behind a proxy, the other
/// streams are other clients'.
#[test]
fn what_follows_a_refused_request_ends_no_other_stream() {
    let server = TestServer::with(|settings| settings.http2_streams_max = 1);
    let mut client = Http2::open(server.addr);
    let stream = client.get("/sse?channel=news");
    await_subscribers(server.addr, "news", 1);
    let post = client.request("POST", "/channels/news", &[], false);
    let mut trailers = Vec::new();
    write_field(&mut trailers, b"x", b"y");
    client.send(DATA, 0, post, b"hello");
    client.send(HEADERS, END_HEADERS | END_STREAM, post, &trailers);
    client.sync();
    assert!(client.answers[&post].reset.is_some());
    publish(server.addr, "news", "one");
    let read = client.until(stream, |answer| !answer.events().is_empty()).events();
    assert_eq!(read, ["one"]);
    // A second request on a stream that has had one is a fault.
    client.send(HEADERS, END_HEADERS | END_STREAM, post, &head("GET", "/", &[]));
    let codes: Vec<u32> = client.goodbyes().iter().map(Frame::code).collect();
    assert_eq!(codes, [ErrorCode::StreamClosed as u32]);
}

/// Bytes of a stream that reach nobody are no sign of that: the peer's own are.
#[test]
fn a_client_that_answers_no_ping_is_cut_and_one_that_does_stays() {
    // Two of them are the time to answer.
    let server = TestServer::with(|settings| settings.heartbeat = Duration::from_secs(2));
    let [mut silent, mut present] = [(); 2].map(|()| Http2::open(server.addr));
    silent.get("/sse?channel=news");
    let stream = present.get("/sse?channel=news");
    await_subscribers(server.addr, "news", 2);
    let mut answered = 0;
    while metric(server.admin, "pushline_closes_total{reason=\"peer_dead\"}") == 0 {
        let frame = present.frame().expect("it is open");
        if frame.kind == PING && frame.flags & ACK == 0 {
            present.send(PING, ACK, 0, &frame.payload);
            answered += 1;
        }
    }
    assert!(answered > 1, "one late answer is forgiven");
    await_subscribers(server.addr, "news", 1);
    publish(server.addr, "news", "for the living");
    let read = present.until(stream, |answer| !answer.events().is_empty()).events();
    assert_eq!(read, ["for the living"]);
}

#[test]
fn a_drain_says_goodbye_twice_and_ends_the_streams() {
    let server = TestServer::start();
    let mut client = Http2::open(server.addr);
    let stream = client.get("/sse?channel=news");
    client.until(stream, |answer| answer.status == 200);
    let draining = std::thread::spawn(move || server.drain());
    let goodbyes = client.goodbyes();
    let last = |payload: &[u8]| u32::from_be_bytes(*payload.first_chunk().expect("an id"));
    let told: Vec<(u32, u32)> =
        goodbyes.iter().map(|goodbye| (last(&goodbye.payload), goodbye.code())).collect();
    assert_eq!(told, [(STREAM_ID_MAX, 0), (stream, 0)]);
    draining.join().expect("it ends");
}

#[test]
fn an_operator_sees_streams_beside_the_connection_that_carries_them_and_may_end_one() {
    let server = TestServer::start();
    let mut client = Http2::open(server.addr);
    let stream = client.get("/sse?channel=news");
    client.until(stream, |answer| answer.status == 200);
    let list = fetch(server.admin, "GET", "/v1/connections", &[], None).json();
    let entries = list["connections"].as_array().expect("a list");
    let of = |transport: &str| {
        entries.iter().find(|entry| entry["transport"] == transport).expect("it is listed")
    };
    assert_eq!(of("sse")["carried_by"], of("http2")["id"]);
    assert_eq!(of("sse")["channels"][0], "news");
    let id = of("sse")["id"].as_str().expect("a name");
    fetch(server.admin, "DELETE", &format!("/v1/connections/{id}"), &[], None);
    let ended = client.answer(stream);
    assert!(ended.ended && ended.text().contains("pushline.end"), "{ended:?}");
    let other = client.get("/");
    assert_eq!(client.answer(other).status, 200);
}

#[test]
fn an_operator_may_do_without() {
    let server = TestServer::with(|settings| settings.http2 = false);
    let mut conn = Conn::open(server.addr);
    conn.send(pushline::proto::h2::PREFACE);
    assert_eq!(conn.response().status, 505);
}
