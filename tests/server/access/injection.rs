//! Nothing a client sends can become a header, a field or an event of its own making.

use super::*;
use crate::common::ws::upgrade;
use crate::common::{Conn, fetch, publish, request};

/// Line ends and NUL as bytes; a header field can contain none of them.
#[test]
fn a_line_end_in_a_head_ends_the_request() {
    let server = TestServer::start();
    for name in ["Event-Type", "Idempotency-Key", "Last-Event-ID", "Content-Type", "Origin"] {
        for evil in ["a\rb: c", "a\nb: c", "a\0b", "a\r b"] {
            let mut conn = Conn::open(server.addr);
            conn.send(request("POST", "/channels/a", &[(name, evil)], Some(b"x")));
            let response = conn.response();
            // Some take a bare LF as the end of a line; `b: c` would then be a header of the
            // client's own.
            let folded = evil.contains('\n') && response.status == 200;
            assert!(response.status == 400 || folded, "{name} {evil:?}: {}", response.status);
            assert!(response.headers.iter().all(|(key, _)| key != "b"), "{response:?}");
        }
    }
}

/// In JSON they can be escaped, and are refused there.
#[test]
fn a_line_end_in_a_json_field_is_refused() {
    let server = TestServer::start();
    for (field, code) in [("event", "bad_event_type"), ("key", "bad_key")] {
        for evil in ["a\nid: 1", "a\rdata: x", "a\r\n\r\nHTTP/1.1 200 OK", "\0", "\u{85}"] {
            let line = json!({"channel": "a", "data": 1, field: evil}).to_string() + "\n";
            let response = fetch(server.addr, "POST", "/publish", &[], Some(line.as_bytes()));
            assert_eq!(outcome(&response), refused(400, code), "{evil:?}");
        }
    }
    let line = json!({"channel": "a\nid: 1", "data": 1}).to_string();
    let response = fetch(server.addr, "POST", "/publish", &[], Some(line.as_bytes()));
    assert_eq!(outcome(&response), refused(400, "channel_name_invalid"));
}

/// Data may contain line ends: they stay data, whatever follows them.
#[test]
fn data_that_looks_like_fields_stays_data() {
    let server = TestServer::start();
    let evil = "x\n\nevent: pushline.gap\nid: 99\ndata: y\n\n: c\n\nretry: 1";
    for end in ["\n", "\r\n", "\r"] {
        let mut sse = Sse::open(server.addr, "channel=a");
        let mut wrapped = Sse::open(server.addr, "channel=a&envelope=json");
        let id = publish(server.addr, "a", &evil.replace('\n', end));
        let event = sse.event();
        assert_eq!((event.data.as_str(), event.event.as_str()), (evil, "message"));
        assert_eq!(event.id, id);
        assert_eq!(wrapped.event().json()["data"], evil.replace('\n', end));
    }
}

/// A client's cursor comes back in a gap: as JSON text, not as a line of the stream.
#[test]
fn a_cursor_is_echoed_as_text_only() {
    let server = TestServer::start();
    let evil = "\"},\r\n\r\ndata: x\n\n\u{2028}<script>";
    let encoded: String = evil.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let mut sse = Sse::open(server.addr, &format!("channel=a&last_event_id={encoded}"));
    let gap = sse.event();
    assert_eq!(gap.event, "pushline.gap");
    assert_eq!(gap.json()["after"], evil);
    let mut conn = Conn::open(server.addr);
    let header = [("Last-Event-ID", "\"}, data: x")];
    conn.send(request("GET", "/sse?channel=a", &header, None));
    let mut sse = {
        let head = conn.response_head();
        assert_eq!(head.status, 200);
        conn
    };
    let text = String::from_utf8(sse.until(b"pushline.gap\ndata: ")).expect("text");
    assert!(!text.contains("data: x"), "{text}");
    let data: Value = serde_json::from_slice(&sse.until(b"\n\n")).expect("JSON");
    assert_eq!(data["after"], "\"}, data: x");
}

/// No client can speak in the server's name.
#[test]
fn reserved_event_types_are_the_servers() {
    let server = TestServer::start();
    for name in ["pushline.gap", "pushline.open", "pushline."] {
        let headers = [("Event-Type", name)];
        let answer = publish_with(server.addr, "/channels/a", &headers);
        assert_eq!(answer.0, 400, "{name}: {answer:?}");
    }
}

/// Every answer tells browsers not to guess its type.
#[test]
fn every_answer_forbids_sniffing() {
    let server = server();
    let token = bearer(&token(&["*"], &["*"]));
    let with = [("Authorization", token.as_str())];
    let none: [(&str, &str); 0] = [];
    let mut responses = vec![
        fetch(server.addr, "GET", "/", &none, None),
        fetch(server.addr, "GET", "/nowhere", &none, None),
        fetch(server.addr, "GET", "/sse?channel=a", &none, None),
        fetch(server.addr, "GET", "/channels/a", &with, None),
        fetch(server.addr, "GET", "/channels/%", &with, None),
        fetch(server.addr, "PUT", "/channels/a", &with, None),
        fetch(server.addr, "BREW", "/channels/a", &with, None),
        fetch(server.addr, "OPTIONS", "/channels/a", &[("Origin", APP)], None),
        fetch(server.addr, "POST", "/channels/a", &with, Some(b"x")),
        fetch(server.addr, "POST", "/publish", &with, Some(b"{\"channel\":\"a\",\"data\":1}\n")),
        fetch(server.addr, "POST", "/publish", &with, Some(b"rubbish\n")),
        fetch(server.addr, "POST", "/sse/0-1-1-x/token", &with, Some(b"")),
        fetch(server.addr, "HEAD", "/sse?channel=a", &with, None),
        fetch(server.addr, "GET", "/ws?channel=a", &with, None),
        fetch(server.addr, "POST", "/channels/a", &with, Some(&[b'x'; 70_000])),
        Sse::open_with(server.addr, "channel=a", &with).head,
        fetch(server.admin, "GET", "/metrics", &none, None),
        fetch(server.admin, "GET", "/v1/connections", &none, None),
        fetch(server.admin, "GET", "/nowhere", &none, None),
        fetch(server.admin, "POST", "/metrics", &none, Some(b"")),
    ];
    for raw in ["rubbish\r\n\r\n", "GET / HTTP/3.0\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        let mut conn = Conn::open(server.addr);
        conn.send(raw);
        responses.push(conn.response());
    }
    let mut conn = Conn::open(server.addr);
    conn.send(upgrade("/ws?channel=a", &[]));
    responses.push(conn.response());
    for response in responses {
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{response:?}");
    }
}
