//! Lines of standard input as a stream of publications, each sent when it comes, over a connection
//! that may break.
//!
//! The lines are the body of `POST /publish`. Only the end of a body is answered, so a body ends
//! after a few lines or a moment of silence; the next request follows on the same connection
//! without waiting. See [`Outbox`] for what happens when it breaks.

use std::collections::VecDeque;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never, select, unbounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::answer::Answer;
use super::args::PubArgs;
use super::backoff::Backoff;
use super::connection;
use super::error::{ClientError, Recovery};
use super::input::{Encoder, Input, read_lines};
use super::outbox::{Line, Outbox};
use super::server::Server;
use super::tell::tell;
use crate::tools::wire::tls::Socket;

/// Lines of one request: a quarter of what may be unconfirmed, so that sending does not wait for
/// answers.
const REQUEST_LINES_MAX: usize = super::outbox::LINES_MAX / 4;

/// A request ends when no line came for this long...
const REQUEST_IDLE: Duration = Duration::from_millis(100);

/// ... and when it has lasted this long: what a server that goes away has taken is then confirmed
/// before it is gone.
const REQUEST_AGE_MAX: Duration = Duration::from_secs(1);

/// An answer that takes longer never comes.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// How long the last lines are tried for when the input has ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same after a signal: the user waits.
const PATIENCE_AFTER_SIGNAL: Duration = Duration::from_secs(5);

/// Lines read ahead.
const INPUT_LANE_LINES: usize = 16;

/// Publishes all lines of standard input.
pub(super) fn publish_lines(args: &PubArgs) -> Result<(), ClientError> {
    let server = args.server.server()?;
    let key = args.key.clone().unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
    let (to_input, input) = bounded(INPUT_LANE_LINES);
    thread::spawn(move || read_lines(std::io::stdin(), &to_input));
    let stops = stops()?;
    Streamer::new(server, Encoder::new(args, key)).run(&input, &stops)
}

/// The first signal ends the input, a second one the program.
fn stops() -> Result<Receiver<()>, ClientError> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(ClientError::Signals)?;
    let (stop, stops) = bounded(1);
    thread::spawn(move || {
        for _ in signals.forever() {
            if stop.try_send(()).is_err() {
                std::process::exit(1);
            }
        }
    });
    Ok(stops)
}

/// An answer, and of which connection.
type Answered = (u64, Result<Answer, ClientError>);

struct Streamer {
    server: Server,
    encoder: Encoder,
    outbox: Outbox,
    /// Lines read so far.
    number: u64,
    link: Option<Link>,
    /// Counts connections; answers of earlier ones come too late.
    generation: u64,
    answers: (Sender<Answered>, Receiver<Answered>),
    backoff: Backoff,
    retry_at: Instant,
    /// How long to go on without progress, once the input has ended.
    patience: Option<Duration>,
    progress_at: Instant,
    refused: u64,
    is_away: bool,
}

/// The writing side of a connection.
struct Link {
    socket: Socket,
    /// When the open request began.
    began: Instant,
    /// When its last line was sent.
    sent: Instant,
    /// When requests that wait for their answers ended.
    ended: VecDeque<Instant>,
}

impl Streamer {
    fn new(server: Server, encoder: Encoder) -> Self {
        let now = Instant::now();
        Self {
            server,
            encoder,
            outbox: Outbox::default(),
            number: 0,
            link: None,
            generation: 0,
            answers: unbounded(),
            backoff: Backoff::new(fastrand::Rng::new()),
            retry_at: now,
            patience: None,
            progress_at: now,
            refused: 0,
            is_away: false,
        }
    }

    fn run(&mut self, input: &Receiver<Input>, stops: &Receiver<()>) -> Result<(), ClientError> {
        let (closed, answers) = (never(), self.answers.1.clone());
        while self.patience.is_none() || !self.outbox.is_empty() {
            if let Err(error) = self.advance(Instant::now()) {
                self.lost(error)?;
            }
            let takes = self.patience.is_none() && self.outbox.has_room();
            let timeout = self.deadline().saturating_duration_since(Instant::now());
            select! {
                recv(if takes { input } else { &closed }) -> first => {
                    self.take(first.unwrap_or(Input::End))?;
                    // All that is here goes out in one write.
                    while self.patience.is_none() && self.outbox.has_room() {
                        let Ok(next) = input.try_recv() else { break };
                        self.take(next)?;
                    }
                }
                recv(answers) -> answered => {
                    if let Ok(answered) = answered {
                        self.answered(answered)?;
                    }
                }
                recv(stops) -> _ => self.end_input(PATIENCE_AFTER_SIGNAL),
                default(timeout) => {}
            }
            self.check_patience()?;
        }
        match self.refused {
            0 => Ok(()),
            count => Err(ClientError::LinesRefused(count)),
        }
    }

    fn take(&mut self, input: Input) -> Result<(), ClientError> {
        let line = match input {
            Input::Line(line) => line,
            Input::End => {
                self.end_input(PATIENCE);
                return Ok(());
            }
            Input::Failed(error) => return Err(ClientError::Input(error)),
        };
        self.number += 1;
        match self.encoder.encode(self.number, &line) {
            Ok(Some(json)) => self.outbox.push(Line { number: self.number, json }),
            Ok(None) => {}
            Err(error) => self.report_refused(self.number, &error.to_string()),
        }
        Ok(())
    }

    fn end_input(&mut self, patience: Duration) {
        self.patience = Some(patience);
        self.progress_at = Instant::now();
    }

    fn report_refused(&mut self, number: u64, why: &str) {
        self.refused += 1;
        tell(format_args!("line {number} is not published: {why}"));
    }

    // --- sending ---

