//! Event streams (WHATWG HTML, "Interpreting an event stream"): lines, and events made of lines.

use std::time::Duration;

use super::carry::{Carry, TooLong, UNIT_BYTES_MAX};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A line without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// The end of an event.
    Blank,
    /// What follows the colon.
    Comment(&'a [u8]),
    /// A field; one space after the colon is not part of the value.
    Field {
        /// Before the colon.
        name: &'a [u8],
        /// After the colon; empty if there is none.
        value: &'a [u8],
    },
}

impl<'a> Line<'a> {
    #[inline]
    fn parse(line: &'a [u8]) -> Self {
        match memchr::memchr(b':', line) {
            Some(0) => Self::Comment(&line[1..]),
            Some(colon) => {
                let (name, value) = (&line[..colon], &line[colon + 1..]);
                Self::Field { name, value: value.strip_prefix(b" ").unwrap_or(value) }
            }
            None if line.is_empty() => Self::Blank,
            None => Self::Field { name: line, value: b"" },
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// No line has ended yet: the first one may begin with a byte order mark.
    #[default]
    Begin,
    Within,
    /// The last byte was a CR: an LF now belongs to it.
    AfterCr,
}

/// Finds lines in pieces of a stream. Bytes are used where they lie; only an unfinished line is
/// kept.
#[derive(Debug, Default)]
pub struct Lines {
    carry: Carry,
    place: Place,
}

impl Lines {
    /// Reads on; `on` gets each line that is complete.
    ///
    /// # Errors
    /// A line is longer than [`UNIT_BYTES_MAX`], or `on` failed.
    pub fn feed<E: From<TooLong>>(
        &mut self,
        bytes: &[u8],
        on: impl FnMut(Line<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let place = &mut self.place;
        self.carry.pour(bytes, |bytes, seen| complete_lines(bytes, seen, place, on))
    }
}

/// Passes complete lines to `on` and returns how many bytes they took. There is no line end within
/// the first `seen` bytes.
fn complete_lines<E>(
    bytes: &[u8],
    seen: usize,
    place: &mut Place,
    mut on: impl FnMut(Line<'_>) -> Result<(), E>,
) -> Result<usize, E> {
    let mut start = 0;
    if *place == Place::AfterCr && !bytes.is_empty() {
        start = usize::from(bytes[0] == b'\n');
        *place = Place::Within;
    }
    for end in memchr::memchr2_iter(b'\n', b'\r', &bytes[seen..]) {
        let end = seen + end;
        if end < start {
            continue; // the LF of a CRLF
        }
        let mut line = &bytes[start..end];
        if *place == Place::Begin {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
            *place = Place::Within;
        }
        on(Line::parse(line))?;
        start = end + 1;
        if bytes[end] == b'\r' {
            match bytes.get(start) {
                Some(b'\n') => start += 1,
                Some(_) => {}
                None => *place = Place::AfterCr,
            }
        }
    }
    Ok(start)
}

/// An item of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// Something was published.
    Event(Event<'a>),
    /// How long to wait before a reconnect.
    Retry(Duration),
    /// A comment line, such as a heartbeat.
    Comment(&'a str),
}

/// An event as it is dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The last event id so far; empty if there was none.
    pub id: &'a str,
    /// `message` if the stream does not say.
    pub event_type: &'a str,
    /// The data, lines ending in LF.
    pub data: &'a str,
}

/// Reads one stream as a browser does; a reconnect begins another.
#[derive(Debug, Default)]
pub struct EventStream {
    lines: Lines,
    event: Unfinished,
}

/// The event whose lines are arriving.
#[derive(Debug, Default)]
struct Unfinished {
    /// Kept after the event.
    id: String,
    event_type: String,
    /// Each line, followed by an LF.
    data: String,
}

impl EventStream {
    /// Reads on; `on` gets everything that is complete.
    ///
    /// # Errors
    /// A line or an event is longer than [`UNIT_BYTES_MAX`].
    pub fn feed(&mut self, bytes: &[u8], mut on: impl FnMut(Item<'_>)) -> Result<(), TooLong> {
        let event = &mut self.event;
        self.lines.feed(bytes, |line| event.take(line, &mut on))
    }

    /// Memory of what is not whole yet.
    pub(crate) fn held_bytes(&self) -> usize {
        self.lines.carry.held_bytes() + self.event.data.capacity()
    }

    /// The id to resume with: from the last line that set it, whether or not an event followed.
    pub fn last_id(&self) -> &str {
        &self.event.id
    }
}

impl Unfinished {
    fn take(&mut self, line: Line<'_>, on: &mut impl FnMut(Item<'_>)) -> Result<(), TooLong> {
        let (name, value) = match line {
            Line::Blank => {
                self.dispatch(on);
                return Ok(());
            }
            Line::Comment(text) => {
                on(Item::Comment(&String::from_utf8_lossy(text)));
                return Ok(());
            }
            Line::Field { name, value } => (name, String::from_utf8_lossy(value)),
        };
        match name {
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
                    Item::Comment(text) => format!(":{text}"),
                });
            });
            assert_eq!(fed, Ok(()));
        }
        assert_eq!(stream.last_id(), "");
        items
    }

    #[test]
    fn a_stream_is_read_as_a_browser_reads_it_however_it_is_cut() {
        let expected =
            [": hello", "1.5s", "e-1 a \"one\\ntwo\"", "e-1 message \" spaced\"", " message \"\""];
        let bytes = STREAM.as_bytes();
        assert_eq!(items([bytes]), expected, "whole");
        assert_eq!(items(bytes.chunks(1)), expected, "per byte");
        for at in 0..bytes.len() {
            let (first, second) = bytes.split_at(at);
            assert_eq!(items([first, second]), expected, "split at {at}");
        }
    }

    #[test]
    fn a_line_or_an_event_without_end_is_given_up() {
        let mut line = vec![b'x'; 1 << 20];
        for (last, what) in [(b'x', "line"), (b'\n', "event")] {
            line[..5].copy_from_slice(b"data:");
            *line.last_mut().expect("not empty") = last;
            let mut stream = EventStream::default();
            let fed: Vec<_> = (0..25).map(|_| stream.feed(&line, |_| {})).collect();
            assert!(fed[..24].iter().all(Result::is_ok), "{what}");
            assert_eq!(fed[24], Err(TooLong), "{what}");
        }
    }
}
