//! `pushline sub`: follows channels, whatever happens to connections and servers.

use std::convert::Infallible;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::answer::{Answer, expect_media};
use super::args::SubArgs;
use super::backoff::Backoff;
use super::connection::{self, Connection};
use super::error::{ClientError, Recovery};
use super::event::{Envelope, Format};
use super::server::{Server, encode};
use super::tell::tell;
use super::websocket::{self, WebSocket};
use crate::proto::http::body::BodyDecoder;
use crate::tools::bench::Transport;
use crate::tools::wire::connection::WireError;
use crate::tools::wire::head::Head;
use crate::tools::wire::sse::{EventStream, Item};

/// A connection on which nothing came for this long is dead: heartbeats come every 25 s by default,
/// and one reconnect too many does no harm.
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// Longest wait for the answer to a short question.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// A stream that has lasted this long works, even if it brought no event. One that ended sooner
/// lengthens the next pause: something may accept streams only to end them.
const STEADY_TIME: Duration = Duration::from_secs(10);

/// Subscribes until a signal comes or standard output is closed.
///
/// # Errors
/// Failures that another attempt would not cure.
pub fn subscribe(args: &SubArgs) -> Result<(), ClientError> {
    exit_on_signals()?;
    let mut follower = Follower {
        server: args.server.server()?,
        channels: args.channels.clone(),
        transport: args.transport,
        format: if args.json { Format::Json } else { Format::Data },
        cursor: args.after.clone(),
        backoff: Backoff::new(fastrand::Rng::new()),
        out: BufWriter::new(io::stdout().lock()),
        opened_at: None,
        is_away: false,
    };
    follower.run()
}

/// Exits at once, as there is nothing to complete.
fn exit_on_signals() -> Result<(), ClientError> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(ClientError::Signals)?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            std::process::exit(0);
        }
    });
    Ok(())
}

struct Follower {
    server: Server,
    channels: Vec<String>,
    transport: Transport,
    format: Format,
    /// Everything up to here was printed; `None` until we know the log's position.
    cursor: Option<String>,
    backoff: Backoff,
    out: BufWriter<StdoutLock<'static>>,
    /// When the server accepted this connection's subscription.
    opened_at: Option<Instant>,
    /// The user was told that the connection is lost.
    is_away: bool,
}

