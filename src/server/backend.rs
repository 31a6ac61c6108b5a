//! Asks the operator's backend (`auth.url`) on behalf of workers: a few threads, each of which keeps its
//! connection. A worker never waits for them. If several of a worker's requests need the same answer,
//! the backend is asked once.

use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::ServerError;
use super::deadline::{Timed, left};
use super::to_workers::ToWorkers;
use crate::auth::{Asked, Gate, Question, Verdict};
use crate::limits::BACKEND_WAITING_MAX;
use crate::ring::unix_now;
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
    pub fn start(&mut self, gate: &Gate, workers: &ToWorkers) -> Result<(), ServerError> {
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

/// A connection that is kept, and the backend's URL.
struct Kept {
    url: Box<str>,
    connection: Connection<Timed<TcpStream>>,
}

/// Asks the backend, and tells the worker. Returns the connection if it can be used again.
fn answer(kept: Option<Kept>, asked: Asked, workers: &ToWorkers) -> Option<Kept> {
    let Asked { worker, question } = asked;
    let kept = kept.filter(|kept| *kept.url == *question.url());
    let had_one = kept.is_some();
    let told = match ask(kept, &question) {
        // The kept connection may have been closed meanwhile.
        Err(_) if had_one => ask(None, &question),
        told => told,
    };
    let (verdict, kept) = told.unwrap_or_else(|_| (Question::unanswered(), None));
    workers.send(worker, Command::Verdict { question, verdict });
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
    connection.socket.write_all(&request(&url, question)).map_err(WireError::Io)?;
    let head = connection.head()?;
    let body = connection.body(&head)?;
    let now_unix_s = unix_now().as_secs();
    let verdict = question.verdict(head.status, head.field("cache-control"), &body, now_unix_s);
    let goes_on = !head.closes() && head.framing().is_some();
    Ok((verdict, goes_on.then_some(kept)))
}

fn connect(url: &Url, until: Instant) -> Result<Connection<Timed<TcpStream>>, WireError> {
    let addresses = url.address().to_socket_addrs().map_err(WireError::Io)?;
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect_timeout(&address, left(until).map_err(WireError::Io)?) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(WireError::Io)?;
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
