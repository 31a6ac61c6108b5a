//! An EventSource without a browser.

use std::collections::VecDeque;
use std::io::Read;
use std::net::SocketAddr;

use pushline::tools::wire::sse::{Event, EventStream, Item};
use serde_json::Value;

use super::http::{Conn, Response, request};

/// A stream.
pub struct Sse {
    pub conn: Conn,
    stream: EventStream,
    pub head: Response,
    /// `retry:` as last told.
    pub retry_ms: Option<u64>,
    /// Comments seen, without their colon.
    pub comments: Vec<String>,
    /// The last event id, as EventSource keeps it.
    pub last_id: String,
}

/// A dispatched event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent {
    pub id: String,
    /// `message` if the stream named none.
    pub event: String,
    pub data: String,
}

impl From<Event<'_>> for SseEvent {
    fn from(event: Event<'_>) -> Self {
        let [id, event, data] = [event.id, event.event_type, event.data].map(str::to_owned);
        Self { id, event, data }
    }
}

/// Events of a stream whose bytes come from elsewhere: a program's output, a body.
#[derive(Default)]
pub struct Events {
    stream: EventStream,
    whole: VecDeque<SseEvent>,
}

impl Events {
    pub fn feed(&mut self, bytes: &[u8]) {
        let whole = &mut self.whole;
        let fed = self.stream.feed(bytes, |item| match item {
            Item::Event(event) => whole.push_back(event.into()),
            Item::Comment(_) | Item::Retry(_) => {}
        });
        fed.expect("no event is that long");
    }

    /// The next event that came whole.
    pub fn take(&mut self) -> Option<SseEvent> {
        self.whole.pop_front()
    }

    /// Reads on to the next event; `None` at the end.
    pub fn read(&mut self, source: &mut impl Read) -> Option<SseEvent> {
        while self.whole.is_empty() {
            let mut piece = [0; 16 * 1024];
            let count = source.read(&mut piece).expect("a source that can be read");
            if count == 0 {
                break;
            }
            self.feed(&piece[..count]);
        }
        self.take()
    }
}

/// The events that came whole in these bytes, which a stream begins with.
pub fn events(bytes: &[u8]) -> impl Iterator<Item = SseEvent> {
    let mut events = Events::default();
    events.feed(bytes);
    events.whole.into_iter()
}

impl SseEvent {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).expect("data is JSON")
    }
}

impl Sse {
    /// `query` is what follows `/sse?`.
    pub fn open(addr: SocketAddr, query: &str) -> Self {
        Self::open_with(addr, query, &[])
    }

    pub fn open_with(addr: SocketAddr, query: &str, headers: &[(&str, &str)]) -> Self {
        Self::over(Conn::open(addr), query, headers)
    }

    /// Reconnects as a browser does.
    pub fn resume(addr: SocketAddr, query: &str, last_id: &str) -> Self {
        match last_id {
            "" => Self::open(addr, query),
            id => Self::open_with(addr, query, &[("Last-Event-ID", id)]),
        }
    }

    /// When this returns, the stream is open and the subscription joined: the head is only sent
    /// once the log has answered.
    pub fn over(mut conn: Conn, query: &str, headers: &[(&str, &str)]) -> Self {
        conn.send(request("GET", &format!("/sse?{query}"), headers, None));
        let head = conn.response_head();
        assert_eq!(head.status, 200, "{}", String::from_utf8_lossy(&conn.rest()));
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        let (stream, comments, last_id) = (EventStream::default(), Vec::new(), String::new());
        Self { conn, stream, head, retry_ms: None, comments, last_id }
    }

    /// The next event; comments and `retry:` before it are kept aside.
    pub fn event(&mut self) -> SseEvent {
        self.next_event().expect("an event, not the end of the stream")
    }

    /// The next event, or the end of the stream (an incomplete event is not dispatched).
    pub fn next_event(&mut self) -> Option<SseEvent> {
        loop {
            let block = self.block()?;
            if let Some(event) = self.interpret(&block) {
                return Some(event);
            }
        }
    }

    /// The same if the connection may be cut in any way, including a reset.
    pub fn next_or_cut(&mut self) -> Option<SseEvent> {
        loop {
            if self.conn.buffer.windows(2).any(|two| two == b"\n\n") {
                let block = self.block()?;
                match self.interpret(&block) {
                    Some(event) => return Some(event),
                    None => continue,
                }
            }
            if !self.conn.fill_or_cut() {
                return None;
            }
        }
    }

    /// Reads this many events.
    pub fn events(&mut self, count: usize) -> Vec<SseEvent> {
        (0..count).map(|_| self.event()).collect()
    }

    /// Reads until this many comments were seen; no event may come first.
    pub fn await_comments(&mut self, count: usize) {
        while self.comments.len() < count {
            let block = self.block().expect("a comment, not the end of the stream");
            assert_eq!(self.interpret(&block), None);
        }
    }

    /// Lines up to a blank one.
    fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.conn.buffer.windows(2).position(|two| two == b"\n\n") {
                let block = self.conn.buffer.drain(..end + 2).collect();
                return Some(String::from_utf8(block).expect("a stream is UTF-8"));
            }
            if !self.conn.fill() {
                return None;
            }
        }
    }

    fn interpret(&mut self, block: &str) -> Option<SseEvent> {
        expect_our_grammar(block);
        let (mut event, comments, retry_ms) = (None, &mut self.comments, &mut self.retry_ms);
        let fed = self.stream.feed(block.as_bytes(), |item| match item {
            Item::Comment(text) => comments.push(text.trim_start().to_owned()),
            Item::Retry(pause) => *retry_ms = Some(pause.as_millis() as u64),
            Item::Event(it) => event = Some(it.into()),
        });
        fed.expect("no event is that long");
        self.last_id = self.stream.last_id().to_owned();
        event
    }
}

/// Of all the standard allows, our streams use LF and four fields.
fn expect_our_grammar(block: &str) {
    assert!(!block.contains('\r'), "{block:?}");
    for line in block.lines().filter(|line| !line.is_empty() && !line.starts_with(':')) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        assert!(["id", "event", "data", "retry"].contains(&field), "{line:?}");
        let is_number = value.strip_prefix(' ').is_some_and(|text| text.parse::<u64>().is_ok());
        assert!(field != "retry" || is_number, "{line:?}");
    }
}

/// The answer to an EventSource that is refused for now: no event, no blank line (which would make
/// it forget its last id), and when to come back.
pub fn expect_empty_stream(conn: &mut Conn, code: &str) {
    let head = conn.response_head();
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(head.header("connection"), Some("close"));
    let body = String::from_utf8(conn.rest()).expect("text");
    let retry =
        body.strip_prefix(&format!(": {code}\nretry: ")).and_then(|rest| rest.strip_suffix('\n'));
    let retry_ms: u64 = retry.and_then(|digits| digits.parse().ok()).expect(&body);
    assert!((2000..=5000).contains(&retry_ms), "{retry_ms}");
}
