//! The driver: everything a worker asks of the kernel, as values.
//!
//! A worker's turn ends with one call of [`Driver::turn`]: it hands in a [`Batch`] of [`Op`]s, may
//! sleep, and gets back [`Completion`]s. There are three implementations: `uring` (the only place in
//! the crate that may say `unsafe`), `epoll` (for hosts that refuse io_uring) and `sim` (an in-memory
//! network with a virtual clock and faults). The worker cannot tell them apart. `tls` is a driver over any of
//! them.

mod bell;
mod clock;
mod descriptors;
pub mod epoll;
mod error;
mod kernel;
mod listener;
#[cfg(feature = "sim")]
pub mod sim;
pub mod tls;
pub mod uring;

pub use bell::{BellTarget, Doorbells, Ringer};
pub use clock::{coarse_unix_s, monotonic_now, unix_now};
pub use descriptors::{descriptors_max, grow_descriptor_table};
pub use error::{Forbidder, StartError};
pub use kernel::KernelVersion;
pub(crate) use kernel::URING_SINCE;
pub use listener::{ListenOptions, Listener, listen, listen_again, steer_by_cpu, stop_steering};
pub use uring::try_io_uring;

use std::net::IpAddr;
use std::time::Duration;

/// One connection: a slot, and the generation that distinguishes its present owner from earlier
/// ones. Completions of earlier generations are stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// Index of the worker's slot; on io_uring also of the direct descriptor.
    pub slot: u32,
    /// Counts the connections the slot has had. The worker sets it; the driver carries it there and
    /// back.
    pub generation: u32,
}

/// What a worker asks for. Sends refer to bytes in the arena of their [`Batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Start (or re-arm) accepting. At most one accept is armed.
    AcceptStart,
    /// Stop accepting. [`Completion::AcceptEnded`] follows if one was armed.
    AcceptStop,
    /// Accept what is waiting, then leave the port: from then on connections are refused.
    /// [`Completion::AcceptEnded`] follows if an accept was armed; none is armed after this. Must
    /// not be used if another process shares the listener, for which it would be closed as well.
    ListenStop,
    /// Arm receiving, which must not be armed already.
    RecvStart(Token),
    /// Disarm receiving. Data may still arrive until [`Completion::RecvEnded`] does.
    RecvStop(Token),
    /// Fire and forget: either the socket takes all of `arena[from..to]` and nothing is reported,
    /// or `SendShort`/`SendFailed` is among the completions this same turn returns. At most one
    /// send per token in a batch: a second one behind a short one would tear the stream.
    Send {
        /// The connection to send to.
        token: Token,
        /// First byte, as an offset into the batch's arena.
        from: u32,
        /// One past the last byte.
        to: u32,
    },
    /// Report once when the socket can take more bytes.
    PollOut(Token),
    /// Half-close: nothing more is sent, receiving continues (lingering close after an error
    /// response).
    Shutdown(Token),
    /// Cancel whatever is in flight for the token and free the descriptor. Nothing is reported for
    /// the token afterwards (what still arrives is dropped by its generation, and counted as
    /// stale).
    Close(Token),
}

/// What a worker hands to the driver in one turn.
#[derive(Debug, Default)]
pub struct Batch {
    /// Other workers to wake before anything else: they have work, and the sends that follow may be
    /// so many that they would lose a millisecond.
    pub rings: Vec<u16>,
    /// Carried out in this order.
    pub ops: Vec<Op>,
    /// The bytes all sends of this batch refer to. They stay unchanged until the next turn has
    /// begun, so that the worker can look at what was not taken.
    pub arena: Vec<u8>,
}

impl Batch {
    /// Where the next byte of the arena goes.
    ///
    /// # Panics
    /// Beyond 4 GiB: better to stop than to send another connection's bytes. Whoever fills an arena
    /// has budgets that keep it far below.
    pub fn end(&self) -> u32 {
        u32::try_from(self.arena.len()).expect("turns have budgets of bytes")
    }
}

/// A buffer of the driver's that holds received bytes until it is recycled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(pub u16);

/// Why receiving has ended; it is disarmed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecvEnd {
    /// The peer sent FIN: it sends no more, but may still read.
    Eof,
    /// No buffer was free. Ordinary: re-arm.
    NoBuffers,
    /// The kernel ended it for a reason of its own, or because of `RecvStop`: re-arm if wanted.
    Disarmed,
    /// The connection is broken (`ECONNRESET`, `ETIMEDOUT`, ...): the errno.
    Failed(i32),
}

/// Whether connections are reported with their peer's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerAddresses {
    /// No: the cheapest way.
    #[default]
    Unknown,
    /// Yes: with io_uring, each address takes an accept of its own.
    Wanted,
}

/// The layer between a connection's bytes and its socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layer {
    /// Nothing.
    #[default]
    Plain,
    /// TLS. It is reported when its handshake is near. Until that is over nothing is received, and a
    /// send fails.
    Tls,
}

