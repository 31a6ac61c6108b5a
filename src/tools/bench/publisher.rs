//! The publisher: one keep-alive connection, one request at a time, each waiting for its answer.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::{
    args::{BenchOptions, Channels, PublishPlan},
    error::BenchError,
    monotonic_ns,
    payload::Payload,
    plan::Target,
    stream::{Chunks, Fault, is_chunked},
};

/// An answer that takes longer counts as refused.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Longest answer read; it says an id, nothing more.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Refusals in a row after which publishing is given up.
const REFUSALS_IN_A_ROW_MAX: u64 = 100;

/// Wait after a refusal: the server said it was too busy.
const REFUSAL_PAUSE: Duration = Duration::from_millis(10);

/// As much of a refusal as is shown: some servers answer with a page.
const REFUSAL_CHARS_MAX: usize = 200;

/// What the publisher did.
#[derive(Debug, Clone, Default)]
pub(super) struct Published {
    /// Events the server took.
    pub events: u64,
    /// Requests it refused, or left unanswered.
    pub refused: u64,
    /// What the last refusal was.
    pub last_refusal: Option<String>,
    /// When the first request was sent, on the monotonic clock.
    pub began_ns: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
}

/// Publishes according to plan; `events` tells others how far it is.
pub(super) struct Publisher<'a> {
    options: &'a BenchOptions,
    run: u32,
    target: Target,
    channels: u32,
    stream: Option<TcpStream>,
    events: &'a AtomicU64,
    published: Published,
}

impl<'a> Publisher<'a> {
    /// A publisher that has not connected yet.
    pub fn new(
        options: &'a BenchOptions,
        run: u32,
        events: &'a AtomicU64,
    ) -> Result<Self, BenchError> {
        Ok(Self {
            options,
            run,
            target: Target::parse(&options.publish_url)?,
            channels: options.channels.count(options.connections),
            stream: None,
            events,
            published: Published::default(),
        })
    }

    /// Publishes all of it.
    pub fn run(mut self) -> Published {
        let began = Instant::now();
        self.published.began_ns = monotonic_ns();
        let burst = u64::from(self.options.burst);
        match self.options.publish {
            PublishPlan::Nothing => {}
            PublishPlan::OneBurst => _ = self.burst(burst),
            PublishPlan::Paced { duration, .. } => {
                let every = self.options.period().unwrap_or(duration);
                let mut due = began;
                while due < began + duration {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    if self.burst(burst) == Outcome::GivenUp {
                        break;
                    }
                    due += every;
                }
            }
        }
        self.published.seconds = began.elapsed().as_secs_f64();
        self.published
    }

    fn burst(&mut self, events: u64) -> Outcome {
        let mut refusals = 0;
        let until = self.published.events + events;
        while self.published.events < until {
            match self.publish_next() {
                Ok(()) => {
                    self.published.events += 1;
                    self.events.store(self.published.events, Ordering::Relaxed);
                    refusals = 0;
                }
                Err(refusal) => {
                    self.published.refused += 1;
                    self.published.last_refusal = Some(refusal);
                    self.stream = None;
                    refusals += 1;
                    if refusals >= REFUSALS_IN_A_ROW_MAX {
                        return Outcome::GivenUp;
                    }
                    std::thread::sleep(REFUSAL_PAUSE);
                }
            }
        }
        Outcome::Sent
    }

    /// Publishes the next event; the same one again after a refusal, so that no number is skipped.
    fn publish_next(&mut self) -> Result<(), String> {
        let channel = (self.published.events % u64::from(self.channels)) as u32;
        let sequence = (self.published.events / u64::from(self.channels)) as u32 + 1;
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(&self.target).map_err(|error| error.to_string())?,
        };
        let mut data = Vec::with_capacity(self.options.size_bytes);
        let event = Payload { run: self.run, channel, sequence, published_ns: monotonic_ns() };
        event.write(self.options.size_bytes, &mut data);
        let request = request(&self.target, self.options, channel, &data);
        stream.write_all(&request).map_err(|error| error.to_string())?;
        let answer = read_answer(&mut stream).map_err(|error| error.to_string())?;
        if !(200..300).contains(&answer.status) || tells_error(&answer.body) {
            let body: String = answer.body.trim().chars().take(REFUSAL_CHARS_MAX).collect();
            return Err(format!("status {}: {body}", answer.status));
        }
        if answer.next == NextRequest::SameConnection {
            self.stream = Some(stream);
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Sent,
    GivenUp,
}

fn connect(target: &Target) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
    Ok(stream)
}

