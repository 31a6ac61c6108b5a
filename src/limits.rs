//! Caps that more than one module needs, with their reasons; the others are beside what they bound.
//! What an operator may set is in `config`.

use std::time::Duration;

/// Slots a worker keeps free so that a connection it cannot hold is still heard, and refused with
/// an answer instead of a reset.
pub const SLOTS_RESERVED: u32 = 64;

/// Slots that must be free before a worker whose table was full accepts again. The kernel notices a
/// full table only once it has accepted a connection, and closes that without an answer, so this
/// should seldom happen.
pub(crate) const SLOTS_FREE_TO_ACCEPT: u32 = SLOTS_RESERVED / 2;

/// Most connections of a worker: the kernel's limit for a ring, and more than a core serves.
pub(crate) const SLOTS_PER_WORKER_MAX: u32 = 1 << 20;

/// Descriptors a process needs besides connections and [`DESCRIPTORS_PER_WORKER`] (the operator's
/// listener and its clients, bells, logs, configuration).
pub const DESCRIPTORS_RESERVED: u64 = 64;

/// Descriptors a worker on epoll needs besides connections: its epoll instance, its doorbell, and
/// for each port, of which one may have TLS, a listener and its copy for a successor.
pub const DESCRIPTORS_PER_WORKER: u64 = 6;

/// What a worker on epoll watches besides connections: its doorbell, and a listener for each port.
pub(crate) const WATCHES_PER_WORKER: u64 = 3;

/// Received bytes a connection may leave unparsed (while it waits for the log, or its peer
/// pipelines) before receiving is paused. More than a whole request head.
pub(crate) const CARRY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of responses a pipelining peer may leave unread before its input is no longer read.
pub(crate) const OUT_BYTES_MAX: usize = 64 * 1024;

/// Most requests one WebSocket connection may have waiting at the log.
pub const OUTSTANDING_MAX: u16 = 64;

/// How long a worker waits for more tokens where they come close behind each other: long enough to be
/// woken once for several of them, and far below what a reader notices. What else comes meanwhile
/// waits as long at most.
pub(crate) const GATHER_TIME: Duration = Duration::from_micros(500);

/// Memory for answers of the operator's backend that a worker remembers, with what they were about.
pub(crate) const BACKEND_ANSWERS_BYTES_MAX: usize = 10 << 20;

/// Requests of a worker that may wait for the backend; further ones are refused (503).
pub(crate) const BACKEND_WAITING_MAX: usize = 4096;

/// Most token streams one WebSocket may produce at a time: a backend with more of them opens more
/// connections, or sends a body for each.
pub(crate) const WS_STREAMS_MAX: usize = 100;

/// Bytes of an NDJSON body that go to the log at once: enough to amortise the lane, few enough
/// that one publisher cannot hold the log for long (some hundred lines, about 0.2 ms).
pub(crate) const PUBLISH_BATCH_BYTES_MAX: usize = 16 * 1024;

/// Events that go to the log at once; the last line's channels may exceed it. A line with a hundred
/// channels is short, but asks for a hundred events.
pub(crate) const PUBLISH_BATCH_EVENTS_MAX: usize = 512;

/// How much longer JSON may make an event's data: an encoder that writes only ASCII (Python's, by
/// default) takes six bytes for a letter of two. More than that is not worth a buffer.
pub(crate) const JSON_GROWTH_MAX: usize = 3;

/// How much longer an event in JSON may be than its data: names, keys, quotes.
pub(crate) const LINE_OVERHEAD_BYTES_MAX: usize = 1024;

/// Requests of one worker that may wait for a credit before further publishes are refused (503).
/// Joins wait too, but are not refused: each connection has at most one.
pub(crate) const WAITING_MAX: usize = 4096;

/// Requests of one worker that may wait for the log's answer. The log's lane to the worker keeps
/// this much room for answers alone, so an answer always fits. Lanes are allocated whole: with the
/// 2,048 events of `lane_events` this is 250 KB a worker, 13 bytes a connection at 18,500 each.
pub(crate) const LANE_ANSWERS_MAX: usize = 1024;

/// How many of these may be for pages of history, which may wait for a disk. The others must not have to
/// wait for them.
pub(crate) const LANE_PAGES_MAX: usize = LANE_ANSWERS_MAX / 2;

/// Requests that may wait at the log, all workers together.
pub(crate) const LANE_REQUESTS_MAX: usize = 16_384;

/// The log is told of at least this many left channels at once, which take it half a millisecond.
/// The others wait for [`PUBLISH_RETRY_PAUSE`].
pub(crate) const LEAVES_AT_ONCE_MIN: usize = 1024;

/// A larger number is told in this many pieces: of a million and a half, 10,000 at once (4 ms), and
/// all within three seconds.
pub(crate) const LEAVE_PIECES: usize = 128;

/// Events, joins and leaves that a thread handles at the log before it rings the workers it has
/// messages for: a fraction of a millisecond, so that a worker does not keep its own connections
/// waiting for the sake of others.
pub const WORK_PER_HAND: usize = 256;

