//! The receiving half against RFC 6455: every MUST of sections 5, 7 and 8.1 as a table, each case
//! fed whole, byte by byte, and cut in two at every place; then random streams against a decoder
//! written as plainly as the RFC, which also knows at which byte a stream became invalid.

mod naive;

use pushline::proto::ws::close::{CloseCode, Violation};
use pushline::proto::ws::frame::{self, Fin, Opcode, Sender};
use pushline::proto::ws::message::{MessageLimits, Received, Receiver};

const LIMITS: MessageLimits = MessageLimits { message_bytes_max: 70_000, fragments_max: 8 };
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The outcome of a stream: a line per message, and how it broke, if it did.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    said: Vec<String>,
    violation: Option<Violation>,
}

/// Feeds `pieces` as a worker does: an idle receiver is dropped and made again.
fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, sender: Sender) -> Outcome {
    let mut receiver = Receiver::new(sender);
    let mut said = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() {
            let (taken, received) = match receiver.receive(piece, &LIMITS) {
                Ok(progress) => progress,
                Err(violation) => return Outcome { said, violation: Some(violation) },
            };
            assert!(received.is_some() || taken == piece.len(), "bytes left without a message");
            piece = &piece[taken..];
            let is_close = matches!(received, Some(Received::Close { .. }));
            said.extend(received.as_ref().map(describe));
            if is_close {
                return Outcome { said, violation: None };
            }
        }
        if receiver.is_idle() {
            receiver = Receiver::new(sender);
        }
    }
    Outcome { said, violation: None }
}

fn describe(received: &Received) -> String {
    match received {
        Received::Text(text) => format!("text {}", text.escape_ascii()),
        Received::Binary(bytes) => format!("binary {}", bytes.escape_ascii()),
        Received::Ping(payload) => format!("ping {}", payload.escape_ascii()),
        Received::Pong => "pong".to_owned(),
        Received::Close { code: None, .. } => "close".to_owned(),
        Received::Close { code: Some(CloseCode(code)), reason } => {
            format!("close {code} {}", reason.escape_ascii())
        }
    }
}

fn assert_outcome(section: &str, wire: &[u8], sender: Sender, expected: &Outcome) {
    assert_eq!(&feed([wire], sender), expected, "{section}, whole");
    assert_eq!(&feed(wire.chunks(1), sender), expected, "{section}, byte by byte");
    let cuts = if wire.len() <= 1_000 { 1 } else { wire.len() / 50 };
    for cut in (0..wire.len()).step_by(cuts) {
        let (front, back) = wire.split_at(cut);
        assert_eq!(&feed([front, back], sender), expected, "{section}, cut at {cut}");
    }
}

fn masked(opcode: Opcode, fin: Fin, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write_masked(&mut out, opcode, fin, KEY, payload);
    out
}

fn last(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    masked(opcode, Fin::Last, payload)
}

fn more(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    masked(opcode, Fin::More, payload)
}

/// A client's frame with any header whatever.
fn raw(head: &[u8], payload: &[u8]) -> Vec<u8> {
    let unmasked = payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key);
    head.iter().copied().chain(KEY).chain(unmasked).collect()
}

