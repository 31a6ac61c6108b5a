//! One TCP connection in memory: two bounded byte pipes and what each end knows about the other.
//! What each end sees follows Linux: bytes that arrived before a reset stay readable, an error is
//! reported once, and after a FIN reading always returns end-of-file.

use std::collections::VecDeque;
use std::net::IpAddr;

use rustix::io::Errno;

use crate::ring::Layer;

/// One direction: the sender's and the receiver's socket buffer in one.
#[derive(Debug)]
pub(super) struct Pipe {
    bytes: VecDeque<u8>,
    capacity_bytes: usize,
    /// The sender will send no more.
    pub(super) finished: bool,
    written: u64,
    read: u64,
    lost: u64,
}

impl Pipe {
    fn new(capacity_bytes: usize) -> Self {
        let bytes = VecDeque::new();
        Self { bytes, capacity_bytes, finished: false, written: 0, read: 0, lost: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn room(&self) -> usize {
        self.capacity_bytes - self.bytes.len()
    }

    /// The kernel calls a socket writable only when a third of its buffer is free.
    pub(super) fn writable(&self) -> bool {
        self.room() > 0 && self.room() * 2 >= self.bytes.len()
    }

    /// Takes what fits and returns how much that was.
    pub(super) fn push(&mut self, bytes: &[u8]) -> usize {
        assert!(!self.finished, "bytes behind a FIN");
        let taken = bytes.len().min(self.room());
        self.bytes.extend(&bytes[..taken]);
        self.written += taken as u64;
        taken
    }

    /// Moves at most `count_max` bytes to the end of `to`.
    pub(super) fn pull(&mut self, count_max: usize, to: &mut Vec<u8>) -> usize {
        let count = count_max.min(self.bytes.len());
        to.extend(self.bytes.drain(..count));
        self.read += count as u64;
        count
    }

    pub(super) fn lose_all(&mut self) {
        self.lost += self.bytes.len() as u64;
        self.bytes.clear();
    }

    fn check_conservation(&self) {
        let outstanding = self.bytes.len() as u64;
        assert_eq!(self.written, self.read + self.lost + outstanding, "bytes in == bytes out");
        assert!(self.bytes.len() <= self.capacity_bytes);
    }
}

/// The place of the server's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerEnd {
    /// In the listener's backlog.
    Waiting { worker: u16 },
    /// Accepted by a worker.
    Slot { worker: u16, slot: u32 },
    /// Closed, refused or aborted.
    Gone,
}

/// What the client's program does with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientEnd {
    Open,
    /// Does not read for now.
    Stalled,
    /// The socket is closed: what still arrives is answered with a reset.
    Closed,
    /// The machine is gone: nothing arrives, in either direction, and no error tells.
    Dead,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    /// The client's address, if that is to be reported.
    pub(super) peer: Option<IpAddr>,
    /// What the listener speaks that it connected to.
    pub(super) layer: Layer,
    pub(super) to_server: Pipe,
    pub(super) to_client: Pipe,
    pub(super) server: ServerEnd,
    pub(super) client: ClientEnd,
    /// The client was told that the connection is broken.
    pub(super) client_reset: bool,
    /// The server's socket is broken; holds the errno until it was reported.
    broken: Option<Option<i32>>,
    /// The client's handle still exists.
    pub(super) held: bool,
}

/// What the server reads once it has read all bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadEnd {
    /// Nothing yet.
    Pending,
    Eof,
    Failed(i32),
}

impl Link {
    pub(super) fn new(
        worker: u16,
        (peer, layer): (Option<IpAddr>, Layer),
        buffer_bytes: usize,
    ) -> Self {
        Self {
            peer,
            layer,
            to_server: Pipe::new(buffer_bytes),
            to_client: Pipe::new(buffer_bytes),
            server: ServerEnd::Waiting { worker },
            client: ClientEnd::Open,
            client_reset: false,
            broken: None,
            held: true,
        }
    }

    /// The server has something to read, if only the end.
    pub(super) fn readable(&self) -> bool {
        self.to_server.len() > 0 || self.to_server.finished || self.broken.is_some()
    }

    /// A poll for output would fire.
    pub(super) fn writable(&self) -> bool {
        self.broken.is_some() || self.to_client.writable()
    }

    /// What follows the last byte. Reports a pending error, once.
    pub(super) fn read_end(&mut self) -> ReadEnd {
        match &mut self.broken {
            _ if self.to_server.finished => ReadEnd::Eof,
            Some(errno) => errno.take().map_or(ReadEnd::Eof, ReadEnd::Failed),
            None => ReadEnd::Pending,
        }
    }

    /// The errno a send fails with, if it does. Reports a pending error, once.
    pub(super) fn send_error(&mut self) -> Option<i32> {
        let errno = self.broken.as_mut()?.take();
        Some(errno.unwrap_or(Errno::PIPE.raw_os_error()))
    }

    /// The server sends; returns how many bytes were taken.
    pub(super) fn send(&mut self, bytes: &[u8]) -> usize {
        let taken = self.to_client.push(bytes);
        if self.client == ClientEnd::Closed {
            self.to_client.lose_all();
            self.break_server(Errno::CONNRESET);
        }
        taken
    }

    /// Breaks the server's socket. A reset that finds it half-closed by the peer is `EPIPE`.
    pub(super) fn break_server(&mut self, errno: Errno) {
        if self.broken.is_none() && self.server != ServerEnd::Gone {
            let errno = if self.to_server.finished { Errno::PIPE } else { errno };
            self.broken = Some(Some(errno.raw_os_error()));
        }
    }

    /// The client sends bytes; returns how many were taken.
    pub(super) fn client_write(&mut self, bytes: &[u8]) -> usize {
        assert!(self.client != ClientEnd::Closed, "write on a closed client");
        assert!(!self.to_server.finished, "write behind the client's own FIN");
        if self.client == ClientEnd::Dead {
            return bytes.len();
        }
        if self.server == ServerEnd::Gone {
            self.client_reset = true;
        }
        if self.client_reset { 0 } else { self.to_server.push(bytes) }
    }

    /// The client closes its socket. As on Linux, unread bytes turn that into a reset; returns
    /// whether they did.
    pub(super) fn client_close(&mut self) -> bool {
        match self.client {
            ClientEnd::Closed | ClientEnd::Dead => return false,
            ClientEnd::Open | ClientEnd::Stalled => self.client = ClientEnd::Closed,
        }
        let unread = self.to_client.len() > 0;
        if unread {
            self.break_server(Errno::CONNRESET);
        } else {
            self.to_server.finished = true;
        }
        self.to_client.lose_all();
        unread
    }

    /// The client closes its socket with a reset.
    pub(super) fn client_abort(&mut self) {
        if self.client != ClientEnd::Dead {
            self.break_server(Errno::CONNRESET);
            self.client = ClientEnd::Closed;
            self.to_client.lose_all();
        }
    }

    /// The server's socket goes away: FIN, or a reset when bytes were left unread.
    pub(super) fn server_close(&mut self) {
        let unread = self.to_server.len() > 0;
        self.to_server.lose_all();
        self.server = ServerEnd::Gone;
        if self.client == ClientEnd::Dead || self.broken.is_some() {
            return;
        }
        if unread {
            self.client_reset = true;
        } else {
            self.to_client.finished = true;
        }
    }

    /// Neither end can reach it any more.
    pub(super) fn forgotten(&self) -> bool {
        self.server == ServerEnd::Gone && !self.held
    }

    pub(super) fn check_conservation(&self) {
        self.to_server.check_conservation();
        self.to_client.check_conservation();
    }
}