/// Most events the store commits at once: more would delay the first of them.
pub(crate) const COMMIT_EVENTS_MAX: usize = 16_384;

/// Bytes of the indexes that the journal's reader keeps: those of a handful of segments, so that clients
/// that read at different places of a long history do not make each other wait.
pub(crate) const INDEX_BYTES_MAX: usize = 32 << 20;

/// Bytes of a segment of the journal: how much is read at once at a start, and the most that aged
/// history still takes on the disk.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 20;

/// Shortest pause between two checks for aged events: events that are published evenly age evenly,
/// and each check wakes a thread.
pub(crate) const AGE_PAUSE_MIN: Duration = Duration::from_millis(20);

/// Longest pause between two checks for aged events.
pub(crate) const AGE_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Commands from main that may wait at a worker.
pub(crate) const LANE_COMMANDS_MAX: usize = 64;

/// Time for public-key checks in one turn (the last one may exceed it): the longest an event waits
/// for them, and a third of what its delivery takes on an idle server.
pub(crate) const TOKEN_CHECK_TIME_PER_TURN: Duration = Duration::from_micros(100);

/// Failed public-key checks an address may have in a second: more than a page with a stale token
/// causes. Above that, its tokens are checked slowly.
pub(crate) const FAILED_CHECKS_PER_SECOND: u32 = 4;

/// After a suspect's check, other suspects wait this many times as long as it took, so that they
/// get a twentieth of a worker's time.
pub(crate) const SUSPECTS_PAUSE: u32 = 20;

/// Addresses for which failed checks are counted apart; 32 KB a worker.
pub(crate) const FAILURES_KEPT: usize = 4096;

/// Time for live fan-out in one turn (about 500 small sends); accepts and other channels wait no
/// longer than that.
pub(crate) const FANOUT_TIME_PER_TURN: Duration = Duration::from_millis(2);

/// Live subscribers that are sent a slice before the time is checked again.
pub(crate) const FANOUT_SENDS_AT_ONCE: usize = 16;

/// Bytes encoded for live subscribers in one turn. The last slice may exceed it.
pub const FANOUT_BYTES_PER_TURN: usize = 512 * 1024;

/// Time in one turn for what explicit connections are sent first: answers, and the first few
/// events.
pub(crate) const EXPLICIT_TIME_PER_TURN: Duration = Duration::from_millis(2);

/// Time in one turn for connections that are further behind. It is short beside the other two, so
/// that a turn full of replays hardly delays what others are sent.
pub const REPLAY_TIME_PER_TURN: Duration = Duration::from_micros(500);

/// Bytes gathered for explicit connections in one turn. With what else a turn gathers, the batch's
/// arena stays within `ARENA_BYTES_KEPT` when thousands catch up at once, so it is not reallocated
/// in every turn.
pub(crate) const EXPLICIT_BYTES_PER_TURN: usize = 512 * 1024;

/// Bytes gathered for one explicit subscriber in one send: more than a default socket buffer holds,
/// so that a reader that catches up is never starved.
pub(crate) const SEND_BYTES_MAX: usize = 128 * 1024;

/// Bytes of events that are still sent with a connection's own output, or at once to one that was
/// not behind. The rest waits behind other connections' answers.
pub(crate) const FIRST_SEND_BYTES_MAX: usize = 4 * 1024;

/// Bytes of a page of history, as history charges them: the most a reader that is not live holds,
/// and some tens of microseconds of the log's time.
pub const PAGE_BYTES_MAX: u64 = 64 * 1024;

/// Most events in an answer with history; [`PAGE_BYTES_MAX`] bounds it, too.
pub(crate) const LISTED_EVENTS_MAX: usize = 1000;

/// Events in an answer with history, if the request has no limit.
pub(crate) const LISTED_EVENTS: usize = 100;

/// Bytes of one live slice, which is sent to each live subscriber in one send. Below a default send
/// buffer, so that a burst does not make a reader explicit that keeps up.
pub(crate) const SLICE_BYTES_MAX: usize = 32 * 1024;

/// An arena larger than this at the end of a turn is freed.
pub(crate) const ARENA_BYTES_KEPT: usize = 2 * 1024 * 1024;

/// Largest event an operator may allow. An arena can always hold one such event in every form, although
/// offsets into it are `u32`.
pub const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes a connection of HTTP/2 takes from its streams before they are sent: as many as a socket buffer
/// takes. They are held for a peer that stops reading.
pub(crate) const CARRIER_OUT_BYTES_MAX: usize = 64 * 1024;

/// Bytes that a connection of HTTP/2 may leave unread (answers, control frames, output of its streams)
/// before its input is no longer read.
pub(crate) const HTTP2_OUT_BYTES_MAX: usize = CARRIER_OUT_BYTES_MAX + OUT_BYTES_MAX;

/// Bytes of answers that may wait for the windows of one connection's streams before a further stream is
/// refused: the client decides about streams and windows, but the memory is ours.
pub const STREAMS_OUT_BYTES_MAX: usize = 256 * 1024;

