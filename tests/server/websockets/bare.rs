//! Without a subprotocol: messages are the bare data, and what the client sends is published.

use std::time::Duration;

use tungstenite::Message;

use crate::common::ws::{BINARY, RawWs, TEXT, Ws, frame};
use crate::common::{Sse, TestServer, fetch, publish};

#[test]
fn data_arrives_as_it_was_published() {
    let server = TestServer::start();
    let mut ws = Ws::bare(server.addr, "channel=c");
    publish(server.addr, "c", "text\r\n\u{1f600}");
    let json = [("Content-Type", "application/json")];
    fetch(server.addr, "POST", "/channels/c", &json, Some(b"{\n \"a\": 1 }"));
    let binary = [("Content-Type", "application/octet-stream")];
    fetch(server.addr, "POST", "/channels/c", &binary, Some(b"\xff\x00"));
    publish(server.addr, "c", "");
    assert_eq!(ws.message(), Message::text("text\r\n\u{1f600}"));
    assert_eq!(ws.message(), Message::text("{\n \"a\": 1 }"));
    assert_eq!(ws.message(), Message::binary(&b"\xff\x00"[..]));
    assert_eq!(ws.message(), Message::text(""));
}

#[test]
fn what_a_client_sends_is_published_and_comes_back_to_it() {
    let server = TestServer::start();
    let mut sender = Ws::bare(server.addr, "channel=c");
    let mut other = Ws::bare(server.addr, "channel=c");
    let mut sse = Sse::open(server.addr, "channel=c");
    for n in 0..100 {
        sender.send(Message::text(format!("{n}")));
    }
    sender.send(Message::binary(&b"\x00\xff"[..]));
    for n in 0..100 {
        assert_eq!(sender.text(), n.to_string());
        assert_eq!(other.text(), n.to_string());
        assert_eq!(sse.event().data, n.to_string());
    }
    assert_eq!(sender.message(), Message::binary(&b"\x00\xff"[..]));
    assert_eq!(other.message(), Message::binary(&b"\x00\xff"[..]));
    assert_eq!(sse.event().data, "AP8=");
}

#[test]
fn several_channels_are_delivered_bare_but_nothing_can_be_published() {
    let server = TestServer::start();
    let mut ws = Ws::bare(server.addr, "channel=a&channel=b");
    publish(server.addr, "b", "1");
    publish(server.addr, "a", "2");
    assert_eq!(ws.text(), "1");
    assert_eq!(ws.text(), "2");
    ws.send(Message::text("where to?"));
    ws.expect_close(1008, "publishing needs exactly one channel");
}

#[test]
fn a_cursor_by_header_or_query_resumes() {
    let server = TestServer::start();
    for n in 1..=5 {
        publish(server.addr, "c", &n.to_string());
    }
    for name in ["last_event_id", "lastEventId", "lastEvent"] {
        let mut ws = Ws::bare(server.addr, &format!("channel=c&{name}={}", server.id(3)));
        assert_eq!((ws.text(), ws.text()), ("4".into(), "5".into()), "{name}");
    }
    let id = server.id(4);
    let mut ws =
        Ws::open(server.addr, "channel=c&last_event_id=earliest", None, &[("Last-Event-ID", &id)]);
    assert_eq!(ws.text(), "5");
    let mut ws = Ws::bare(server.addr, "channel=c&last_event_id=earliest");
    assert_eq!(ws.text(), "1");
}

#[test]
fn a_gap_closes_with_4000() {
    let server = TestServer::with(|settings| settings.channel_default.history_count = 1);
    for n in 1..=5 {
        publish(server.addr, "c", &n.to_string());
    }
    for cursor in [server.id(1), server.id(99), "foreign-1".into()] {
        for query in ["channel=c", "channel=c&channel=d"] {
            let mut ws = Ws::bare(server.addr, &format!("{query}&last_event_id={cursor}"));
            ws.expect_close(4000, "gap");
        }
    }
    let mut ws = Ws::bare(server.addr, "channel=c&last_event_id=earliest");
    assert_eq!(ws.text(), "5", "what is asked for and there is sent");
}

#[test]
fn an_event_larger_than_the_setting_closes_with_1009() {
    let server = TestServer::with(|settings| settings.event_bytes_max = 100_000);
    let mut ws = Ws::bare(server.addr, "channel=c");
    ws.send(Message::text("x".repeat(100_000)));
    assert_eq!(ws.text().len(), 100_000);
    ws.send(Message::text("x".repeat(100_001)));
    ws.expect_close(1009, "event too large");
}

/// More than may wait at the log at once: the rest waits its turn.
#[test]
fn a_flood_of_messages_is_published_in_order() {
    const COUNT: usize = 5000;
    let server = TestServer::with(|settings| settings.channel_default.history_count = 10_000);
    let mut ws = RawWs::bare(server.addr, "channel=c");
    let packet: Vec<u8> = (0..COUNT)
        .flat_map(|n| frame(true, if n % 2 == 0 { TEXT } else { BINARY }, n.to_string().as_bytes()))
        .collect();
    let mut stream = ws.conn.stream.try_clone().expect("a descriptor");
    let writer = std::thread::spawn(move || {
        std::io::Write::write_all(&mut stream, &packet).expect("the server reads");
    });
    for n in 0..COUNT {
        let frame = ws.frame();
        assert_eq!(frame.payload, n.to_string().as_bytes());
        assert_eq!(frame.opcode, if n % 2 == 0 { TEXT } else { BINARY });
    }
    writer.join().expect("all was written");
}

/// A reader that is busy with what it was sent is not dead: no ping could reach it.
#[test]
fn a_reader_that_is_behind_is_not_taken_for_dead() {
    // Once it has read all of it, it is pinged again, and should have some time to answer.
    const HEARTBEAT: Duration = Duration::from_millis(1500);
    let server = TestServer::with(|settings| {
        settings.heartbeat = HEARTBEAT;
        settings.send_buffer = Some(16 << 10);
    });
    let conn = crate::common::Conn::open_narrow(server.addr, 4096);
    let mut ws = RawWs::over(conn, "channel=c", &[]);
    let text = "x".repeat(50_000);
    for _ in 0..20 {
        publish(server.addr, "c", &text);
    }
    // Without reading.
    std::thread::sleep(4 * HEARTBEAT);
    for n in 0..20 {
        let frame = ws.answer();
        assert_eq!((frame.opcode, frame.payload.len()), (TEXT, 50_000), "message {n}");
    }
}
