//! Waits for requests. One thread watches all connections whose head is incomplete, so that
//! hundreds of slow ones delay no other; complete requests go to the threads that answer.

use std::io::{ErrorKind, PipeReader, Read};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::exchange::has_body;
use super::is_probe;
use crate::proto::http::head::{self, HeaderSpace, Parsed};

/// How long a head may take. Probes and scrapers send theirs in one piece.
const HEAD_TIME_MAX: Duration = Duration::from_secs(1);

/// Connections that may be without a complete head; beyond that, the oldest is closed.
const HEADLESS_MAX: usize = 128;

/// Pause after a failed `accept`: without free descriptors it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection ready to be answered: its head is complete, or invalid.
pub(super) struct Arrived {
    pub stream: TcpStream,
    pub received: Vec<u8>,
}

/// A connection whose head is incomplete.
struct Headless {
    arrived: Arrived,
    until: Instant,
}

/// How much of a head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    Partial,
    /// A complete probe of a supervisor.
    Probe,
    /// Another complete request, or something that is no request.
    Other,
    /// The peer is gone.
    Gone,
}

/// The listener, and accepted connections without a complete request; the oldest first.
pub(super) struct Door {
    listener: TcpListener,
    /// Its other end is closed when the server stops. Shutting down the listener would end it for
    /// another process that shares it.
    ended: PipeReader,
    headless: Vec<Headless>,
    probes: Sender<Arrived>,
    others: Sender<Arrived>,
    space: HeaderSpace,
}

impl Door {
    pub fn new(
        listener: TcpListener,
        ended: PipeReader,
        probes: Sender<Arrived>,
        others: Sender<Arrived>,
    ) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (headless, space) = (Vec::new(), HeaderSpace::new());
        Ok(Self { listener, ended, headless, probes, others, space })
    }

    /// Lets requests in until the server stops.
    pub fn watch(&mut self) {
        while let Some((knocked, heard)) = self.wait() {
            // From the end, so that the remaining indices stay right.
            for place in heard.into_iter().rev() {
                self.hear(place);
            }
            let now = Instant::now();
            self.headless.retain(|headless| headless.until > now);
            if knocked {
                self.accept();
            }
        }
    }

    /// Sleeps until something comes or a connection's time is over. Returns whether a connection
    /// came, and the indices of those that sent something; `None` when the server stops.
    fn wait(&self) -> Option<(bool, Vec<usize>)> {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let timeout = self.headless.first().map(|oldest| left(oldest.until));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let ended = PollFd::new(&self.ended, PollFlags::IN);
        let mut watched = vec![ended, PollFd::new(&self.listener, PollFlags::IN)];
        let streams = self.headless.iter().map(|headless| &headless.arrived.stream);
        watched.extend(streams.map(|stream| PollFd::new(stream, PollFlags::IN)));
        if poll(&mut watched, timeout.as_ref()).is_err() {
            return Some((false, Vec::new()));
        }
        let mut woken = watched.iter().map(|one| !one.revents().is_empty());
        if woken.next().unwrap_or(false) {
            return None;
        }
        let knocked = woken.next().unwrap_or(false);
        Some((knocked, woken.enumerate().filter_map(|(place, is)| is.then_some(place)).collect()))
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.let_in(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Its peer has left again, or there is no descriptor; one may be free soon.
                Err(_) => {
                    self.headless.drain(..self.headless.len().min(1));
                    return thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    fn let_in(&mut self, stream: TcpStream) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.headless.len() >= HEADLESS_MAX {
            self.headless.remove(0);
        }
        let until = Instant::now() + HEAD_TIME_MAX;
        let arrived = Arrived { stream, received: Vec::new() };
        self.headless.push(Headless { arrived, until });
        // Most send their head along.
        self.hear(self.headless.len() - 1);
    }

    /// Reads what one of them has sent; a complete request goes to the threads that answer.
    fn hear(&mut self, place: usize) {
        let lane = match self.headless[place].arrived.read(&mut self.space) {
            Head::Partial => return,
            Head::Gone => None,
            Head::Probe => Some(&self.probes),
            Head::Other => Some(&self.others),
        };
        let Headless { arrived, .. } = self.headless.remove(place);
        // Full: all answering threads are busy, and too many requests wait already.
        let _ = lane.map(|lane| lane.try_send(arrived));
    }
}

impl Arrived {
    fn read(&mut self, space: &mut HeaderSpace) -> Head {
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Head::Gone,
                Ok(count) => self.received.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Head::Partial,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Head::Gone,
            }
            match head::parse_prefix(&self.received, space) {
                Ok(Parsed::Partial) => {}
                // With a body, its client might have to be waited for.
                Ok(Parsed::Complete(request))
                    if is_probe(request.path()) && !has_body(&request) =>
                {
                    return Head::Probe;
                }
                Ok(Parsed::Complete(_)) | Err(_) => return Head::Other,
            }
        }
    }
}