impl Follower {
    fn run(&mut self) -> Result<(), ClientError> {
        loop {
            let Err(error) = self.follow();
            // Print what came before the end before waiting for more.
            let error = self.out.flush().map_or_else(ClientError::Output, |()| error);
            match error {
                // The reader of our output has seen enough.
                ClientError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(());
                }
                error if error.recovery() == Recovery::GiveUp => return Err(error),
                error => {
                    let opened_at = self.opened_at.take();
                    if opened_at.is_some_and(|at| at.elapsed() >= STEADY_TIME) {
                        self.backoff.reset();
                    }
                    let pause = self.backoff.pause(error.retry_after());
                    if !std::mem::replace(&mut self.is_away, true) {
                        tell(format_args!("{error}; trying again"));
                    }
                    thread::sleep(pause);
                }
            }
        }
    }

    /// Follows one connection until it ends.
    fn follow(&mut self) -> Result<Infallible, ClientError> {
        let cursor = match self.cursor.clone() {
            Some(cursor) => cursor,
            None => self.position()?,
        };
        self.cursor = Some(cursor.clone());
        let connection = connection::open(&self.server, Some(SILENCE_MAX))?;
        match self.transport {
            Transport::Sse => self.follow_sse(connection, &cursor),
            Transport::Ws => self.follow_ws(connection, &cursor),
        }
    }

    /// Where the channels are now, so that events before the first one that reaches us are not lost
    /// with the connection. Channels that never had an event are followed from the earliest.
    fn position(&self) -> Result<String, ClientError> {
        let mut connection = connection::open(&self.server, Some(ANSWER_TIME_MAX))?;
        let mut newest: Option<(u64, String)> = None;
        for channel in &self.channels {
            let target = format!("/channels/{}", encode(channel));
            connection.socket.write_all(&self.server.request("GET", &target, ""))?;
            let answer = connection::answer(&mut connection)?;
            let facts = answer.success()?;
            if facts.channel.is_none() {
                return Err(ClientError::not_understood("its answer describes no channel"));
            }
            let Some(id) = facts.last_id else { continue };
            let seq = id.rsplit_once('-').and_then(|(_, seq)| seq.parse().ok()).unwrap_or(0);
            if newest.as_ref().is_none_or(|(known, _)| *known < seq) {
                newest = Some((seq, id));
            }
        }
        Ok(newest.map_or_else(|| "earliest".to_owned(), |(_, id)| id))
    }

    fn query(&self, cursor: &str) -> String {
        let mut query = String::new();
        for channel in &self.channels {
            query.push_str(&format!("channel={}&", encode(channel)));
        }
        query + "last_event_id=" + &encode(cursor)
    }

    fn follow_sse(
        &mut self,
        mut connection: Connection,
        cursor: &str,
    ) -> Result<Infallible, ClientError> {
        let target = format!("/sse?envelope=json&{}", self.query(cursor));
        let lines = "Accept: text/event-stream\r\nCache-Control: no-cache\r\n";
        connection.socket.write_all(&self.server.request("GET", &target, lines))?;
        let head = self.subscribed(&mut connection, 200)?;
        expect_media(&head, "text/event-stream")?;
        let mut body = head.framing().map(BodyDecoder::new);
        let mut stream = EventStream::default();
        loop {
            let mut rest = connection.received.as_slice();
            while !rest.is_empty() {
                let Some(decoder) = &mut body else {
                    self.feed(&mut stream, rest)?;
                    break;
                };
                // A proxy may have put the stream into chunks.
                let decoded = decoder.decode(rest).map_err(WireError::Body)?;
                self.feed(&mut stream, decoded.payload)?;
                rest = &rest[decoded.consumed..];
                if decoder.is_done() {
                    return Err(ClientError::Closed);
                }
            }
            connection.received.clear();
            self.out.flush().map_err(ClientError::Output)?;
            connection.read()?;
        }
    }

    fn feed(&mut self, stream: &mut EventStream, bytes: &[u8]) -> Result<(), ClientError> {
        let mut printed = Ok(());
        let fed = stream.feed(bytes, |item| match item {
            Item::Retry(base) => self.backoff.set_base(base),
            Item::Event(event) if printed.is_ok() => printed = self.event(event.data),
            Item::Event(_) | Item::Comment(_) => {}
        });
        fed.map_err(|_| ClientError::not_understood("an event without an end"))?;
        printed
    }

    fn follow_ws(
        &mut self,
        mut connection: Connection,
        cursor: &str,
    ) -> Result<Infallible, ClientError> {
        let (target, nonce) = (format!("/ws?{}", self.query(cursor)), websocket::nonce());
        let lines = websocket::upgrade_lines(&nonce);
        connection.socket.write_all(&self.server.request("GET", &target, &lines))?;
        let head = self.subscribed(&mut connection, 101)?;
        websocket::check_upgrade(&head, &nonce)?;
        let mut socket = WebSocket::new(connection);
        loop {
            while let Some(text) = socket.next()? {
                // The receiver has checked that it is UTF-8.
                let text = String::from_utf8_lossy(&text);
                self.event(&text)?;
            }
            self.out.flush().map_err(ClientError::Output)?;
            socket.read()?;
        }
    }

    /// The answer to a subscription; `status` is what success looks like.
    fn subscribed(
        &mut self,
        connection: &mut Connection,
        status: u16,
    ) -> Result<Head, ClientError> {
        let head = connection.head()?;
        if head.status != status {
            let body = connection.body(&head)?;
            let answer = Answer { head, body };
            return Err(ClientError::Refused(answer.refused()));
        }
        self.opened_at = Some(Instant::now());
        if std::mem::take(&mut self.is_away) {
            tell(format_args!("connected again"));
        }
        Ok(head)
    }

    /// One event in its envelope.
    fn event(&mut self, text: &str) -> Result<(), ClientError> {
        let Some(envelope) = Envelope::parse(text) else { return Ok(()) };
        let gap = envelope.gap();
        if let Some(gap) = &gap {
            tell(format_args!("{gap}"));
        }
        // A reader of JSON can distinguish a loss from an event, and needs it in its place.
        if gap.is_none() || self.format == Format::Json {
            envelope.print(text, self.format, &mut self.out).map_err(ClientError::Output)?;
        }
        self.cursor = Some(envelope.id.into_owned());
        self.backoff.reset();
        Ok(())
    }
}