/// Section, frames, what is said.
type Allowed = (&'static str, Vec<Vec<u8>>, Vec<String>);
/// Section, bytes, what is wrong with them, and the close code.
type Forbidden = (&'static str, Vec<u8>, Violation, u16);

#[test]
fn what_the_rfc_allows_is_understood() {
    for (section, frames, said) in
        [allowed_messages(), allowed_controls(), allowed_lengths()].concat()
    {
        let expected = Outcome { said, violation: None };
        assert_outcome(section, &frames.concat(), Sender::Client, &expected);
    }
}

fn allowed_messages() -> Vec<Allowed> {
    use Opcode::{Binary, Continuation, Ping, Pong, Text};
    let euro = "€".as_bytes();
    vec![
        (
            "5.7 a single-frame masked text message",
            vec![b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec()],
            vec!["text Hello".into()],
        ),
        ("5.6 empty text", vec![last(Text, b"")], vec!["text ".into()]),
        ("5.6 empty binary", vec![last(Binary, b"")], vec!["binary ".into()]),
        (
            "5.6 any bytes in binary",
            vec![last(Binary, b"\xff\0")],
            vec!["binary \\xff\\x00".into()],
        ),
        (
            "5.4 fragments make one message",
            vec![more(Text, b"Hel"), more(Continuation, b""), last(Continuation, b"lo")],
            vec!["text Hello".into()],
        ),
        (
            "5.4 a first fragment may be empty",
            vec![more(Binary, b""), last(Continuation, b"")],
            vec!["binary ".into()],
        ),
        (
            "5.4 control frames come between fragments and are not part of the message",
            vec![
                more(Text, b"a"),
                last(Ping, b"p"),
                more(Continuation, b"b"),
                last(Pong, b""),
                last(Continuation, b"c"),
            ],
            vec!["ping p".into(), "pong".into(), "text abc".into()],
        ),
        (
            "8.1 a character may be cut by fragments, even around a ping",
            vec![more(Text, &euro[..1]), last(Ping, b""), last(Continuation, &euro[1..])],
            vec!["ping ".into(), "text \\xe2\\x82\\xac".into()],
        ),
    ]
}

fn allowed_controls() -> Vec<Allowed> {
    use Opcode::{Close, Ping, Pong, Text};
    let long = vec![b'x'; 125];
    vec![
        (
            "5.5 a control frame of 125 bytes",
            vec![last(Ping, &long)],
            vec![format!("ping {}", "x".repeat(125))],
        ),
        ("5.5.3 an unsolicited pong", vec![last(Pong, &long)], vec!["pong".into()]),
        ("5.5.1 a close without a code", vec![last(Close, b"")], vec!["close".into()]),
        (
            "5.5.1 a close with a reason, and silence after it",
            vec![last(Close, b"\x03\xe8bye"), last(Text, b"x"), vec![0xff; 3]],
            vec!["close 1000 bye".into()],
        ),
        (
            "5.4 a close inside a message",
            vec![more(Text, b"a"), last(Close, b"\x03\xe9")],
            vec!["close 1001 ".into()],
        ),
    ]
}

fn allowed_lengths() -> Vec<Allowed> {
    use Opcode::{Binary, Continuation};
    vec![
        (
            "5.2 the least lengths of each form",
            vec![last(Binary, &[b'a'; 126]), last(Binary, &[b'b'; 65_536])],
            vec![format!("binary {}", "a".repeat(126)), format!("binary {}", "b".repeat(65_536))],
        ),
        (
            "5.2 the greatest lengths of the short forms",
            vec![last(Binary, &[b'a'; 125]), last(Binary, &[b'b'; 65_535])],
            vec![format!("binary {}", "a".repeat(125)), format!("binary {}", "b".repeat(65_535))],
        ),
        (
            "10.4 a message of just the limit",
            vec![more(Binary, &[b'a'; 69_999]), last(Continuation, b"a")],
            vec![format!("binary {}", "a".repeat(70_000))],
        ),
    ]
}

#[test]
fn what_the_rfc_forbids_ends_the_connection_with_the_right_code() {
    let cases = [bad_headers(), bad_sequences(), bad_payloads(), beyond_limits()].concat();
    for (section, wire, violation, code) in cases {
        assert_eq!(violation.code(), CloseCode(code), "{section}");
        let expected =
            Outcome { said: said_before(violation, section), violation: Some(violation) };
        assert_outcome(section, &wire, Sender::Client, &expected);
    }
}

fn bad_headers() -> Vec<Forbidden> {
    use Violation as V;
    let huge = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0];
    vec![
        ("5.2 RSV1", raw(&[0xc1, 0x80], b""), V::ReservedBits, 1002),
        ("5.2 RSV2", raw(&[0xa1, 0x80], b""), V::ReservedBits, 1002),
        ("5.2 RSV3", raw(&[0x91, 0x80], b""), V::ReservedBits, 1002),
        ("5.2 opcode 3", raw(&[0x83, 0x80], b""), V::ReservedOpcode, 1002),
        ("5.2 opcode 7", raw(&[0x87, 0x80], b""), V::ReservedOpcode, 1002),
        ("5.2 opcode 11", raw(&[0x8b, 0x80], b""), V::ReservedOpcode, 1002),
        ("5.2 opcode 15", raw(&[0x8f, 0x80], b""), V::ReservedOpcode, 1002),
        ("5.1 no mask", b"\x81\x05Hello".to_vec(), V::Unmasked, 1002),
        ("5.2 125 in 16 bits", raw(&[0x82, 0xfe, 0, 125], &[0; 125]), V::WastefulLength, 1002),
        (
            "5.2 65535 in 64 bits",
            raw(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], b""),
            V::WastefulLength,
            1002,
        ),
        ("5.2 bit 63 of the length", raw(&huge, b""), V::HugeLength, 1002),
        ("5.5 ping of 126", raw(&[0x89, 0xfe, 0, 126], &[0; 126]), V::LongControl, 1002),
        ("5.5 close of 64 bits", raw(&[0x88, 0xff], &[0; 8]), V::LongControl, 1002),
        ("5.5 fragmented ping", raw(&[0x09, 0x80], b""), V::FragmentedControl, 1002),
        ("5.5 fragmented close", raw(&[0x08, 0x80], b""), V::FragmentedControl, 1002),
    ]
}

