//! Frames: lengths, fragments, control frames in between, and each violation with its code.

use std::time::Duration;

use crate::common::ws::{
    BINARY, CLOSE, CONTINUATION, PING, PONG, RawFrame, RawWs, TEXT, frame, header,
};
use crate::common::{Conn, TestServer, await_that, describe, publish};

#[test]
fn payloads_of_every_length_form_pass_both_ways() {
    let server = TestServer::with(|settings| settings.event_bytes_max = 1 << 20);
    let mut ws = RawWs::bare(server.addr, "channel=c");
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 1 << 20] {
        let payload: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        ws.send(frame(true, BINARY, &payload));
        let echo = ws.frame();
        assert!(echo == RawFrame { fin: true, opcode: BINARY, payload }, "{length}");
    }
}

#[test]
fn frames_arrive_byte_by_byte() {
    let server = TestServer::start();
    let mut ws = RawWs::bare(server.addr, "channel=c");
    for length in [0, 5, 125, 126, 300] {
        let payload = vec![b'x'; length];
        ws.conn.send_per_byte(frame(true, TEXT, &payload));
        assert_eq!(ws.frame().payload, payload);
    }
}

#[test]
fn fragments_with_control_frames_between_them_are_one_message() {
    let server = TestServer::start();
    let mut ws = RawWs::bare(server.addr, "channel=c");
    let snowman = "\u{2603}".as_bytes();
    let parts = [
        frame(false, TEXT, b"one "),
        frame(true, PING, b"p1"),
        frame(false, CONTINUATION, &snowman[..1]),
        frame(true, PONG, b"unasked"),
        frame(false, CONTINUATION, b""),
        frame(true, PING, &[b'p'; 125]),
        frame(true, CONTINUATION, &snowman[1..]),
    ]
    .concat();
    for per_byte in [false, true] {
        if per_byte {
            ws.conn.send_per_byte(&parts);
        } else {
            ws.send(&parts);
        }
        assert_eq!(ws.frame(), RawFrame { fin: true, opcode: PONG, payload: b"p1".into() });
        assert_eq!(ws.frame(), RawFrame { fin: true, opcode: PONG, payload: vec![b'p'; 125] });
        assert_eq!(ws.frame().payload, "one \u{2603}".as_bytes());
    }
    assert_eq!(describe(server.addr, "c")["events"], 2);
}

#[test]
fn violations_are_closed_with_their_code() {
    let server = TestServer::start();
    let unmasked = [&header(true, TEXT, 2, 0)[..], b"hi"].concat();
    let reserved_bit = [&[0xc1, 0x82][..], &[0, 0, 0, 0], b"hi"].concat();
    let long_form = [&[0x81, 0xfe, 0, 5][..], &[0, 0, 0, 0], b"hello"].concat();
    let longest_form =
        [&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 5][..], &[0, 0, 0, 0], b"hello"].concat();
    let top_bit = [&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0][..], &[0, 0, 0, 0]].concat();
    let cases = [
        ("unmasked", unmasked, 1002),
        ("a reserved bit", reserved_bit, 1002),
        ("126 for what is shorter", long_form, 1002),
        ("127 for what is shorter", longest_form, 1002),
        ("a length with its top bit", top_bit, 1002),
        ("an unknown opcode", frame(true, 3, b""), 1002),
        ("an unknown control opcode", frame(true, 11, b""), 1002),
        ("a fragmented ping", frame(false, PING, b""), 1002),
        ("a long ping", frame(true, PING, &[0; 126]), 1002),
        ("a stray continuation", frame(true, CONTINUATION, b"x"), 1002),
        (
            "an interrupted message",
            [frame(false, TEXT, b"a"), frame(true, TEXT, b"b")].concat(),
            1002,
        ),
        ("bad UTF-8", frame(true, TEXT, b"\xff"), 1007),
        ("half a character at the end", frame(true, TEXT, b"\xe2\x82"), 1007),
        ("a surrogate", frame(true, TEXT, b"\xed\xa0\x80"), 1007),
        ("a close of one byte", frame(true, CLOSE, b"\x03"), 1002),
        ("a close with a code not to be sent", frame(true, CLOSE, &1005_u16.to_be_bytes()), 1002),
        ("a close with an unknown code", frame(true, CLOSE, &999_u16.to_be_bytes()), 1002),
        ("a close with a bad reason", frame(true, CLOSE, b"\x03\xe8\xff"), 1007),
    ];
    for (name, bytes, code) in cases {
        for per_byte in [false, true] {
            let mut ws = RawWs::bare(server.addr, "channel=c");
            if per_byte {
                // Once the server has closed, the rest may find no peer.
                for byte in &bytes {
                    if std::io::Write::write_all(&mut ws.conn.stream, &[*byte]).is_err() {
                        break;
                    }
                }
            } else {
                ws.send(&bytes);
            }
            assert_eq!(ws.answer().close().0, code, "{name}");
        }
    }
    assert_eq!(describe(server.addr, "c")["events"], 0);
    await_that("none of them is left", || describe(server.addr, "c")["subscribers"] == 0);
}

