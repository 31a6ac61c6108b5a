//! Clients that take little, or leave others waiting: what a worker does about them, turn by turn.
//! There are no sockets, and time passes as the test says.

use std::time::Duration;

use pushline::proto::h2::{PREFACE, frame};
use pushline::ring::{BufferId, Completion, Layer, Token};

use crate::common::http2::{
    ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RESET, SETTINGS, WINDOW_UPDATE, framed, head,
};
use crate::worker_turns::Desk;

const SOCKET: Token = Token { slot: 0, generation: 0 };

const WIDE_OPEN: u32 = 1 << 30;

/// What a stream may take nothing for.
const DEAD_SECONDS: u64 = 30;

const PAGE: &str = "/pushline.js";

/// A worker with one client, and what that was sent.
struct Client {
    desk: Desk,
    next_id: u32,
    /// Bytes that its socket takes of a send; then it is full.
    takes: usize,
    sent: Vec<u8>,
}

impl Client {
    /// One whose streams have this window.
    fn open(window: u32) -> Self {
        let mut desk = Desk::new();
        desk.turn(&[Completion::Accepted { slot: 0, peer: None, layer: Layer::Plain }], b"");
        let mut client = Self { desk, next_id: 1, takes: usize::MAX, sent: Vec::new() };
        let settings = [&4_u16.to_be_bytes()[..], &window.to_be_bytes()].concat();
        client.send(&[PREFACE, &framed(SETTINGS, 0, 0, &settings)].concat());
        client
    }

    /// Sends, and lets the worker do what it has to do.
    fn send(&mut self, frames: &[u8]) {
        let sent =
            self.desk.turn(&[Completion::Received { token: SOCKET, buffer: BufferId(0) }], frames);
        self.take(sent);
    }

    /// Lets turns pass until no more comes, or the socket is full.
    fn take(&mut self, mut sent: Vec<(u32, Vec<u8>)>) {
        let mut quiet = 0;
        while quiet < 4 {
            let mut completion = None;
            quiet += 1;
            if let Some((_, bytes)) = sent.first() {
                let taken = bytes.len().min(self.takes);
                self.sent.extend_from_slice(&bytes[..taken]);
                quiet = 0;
                if taken < bytes.len() {
                    completion = Some(Completion::SendShort { token: SOCKET, taken: taken as u32 });
                }
            }
            sent = self.desk.turn(completion.as_slice(), b"");
        }
    }

    /// The socket has room again.
    fn writable(&mut self) {
        let sent = self.desk.turn(&[Completion::Writable { token: SOCKET }], b"");
        self.take(sent);
    }

    fn get(&mut self, path: &str) -> u32 {
        let id = self.next_id;
        self.next_id += 2;
        self.send(&framed(HEADERS, END_HEADERS | END_STREAM, id, &head("GET", path, &[])));
        id
    }

    fn widen(&mut self, stream: u32, by: u32) {
        self.send(&framed(WINDOW_UPDATE, 0, stream, &by.to_be_bytes()));
    }

    /// A second passes, in which the client shows that it is there.
    fn second(&mut self) {
        self.desk.now += Duration::from_secs(1);
        self.send(&framed(PING, ACK, 0, &[0; 8]));
    }

    /// Bytes of DATA that came on these streams.
    fn came(&self, streams: &[u32]) -> usize {
        let of_them =
            |(kind, stream, _): &(u8, u32, usize)| *kind == DATA && streams.contains(stream);
        self.frames().into_iter().filter(of_them).map(|(_, _, length)| length).sum()
    }

    /// How many of the streams were reset.
    fn resets(&self, streams: &[u32]) -> usize {
        let of_them =
            |(kind, stream, _): &(u8, u32, usize)| *kind == RESET && streams.contains(stream);
        self.frames().into_iter().filter(of_them).count()
    }

    /// Kind, stream and length of each whole frame that came.
    fn frames(&self) -> Vec<(u8, u32, usize)> {
        let (mut rest, mut found) = (&self.sent[..], Vec::new());
        while let Ok(Some((_, length))) = frame::read(rest) {
            let stream = u32::from_be_bytes([rest[5], rest[6], rest[7], rest[8]]);
            found.push((rest[3], stream, length - frame::HEADER_BYTES));
            rest = &rest[length..];
        }
        found
    }
}

/// Bytes of the page that the tests ask for.
fn page_bytes() -> usize {
    let mut client = Client::open(WIDE_OPEN);
    let stream = client.get(PAGE);
    client.came(&[stream])
}

/// A connection whose window is closed is not made to keep a list of all that ever waited for it.
#[test]
fn a_stream_that_waits_for_its_connection_is_in_the_list_once() {
    let mut client = Client::open(WIDE_OPEN);
    let pages = [(); 10].map(|()| client.get(PAGE));
    assert_eq!(client.came(&pages), 65_535, "all that the connection takes");
    for _ in 0..100 {
        let stream = client.get("/");
        for _ in 0..4 {
            client.widen(stream, 1);
        }
        client.send(&framed(RESET, 0, stream, &[0, 0, 0, 8]));
        client.desk.now += Duration::from_millis(100);
    }
    // The worker's invariants were checked after each turn. Those that do wait are served.
    client.widen(0, WIDE_OPEN);
    assert_eq!(client.came(&pages), 10 * page_bytes());
}

/// Each of them gets little, but that is the network's doing: their windows are open.
#[test]
fn streams_that_share_a_slow_socket_are_not_taken_for_dead() {
    let mut client = Client::open(WIDE_OPEN);
    client.widen(0, WIDE_OPEN);
    client.takes = 300;
    let pages = [(); 10].map(|()| client.get(PAGE));
    for _ in 0..100 {
        client.second();
        client.writable();
    }
    assert!(client.came(&pages) < 10 * page_bytes(), "it is slow");
    client.takes = usize::MAX;
    client.writable();
    assert_eq!((client.came(&pages), client.resets(&pages)), (10 * page_bytes(), 0));
}

/// Its streams take turns, so each of them gets little; together they get enough.
#[test]
fn a_connection_that_goes_on_taking_bytes_keeps_the_streams_that_wait_for_it() {
    for (by, resets) in [(1000, 0), (100, 10)] {
        let mut client = Client::open(WIDE_OPEN);
        let pages = [(); 10].map(|()| client.get(PAGE));
        // They have waited for a while when the first ones have all.
        let waiting = [(); 10].map(|()| client.get(PAGE));
        for _ in 0..70 {
            client.second();
            client.widen(0, by);
        }
        assert_eq!(client.resets(&waiting), resets, "{by} bytes a second");
        assert!(client.came(&pages) <= 65_535 + 70 * by as usize);
    }
}

/// A subscriber that is caught up now and then holds nothing: it has the whole time again.
#[test]
fn a_stream_that_had_taken_everything_is_given_the_whole_time_again() {
    let mut client = Client::open(0);
    let stream = client.get("/sse?channel=news");
    // Its preamble waits for the window, and is taken.
    client.second();
    client.widen(stream, 1000);
    let preamble = client.came(&[stream]);
    assert!((1..1000).contains(&preamble), "{preamble}");
    for _ in 0..DEAD_SECONDS - 3 {
        client.second();
    }
    client.desk.publish("news", vec![b'x'; 2000]);
    for _ in 0..DEAD_SECONDS - 2 {
        client.second();
    }
    assert_eq!((client.came(&[stream]), client.resets(&[stream])), (1000, 0));
    for _ in 0..DEAD_SECONDS {
        client.second();
    }
    assert_eq!(client.resets(&[stream]), 1, "that was all the time");
}