fn request(target: &Target, options: &BenchOptions, channel: u32, data: &[u8]) -> Vec<u8> {
    let name = Channels::name(options.channels, channel);
    let data = std::str::from_utf8(data).unwrap_or_default();
    let body = options.publish_body.replace("{channel}", &name).replace("{data}", data);
    let path = target.path.replace("{channel}", &name);
    let (authority, content_type) = (&target.authority, &options.publish_content_type);
    let lines = &options.publish_header_lines;
    format!(
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: {content_type}\r\n\
         {lines}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Whether the body is a JSON object with an `error`: some APIs (Centrifugo's) refuse with 200.
fn tells_error(body: &str) -> bool {
    let object: Option<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_str(body).ok();
    object.and_then(|mut fields| fields.remove("error")).is_some_and(|error| !error.is_null())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextRequest {
    SameConnection,
    NewConnection,
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: String,
    next: NextRequest,
}

/// Reads one whole answer (RFC 9112 section 6.3, as far as servers use it to answer a POST).
fn read_answer(stream: &mut impl Read) -> io::Result<Answer> {
    let mut bytes = Vec::with_capacity(1024);
    let head_end = loop {
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            break end + 4;
        }
        read_more(stream, &mut bytes)?;
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
    let status = head.get(9..12).and_then(|digits| digits.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    let next = match header(&head, "connection") {
        Some("close") => NextRequest::NewConnection,
        Some(_) | None => NextRequest::SameConnection,
    };
    let body = if is_chunked(head.as_bytes()) {
        read_chunks(stream, &bytes[head_end..])?
    } else {
        let length = header(&head, "content-length").and_then(|digits| digits.parse().ok());
        let end = head_end + length.unwrap_or(0usize).min(ANSWER_BYTES_MAX);
        while bytes.len() < end {
            read_more(stream, &mut bytes)?;
        }
        bytes[head_end..end].to_vec()
    };
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned(), next })
}

fn read_chunks(stream: &mut impl Read, first: &[u8]) -> io::Result<Vec<u8>> {
    let mut chunks = Chunks::new();
    let mut body = Vec::new();
    let mut bytes = first.to_vec();
    loop {
        let mut rest = bytes.as_slice();
        loop {
            match chunks.next(&mut rest) {
                Ok(Some(piece)) => body.extend_from_slice(piece),
                Ok(None) => break,
                Err(Fault::End) => {
                    // The empty line behind the last chunk may still be on its way.
                    let mut tail = [0; 2];
                    let missing = 2usize.saturating_sub(rest.len().saturating_sub(1));
                    stream.read_exact(&mut tail[..missing])?;
                    return Ok(body);
                }
                Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        bytes.clear();
        read_more(stream, &mut bytes)?;
    }
}

fn read_more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<()> {
    if bytes.len() > ANSWER_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut piece = [0; 4096];
    match stream.read(&mut piece)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => {
            bytes.extend_from_slice(&piece[..length]);
            Ok(())
        }
    }
}

/// The value of a header in a head of small letters.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes one at a time.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.len().min(1).min(buffer.len());
            let (now, later) = self.0.split_at(length);
            buffer[..length].copy_from_slice(now);
            self.0 = later;
            Ok(length)
        }
    }

    const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
    const CLOSING: &[u8] = b"HTTP/1.1 204 No\r\nConnection: Close\r\n\r\n";

    #[test]
    fn answers_are_read_to_their_end_and_no_further() {
        for (bytes, status, body, next) in [
            (PLAIN, 200, "hello", NextRequest::SameConnection),
            (CHUNKED, 202, "hello", NextRequest::SameConnection),
            (CLOSING, 204, "", NextRequest::NewConnection),
        ] {
            let expected = Answer { status, body: body.to_owned(), next };
            assert_eq!(read_answer(&mut &bytes[..]).unwrap(), expected);
            let mut drip = Drip(bytes);
            assert_eq!(read_answer(&mut drip).unwrap(), expected);
            assert!(drip.0.is_empty());
        }
    }

    #[test]
    fn a_refusal_with_status_200_is_one() {
        assert!(tells_error("{\"error\":{\"code\":102,\"message\":\"unknown channel\"}}"));
        for good in ["", "urn:uuid:1", "{\"result\":{}}", "{\"error\":null}", "[1]"] {
            assert!(!tells_error(good), "{good}");
        }
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        for bytes in [PLAIN, CHUNKED, CLOSING] {
            assert!(read_answer(&mut &bytes[..bytes.len() - 1]).is_err());
        }
    }
}