/// The connection is failed when the first wrong byte arrives, not when the message ends.
#[test]
fn bad_utf8_fails_fast() {
    let server = TestServer::start();
    let mut ws = RawWs::bare(server.addr, "channel=c");
    ws.send(frame(false, TEXT, b"so far so good"));
    ws.send(frame(false, CONTINUATION, b"\xc0\x80"));
    ws.expect_close(1007);
    let mut ws = RawWs::bare(server.addr, "channel=c");
    let mut start = header(true, TEXT, 1000, 0x80);
    start.extend_from_slice(&[0, 0, 0, 0]);
    start.extend_from_slice(b"a frame whose end never comes \xff");
    ws.send(start);
    assert_eq!(ws.answer().close().0, 1007);
}

#[test]
fn messages_that_are_too_much_are_refused_by_their_header() {
    let server = TestServer::with(|settings| {
        settings.event_bytes_max = 10_000;
        settings.fragments_max = 10;
    });
    let mut ws = RawWs::bare(server.addr, "channel=c");
    let mut announced = header(true, BINARY, 1 << 40, 0x80);
    announced.extend_from_slice(&[0, 0, 0, 0]);
    ws.send(announced);
    assert_eq!(ws.answer().close().0, 1009);
    let mut ws = RawWs::bare(server.addr, "channel=c");
    for part in 0..7 {
        let opcode = if part == 0 { BINARY } else { CONTINUATION };
        ws.send(frame(false, opcode, &[0; 5000]));
    }
    assert_eq!(ws.answer().close().0, 1009);
    let mut ws = RawWs::bare(server.addr, "channel=c");
    for part in 0..11 {
        ws.send(frame(false, if part == 0 { TEXT } else { CONTINUATION }, b""));
    }
    assert_eq!(ws.answer().close().0, 1008);
    let mut ws = RawWs::bare(server.addr, "channel=c");
    for part in 0..10 {
        ws.send(frame(part == 9, if part == 0 { TEXT } else { CONTINUATION }, b"x"));
    }
    assert_eq!(ws.answer().payload, b"xxxxxxxxxx");
}

/// More pongs than the server keeps for a peer that does not read.
#[test]
fn a_flood_of_pings_is_answered_to_the_last() {
    const COUNT: usize = 3000;
    let server = TestServer::start();
    let mut ws = RawWs::bare(server.addr, "channel=c");
    let packet: Vec<u8> = (0..COUNT)
        .flat_map(|n| frame(true, PING, format!("{n:0100}").as_bytes()))
        .chain(frame(true, TEXT, b"behind them all"))
        .collect();
    let mut stream = ws.conn.stream.try_clone().expect("a descriptor");
    let writer = std::thread::spawn(move || {
        std::io::Write::write_all(&mut stream, &packet).expect("the server reads");
    });
    for n in 0..COUNT {
        assert_eq!(ws.frame().payload, format!("{n:0100}").as_bytes());
    }
    assert_eq!(ws.frame().payload, b"behind them all");
    writer.join().expect("all was written");
}

#[test]
fn idle_connections_are_pinged_and_those_that_answer_stay() {
    // Two of them are the time to answer.
    let server = TestServer::with(|settings| settings.heartbeat = Duration::from_millis(1500));
    let mut both = ["channel=c", "channel=c&channel=d"].map(|of| RawWs::bare(server.addr, of));
    for _ in 0..5 {
        for ws in &mut both {
            let ping = ws.frame();
            assert_eq!((ping.opcode, ping.fin), (PING, true));
            ws.send(frame(true, PONG, &ping.payload));
        }
    }
    publish(server.addr, "c", "still here");
    both.iter_mut().for_each(|ws| assert_eq!(ws.answer().payload, b"still here"));
}

#[test]
fn a_client_that_answers_no_ping_is_cut() {
    let server = TestServer::with(|settings| settings.heartbeat = Duration::from_millis(150));
    let mut ws = RawWs::over(Conn::open(server.addr), "channel=c", &[]);
    assert_eq!(ws.frame().opcode, PING);
    assert_eq!(ws.frame().opcode, PING, "one late answer may be the server's own fault");
    ws.conn.expect_gone();
    await_that("it has left", || describe(server.addr, "c")["subscribers"] == 0);
}