/// Most requests of one connection of HTTP/2 begun in one turn. A full receive buffer may hold a
/// thousand, and other connections would have to wait for all of them.
pub(crate) const HTTP2_REQUESTS_PER_TURN: u32 = 64;

/// The same for all connections of a worker: some 5 ms, for which all other work waits. A thousand
/// connections that come back with a hundred streams each would otherwise take seconds.
pub(crate) const HTTP2_REQUESTS_PER_TURN_ALL: u32 = 512;

/// Bytes gathered in one turn for connections that carry streams.
pub(crate) const CARRIERS_BYTES_PER_TURN: usize = 512 * 1024;

/// Most HTTP/2 streams of a worker: their indices and those of sockets fit 28 bits.
pub(crate) const STREAMS_PER_WORKER_MAX: u32 = 1 << 27;

/// Bytes that the client of a blocked stream must take within the dead time: a window that opens by a
/// byte now and then counts as closed.
pub(crate) const STALLED_BYTES_MIN: u32 = 16 * 1024;

/// Most bytes of a field block: with Huffman coding more than any head we accept.
pub const FIELD_BLOCK_BYTES_MAX: usize = 32 * 1024;

/// Most frames of a field block: a client that fills its frames needs three.
pub(crate) const FIELD_BLOCK_PIECES_MAX: u32 = 16;

/// Updates of windows that an HTTP/2 client may send before it was sent anything.
pub(crate) const WINDOW_UPDATES_AHEAD: u32 = 128;

/// Updates of windows that a client may send for each frame it was sent. A client that opens both
/// windows again each time needs two.
pub(crate) const WINDOW_UPDATES_PER_FRAME: u32 = 4;

/// Most updates of windows that a client may save up.
pub(crate) const WINDOW_UPDATES_AHEAD_MAX: u32 = 65_536;

/// How often an HTTP/2 client may do this in a second. (Half of a second's count is carried over to the
/// next.)
pub mod http2_per_second {
    /// Requests reset before they are answered.
    pub const RAPID_RESETS: u16 = 100;
    /// Streams reset, even if a connection may have fewer.
    pub const RESETS: u16 = 200;
    /// Streams we have to reset.
    pub const MADE_RESETS: u16 = 200;
    /// Pings: browsers send one before they use a connection again.
    pub const PINGS: u16 = 100;
    /// Settings: hardly any client sends them twice.
    pub const SETTINGS: u16 = 50;
    /// DATA frames without data.
    pub const EMPTY_DATA: u16 = 100;
    /// Frames that ask for nothing, or that come too late: Firefox sends priorities, and a client whose
    /// upload is refused goes on for a moment.
    pub const IGNORED: u16 = 1000;
}

/// Events and answers taken from the log's lane in one turn.
pub(crate) const LANE_TAKEN_PER_TURN: usize = 4096;

/// Events a replica holds for its slow subscribers, even if the channel's history has fewer.
pub(crate) const REPLICA_EVENTS_MIN: usize = 1024;

/// Events after which a replica first looks for what all its subscribers have passed.
pub(crate) const REPLICA_TRIM_EVENTS: usize = 64;

/// Work boxes a worker keeps for the next busy connection.
pub(crate) const SPARE_WORK_MAX: usize = 256;

/// A reused buffer with a larger capacity is freed.
pub(crate) const SPARE_BUFFER_BYTES_MAX: usize = 16 * 1024;

/// How long a refused or failed request may keep sending after its answer (lingering close: closing
/// at once would reset the connection and could destroy the answer on its way).
pub(crate) const LINGER_TIME_MAX: Duration = Duration::from_secs(2);

/// How long a connection that there is no room for has to send its request: a browser's stream is
/// refused differently. Its slot is one of few.
pub(crate) const REFUSAL_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a closing handshake may take before the connection is cut (RFC 6455 section 7.1.1).
pub const WS_CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a worker waits for another worker's answer.
pub(crate) const LETTER_TIME_MAX: Duration = Duration::from_secs(2);

/// How often a worker with connections looks at the clock: heartbeats and deadlines are this
/// precise.
pub const TICK: Duration = Duration::from_millis(100);

/// Pause before a streaming publisher's line is tried again after it found a full lane.
pub const PUBLISH_RETRY_PAUSE: Duration = Duration::from_millis(5);

const _: () = assert!(SLICE_BYTES_MAX <= SEND_BYTES_MAX);
const _: () = assert!(SEND_BYTES_MAX <= EXPLICIT_BYTES_PER_TURN);
const _: () = assert!(
    FANOUT_BYTES_PER_TURN + EXPLICIT_BYTES_PER_TURN + CARRIERS_BYTES_PER_TURN + 2 * SEND_BYTES_MAX
        <= ARENA_BYTES_KEPT
);
const _: () = assert!(STREAMS_PER_WORKER_MAX + SLOTS_PER_WORKER_MAX <= 1 << 28);
const _: () = assert!(OUTSTANDING_MAX as usize <= LANE_ANSWERS_MAX);
