//! Sockets: bytes in, at most one send a turn out. A stream of HTTP/2 is a socket that another one
//! carries. They know no request and no channel.

pub mod admission;
mod carrying;
pub mod connection_count;
mod h2_streams;
mod output;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use self::admission::Clients;
use self::h2_streams::H2Streams;
use self::output::{Output, Own};
use self::socket::{Flags, Socket};
use super::pool::Pool;
use super::table::Table;
use crate::bits::Change;
use crate::bucket::Bucket;
use crate::config::Settings;
use crate::limits::SLOTS_FREE_TO_ACCEPT;
use crate::metrics::WorkerMetrics;
use crate::reason::{AcceptFailure, CloseReason};
use crate::ring::{Op, RecvEnd, Token};

pub use self::h2_streams::{Carrier, Progress};
pub use self::output::{Draft, Queue, Short};

/// A worker's sockets, by index.
#[derive(Debug)]
pub struct Net {
    settings: Arc<Settings>,
    metrics: Arc<WorkerMetrics>,
    now: Duration,
    /// Slots of the driver's table.
    slots: u32,
    sockets: Table<Socket>,
    /// Kept apart from the sockets: fan-out reads these and nothing else of a connection.
    generations: Table<u32>,
    h2: H2Streams,
    open: u32,
    accept: Accept,
    clients: Clients,
    arrivals: Bucket,
    output: Output,
    pool: Pool<Own>,
}

/// Whether connections are being accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accept {
    /// It begins with the next batch.
    Wanted,
    Armed,
    /// No descriptor or memory was free; it begins again when some may be.
    Full,
    /// Never again, but the driver has not confirmed the end yet.
    Ending,
    /// Never again.
    Stopped,
}

/// Whether a socket whose output is sent waits for its peer to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lingers {
    Yes,
    /// The peer is known to send nothing more.
    No,
}

/// What receiving led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Receiving goes on.
    More,
    /// The peer sends no more.
    End,
    /// The connection broke.
    Broken,
}

impl Net {
    /// A worker without connections. `slots` is the size of the driver's table.
    pub fn new(
        slots: u32,
        clients: Clients,
        settings: Arc<Settings>,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        Self {
            settings,
            metrics,
            now: Duration::ZERO,
            slots,
            sockets: Table::with_room(slots),
            generations: Table::with_room(slots),
            h2: H2Streams::new(slots),
            open: 0,
            accept: Accept::Wanted,
            clients,
            arrivals: Bucket::default(),
            output: Output::default(),
            pool: Pool::default(),
        }
    }

    pub fn set_now(&mut self, now: Duration) {
        self.now = now;
    }

    pub fn apply_settings(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
    }

    // --- which connections there are ---

    /// Connections open.
    pub fn open(&self) -> u32 {
        self.open
    }

    /// Indices that are or were in use, of sockets and of streams.
    pub fn len(&self) -> u32 {
        self.sockets.len()
    }

    /// The index at this place among them.
    pub fn index_at(&self, place: u32) -> u32 {
        self.sockets.index_at(place)
    }

    /// All of them.
    pub fn indices(&self) -> impl Iterator<Item = u32> + use<> {
        self.sockets.indices()
    }

    /// Those from this one on.
    pub fn indices_from(&self, from: u32) -> impl Iterator<Item = u32> + use<> {
        self.sockets.indices_from(from)
    }

    /// Whether a connection or a stream has this index.
    pub fn is_open(&self, index: u32) -> bool {
        self.sockets[index].is_open()
    }

    /// Whether the token's connection is still open.
    pub fn is_current(&self, token: Token) -> bool {
        self.generations.get(token.slot) == Some(&token.generation) && self.is_open(token.slot)
    }

    pub fn token(&self, index: u32) -> Token {
        Token { slot: index, generation: self.generations[index] }
    }

    /// Whether the socket only waits for its peer to close.
    pub fn is_lingering(&self, index: u32) -> bool {
        self.sockets[index].flags.contains(Flags::LINGERING)
    }

    /// Seconds since the connection was accepted.
    pub fn age_s(&self, index: u32) -> u32 {
        self.now_s().wrapping_sub(self.sockets[index].opened_s)
    }

    fn now_s(&self) -> u32 {
        self.now.as_secs() as u32
    }

    // --- accepting ---

    /// Takes up a connection that was accepted into this slot.
    pub fn accepted(&mut self, index: u32) {
        self.opened(index);
        self.open += 1;
        self.metrics.accepts.add(1);
        self.sockets[index].flags.insert(Flags::RECV_ARMED);
        self.push(Op::RecvStart(self.token(index)));
    }