    /// Does what is due: connects, sends, ends a request.
    fn advance(&mut self, now: Instant) -> Result<(), ClientError> {
        if self.link.is_none() && self.outbox.has_unsent() && self.retry_at <= now {
            self.connect(now)?;
        }
        let input_ended = self.patience.is_some();
        let Some(link) = &mut self.link else { return Ok(()) };
        let mut bytes = Vec::new();
        while self.outbox.has_unsent() {
            if self.outbox.open() == 0 {
                bytes.extend(self.server.request("POST", "/publish", CHUNKED));
                link.began = now;
            }
            if let Some(line) = self.outbox.send_next() {
                write_chunk(&mut bytes, &line.json);
                link.sent = now;
            }
            if self.outbox.open() == REQUEST_LINES_MAX {
                link.end_request(&mut self.outbox, &mut bytes, now);
            }
        }
        if self.outbox.open() > 0 && (input_ended || link.request_end() <= now) {
            link.end_request(&mut self.outbox, &mut bytes, now);
        }
        link.socket.write_all(&bytes)?;
        match link.ended.front() {
            Some(ended) if *ended + ANSWER_TIME_MAX <= now => Err(ClientError::Silent),
            _ => Ok(()),
        }
    }

    fn connect(&mut self, now: Instant) -> Result<(), ClientError> {
        let mut connection = connection::open(&self.server, None)?;
        self.generation += 1;
        let socket = connection.socket.try_clone()?;
        self.link = Some(Link { socket, began: now, sent: now, ended: VecDeque::new() });
        let (answers, generation) = (self.answers.0.clone(), self.generation);
        thread::spawn(move || {
            loop {
                let answer = connection::answer(&mut connection);
                let goes_on = answer.is_ok();
                if answers.send((generation, answer)).is_err() || !goes_on {
                    return;
                }
            }
        });
        Ok(())
    }

    /// When there is something to do although nothing comes.
    fn deadline(&self) -> Instant {
        let far = Instant::now() + PATIENCE;
        let Some(link) = &self.link else {
            return if self.outbox.is_empty() { far } else { self.retry_at };
        };
        let request_end = (self.outbox.open() > 0).then(|| link.request_end());
        let answer_end = link.ended.front().map(|ended| *ended + ANSWER_TIME_MAX);
        request_end.into_iter().chain(answer_end).fold(far, Instant::min)
    }

    // --- answers ---

    fn answered(&mut self, (generation, answer): Answered) -> Result<(), ClientError> {
        if generation != self.generation || self.link.is_none() {
            return Ok(());
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return self.lost(error),
        };
        match answer.success() {
            Ok(facts) if facts.published.is_some() => self.outbox.confirm(),
            Ok(_) => return Err(ClientError::not_understood("its answer counts no lines")),
            Err(ClientError::Refused(_)) => return self.refused(&answer),
            Err(error) => return Err(error),
        }
        if let Some(link) = &mut self.link {
            link.ended.pop_front();
        }
        self.progress_at = Instant::now();
        self.backoff.reset();
        if std::mem::take(&mut self.is_away) {
            tell(format_args!("connected again"));
        }
        Ok(())
    }

    fn refused(&mut self, answer: &Answer) -> Result<(), ClientError> {
        let (facts, refused) = (answer.facts(), answer.refused());
        self.outbox.refuse(facts.published.unwrap_or(0));
        let of_one_line = facts.line.is_some() && matches!(refused.status, 400 | 413);
        if refused.recovery() == Recovery::GiveUp && of_one_line {
            if let Some(line) = self.outbox.drop_oldest() {
                self.report_refused(line.number, &refused.message);
            }
            self.hang_up();
            self.retry_at = Instant::now();
            return Ok(());
        }
        self.lost(ClientError::Refused(refused))
    }

    // --- ends ---

    /// The connection is over, or could not be made.
    fn lost(&mut self, error: ClientError) -> Result<(), ClientError> {
        if error.recovery() == Recovery::GiveUp {
            return Err(error);
        }
        self.hang_up();
        self.retry_at = Instant::now();
        // A connection without work is closed by any server after a while.
        if !self.outbox.is_empty() {
            self.retry_at += self.backoff.pause(error.retry_after());
            if !std::mem::replace(&mut self.is_away, true) {
                tell(format_args!("{error}; trying again"));
            }
        }
        Ok(())
    }

    fn hang_up(&mut self) {
        self.outbox.disconnect();
        if let Some(link) = self.link.take() {
            // Wakes the thread that reads answers. The connection may be gone already.
            let _ = link.socket.shutdown();
        }
    }

    fn check_patience(&self) -> Result<(), ClientError> {
        match self.patience {
            Some(patience) if !self.outbox.is_empty() && self.progress_at.elapsed() > patience => {
                Err(ClientError::LinesUnconfirmed(self.outbox.len()))
            }
            _ => Ok(()),
        }
    }
}

const CHUNKED: &str = "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n";

impl Link {
    /// When the open request ends if no line comes.
    fn request_end(&self) -> Instant {
        (self.sent + REQUEST_IDLE).min(self.began + REQUEST_AGE_MAX)
    }

    fn end_request(&mut self, outbox: &mut Outbox, bytes: &mut Vec<u8>, now: Instant) {
        bytes.extend_from_slice(b"0\r\n\r\n");
        outbox.end_request();
        self.ended.push_back(now);
    }
}

/// A line is a chunk of its own (RFC 9112 section 7.1).
fn write_chunk(bytes: &mut Vec<u8>, line: &[u8]) {
    bytes.extend_from_slice(format!("{:x}\r\n", line.len()).as_bytes());
    bytes.extend_from_slice(line);
    bytes.extend_from_slice(b"\r\n");
}
