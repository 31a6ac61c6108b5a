//! Everything one connection of HTTP/2 may send, through the worker and the log.

use std::collections::HashSet;

use pushline::proto::h2::{PREFACE, frame};

use super::server::Server;
use super::split::split;

/// A client's first settings.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// Whatever comes, in one turn or in many: the worker does not contradict itself, what it says are
/// whole frames, and nothing of a stream follows its end.
pub fn check(input: &[u8]) {
    let Some(split) = split(input) else { return };
    let mut server = Server::new();
    server.receive(PREFACE);
    server.receive(SETTINGS);
    for piece in &split.pieces {
        server.receive(piece);
        server.settle();
        server.check_invariants();
    }
    server.finish();
    server.settle();
    server.check_invariants();
    check_frames(&server.sent);
}

fn check_frames(mut rest: &[u8]) {
    let mut ended = HashSet::new();
    while !rest.is_empty() {
        let (_, length) = frame::read(rest).expect("a frame").expect("a whole one");
        let (kind, flags, stream) = (rest[3], rest[4], &rest[5..9]);
        if kind == DATA || kind == HEADERS {
            assert!(!ended.contains(stream), "behind the end of stream {stream:?}");
            if flags & 1 != 0 {
                ended.insert(stream);
            }
        }
        rest = &rest[length..];
    }
}