/// What the kernel reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Completion {
    /// A connection arrived in this slot.
    Accepted {
        /// The slot it got.
        slot: u32,
        /// Its peer's address, if addresses are wanted.
        peer: Option<IpAddr>,
        /// TLS, if its listener has it.
        layer: Layer,
    },
    /// The peer has shown a certificate that an authority of the operator's has signed. Comes before
    /// its first bytes.
    Certified {
        /// The connection whose peer that is.
        token: Token,
    },
    /// Accepting ended (errno; 0 if without an error). Re-arm at once after 0 or `ECONNABORTED`.
    /// Anything else may last: `ENFILE` until a slot is free, the others (no descriptor, no memory,
    /// no epoll watch) until another process or the operator does something.
    AcceptEnded {
        /// The error, or 0.
        errno: i32,
    },
    /// Bytes arrived: `Driver::received(buffer)[..]`. Recycle the buffer after use.
    Received {
        /// The connection.
        token: Token,
        /// The buffer that holds them.
        buffer: BufferId,
    },
    /// Receiving ended.
    RecvEnded {
        /// The connection.
        token: Token,
        /// The reason.
        why: RecvEnd,
    },
    /// The socket took only the first `taken` bytes of the send (0: its buffer was full).
    SendShort {
        /// The connection.
        token: Token,
        /// How many bytes it took.
        taken: u32,
    },
    /// The send failed: the peer is gone (`EPIPE`, `ECONNRESET`).
    SendFailed {
        /// The connection.
        token: Token,
        /// The error.
        errno: i32,
    },
    /// The socket can take bytes again (the answer to [`Op::PollOut`]; also on error or hang-up,
    /// which the next send will then report).
    Writable {
        /// The connection.
        token: Token,
    },
    /// Another thread rang: the lanes need a look.
    Doorbell,
}

/// Completions after which a driver that gathers them goes on.
pub const GATHERED_MAX: u32 = 32;

/// How long a turn may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: there is work left.
    No,
    /// Until a completion or this much time has passed.
    AtMost(Duration),
    /// Until there are [`GATHERED_MAX`] or this much time has passed, however early the first comes. A
    /// driver may let the time pass in any case.
    Gather(Duration),
    /// Until a completion.
    Forever,
}

/// Counters of the driver since it was made, read by the worker's metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverStats {
    /// `io_uring_enter` or `epoll_wait` calls.
    pub enters: u64,
    /// Batches that did not fit the submission queue at once.
    pub sq_full: u64,
    /// Times the kernel had to park completions outside the completion queue.
    pub cq_overflows: u64,
    /// Receives that found no free buffer.
    pub no_buffers: u64,
    /// Sends queued.
    pub sends: u64,
    /// Completions of tokens or operations that nothing waits for any more.
    pub stale: u64,
    /// Connections with TLS; all 0 without a listener for it.
    pub tls: TlsStats,
}

/// What happened to connections with TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsStats {
    /// Open now, those whose handshake is under way included.
    pub open: u64,
    /// Of these, of TLS 1.2, which hold several times the memory.
    pub open_tls12: u64,
    /// Accepted, but their handshakes have not begun because others are before them.
    pub waiting: u64,
    /// Handshakes with a signature.
    pub handshakes_full: u64,
    /// Handshakes that resumed a session by its ticket.
    pub handshakes_resumed: u64,
    /// Handshakes the peer got wrong, or took too long over while others waited for its memory.
    pub handshakes_failed: u64,
}

impl TlsStats {
    fn count(&mut self, resumed: bool) {
        match resumed {
            true => self.handshakes_resumed += 1,
            false => self.handshakes_full += 1,
        }
    }
}

/// Sizes of one worker's driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverSettings {
    /// Connections this worker can hold.
    pub slots: u32,
    /// Receive buffers, a power of two up to 32,768.
    pub recv_buffers: u16,
    /// Bytes of each.
    pub recv_buffer_bytes: u32,
    /// Whether connections are reported with their peer's address.
    pub peers: PeerAddresses,
}

/// A worker's way to the network. One per worker, used by that thread alone.
pub trait Driver {
    /// Submits the batch (the outcome of all its sends is known when this returns), sleeps as told,
    /// and appends every completion that is ready to `completions` (reaping until the queue is
    /// empty). `batch.rings` and `batch.ops` are empty afterwards; `batch.arena` is unchanged.
    ///
    /// # Errors
    /// Only errors that leave the driver unusable; the worker stops and reports them.
    fn turn(
        &mut self,
        batch: &mut Batch,
        wait: Wait,
        completions: &mut Vec<Completion>,
    ) -> std::io::Result<()>;

    /// The bytes a [`Completion::Received`] brought.
    fn received(&self, buffer: BufferId) -> &[u8];

    /// Gives a buffer back to the pool. Exactly once per `Received`.
    fn recycle(&mut self, buffer: BufferId);

    /// How many connections it can hold: tokens have `slot < capacity()`.
    fn capacity(&self) -> u32;

    /// Monotonic time since some fixed moment (virtual in `sim`).
    fn now(&self) -> Duration;

    /// The counters so far.
    fn stats(&self) -> DriverStats;
}

/// Wakes sleeping workers from threads that have no driver: the log's clerk and main own one each.
pub trait Bell: Send {
    /// Makes the worker's `turn` return with [`Completion::Doorbell`] soon. Rings are gathered
    /// until [`Bell::flush`].
    fn ring(&mut self, worker: u16);
    /// Sends the gathered rings, with one system call if the kernel can.
    fn flush(&mut self);
}
