//! An event stream from its bytes (WHATWG HTML, "Interpreting an event stream"). Sans-IO.

use std::time::Duration;

use crate::tools::wire::UNIT_BYTES_MAX;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a stream says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// Something was published.
    Event(Event<'a>),
    /// How long to wait before a reconnect.
    Retry(Duration),
}

/// An event as it is dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The last event id so far; empty if there was none.
    pub id: &'a str,
    /// `message` if the stream did not say.
    pub event_type: &'a str,
    /// The data, lines ending in LF.
    pub data: &'a str,
}

/// The server sent a line or an event longer than the tools wait for; nothing more can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Reads one stream; a reconnect begins another.
#[derive(Debug, Default)]
pub struct EventStream {
    /// A line whose end has not come yet.
    line: Vec<u8>,
    /// The last byte was a CR: an LF now belongs to it.
    after_cr: bool,
    /// A line has been read, so the byte order mark is past.
    begun: bool,
    id: String,
    event_type: String,
    /// Each line with an LF behind it.
    data: String,
}

impl EventStream {
    /// Reads on; `on` gets everything that became complete.
    ///
    /// # Errors
    /// The stream must be given up.
    pub fn feed(&mut self, bytes: &[u8], mut on: impl FnMut(Item<'_>)) -> Result<(), TooLong> {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            let (text, is_cr) = (&rest[..end], rest[end] == b'\r');
            rest = &rest[end + 1..];
            let ends_crlf = !is_cr && std::mem::take(&mut self.after_cr) && text.is_empty();
            self.after_cr = is_cr;
            if ends_crlf && self.line.is_empty() {
                continue;
            }
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(text);
            self.take_line(&line, &mut on)?;
            line.clear();
            self.line = line;
        }
        if !rest.is_empty() {
            self.after_cr = false;
            self.line.extend_from_slice(rest);
        }
        if self.line.len() > UNIT_BYTES_MAX { Err(TooLong) } else { Ok(()) }
    }

    fn take_line(&mut self, line: &[u8], on: &mut impl FnMut(Item<'_>)) -> Result<(), TooLong> {
        let line = match std::mem::replace(&mut self.begun, true) {
            false => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
            true => line,
        };
        if line.is_empty() {
            self.dispatch(on);
            return Ok(());
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or(b"");
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match &line[..colon] {
            b"data" => {
                self.data.push_str(&value);
                self.data.push('\n');
            }
            b"event" => self.event_type = value.into_owned(),
            b"id" if !value.contains('\0') => self.id = value.into_owned(),
            b"retry" => on_retry(&value, on),
            _ => {}
        }
        if self.data.len() > UNIT_BYTES_MAX { Err(TooLong) } else { Ok(()) }
    }

    fn dispatch(&mut self, on: &mut impl FnMut(Item<'_>)) {
        if let Some(data) = self.data.strip_suffix('\n') {
            let event_type =
                if self.event_type.is_empty() { "message" } else { self.event_type.as_str() };
            on(Item::Event(Event { id: &self.id, event_type, data }));
        }
        self.data.clear();
        self.event_type.clear();
    }
}

fn on_retry(value: &str, on: &mut impl FnMut(Item<'_>)) {
    if !value.is_empty()
        && value.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(pause_ms) = value.parse()
    {
        on(Item::Retry(Duration::from_millis(pause_ms)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "\u{feff}: hello\nretry: 1500\n\nid: e-1\nevent: a\ndata: one\ndata:two\n\n\
        data:  spaced\r\n\r\nid: e-3\n\nevent: b\n\nid\rdata\r\rdata: unfinished\n";

    fn items<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut stream = EventStream::default();
        let mut items = Vec::new();
        for piece in pieces {
            let fed = stream.feed(piece, |item| {
                items.push(match item {
                    Item::Event(Event { id, event_type, data }) => {
                        format!("{id} {event_type} {data:?}")
                    }
                    Item::Retry(pause) => format!("{pause:?}"),
                });
            });
            assert_eq!(fed, Ok(()));
        }
        items
    }

    #[test]
    fn a_stream_is_read_as_a_browser_reads_it_however_it_is_cut() {
        let expected = ["1.5s", "e-1 a \"one\\ntwo\"", "e-1 message \" spaced\"", " message \"\""];
        let bytes = STREAM.as_bytes();
        assert_eq!(items([bytes]), expected, "whole");
        assert_eq!(items(bytes.chunks(1)), expected, "per byte");
        for at in 0..bytes.len() {
            let (first, second) = bytes.split_at(at);
            assert_eq!(items([first, second]), expected, "split at {at}");
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut stream = EventStream::default();
        let mebibyte = vec![b'x'; 1 << 20];
        let fed: Vec<_> = (0..25).map(|_| stream.feed(&mebibyte, |_| {})).collect();
        assert!(fed[..24].iter().all(Result::is_ok));
        assert_eq!(fed[24], Err(TooLong));
    }
}
