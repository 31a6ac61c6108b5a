//! What is the same on every loop: requests, the bytes of an event, and how an event gets from the
//! worker that accepted it to the others.

use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use pushline::proto::cursor::{Epoch, EventId};
use pushline::proto::data::{Data, EventView};
use pushline::proto::sse;

/// Answer to a publish.
pub const PUBLISHED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// Longest request; the load generator's are far shorter.
pub const REQUEST_BYTES_MAX: usize = 4096;

/// The head and first bytes of a stream, as our server sends them.
pub fn stream_head() -> Vec<u8> {
    let mut head = Vec::new();
    sse::write_head(&mut head, b"Sun, 06 Nov 1994 08:49:37 GMT", b"");
    sse::write_preamble(&mut head, 3000, None);
    head
}

/// What a worker starts with.
pub struct Seat {
    /// Its own listener.
    pub listener: TcpListener,
    /// Becomes readable when there is mail.
    pub bell: UnixStream,
    /// Sends mail to the others, and receives its own.
    pub post: Post,
}

/// Mailboxes of all workers.
#[derive(Clone)]
pub struct Post {
    boxes: Arc<[Mailbox]>,
    seq: Arc<AtomicU64>,
    me: usize,
}

struct Mailbox {
    mail: Mutex<Vec<Bytes>>,
    ringer: UnixStream,
}

impl Post {
    /// One mailbox per bell.
    pub fn new(ringers: Vec<UnixStream>) -> Self {
        let mailbox = |ringer| Mailbox { mail: Mutex::default(), ringer };
        Self { boxes: ringers.into_iter().map(mailbox).collect(), seq: Arc::default(), me: 0 }
    }

    /// The same mailboxes, seen from a worker.
    pub fn for_worker(&self, me: usize) -> Self {
        Self { me, ..self.clone() }
    }

    /// Encodes an event, mails it to the other workers, and hands it back for this one.
    pub fn publish(&self, body: &[u8]) -> io::Result<Bytes> {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        let id = EventId { epoch: Epoch::from_random(1), seq };
        let data = Data::Text(std::str::from_utf8(body).map_err(io::Error::other)?);
        let mut event = Vec::with_capacity(body.len() + 64);
        sse::write_event(
            &mut event,
            &EventView { id, channel: "", event_type: None, data, attributes: None },
        );
        let event = Bytes::from(event);
        for (worker, mailbox) in self.boxes.iter().enumerate() {
            if worker != self.me {
                mailbox.mail.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
                // Full means that it was rung often enough.
                let _ = (&mailbox.ringer).write(b"!");
            }
        }
        Ok(event)
    }

    /// Takes this worker's mail.
    pub fn collect(&self) -> Vec<Bytes> {
        let mailbox = &self.boxes[self.me];
        std::mem::take(&mut *mailbox.mail.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What received bytes begin with.
pub enum Request<'a> {
    /// Hold this connection.
    Subscribe,
    /// Deliver this body; the next request begins at `end`.
    Publish { body: &'a [u8], end: usize },
    /// Not complete yet.
    Partial,
}

/// Looks at a request. Anything that is not a POST subscribes.
pub fn request(bytes: &[u8]) -> Request<'_> {
    let Some(head) = memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4) else {
        return Request::Partial;
    };
    if !bytes.starts_with(b"POST ") {
        return Request::Subscribe;
    }
    let end = head + content_length(&bytes[..head]);
    if bytes.len() < end {
        return Request::Partial;
    }
    Request::Publish { body: &bytes[head..end], end }
}

fn content_length(head: &[u8]) -> usize {
    head.split(|&byte| byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}
