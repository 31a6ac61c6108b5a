//! The publisher: one keep-alive connection, one request at a time, each waiting for its answer.

use std::{
    io::{self, Write},
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
};
use crate::tools::wire::connection::Connection;
use crate::tools::wire::tls::{self, Socket, Trust};

/// An answer that takes longer counts as refused.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Refusals in a row after which publishing is given up.
const REFUSALS_IN_A_ROW_MAX: u64 = 100;

/// Wait after a refusal: the server said it was too busy.
const REFUSAL_PAUSE: Duration = Duration::from_millis(10);

/// How much of a refusal is shown: some servers answer with a page.
const REFUSAL_CHARS_MAX: usize = 200;

/// What the publisher did.
#[derive(Debug, Clone, Default)]
pub(super) struct Published {
    /// Events the server accepted.
    pub events: u64,
    /// Requests it refused, or left unanswered.
    pub refused: u64,
    /// The reason of the last refusal.
    pub last_refusal: Option<String>,
    /// When the first request was sent, on the monotonic clock.
    pub began_ns: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
}

/// Publishes according to plan; `events` shows others how far it is.
pub(super) struct Publisher<'a> {
    options: &'a BenchOptions,
    run: u32,
    target: Target,
    channels: u32,
    connection: Option<Connection<Socket>>,
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
            connection: None,
            events,
            published: Published::default(),
        })
    }

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
                    self.connection = None;
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

    /// Publishes the next event; after a refusal the same one again, so that no number is skipped.
    fn publish_next(&mut self) -> Result<(), String> {
        let channel = (self.published.events % u64::from(self.channels)) as u32;
        let sequence = (self.published.events / u64::from(self.channels)) as u32 + 1;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                connect(&self.target, &self.options.trust).map_err(|error| error.to_string())?
            }
        };
        let mut data = Vec::with_capacity(self.options.size_bytes);
        let event = Payload { run: self.run, channel, sequence, published_ns: monotonic_ns() };
        event.write(self.options.size_bytes, &mut data);
        let request = request(&self.target, self.options, channel, &data);
        connection.socket.write_all(&request).map_err(|error| error.to_string())?;
        let head = connection.head().map_err(|error| error.to_string())?;
        let body = connection.body(&head).map_err(|error| error.to_string())?;
        let body = String::from_utf8_lossy(&body);
        if !(200..300).contains(&head.status) || tells_error(&body) {
            let body: String = body.trim().chars().take(REFUSAL_CHARS_MAX).collect();
            return Err(format!("status {}: {body}", head.status));
        }
        if !head.closes() {
            self.connection = Some(connection);
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Sent,
    GivenUp,
}

fn connect(target: &Target, trust: &Trust) -> io::Result<Connection<Socket>> {
    let stream = TcpStream::connect(target.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
    let Some(host) = &target.secure_host else {
        return Ok(Connection::over(Socket::Plain(stream)));
    };
    let config = trust.config().map_err(io::Error::other)?;
    let tls = tls::connection(&config, host).map_err(io::Error::other)?;
    Ok(Connection::over(Socket::secured(stream, tls)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_with_status_200_is_one() {
        assert!(tells_error("{\"error\":{\"code\":102,\"message\":\"unknown channel\"}}"));
        for good in ["", "urn:uuid:1", "{\"result\":{}}", "{\"error\":null}", "[1]"] {
            assert!(!tells_error(good), "{good}");
        }
    }
}