fn bad_sequences() -> Vec<Forbidden> {
    use Opcode::{Binary, Continuation, Text};
    use Violation as V;
    vec![
        ("5.4 nothing to continue", last(Continuation, b"x"), V::StrayContinuation, 1002),
        (
            "5.4 continuation after the end",
            [last(Text, b""), more(Continuation, b"")].concat(),
            V::StrayContinuation,
            1002,
        ),
        (
            "5.4 text inside a message",
            [more(Text, b"a"), last(Text, b"b")].concat(),
            V::InterruptedMessage,
            1002,
        ),
        (
            "5.4 binary inside a message",
            [more(Text, b"a"), more(Binary, b"b")].concat(),
            V::InterruptedMessage,
            1002,
        ),
    ]
}

fn bad_payloads() -> Vec<Forbidden> {
    use Opcode::{Close, Continuation, Text};
    use Violation as V;
    vec![
        ("5.5.1 close of one byte", last(Close, b"\x03"), V::BadCloseLength, 1002),
        ("5.5.1 close reason", last(Close, b"\x03\xe8\xff"), V::BadCloseReason, 1007),
        ("5.5.1 close reason cut", last(Close, b"\x03\xe8\xe2\x82"), V::BadCloseReason, 1007),
        ("8.1 a bad byte", last(Text, b"a\xffb"), V::BadUtf8, 1007),
        ("8.1 overlong", last(Text, b"\xc0\xaf"), V::BadUtf8, 1007),
        ("8.1 a surrogate", last(Text, b"\xed\xa0\x80"), V::BadUtf8, 1007),
        ("8.1 beyond U+10FFFF", last(Text, b"\xf4\x90\x80\x80"), V::BadUtf8, 1007),
        ("8.1 a character without its end", last(Text, b"a\xe2\x82"), V::BadUtf8, 1007),
        (
            "8.1 a bad byte in a continuation",
            [more(Text, b"\xe2"), last(Continuation, b"\x28\xa1")].concat(),
            V::BadUtf8,
            1007,
        ),
    ]
}

fn beyond_limits() -> Vec<Forbidden> {
    use Opcode::{Binary, Continuation, Text};
    use Violation as V;
    vec![
        (
            "10.4 one frame above the limit",
            raw(&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0x11, 0x71], b""),
            V::MessageTooBig,
            1009,
        ),
        (
            "10.4 the greatest length there is",
            raw(&[0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255], b""),
            V::MessageTooBig,
            1009,
        ),
        (
            "10.4 fragments above the limit together",
            [more(Binary, &[0; 60_000]), more(Continuation, &[0; 10_001])].concat(),
            V::MessageTooBig,
            1009,
        ),
        (
            "10.4 too many fragments, though empty",
            [more(Text, b""), more(Continuation, b"").repeat(8)].concat(),
            V::TooManyFragments,
            1008,
        ),
    ]
}

/// Only one of the cases contains a message before it breaks.
fn said_before(violation: Violation, section: &str) -> Vec<String> {
    let speaks = violation == Violation::StrayContinuation && section.contains("after the end");
    if speaks { vec!["text ".to_owned()] } else { Vec::new() }
}

#[test]
fn close_codes_are_taken_as_section_7_4_says() {
    for code in 0..=u16::MAX {
        let valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let wire = last(Opcode::Close, &code.to_be_bytes());
        let expected = if valid {
            Outcome { said: vec![format!("close {code} ")], violation: None }
        } else {
            Outcome { said: vec![], violation: Some(Violation::BadCloseCode) }
        };
        assert_eq!(feed([wire.as_slice()], Sender::Client), expected, "{code}");
    }
}

#[test]
fn a_client_reads_a_server_and_refuses_a_mask() {
    let mut wire = Vec::new();
    frame::write(&mut wire, Opcode::Text, b"Hello");
    frame::write(&mut wire, Opcode::Ping, b"p");
    let said = vec!["text Hello".to_owned(), "ping p".to_owned()];
    assert_outcome("5.1", &wire, Sender::Server, &Outcome { said, violation: None });
    let masked = last(Opcode::Text, b"Hello");
    let expected = Outcome { said: vec![], violation: Some(Violation::Masked) };
    assert_outcome("5.1", &masked, Sender::Server, &expected);
}

#[test]
fn a_bad_byte_is_refused_when_it_comes_and_not_at_the_end() {
    // Section 8.1; "\xce" and the byte after it cannot be the beginning of any character.
    let text = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited";
    let frames = [more(Opcode::Text, &text[..9]), more(Opcode::Continuation, &text[9..])];
    let bad_at = frames[0].len() + 6 + 3;
    assert_eq!(
        feed(frames.concat()[..=bad_at].chunks(1), Sender::Client).violation.map(code),
        Some(1007)
    );
    assert_eq!(feed(frames.concat()[..bad_at].chunks(1), Sender::Client).violation, None);
}

