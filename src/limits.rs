//! Every cap that is not an operator's setting, with its reason. Settings are in `config`.

use std::time::Duration;

/// Slots a worker keeps free so that a connection it can't hold is still heard and refused in
/// words instead of with a reset.
pub const SLOTS_RESERVED: u32 = 64;

/// Slots that must be free before a worker whose table was full accepts again. The kernel notices a
/// full table only when it has a connection in its hands, and closes that without a word: so it
/// should seldom have to.
pub const SLOTS_FREE_TO_ACCEPT: u32 = SLOTS_RESERVED / 2;

/// Connections a worker can have at most: what the kernel gives a ring, and more than a core serves.
pub const SLOTS_PER_WORKER_MAX: u32 = 1 << 20;

/// Descriptors a process needs besides connections and [`DESCRIPTORS_PER_WORKER`] (the operator's
/// listener and its clients, bells, logs, configuration).
pub const DESCRIPTORS_RESERVED: u64 = 64;

/// Descriptors a worker on epoll needs besides connections: its epoll instance, doorbell and
/// listener, and one to spare.
pub const DESCRIPTORS_PER_WORKER: u64 = 4;

/// Received bytes a connection may leave unparsed (it waits for the log, or its peer pipelines)
/// before its receiving is paused. Holds a whole request head and then some.
pub const CARRY_BYTES_MAX: usize = 64 * 1024;

/// Responses a pipelining peer may leave unread before its input is left alone.
pub const OUT_BYTES_MAX: usize = 64 * 1024;

/// Requests one WebSocket connection may have waiting at the log.
pub const OUTSTANDING_MAX: u16 = 64;

/// Bytes of an NDJSON body that go to the log at once: enough to amortise the lane, few enough
/// that one publisher cannot hold the log for long (some hundred lines, about 0.2 ms).
pub const PUBLISH_BATCH_BYTES_MAX: usize = 16 * 1024;

/// What JSON may make of a byte of an event's data: an encoder that writes ASCII only (Python's, by
/// default) takes six bytes for a letter of two. More than that is not worth a buffer.
pub const JSON_GROWTH_MAX: usize = 3;

/// What an event in JSON may be longer than its data: names, keys, quotes.
pub const LINE_OVERHEAD_BYTES_MAX: usize = 1024;

/// Requests of one worker that may wait for a credit before further publishes are refused (503).
/// Joins wait too, but are not refused: each connection has one.
pub const WAITING_MAX: usize = 4096;

/// Requests of one worker that may wait for the log's answer. The log's lane to the worker keeps
/// this much room for answers alone, so an answer always fits. Lanes are allocated whole: with the
/// 2,048 events of `lane_events` this is 250 KB a worker, 13 bytes a connection at 18,500 each.
pub const LANE_ANSWERS_MAX: usize = 1024;

/// Requests that may wait at the log, all workers together.
pub const LANE_REQUESTS_MAX: usize = 16_384;

/// Channels left that the log hears of at once, at least: half a millisecond of its time. Those that
/// are left over wait for [`PUBLISH_RETRY_PAUSE`].
pub const LEAVES_AT_ONCE_MIN: usize = 1024;

/// Pieces in which the log hears of more: a million and a half at 10,000 at once (4 ms), and all of
/// them within three seconds.
pub const LEAVE_PIECES: usize = 128;

/// Events, joins and leaves that a thread handles at the log before it rings those it has something
/// for: a fraction of a millisecond, so that a worker does not keep its own connections waiting for
/// the sake of others.
pub const WORK_PER_HAND: usize = 256;

/// Events the store commits at once, at most: more would make those before them wait.
pub const COMMIT_EVENTS_MAX: usize = 16_384;

/// Bytes of a segment of the journal: what is read at once at a start, and what of history that has
/// aged stays on the disk at most.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// Shortest pause between two looks at what has aged: events that are published evenly age evenly,
/// and each look wakes a thread.
pub const AGE_PAUSE_MIN: Duration = Duration::from_millis(20);

/// Longest pause between two looks at what has aged.
pub const AGE_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Commands from main that may wait at a worker.
pub const LANE_COMMANDS_MAX: usize = 64;

/// Time for checks by public keys in one turn (the last one may go beyond it): what an event waits
/// for them at most, and a third of what its delivery takes on an idle server.
pub const TOKEN_CHECK_TIME_PER_TURN: Duration = Duration::from_micros(100);

/// Failed checks by public keys an address may have a second: more than a page with a stale token
/// causes. One that has more is checked slowly for as long as it does.
pub const FAILED_CHECKS_PER_SECOND: u32 = 4;

