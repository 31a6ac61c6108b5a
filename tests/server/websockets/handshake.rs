//! The opening handshake: what is accepted, and how each refusal is answered.

use crate::common::ws::{ACCEPT, RawWs, TEXT, frame, upgrade};
use crate::common::{Conn, TestServer, publish, request};

fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("a request is text")
}

#[test]
fn the_answer_to_a_handshake() {
    let server = TestServer::start();
    let ws = RawWs::bare(server.addr, "channel=c");
    assert_eq!(ws.head.header("upgrade"), Some("websocket"));
    assert_eq!(ws.head.header("connection"), Some("Upgrade"));
    assert_eq!(ws.head.header("sec-websocket-accept"), Some(ACCEPT));
    assert_eq!(ws.head.header("sec-websocket-protocol"), None);
    assert_eq!(ws.head.header("sec-websocket-extensions"), None);
}

#[test]
fn what_browsers_and_proxies_send_is_accepted() {
    let server = TestServer::start();
    let usual = text_of(upgrade("/ws?channel=c", &[]));
    let variants = [
        usual.replace("Connection: Upgrade", "Connection: keep-alive, UPGRADE"),
        usual.replace("Upgrade: websocket", "Upgrade: h2c, WebSocket"),
        usual.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        usual.replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"),
        usual.replace("sec-websocket-key", "SEC-WEBSOCKET-KEY"),
    ];
    for variant in variants {
        let mut conn = Conn::open(server.addr);
        conn.send_per_byte(&variant);
        assert_eq!(conn.response_head().status, 101, "{variant}");
    }
}

#[test]
fn the_first_known_subprotocol_is_selected() {
    let server = TestServer::start();
    let cases = [
        ("pushline.v1", Some("pushline.v1")),
        ("other, pushline.v1", Some("pushline.v1")),
        ("pushline.bare, pushline.v1", Some("pushline.bare")),
        ("unknown", None),
        ("PUSHLINE.V1", None),
    ];
    for (offered, selected) in cases {
        let headers = [("Sec-WebSocket-Protocol", offered)];
        let ws = RawWs::over(Conn::open(server.addr), "channel=c", &headers);
        assert_eq!(ws.head.header("sec-websocket-protocol"), selected, "{offered}");
    }
}

#[test]
fn every_refusal_has_its_status_and_the_connection_goes_on() {
    let server = TestServer::start();
    let usual = text_of(upgrade("/ws?channel=c", &[]));
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let version = "Sec-WebSocket-Version: 13";
    let cases = [
        (usual.replace(version, "Sec-WebSocket-Version: 14"), 426),
        (usual.replace(version, "X: y"), 426),
        (usual.replace("Upgrade: websocket\r\n", ""), 426),
        (usual.replace("Connection: Upgrade\r\n", ""), 426),
        (usual.replace("Upgrade: websocket", "Upgrade: h2c"), 426),
        (usual.replace(key, "X: y"), 400),
        (usual.replace(key, &format!("{key}\r\n{key}")), 400),
        (usual.replace(key, "Sec-WebSocket-Key: short"), 400),
        (usual.replace(key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"), 400),
        (usual.replace("/ws?channel=c", "/ws"), 400),
        (usual.replace("/ws?channel=c", "/ws?channel=a%20b"), 400),
        (usual.replace("/ws?channel=c", "/ws?channel=%zz"), 400),
    ];
    let mut conn = Conn::open(server.addr);
    for (text, status) in cases {
        conn.send(&text);
        let response = conn.response();
        assert_eq!(response.status, status, "{text}");
        response.error_code();
    }
    conn.send(&usual);
    assert_eq!(conn.response_head().status, 101);
    let mut conn = Conn::open(server.addr);
    conn.send(usual.replace("GET", "HEAD"));
    assert_eq!(conn.response_head().status, 405);
    let mut conn = Conn::open(server.addr);
    conn.send(usual.replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!(conn.response().status, 426);
}

#[test]
fn frames_behind_the_handshake_in_one_packet_are_read() {
    let server = TestServer::start();
    let mut packet = request("GET", "/", &[], None);
    packet.extend(upgrade("/ws?channel=c", &[]));
    packet.extend(frame(true, TEXT, b"early"));
    let mut conn = Conn::open(server.addr);
    conn.send(&packet);
    assert_eq!(conn.response().status, 200);
    assert_eq!(conn.response_head().status, 101);
    let mut ws = RawWs { head: crate::common::fetch(server.addr, "GET", "/", &[], None), conn };
    assert_eq!(ws.frame().payload, b"early");
    let mut envelope = upgrade("/ws", &[("Sec-WebSocket-Protocol", "pushline.v1")]);
    envelope.extend(frame(true, TEXT, br#"{"op":"ping","ref":1}"#));
    ws.conn = Conn::open(server.addr);
    ws.conn.send(&envelope);
    assert_eq!(ws.conn.response_head().status, 101);
    let pong = ws.frame().payload;
    assert!(pong.starts_with(br#"{"ref":1,"ok":true,"every_ms":25000,"#), "{pong:?}");
}

#[test]
fn the_stream_is_joined_when_the_handshake_is_answered() {
    let server = TestServer::start();
    for n in 0..30 {
        let mut ws = RawWs::bare(server.addr, "channel=c");
        publish(server.addr, "c", &format!("{n}"));
        assert_eq!(ws.frame().payload, format!("{n}").as_bytes());
    }
}
