//! Asks the operator's backend (`auth.url`) on behalf of workers: a few threads, each of which keeps its
//! connection. A worker never waits for them. If several of a worker's requests need the same answer,
//! the backend is asked once.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::ServerError;
use crate::auth::{Asked, Gate, Question, Verdict};
use crate::limits::BACKEND_WAITING_MAX;
use crate::mesh::MainEnds;
use crate::ring::{Bell, Ringer, unix_now};
use crate::tools::wire::connection::{Connection, WireError};
use crate::tools::wire::url::Url;
use crate::worker::command::Command;

/// Most questions asked at the same time.
const THREADS: usize = 8;

/// How long the backend may take to answer, including the time to connect.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// The threads, which are started when a backend is first configured.
pub(super) struct Backend {
    lane: Sender<Asked>,
    inbox: Receiver<Asked>,
    started: bool,
}

/// How verdicts get back to workers.
#[derive(Clone)]
pub(super) struct Workers {
    pub ends: MainEnds<Command>,
    pub bell: Arc<Mutex<Ringer>>,
}

impl Backend {
    pub fn new() -> Self {
        let (lane, inbox) = bounded(BACKEND_WAITING_MAX);
        Self { lane, inbox, started: false }
    }

    /// Makes the gate ask these threads.
    pub fn serve(&self, gate: Gate) -> Gate {
        gate.asking(self.lane.clone())
    }

    /// Starts the threads if the gate needs them and they do not run yet.
    pub fn start(&mut self, gate: &Gate, workers: &Workers) -> Result<(), ServerError> {
        if !gate.has_backend() || std::mem::replace(&mut self.started, true) {
            return Ok(());
        }
        for _ in 0..THREADS {
            let (inbox, workers) = (self.inbox.clone(), workers.clone());
            // They end once no gate can ask any more.
            let body = move || inbox.iter().fold(None, |kept, asked| answer(kept, asked, &workers));
            thread::Builder::new()
                .name("backend".into())
                .spawn(move || drop(body()))
                .map_err(|error| ServerError::io("starting the backend's threads", error))?;
        }
        Ok(())
    }
}

impl Workers {
    fn tell(&self, worker: u16, command: Command) {
        // Disconnected: that worker has ended.
        let _ = self.ends.commands[usize::from(worker)].send(command);
        if self.ends.asleep[usize::from(worker)].needs_ring() {
            let mut bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
            bell.ring(worker);
            bell.flush();
        }
    }
}

/// A connection that is kept, and the backend's URL.
struct Kept {
    url: Box<str>,
    connection: Connection<Timed>,
}

/// Asks the backend, and tells the worker. Returns the connection if it can be used again.
fn answer(kept: Option<Kept>, asked: Asked, workers: &Workers) -> Option<Kept> {
    let Asked { worker, question } = asked;
    let kept = kept.filter(|kept| *kept.url == *question.url());
    let had_one = kept.is_some();
    let told = match ask(kept, &question) {
        // The kept connection may have been closed meanwhile.
        Err(_) if had_one => ask(None, &question),
        told => told,
    };
    let (verdict, kept) = told.unwrap_or_else(|_| (Question::unanswered(), None));
    workers.tell(worker, Command::Verdict { question, verdict });
    kept
}

fn ask(kept: Option<Kept>, question: &Question) -> Result<(Verdict, Option<Kept>), WireError> {
    let url = Url::parse(question.url()).map_err(|_| WireError::Closed)?;
    let until = Instant::now() + ANSWER_TIME_MAX;
    let mut kept = match kept {
        Some(kept) => kept,
        None => Kept { url: question.url().into(), connection: connect(&url, until)? },
    };
    let connection = &mut kept.connection;
    connection.socket.until = until;
    connection.socket.stream.write_all(&request(&url, question)).map_err(WireError::Io)?;
    let head = connection.head()?;
    let body = connection.body(&head)?;
    let now_unix_s = unix_now().as_secs();
    let verdict = question.verdict(head.status, head.field("cache-control"), &body, now_unix_s);
    let goes_on = !head.closes() && head.framing().is_some();
    Ok((verdict, goes_on.then_some(kept)))
}

fn connect(url: &Url, until: Instant) -> Result<Connection<Timed>, WireError> {
    let addresses = url.address().to_socket_addrs().map_err(WireError::Io)?;
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect_timeout(&address, left(until).map_err(WireError::Io)?) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(WireError::Io)?;
                stream.set_write_timeout(Some(ANSWER_TIME_MAX)).map_err(WireError::Io)?;
                return Ok(Connection::over(Timed { stream, until }));
            }
            Err(error) => failed = error,
        }
    }
    Err(WireError::Io(failed))
}

fn request(url: &Url, question: &Question) -> Vec<u8> {
    let path = if url.path.is_empty() { "/" } else { &url.path };
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nUser-Agent: pushline\r\n",
        url.authority
    )
    .into_bytes();
    for (name, value) in [("Cookie", &question.cookie), ("Authorization", &question.authorization)]
    {
        if let Some(value) = value {
            request.extend_from_slice(format!("{name}: ").as_bytes());
            // A head that was parsed has no line ends in its values.
            request.extend_from_slice(value);
            request.extend_from_slice(b"\r\n");
        }
    }
    request.extend_from_slice(b"\r\n");
    request
}

/// A socket that is read until a point in time, even if bytes keep coming.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.until)?))?;
        self.stream.read(buffer)
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}