/// How many times as long as its check the others of its line wait behind a suspect's: so they get
/// a twentieth of a worker's time.
pub const SUSPECTS_PAUSE: u32 = 20;

/// Addresses whose failed checks are told apart, in 32 KB a worker.
pub const FAILURES_KEPT: usize = 4096;

/// Time for live fan-out in one turn (about 500 small sends), so that accepts and other channels
/// wait no longer than that.
pub const FANOUT_TIME_PER_TURN: Duration = Duration::from_millis(2);

/// Live subscribers a slice is handed to before the time is looked at again.
pub const FANOUT_SENDS_AT_ONCE: usize = 16;

/// Bytes encoded for live subscribers in one turn. The last slice may go beyond it.
pub const FANOUT_BYTES_PER_TURN: usize = 512 * 1024;

/// Time in one turn for what explicit connections are sent first: answers, and few events.
pub const EXPLICIT_TIME_PER_TURN: Duration = Duration::from_millis(2);

/// Time in one turn for connections that are further behind. Beside the other two it is little, so
/// that a turn full of replays hardly delays what others are sent.
pub const REPLAY_TIME_PER_TURN: Duration = Duration::from_micros(500);

/// Bytes gathered for explicit connections in one turn. With what else a turn gathers the batch's
/// arena stays within `ARENA_BYTES_KEPT` when thousands catch up at once: it does not grow and is
/// not given back in every turn.
pub const EXPLICIT_BYTES_PER_TURN: usize = 512 * 1024;

/// Bytes gathered for one explicit subscriber in one send: more than a default socket buffer
/// takes, so that a catching-up reader is never starved.
pub const SEND_BYTES_MAX: usize = 128 * 1024;

/// Bytes of events that still go out with a connection's own output, or at once to one that was
/// not behind. The rest waits behind other connections' answers.
pub const FIRST_SEND_BYTES_MAX: usize = 4 * 1024;

/// Bytes of a page of history, as history charges them: what a reader that is not live holds at
/// most, and some tens of microseconds of the log's.
pub const PAGE_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of one live slice: what is joined into one send to each live subscriber. Below a default
/// send buffer, so that a reader that keeps up is not made explicit by a burst.
pub const SLICE_BYTES_MAX: usize = 32 * 1024;

/// The arena is given back when a turn left it larger than this.
pub const ARENA_BYTES_KEPT: usize = 2 * 1024 * 1024;

/// Largest event an operator may allow. An arena holds one of them in every form, whatever the
/// budgets of a turn are: offsets into it are `u32`.
pub const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Events and answers taken from the log's lane in one turn.
pub const LANE_TAKEN_PER_TURN: usize = 4096;

/// Events a replica holds for its slow subscribers, whatever the channel's history is.
pub const REPLICA_EVENTS_MIN: usize = 1024;

/// Events after which a replica first looks for what all its subscribers have passed.
pub const REPLICA_TRIM_EVENTS: usize = 64;

/// Work boxes a worker keeps for the next busy connection.
pub const SPARE_WORK_MAX: usize = 256;

/// Capacity above which a reused buffer is given back to the allocator.
pub const SPARE_BUFFER_BYTES_MAX: usize = 16 * 1024;

/// How long a refused or failed request may go on sending after its answer (lingering close:
/// closing at once would reset the connection and could destroy the answer on its way).
pub const LINGER_TIME_MAX: Duration = Duration::from_secs(2);

/// How long a connection there is no room for has to say what it wants: a browser's stream is
/// refused in another way than a request. Its slot is one of few.
pub const REFUSAL_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a closing handshake may take before the connection is cut (RFC 6455 section 7.1.1).
pub const WS_CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a worker waits for another one's answer.
pub const LETTER_TIME_MAX: Duration = Duration::from_secs(2);

/// How often a worker with connections looks at the clock: heartbeats and deadlines are this
/// exact.
pub const TICK: Duration = Duration::from_millis(100);

/// Pause before a streaming publisher's line that found a full lane is tried again.
pub const PUBLISH_RETRY_PAUSE: Duration = Duration::from_millis(5);

const _: () = assert!(SLICE_BYTES_MAX <= SEND_BYTES_MAX);
const _: () = assert!(SEND_BYTES_MAX <= EXPLICIT_BYTES_PER_TURN);
const _: () = assert!(
    FANOUT_BYTES_PER_TURN + EXPLICIT_BYTES_PER_TURN + 2 * SEND_BYTES_MAX <= ARENA_BYTES_KEPT
);
const _: () = assert!(OUTSTANDING_MAX as usize <= LANE_ANSWERS_MAX);