    fn opened(&mut self, index: u32) {
        self.sockets.reach(index, Socket::free);
        self.generations.reach(index, || 0);
        debug_assert!(!self.is_open(index));
        let now_s = self.now_s();
        self.sockets[index] = Socket { heard_s: now_s, opened_s: now_s, ..Socket::free() };
        self.sockets[index].flags.insert(Flags::OPEN);
    }

    /// Accepts with this batch, if it is time to.
    pub fn accept_if_wanted(&mut self) {
        if self.accept == Accept::Wanted {
            self.accept = Accept::Armed;
            self.push(Op::AcceptStart);
        }
    }

    /// Whether the clock's hand has something to watch: a connection, or a table that was full.
    pub fn is_watched(&self) -> bool {
        self.open > 0 || self.accept == Accept::Full
    }

    /// Whether the next batch is to accept.
    pub fn wants_to_accept(&self) -> bool {
        self.accept == Accept::Wanted
    }

    /// Accepts again once enough slots of a full table are free.
    pub fn accept_again(&mut self) {
        let free = self.slots.saturating_sub(self.open);
        let needed = SLOTS_FREE_TO_ACCEPT.min(self.slots);
        if self.accept == Accept::Full && free >= needed {
            self.accept = Accept::Wanted;
        }
    }

    pub fn accept_ended(&mut self, errno: i32) {
        let failure = AcceptFailure::of(errno);
        if let Some(failure) = failure {
            self.metrics.accept_failures[failure as usize].add(1);
        }
        self.accept = match self.accept {
            Accept::Ending | Accept::Stopped => Accept::Stopped,
            _ if failure.is_some() => Accept::Full,
            _ => Accept::Wanted,
        };
    }

    /// Stops accepting, by this operation.
    pub fn stop_accepting(&mut self, how: Op) {
        self.push(how);
        self.accept = match self.accept {
            Accept::Armed | Accept::Ending => Accept::Ending,
            Accept::Wanted | Accept::Full | Accept::Stopped => Accept::Stopped,
        };
    }

    /// Whether no new connection can come.
    pub fn has_stopped_accepting(&self) -> bool {
        self.accept == Accept::Stopped
    }

    /// Whether the end of accepting is not confirmed yet.
    pub fn is_stopping_to_accept(&self) -> bool {
        self.accept == Accept::Ending
    }

    // --- receiving ---

    /// Notes that bytes arrived.
    pub fn heard(&mut self, index: u32) {
        self.sockets[index].heard_s = self.now_s();
    }

    /// Whether the peer was silent for as long as a connection may be idle.
    pub fn is_silent(&self, index: u32) -> bool {
        let idle_s = self.now_s().saturating_sub(self.sockets[index].heard_s);
        u64::from(idle_s) >= self.settings.idle_time.as_secs()
    }

    /// Receiving has ended; begins it again if there may be more to come.
    pub fn receive_ended(&mut self, index: u32, why: RecvEnd) -> Heard {
        let flags = &mut self.sockets[index].flags;
        flags.remove(Flags::RECV_ARMED);
        match why {
            RecvEnd::Eof => {
                flags.insert(Flags::EOF);
                Heard::End
            }
            RecvEnd::NoBuffers | RecvEnd::Disarmed => {
                self.rearm(index);
                Heard::More
            }
            RecvEnd::Failed(_) => Heard::Broken,
        }
    }

    /// Whether the peer sends no more.
    pub fn has_peer_ended(&self, index: u32) -> bool {
        self.sockets[index].flags.contains(Flags::EOF)
    }

    /// Receives again, unless the socket is paused.
    fn rearm(&mut self, index: u32) {
        if self.is_stream(index) {
            return self.take_more(index);
        }
        let flags = &mut self.sockets[index].flags;
        if !flags.contains(Flags::PAUSED)
            && !flags.contains(Flags::EOF)
            && flags.raise(Flags::RECV_ARMED)
        {
            self.push(Op::RecvStart(self.token(index)));
        }
    }

    /// Leaves what else the peer sends in the kernel's buffer for now.
    pub fn pause(&mut self, index: u32) {
        let flags = &mut self.sockets[index].flags;
        if flags.raise(Flags::PAUSED) && flags.contains(Flags::RECV_ARMED) {
            self.push(Op::RecvStop(self.token(index)));
        }
    }

    /// Takes input again.
    pub fn resume(&mut self, index: u32) {
        let flags = &mut self.sockets[index].flags;
        if flags.contains(Flags::PAUSED) {
            flags.remove(Flags::PAUSED);
            self.rearm(index);
        }
    }

    // --- sending ---

    /// Whether the socket is full, and waits for `Writable`.
    pub fn is_blocked(&self, index: u32) -> bool {
        self.sockets[index].flags.contains(Flags::BLOCKED)
    }

