//! Connections: persistence, pipelining, half-closing clients, unwanted bodies, and answers that
//! reach a client that is still sending.

use std::time::Duration;

use crate::common::{Conn, Sse, TestServer, describe, request};

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = TestServer::start();
    let mut sse = Sse::open(server.addr, "channel=c");
    let mut packet = Vec::new();
    for n in 0..100 {
        packet.extend(request("POST", "/channels/c", &[], Some(format!("{n}").as_bytes())));
        packet.extend(request("GET", "/channels/c", &[], None));
        packet.extend(request("GET", "/", &[], None));
        packet.extend(request("HEAD", "/", &[], None));
    }
    let mut conn = Conn::open(server.addr);
    let stream = conn.stream.try_clone().expect("a descriptor");
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        let mut stream = stream;
        stream.write_all(&packet).expect("the server reads");
    });
    for n in 0..100 {
        assert_eq!(conn.response().json()["id"], server.id(n + 1));
        assert_eq!(conn.response().json()["last_id"], server.id(n + 1));
        assert!(conn.response().text().starts_with("Pushline"));
        assert_eq!(conn.response_head().status, 200);
        assert_eq!(sse.event().data, n.to_string());
    }
    writer.join().expect("all was written");
}

#[test]
fn pipelined_requests_byte_by_byte() {
    let server = TestServer::start();
    let mut packet = Vec::new();
    for n in 0..5 {
        packet.extend(request("POST", "/channels/c", &[], Some(format!("{n}").as_bytes())));
        packet.extend(request("GET", "/channels/c", &[], None));
    }
    let mut conn = Conn::open(server.addr);
    conn.send_per_byte(&packet);
    for n in 0..5 {
        assert_eq!(conn.response().json()["id"], server.id(n + 1));
        assert_eq!(conn.response().json()["last_id"], server.id(n + 1));
    }
}

/// More answers than the server keeps for a peer that does not read: it must continue once they are
/// read.
#[test]
fn thousands_of_pipelined_requests_are_all_answered() {
    const COUNT: usize = 3000;
    let server = TestServer::start();
    let packet = request("GET", "/", &[], None).repeat(COUNT);
    let mut conn = Conn::open(server.addr);
    conn.send(&packet);
    for n in 0..COUNT {
        assert_eq!(conn.response().status, 200, "answer {n}");
    }
}

#[test]
fn a_half_closing_client_gets_all_its_answers() {
    let server = TestServer::start();
    for per_kind in [1, 20, 1000] {
        let get = request("GET", "/", &[], None);
        let post = request("POST", "/channels/c", &[], Some(b"x"));
        for (name, one) in [("GET", get), ("POST", post)] {
            let mut conn = Conn::open(server.addr);
            conn.send(one.repeat(per_kind));
            conn.half_close();
            for n in 0..per_kind {
                assert_eq!(conn.response().status, 200, "{name} {n} of {per_kind}");
            }
            conn.expect_end();
        }
    }
    let lines = "{\"channel\":\"c\",\"data\":1}\n".repeat(3000);
    let mut conn = Conn::open(server.addr);
    conn.send(request("POST", "/publish", &[], Some(lines.as_bytes())));
    conn.half_close();
    assert_eq!(conn.response().json()["published"], 3000);
    conn.expect_end();
}

