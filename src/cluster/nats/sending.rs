//! The way to the server's socket. The broker's thread sends nearly everything; but while it sleeps, a
//! publication that comes alone is sent by the thread that has it: that takes less time than waking
//! another thread.

use std::collections::VecDeque;
use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::codec::{self, Subjects};
use super::publish::Unanswered;
use super::wire::write_message;
use crate::cluster::ToBroker;
use crate::cluster::broker::Shortcut;
use crate::cluster::metrics::ClusterMetrics;
use crate::log::event::Publication;
use crate::log::message::Counts;

/// What the threads that send share.
#[derive(Debug)]
pub struct Sending(Mutex<State>);

/// Behind the lock. Each thread adds whole operations to `out`, so that those of two never mix.
#[derive(Debug)]
pub struct State {
    /// Written to without waiting; none: there is no connection, or it uses TLS.
    socket: Option<TcpStream>,
    /// Largest message the server takes: a larger one ends the connection.
    message_bytes_max: usize,
    /// What the socket has not taken yet.
    pub out: Vec<u8>,
    /// Publications that the broker has to answer.
    pub unanswered: Unanswered,
    /// What another thread took out of the lane and left to the broker's thread.
    left: VecDeque<ToBroker>,
    subjects: Subjects,
    inbox: String,
    metrics: Arc<ClusterMetrics>,
}

impl Sending {
    /// For a node with this inbox.
    pub fn new(subjects: Subjects, inbox: String, metrics: Arc<ClusterMetrics>) -> Self {
        Self(Mutex::new(State {
            socket: None,
            message_bytes_max: 0,
            out: Vec::new(),
            unanswered: Unanswered::default(),
            left: VecDeque::new(),
            subjects,
            inbox,
            metrics,
        }))
    }

    /// For the broker's thread, which may wait for a moment.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shortcut for Sending {
    fn send(&self, lane: &Receiver<ToBroker>, now: Duration) -> bool {
        let Ok(mut state) = self.0.try_lock() else { return false };
        state.send_lone(lane, now)
    }
}

impl State {
    /// A connection is open, which takes messages of up to this many bytes.
    pub fn open(&mut self, socket: Option<TcpStream>, message_bytes_max: usize) {
        self.out.clear();
        self.socket = socket;
        self.message_bytes_max = message_bytes_max;
    }

    /// The connection is lost, and with it what was to be sent.
    pub fn close(&mut self) {
        self.out.clear();
        self.socket = None;
    }

    /// What the log and the operator have sent next.
    pub fn next(&mut self, lane: &Receiver<ToBroker>) -> Option<ToBroker> {
        self.left.pop_front().or_else(|| lane.try_recv().ok())
    }

    /// Whether there is something to take.
    pub fn has_news(&self, lane: &Receiver<ToBroker>) -> bool {
        !self.left.is_empty() || !lane.is_empty()
    }

    /// Adds a publication to what is to be sent, unless it is too large.
    pub fn publish(&mut self, number: u64, publication: &Publication, now: Duration) -> bool {
        let before = self.out.len();
        let subject = self.subjects.of_channel(&publication.channel);
        let reply = format!("{}.p.{number}", self.inbox);
        let headers = codec::headers(publication);
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, &**value)).collect();
        write_message(&mut self.out, &subject, Some(&reply), &headers, &publication.data);
        let bytes = self.out.len() - before;
        if bytes > self.message_bytes_max {
            self.out.truncate(before);
            tracing::debug!(bytes, "an event is larger than this NATS takes");
            return false;
        }
        self.unanswered.push(number, now);
        self.metrics.sent.add(1);
        true
    }

    /// Sends the one publication in the lane, if that can be done at once; whether nothing is left to
    /// the broker's thread.
    fn send_lone(&mut self, lane: &Receiver<ToBroker>, now: Duration) -> bool {
        let may_send = self.socket.is_some() && self.out.is_empty() && self.left.is_empty();
        if !may_send || lane.len() != 1 {
            return false;
        }
        match lane.try_recv() {
            Ok(ToBroker::Publish(number, publication, Counts::Here))
                if self.publish(number, &publication, now) =>
            {
                self.write()
            }
            Ok(other) => {
                self.left.push_back(other);
                false
            }
            // The broker's thread was faster.
            Err(_) => true,
        }
    }

    /// As much as the socket takes; whether that was all. What is wrong with it the broker's thread
    /// finds, too.
    fn write(&mut self) -> bool {
        let Some(mut socket) = self.socket.as_ref() else { return false };
        let count = socket.write(&self.out).unwrap_or_default();
        self.out.drain(..count);
        self.out.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use bytes::Bytes;
    use crossbeam_channel::{Sender, unbounded};

    use super::*;
    use crate::log::event::Kind;

    const NOW: Duration = Duration::from_secs(1);

    fn put(lane: &Sender<ToBroker>, number: u64) {
        let publication = Publication {
            channel: "news".into(),
            kind: Kind::Text,
            data: Bytes::from_static(b"hi"),
            event_type: None,
            key: None,
            attributes: None,
        };
        lane.send(ToBroker::Publish(number, publication, Counts::Here)).expect("it has room");
    }

    fn sending() -> Sending {
        Sending::new(Subjects::new("S"), "inbox".to_owned(), Arc::default())
    }

    #[test]
    fn a_lone_publication_is_sent_at_once_and_has_to_be_answered() {
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(server.local_addr().expect("one")).expect("it listens");
        let (mut peer, _) = server.accept().expect("it comes");
        let (sending, (to_thread, lane)) = (sending(), unbounded());
        sending.lock().open(Some(client), 1024);
        put(&to_thread, 7);
        assert!(sending.send(&lane, NOW), "nothing is left for the thread");
        let wanted = b"PUB S.ev.news inbox.p.7 2\r\nhi\r\n";
        let mut sent = [0; 32];
        peer.read_exact(&mut sent[..wanted.len()]).expect("it is sent");
        assert_eq!(&sent[..wanted.len()], wanted);
        assert!(!sending.lock().unanswered.is_empty());
    }

    #[test]
    fn what_is_not_alone_or_no_plain_publication_is_left_to_the_thread() {
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(server.local_addr().expect("one")).expect("it listens");
        let (sending, (to_thread, lane)) = (sending(), unbounded());
        put(&to_thread, 1);
        assert!(!sending.send(&lane, NOW), "there is no connection");
        sending.lock().open(Some(client), 1024);
        put(&to_thread, 2);
        assert!(!sending.send(&lane, NOW));
        assert_eq!(lane.try_iter().count(), 2);
        to_thread.send(ToBroker::Close).expect("it has room");
        assert!(!sending.send(&lane, NOW));
        let mut state = sending.lock();
        assert!(state.has_news(&lane));
        assert!(matches!(state.next(&lane), Some(ToBroker::Close)));
    }
}
