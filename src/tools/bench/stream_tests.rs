//! The readers give the same items however the bytes are cut: whole, at every split, per byte.

use super::*;
use crate::tools::wire::HEAD_BYTES_MAX;

const SSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n\
    :\nretry: 3000\n\nid: e-1\ndata: one\n\ndata:two\r\n\r\n: beat\n\nevent: x\ndata:  three\n\n";
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-ENCODING: Chunked\r\n\
    content-TYPE: Text/Event-Stream; charset=utf-8\r\n\r\n\
    2\r\n:\n\r\n13;ext=1\r\nid: 1\ndata: one\n\nda\r\n00a\r\n\
    ta: two\n\nd\r\n5\r\nata:3\r\n1\r\n\n\r\n";
const WS: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\
    \x81\x03one\x89\x02hi\x82\x03two\x8a\x00\x81\x05three";

/// The items as text, fed in the pieces given.
fn items<'a>(
    transport: Transport,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<String>, Result<(), Fault>) {
    let mut stream = Stream::new();
    let mut items = Vec::new();
    for piece in pieces {
        let result = stream.feed(transport, piece, &mut |item| {
            items.push(match item {
                Item::Subscribed => "subscribed".to_owned(),
                Item::Comment => "comment".to_owned(),
                Item::Data(data) => format!("data {}", String::from_utf8_lossy(data)),
                Item::Ping(data) => format!("ping {}", String::from_utf8_lossy(data)),
            });
        });
        if result.is_err() {
            return (items, result);
        }
    }
    (items, Ok(()))
}

fn same_however_cut(transport: Transport, bytes: &[u8], expected: &[&str]) {
    assert_eq!(items(transport, [bytes]).0, expected, "whole");
    assert_eq!(items(transport, bytes.chunks(1)).0, expected, "per byte");
    for at in 0..bytes.len() {
        let (first, second) = bytes.split_at(at);
        assert_eq!(items(transport, [first, second]).0, expected, "split at {at}");
    }
}

#[test]
fn sse_lines_are_found_however_they_are_cut() {
    let expected = ["subscribed", "comment", "data one", "data two", "comment", "data  three"];
    same_however_cut(Transport::Sse, SSE, &expected);
}

#[test]
fn chunked_sse_is_found_however_it_is_cut_and_chunked() {
    let expected = ["subscribed", "comment", "data one", "data two", "data 3"];
    same_however_cut(Transport::Sse, CHUNKED, &expected);
}

#[test]
fn frames_are_found_however_they_are_cut() {
    let expected = ["subscribed", "data one", "ping hi", "data two", "data three"];
    same_however_cut(Transport::Ws, WS, &expected);
}

#[test]
fn a_refused_subscription_is_named_by_its_status() {
    for (transport, head, fault) in [
        (Transport::Sse, "HTTP/1.1 503 Busy\r\n\r\n", Fault::Status(503)),
        (Transport::Sse, "HTTP/1.1 101 No\r\n\r\n", Fault::Status(101)),
        (Transport::Sse, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", Fault::NoStream),
        (Transport::Ws, "HTTP/1.1 200 OK\r\n\r\n", Fault::Status(200)),
        (Transport::Ws, "SSH-2.0-x\r\n\r\n", Fault::Head),
        (Transport::Ws, "HTTP/1.\r\n\r\n", Fault::Head),
    ] {
        assert_eq!(items(transport, [head.as_bytes()]).1, Err(fault), "{head}");
    }
}

#[test]
fn a_head_without_an_end_is_given_up() {
    let endless = vec![b'a'; HEAD_BYTES_MAX + 1];
    assert_eq!(items(Transport::Sse, [endless.as_slice()]).1, Err(Fault::TooLong));
}

#[test]
fn frames_a_server_must_not_send_are_faults() {
    let head = b"HTTP/1.1 101 x\r\n\r\n".as_slice();
    for (frame, fault) in [
        (b"\x81\x81aaaab".as_slice(), Fault::Frame),
        (b"\xc1\x01a", Fault::Frame),
        (b"\x01\x01a", Fault::Frame),
        (b"\x83\x01a", Fault::Frame),
        (b"\x89\x7e\x00\x80", Fault::Frame),
        (b"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", Fault::TooLong),
        (b"\x88\x02\x03\xe8", Fault::End),
    ] {
        assert_eq!(items(Transport::Ws, [head, frame]).1, Err(fault), "{frame:?}");
    }
}

#[test]
fn broken_and_last_chunks_end_the_stream() {
    let head = b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\
        Content-Type: text/event-stream\r\n\r\n"
        .as_slice();
    for (body, fault) in [
        (b"0\r\n\r\n".as_slice(), Fault::End),
        (b"1\r\naX", Fault::Chunk),
        (b"g\r\n", Fault::Chunk),
    ] {
        assert_eq!(items(Transport::Sse, [head, body]).1, Err(fault), "{body:?}");
    }
}