#[test]
fn a_receiver_is_idle_between_messages_and_only_there() {
    let wire = [last(Opcode::Ping, b"ab"), last(Opcode::Text, b"hi")].concat();
    let ping_end = 2 + 4 + 2;
    let mut receiver = Receiver::default();
    assert!(receiver.is_idle());
    for (place, byte) in wire.iter().enumerate() {
        let progress = receiver.receive(&[*byte], &LIMITS);
        assert!(matches!(progress, Ok((1, _))));
        let between = place + 1 == ping_end || place + 1 == wire.len();
        assert_eq!(receiver.is_idle(), between, "after byte {place}");
    }
}

#[test]
fn memory_follows_what_came_and_not_what_was_announced() {
    let limits = MessageLimits { message_bytes_max: 16 << 20, fragments_max: 1 };
    let payload = vec![b'x'; 16 << 20];
    let wire = last(Opcode::Text, &payload);
    let mut receiver = Receiver::default();
    let mut message = None;
    // Small reads: if any step took time linear in what is kept, this would take minutes.
    for piece in wire.chunks(1_000) {
        let (taken, received) = receiver.receive(piece, &limits).expect("valid");
        assert_eq!(taken, piece.len());
        message = message.or(received);
    }
    let Some(Received::Text(text)) = message else { panic!("no text came") };
    assert!(text == payload);
    let spare = Vec::from(text).capacity() - payload.len();
    assert_eq!(spare, 0, "history charges a message by its length");
}

fn code(violation: Violation) -> u16 {
    violation.code().0
}

/// Mostly valid frames; in half of the streams one bit is flipped.
fn random_stream(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut inside = false;
    for _ in 0..rng.usize(1..8) {
        let (opcode, fin) = match (rng.u8(0..10), inside) {
            (0, _) => (Opcode::Ping, Fin::Last),
            (1, _) => (Opcode::Pong, Fin::Last),
            (2, _) => (Opcode::Close, Fin::Last),
            (3..=6, true) => (Opcode::Continuation, Fin::More),
            (7.., true) => (Opcode::Continuation, Fin::Last),
            (3, false) => (Opcode::Binary, Fin::Last),
            (4, false) => (Opcode::Binary, Fin::More),
            (5, false) => (Opcode::Text, Fin::Last),
            (6.., false) => (Opcode::Text, Fin::More),
        };
        if !opcode.is_control() {
            inside = fin == Fin::More;
        }
        let text: String = (0..rng.usize(0..40)).map(|_| rng.char('\0'..='\u{10ffff}')).collect();
        let mut payload = text.into_bytes();
        if opcode.is_control() {
            payload.truncate(rng.usize(0..=125));
        }
        if opcode == Opcode::Close && payload.len() >= 2 {
            payload[..2].copy_from_slice(&rng.u16(995..1020).to_be_bytes());
        }
        if rng.u8(0..4) == 0 {
            payload.truncate(rng.usize(0..=payload.len()));
        }
        frame::write_masked(&mut wire, opcode, fin, rng.u32(..).to_be_bytes(), &payload);
    }
    if rng.bool() {
        let place = rng.usize(0..wire.len());
        wire[place] ^= 1 << rng.u8(0..8);
    }
    wire
}

#[test]
fn random_streams_mean_what_a_naive_decoder_says_and_break_at_the_same_byte() {
    let mut rng = fastrand::Rng::with_seed(6455);
    let (mut broken, mut sound) = (0, 0);
    for round in 0..3_000 {
        let wire = random_stream(&mut rng);
        let (said, broke) = naive::decode(&wire);
        let whole = feed([wire.as_slice()], Sender::Client);
        assert_eq!((&whole.said, whole.violation.map(code)), (&said, broke), "round {round}");
        let mut pieces = Vec::new();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rng.usize(1..=rest.len().min(20)));
            pieces.push(piece);
            rest = after;
        }
        assert_eq!(feed(pieces, Sender::Client), whole, "round {round}, in pieces");
        if broke.is_some() {
            broken += 1;
            let first_bad = (1..=wire.len())
                .find(|&end| naive::decode(&wire[..end]).1.is_some())
                .expect("it broke somewhere");
            let before = feed(wire[..first_bad - 1].chunks(1), Sender::Client);
            let after = feed(wire[..first_bad].chunks(1), Sender::Client);
            assert_eq!(before.violation, None, "round {round}: too early");
            assert_eq!(after.violation.map(code), broke, "round {round}: too late");
        } else {
            sound += 1;
        }
    }
    assert!(broken > 500 && sound > 500, "{broken} broken, {sound} sound");
}
