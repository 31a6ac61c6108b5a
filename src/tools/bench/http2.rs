//! HTTP/2 (RFC 9113), the subscribers' side: a connection carries many, each on a stream of its own.
//! To its reader a stream is a connection of HTTP/1.1, as it is in the server: the head of its
//! answer is handed on in that form.

use super::connection::escaped;
use super::messages::ClientTask;
use super::stream::Fault;
use crate::proto::carry::Carry;
use crate::proto::h2::frame::{self, Ends, Frame};
use crate::proto::h2::hpack::encode::write_field;
use crate::proto::h2::hpack::{Decoder, HpackError, Scratch};
use crate::proto::h2::{PREFACE, WINDOW_DEFAULT, WINDOW_MAX, settings};

/// Received bytes after which the connection's window is opened again. A stream's is never: 2 GiB
/// are more than a run sends one subscriber.
const CREDIT_BYTES: u32 = WINDOW_MAX / 2;

/// What a client says first: nothing is to slow the server down, and no connection needs a table.
pub(super) fn write_preface(out: &mut Vec<u8>) {
    out.extend_from_slice(PREFACE);
    let ours = [
        (settings::TABLE_SIZE, 0),
        (settings::ENABLE_PUSH, 0),
        (settings::INITIAL_WINDOW, WINDOW_MAX),
    ];
    frame::write_settings(out, &ours);
    frame::write_window_update(out, 0, WINDOW_MAX - WINDOW_DEFAULT);
}

/// The request that subscribes a connection's subscriber with this number to `channel`.
pub(super) fn write_request(out: &mut Vec<u8>, task: &ClientTask, number: u32, channel: &str) {
    let scheme: &[u8] = if task.secure.is_some() { b"https" } else { b"http" };
    let path = escaped(&task.path.replace("{channel}", channel));
    let mut block = Vec::new();
    for (name, value) in [
        (&b":method"[..], &b"GET"[..]),
        (b":scheme", scheme),
        (b":authority", task.authority.as_bytes()),
        (b":path", path.as_bytes()),
        (b"accept", b"text/event-stream"),
    ] {
        write_field(&mut block, name, value);
    }
    let lines = task.header_lines.lines().filter_map(|line| line.split_once(':'));
    for (name, value) in lines {
        write_field(&mut block, name.to_ascii_lowercase().as_bytes(), value.trim().as_bytes());
    }
    frame::write_headers(out, 2 * number + 1, &block, Ends::Yes);
}

/// The number of the subscriber whose stream this is.
pub(super) fn number_of(stream: u32) -> usize {
    stream as usize / 2
}

/// The reading side of one connection.
#[derive(Debug, Default)]
pub(super) struct Frames {
    begun: Carry,
    /// Bytes of DATA that the server was not told it may send again.
    received: u32,
}

impl Frames {
    /// Reads on; `on` gets each frame that is complete.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut on: impl FnMut(&Frame<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let received = &mut self.received;
        self.begun.pour(bytes, |bytes, _| {
            let mut used = 0;
            while let Some((frame, length)) =
                frame::read(&bytes[used..]).map_err(|_| Fault::Http2)?
            {
                if let Frame::Data { length, .. } = frame {
                    *received += length;
                }
                on(&frame)?;
                used += length;
            }
            Ok(used)
        })
    }

    /// Opens the connection's window again, if it is time to.
    pub fn write_credit(&mut self, out: &mut Vec<u8>) {
        if self.received >= CREDIT_BYTES {
            frame::write_window_update(out, 0, std::mem::take(&mut self.received));
        }
    }
}

/// The head of an answer, in the form of HTTP/1.1. No table is needed from block to block: we have
/// asked for none.
pub(super) fn head(block: &[u8]) -> Result<Vec<u8>, Fault> {
    let (mut status, mut lines) = (Vec::new(), Vec::new());
    let take = |name: &[u8], value: &[u8]| {
        match name {
            b":status" => status.extend_from_slice(value),
            _ => lines.extend([name, b": ", value, b"\r\n"].concat()),
        }
        Ok::<(), HpackError>(())
    };
    let decoded = Decoder::default().decode(block, &mut Scratch::default(), take);
    decoded.map_err(|_| Fault::Head)?;
    Ok([b"HTTP/1.1 ", &status[..], b"\r\n", &lines, b"\r\n"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece of the server's side: settings, two heads, events on both streams, a ping.
    fn served() -> Vec<u8> {
        let mut out = Vec::new();
        frame::write_settings(&mut out, &[(settings::STREAMS_MAX, 100)]);
        let mut block = Vec::new();
        write_field(&mut block, b":status", b"200");
        write_field(&mut block, b"content-type", b"text/event-stream");
        frame::write_headers(&mut out, 1, &block, Ends::No);
        frame::write_headers(&mut out, 3, &block, Ends::No);
        frame::write_data(&mut out, 3, b"data: b\n\n", Ends::No);
        frame::write_ping(&mut out);
        frame::write_data(&mut out, 1, b"data: a\n\n", Ends::Yes);
        out
    }

    fn frames<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> (Vec<String>, Frames) {
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        for piece in pieces {
            let fed = frames.feed(piece, |frame| {
                found.push(match frame {
                    Frame::Headers { stream, fragment, .. } => {
                        format!("{stream} {}", String::from_utf8_lossy(&head(fragment)?))
                    }
                    other => format!("{other:?}"),
                });
                Ok(())
            });
            assert_eq!(fed, Ok(()));
        }
        (found, frames)
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let bytes = served();
        let (whole, read) = frames([&bytes[..]]);
        assert_eq!((whole.len(), read.received), (6, 18));
        assert_eq!(whole[1], "1 HTTP/1.1 200\r\ncontent-type: text/event-stream\r\n\r\n");
        assert_eq!((number_of(1), number_of(3)), (0, 1));
        assert_eq!(frames(bytes.chunks(1)).0, whole, "per byte");
        for at in 0..bytes.len() {
            let (first, second) = bytes.split_at(at);
            assert_eq!(frames([first, second]).0, whole, "split at {at}");
        }
    }

    #[test]
    fn an_answer_of_http_1_is_not_taken_for_frames() {
        let fed = Frames::default().feed(b"HTTP/1.1 400 Bad Request\r\n\r\n", |_| Ok(()));
        assert_eq!(fed, Err(Fault::Http2));
    }

    #[test]
    fn the_window_of_a_connection_is_opened_again_before_it_is_used_up() {
        let (mut frames, mut out) = (Frames::default(), Vec::new());
        frames.write_credit(&mut out);
        assert!(out.is_empty());
        frames.received = CREDIT_BYTES;
        frames.write_credit(&mut out);
        assert_eq!((out.len(), frames.received), (frame::HEADER_BYTES + 4, 0));
    }
}