#[test]
fn http_1_0_closes_unless_asked_to_stay() {
    let server = TestServer::start();
    let mut conn = Conn::open(server.addr);
    conn.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(conn.response().status, 200);
    conn.expect_end();
    let mut conn = Conn::open(server.addr);
    for _ in 0..2 {
        conn.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let response = conn.response();
        assert_eq!(response.status, 200);
        let connection = response.header("connection").unwrap_or_default().to_ascii_lowercase();
        assert_eq!(connection, "keep-alive");
    }
    conn.send("POST /channels/c HTTP/1.0\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(conn.response().json()["id"], server.id(1));
    conn.expect_end();
    let mut conn = Conn::open(server.addr);
    conn.send("GET /sse?channel=c HTTP/1.0\r\n\r\n");
    assert_eq!(conn.response_head().header("content-type"), Some("text/event-stream"));
}

/// RFC 9110 section 2.5.
#[test]
fn a_later_minor_version_is_served_as_1_1() {
    let server = TestServer::start();
    let mut conn = Conn::open(server.addr);
    for _ in 0..2 {
        conn.send("GET / HTTP/1.2\r\nHost: x\r\n\r\n");
        assert_eq!(conn.response().status, 200);
    }
}

#[test]
fn absolute_targets_are_understood() {
    let server = TestServer::start();
    let mut conn = Conn::open(server.addr);
    conn.send(
        "POST http://pushline.test/channels/c HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
    );
    assert_eq!(conn.response().json()["id"], server.id(1));
    conn.send("GET HTTP://pushline.test:8080 HTTP/1.1\r\nHost: x\r\n\r\n");
    let greeting = conn.response();
    assert_eq!(greeting.status, 200);
    assert!(greeting.text().contains("http://pushline.test:8080/sse"), "{}", greeting.text());
    conn.send("GET http://x/sse?channel=c HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(conn.response_head().status, 200);
}

#[test]
fn connection_close_is_obeyed() {
    let server = TestServer::start();
    for (method, target, body) in
        [("GET", "/", None), ("POST", "/channels/c", Some(&b"x"[..])), ("GET", "/channels/c", None)]
    {
        let mut conn = Conn::open(server.addr);
        conn.send(request(method, target, &[("Connection", "close")], body));
        let response = conn.response();
        assert_eq!(response.status, 200);
        assert_eq!(response.header("connection"), Some("close"));
        conn.expect_end();
    }
}

/// The answer must not be destroyed by the reset that closing with unread input would cause.
#[test]
fn an_answer_reaches_a_client_that_goes_on_sending() {
    let server = TestServer::start();
    let piece = vec![b'x'; 64 << 10];
    let cases = [
        (
            "too large",
            "POST /channels/c HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n",
            413,
        ),
        ("not wanted", "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n", 404),
        ("no request", "nonsense\r\n\r\n", 400),
        ("the last one", "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
    ];
    for (name, head, status) in cases {
        for _ in 0..5 {
            let mut conn = Conn::open(server.addr);
            conn.send(head);
            for _ in 0..16 {
                use std::io::Write;
                // Once the server has ended the connection, writing may fail: that is allowed.
                if conn.stream.write_all(&piece).is_err() {
                    break;
                }
            }
            assert_eq!(conn.response().status, status, "{name}");
        }
    }
}

/// A body the route does not want must never be read as the next request: request smuggling lives
/// on that.
#[test]
fn a_body_nobody_wants_is_not_the_next_request() {
    let server = TestServer::start();
    let smuggled = request("POST", "/channels/smuggled", &[], Some(b"x"));
    let targets = [
        ("GET", "/"),
        ("GET", "/channels/c"),
        ("HEAD", "/channels/c"),
        ("GET", "/channels/a%20b"),
        ("GET", "/nowhere"),
        ("OPTIONS", "/channels/c"),
        ("PUT", "/channels/c"),
        ("GET", "/sse"),
        ("GET", "/ws?channel=c"),
        ("GET", "/sse?channel=c"),
    ];
    for (method, target) in targets {
        for split in [false, true] {
            let mut conn = Conn::open(server.addr);
            let whole = request(method, target, &[], Some(&smuggled));
            if split {
                conn.send_per_byte(&whole);
            } else {
                conn.send(&whole);
            }
            conn.send(request("GET", "/channels/after", &[], None));
            let mut responses =
                vec![if method == "HEAD" { conn.response_head() } else { conn.response() }];
            let closes = responses[0].header("connection") == Some("close");
            if !closes {
                responses.push(conn.response());
                assert_eq!(responses[1].json()["channel"], "after", "{method} {target}");
            }
        }
    }
    // A smuggled request would have been served by now: all connections above were answered.
    assert_eq!(describe(server.addr, "smuggled")["events"], 0);
}

/// A client that waits for `100 Continue` and gets an answer instead may send the body or not, so
/// the next request could not be found.
#[test]
fn a_body_that_may_never_come_ends_the_connection() {
    let server = TestServer::start();
    for target in ["/", "/nowhere", "/channels/c"] {
        let mut conn = Conn::open(server.addr);
        let expects = [("Expect", "100-continue"), ("Content-Length", "5")];
        conn.send(request("GET", target, &expects, None));
        let response = conn.response();
        assert!(matches!(response.status, 200 | 404), "{target}: {}", response.status);
        assert_eq!(response.header("connection"), Some("close"), "{target}");
        conn.expect_end();
    }
}

#[test]
fn a_chunked_body_nobody_wants_ends_the_connection() {
    let server = TestServer::start();
    let mut conn = Conn::open(server.addr);
    conn.send(request("GET", "/", &[("Transfer-Encoding", "chunked")], None));
    conn.send("5\r\nhello\r\n0\r\n\r\n");
    let response = conn.response();
    assert_eq!(response.status, 200);
    assert_eq!(response.header("connection"), Some("close"));
    conn.expect_end();
}

/// A client that does not read its answers is not read from either, and harms no other.
#[test]
fn a_peer_that_never_reads_is_left_alone() {
    use std::io::Write;
    let server = TestServer::with(|settings| settings.workers = Some(1));
    let mut conn = Conn::open_narrow(server.addr, 4096);
    conn.stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let packet = request("GET", "/", &[], None).repeat(1000);
    let mut sent = 0;
    while sent < 200 << 20 {
        match conn.stream.write(&packet) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    assert!(sent < 100 << 20, "the server read {sent} bytes of requests without a reader");
    assert_eq!(crate::common::fetch(server.addr, "GET", "/", &[], None).status, 200);
}
