//! Everything one connection may send, through the worker and the log: requests, pipelined and
//! not, streams of lines, and what comes after an upgrade.

use pushline::proto::http::head::HEADERS_MAX;
use pushline::proto::ws::frame::Sender;
use pushline::proto::ws::message::{MessageLimits, Received, Receiver};

use super::chunked_body::skip_chunked;
use super::http_head::as_known_version;
use super::server::{Published, Server};
use super::split::split;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Appended to every input: a head in pieces is judged line by line and one in a single piece at
/// once, so a line without an end would show a difference that means nothing.
const LINE_ENDS: &[u8] = b"\r\n\r\n";

/// What the peer saw.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// How many requests were answered.
    answers: usize,
    /// All answers and, after the last of them, the event stream; escaped so that they can be read.
    http: String,
    /// After an upgrade: pongs and the close frame, in order. Events and replies are not compared:
    /// which of them comes first depends on turns.
    control: Vec<String>,
    published: Vec<Published>,
}

/// The outcome of a connection does not depend on how its bytes are cut, nor on whether the worker
/// sees them in one turn or in many. Every answer is well-formed, and there are no more of them
/// than requests: what belongs to one request is never taken for another.
pub fn check(input: &[u8]) {
    let Some(split) = split(input) else { return };
    let bytes = [split.whole, LINE_ENDS].concat();
    let whole = run(|server| {
        server.receive(&bytes);
    });
    let in_one_turn = run(|server| {
        for piece in &split.pieces {
            server.receive(piece);
        }
        server.receive(LINE_ENDS);
    });
    let in_many_turns = run(|server| {
        for piece in &split.pieces {
            server.receive(piece);
            server.settle();
        }
        server.receive(LINE_ENDS);
    });
    assert!(whole.answers <= requests(&bytes), "more answers than requests: {whole:?}");
    assert_eq!(in_one_turn, whole);
    assert_eq!(in_many_turns, whole);
}

fn run(send: impl Fn(&mut Server)) -> Seen {
    let mut server = Server::new();
    send(&mut server);
    server.settle();
    server.finish();
    server.settle();
    let mut seen =
        Seen { answers: 0, http: String::new(), control: Vec::new(), published: server.published };
    let mut rest = server.sent.as_slice();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(CONTINUE) {
            // Not asked for if the body has already arrived.
            rest = after;
            continue;
        }
        let (status, length) = answer(rest);
        seen.http.extend(rest[..length].escape_ascii().map(char::from));
        rest = &rest[length..];
        seen.answers += 1;
        if status == 101 {
            seen.control = frames(rest);
            break;
        }
    }
    seen
}

/// How many requests a plain reading finds, including a broken or unfinished one.
fn requests(mut rest: &[u8]) -> usize {
    let mut count = 0;
    while !rest.is_empty() && rest != LINE_ENDS {
        count += 1;
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let known = as_known_version(rest);
        let Ok(httparse::Status::Complete(head)) = request.parse(&known) else { break };
        let values = |name: &str| {
            let headers = request.headers.iter();
            let named = headers.filter(|header| header.name.eq_ignore_ascii_case(name));
            named.map(|header| header.value.trim_ascii()).collect::<Vec<_>>()
        };
        let body = &rest[head..];
        let length = |value: &[u8]| std::str::from_utf8(value).ok()?.parse::<usize>().ok();
        let behind = match (&*values("content-length"), &*values("transfer-encoding")) {
            ([], []) => Some(body),
            ([value], []) => length(value).and_then(|length| body.get(length..)),
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => skip_chunked(body),
            _ => None,
        };
        let Some(behind) = behind else { break };
        rest = behind;
    }
    count
}

/// The status and the length of the answer at the front. An event stream goes on to the end.
fn answer(bytes: &[u8]) -> (u16, usize) {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let shown = bytes.escape_ascii();
    let parsed = response.parse(bytes);
    let Ok(httparse::Status::Complete(head)) = parsed else { panic!("{parsed:?}: {shown}") };
    let status = response.code.expect("an answer has a status");
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.map(|header| std::str::from_utf8(header.value).expect("our values are text"))
    };
    let body = match (status, value("content-length")) {
        (101 | 204, None) => 0,
        (200, None) => {
            assert_eq!(value("content-type"), Some("text/event-stream"), "{shown}");
            bytes.len() - head
        }
        (_, Some(length)) => length.parse().expect("a length is a number"),
        (_, None) => panic!("an answer without a length: {shown}"),
    };
    // An answer to HEAD has a length and no body: the next answer, or nothing, follows.
    let is_head_only = bytes[head..].starts_with(b"HTTP/1.1 ") || bytes.len() == head;
    (status, head + if is_head_only { 0 } else { body.min(bytes.len() - head) })
}

fn frames(mut rest: &[u8]) -> Vec<String> {
    let limits = MessageLimits { message_bytes_max: 1 << 20, fragments_max: 1 };
    let mut receiver = Receiver::new(Sender::Server);
    let mut control = Vec::new();
    while !rest.is_empty() {
        let (taken, received) = receiver.receive(rest, &limits).expect("our frames are right");
        rest = &rest[taken..];
        match received {
            Some(Received::Text(_) | Received::Binary(_)) => {}
            Some(Received::Ping(payload)) => panic!("a heartbeat at time zero: {payload:?}"),
            Some(Received::Pong) => control.push("pong".to_owned()),
            Some(Received::Close { code, .. }) => {
                assert!(rest.is_empty(), "a close frame is the last");
                control.push(format!("close {code:?}"));
            }
            None => panic!("a frame without its end"),
        }
    }
    control
}