    /// Whether it is not known yet how much of its last send was taken, or the socket is full.
    pub fn is_sending(&self, index: u32) -> bool {
        let flags = self.sockets[index].flags;
        flags.contains(Flags::SENT) || flags.contains(Flags::BLOCKED)
    }

    /// The socket can take bytes again.
    pub fn writable(&mut self, index: u32) {
        self.sockets[index].flags.remove(Flags::BLOCKED);
    }

    // --- ending ---

    /// Notes why the connection ends; the first reason is kept.
    pub fn note_ending(&mut self, index: u32, reason: CloseReason) {
        self.sockets[index].ending.get_or_insert(reason);
    }

    /// Why the connection is ending, if it is.
    pub fn ending(&self, index: u32) -> Option<CloseReason> {
        self.sockets[index].ending
    }

    /// Ends the connection once its output is sent. If the peer may still send, it lingers: closing
    /// at once would be a reset, which may destroy that output on its way (RFC 9112 section 9.6,
    /// RFC 6455 section 7.1.1).
    pub fn end_after_output(&mut self, index: u32, lingers: Lingers) {
        let flags = &mut self.sockets[index].flags;
        flags.insert(Flags::CLOSE_AFTER_OUT);
        if lingers == Lingers::Yes {
            flags.insert(Flags::LINGER);
        }
    }

    /// Whether a connection that ends after its output will linger.
    pub fn will_linger(&self, index: u32) -> bool {
        let flags = self.sockets[index].flags;
        flags.contains(Flags::LINGER)
            && !flags.contains(Flags::EOF)
            && !self.h2.is_half_closed(index)
    }

    /// Whether the connection ends once its output is sent.
    pub fn ends_after_output(&self, index: u32) -> bool {
        self.sockets[index].flags.contains(Flags::CLOSE_AFTER_OUT)
    }

    /// Half-closes the socket, whose output is sent; what still comes is thrown away.
    pub fn linger(&mut self, index: u32) {
        self.drop_out(index);
        self.sockets[index].flags.insert(Flags::LINGERING);
        if !self.is_stream(index) {
            self.push(Op::Shutdown(self.token(index)));
        }
        self.resume(index);
    }

    /// Closes the connection for this reason: nothing more is sent, and its slot is free.
    pub fn close(&mut self, index: u32, reason: CloseReason) {
        debug_assert!(self.is_open(index));
        let token = self.token(index);
        if self.is_stream(index) {
            self.close_stream(index, reason);
        } else {
            self.drop_carrier(index);
            self.open -= 1;
            self.metrics.closes[reason.index()].add(1);
            self.push(Op::Close(token));
        }
        let Self { sockets, clients, pool, .. } = self;
        let socket = std::mem::replace(&mut sockets[index], Socket::free());
        clients.leave(index, !socket.flags.contains(Flags::UNCOUNTED));
        if let Some(own) = socket.own {
            pool.give(own);
        }
        let generation = &mut self.generations[index];
        *generation = generation.wrapping_add(1);
        self.accept_again();
    }

    fn push(&mut self, op: Op) {
        self.output.batch.ops.push(op);
    }

    /// Whether the batch has nothing for the driver to do.
    pub fn is_idle(&self) -> bool {
        self.output.batch.ops.is_empty()
    }

    /// Panics if the sockets contradict themselves. `may_pause`: whether a slot holds enough
    /// unparsed input to be paused.
    pub fn check_invariants(&self, may_pause: impl Fn(u32) -> bool) {
        assert_eq!(self.sockets.len(), self.generations.len());
        let open = self.sockets.iter().filter(|socket| socket.is_open()).count();
        assert_eq!((self.open + self.h2.open()) as usize, open, "open connections and streams");
        for index in self.indices() {
            let socket = &self.sockets[index];
            if !socket.is_open() {
                let empty = socket.own.is_none() && socket.flags == Flags::default();
                assert!(empty, "slot {index} is free: {socket:?}");
                continue;
            }
            self.check_output(index);
            if self.is_stream(index) {
                self.check_stream(index);
                continue;
            }
            self.check_carrier(index);
            let flags = socket.flags;
            let (armed, ended) = (flags.contains(Flags::RECV_ARMED), flags.contains(Flags::EOF));
            assert!(!(armed && ended), "slot {index} receives behind a FIN: {socket:?}");
            let heard = armed || ended || flags.contains(Flags::PAUSED);
            assert!(heard, "slot {index}: nothing listens: {socket:?}");
            let paused = flags.contains(Flags::PAUSED);
            assert!(!paused || may_pause(index), "slot {index} is paused: {socket:?}");
        }
    }
}
