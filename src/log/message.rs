//! What goes over the lanes: [`ToLog`] to the log, [`FromLog`] to a worker.
//!
//! A lane is FIFO, and the log sends under its lock. That is what makes a join exact: when a worker
//! handles `Joined{head_seq}` it has seen exactly the events up to `head_seq` of the channels it
//! had.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::channel_name::ChannelName;
use super::event::{Event, Publication};
use super::older::OlderPage;
use super::store::Stored;
use crate::proto::cursor::Cursor;
use crate::proto::envelope::Listed;
use crate::proto::identity::{Identity, NodeId};
use crate::proto::stream::End;

/// What the log takes from its lane.
#[derive(Debug)]
pub enum ToLog {
    /// A worker's request.
    Worker {
        /// Its number: the answer goes into its lane.
        worker: u16,
        /// What it asks.
        body: Ask,
    },
    /// A report of the store's thread.
    Store(Stored),
    /// A page that the store has read.
    Older(OlderPage),
    /// Events that are already in order: read back from the store, or ordered by another node.
    Feed(Vec<Fed>),
}

/// An event that comes with its place in the log.
#[derive(Debug)]
pub struct Fed {
    /// Its place, after all earlier ones; a seq in between is of a channel not known here.
    pub seq: u64,
    /// What was published.
    pub publication: Publication,
    /// When it was ordered, on the log's clock.
    pub ordered_at: Duration,
}

impl ToLog {
    /// What it costs the log: the events and channels it concerns, at least 1.
    pub fn weight(&self) -> usize {
        let count = match self {
            Self::Worker { body, .. } => body.weight(),
            Self::Store(Stored::Committed { count, .. }) => *count as usize,
            Self::Store(Stored::Answered(answers)) => answers.len(),
            Self::Store(Stored::Down | Stored::Up) => 1,
            Self::Older(page) => page.asked.channels.len() + page.events.len(),
            Self::Feed(events) => events.len(),
        };
        count.max(1)
    }
}

impl Ask {
    fn weight(&self) -> usize {
        match self {
            Self::Join { channels, .. } => channels.len(),
            Self::Leave(channels) => channels.len(),
            Self::Publish { publications, .. } => publications.len(),
            // A page hands out what exists, which is cheaper than ordering as many events.
            Self::Read { channels, bytes_max, .. } => channels.len() + page_weight(*bytes_max),
            Self::List { bytes_max, .. } => page_weight(*bytes_max),
            Self::Forward { .. } | Self::StreamLost { .. } | Self::Describe { .. } => 1,
            // A list takes about as long as ordering a batch.
            Self::ListMembers { .. } => LIST_WEIGHT,
        }
    }
}

fn page_weight(bytes_max: u64) -> usize {
    usize::try_from(bytes_max / 1024).unwrap_or(usize::MAX / 2)
}

/// What a list of members costs the log, in events.
const LIST_WEIGHT: usize = 64;

/// Tells a worker's requests apart; it means nothing to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u32);

/// What one worker tells another by way of the log, which does not look into it.
pub type Letter = Box<dyn Any + Send>;

/// What a worker asks of the log. Every request except `Leave`, `Forward` and `StreamLost` gets
/// exactly one answer.
#[derive(Debug)]
pub enum Ask {
    /// Subscribes a connection to these channels, all at one moment of the log.
    Join {
        /// Returned with the answer.
        ticket: Ticket,
        /// The channels' names.
        channels: Vec<Box<str>>,
        /// Where to read from, the same for all of them.
        cursor: Cursor,
        /// Who it is, to those on a channel with presence.
        identity: Option<Arc<Identity>>,
    },
    /// The next page of channels a connection has joined.
    Read {
        /// Returned with the answer.
        ticket: Ticket,
        /// The channels, with where to read each from.
        channels: Vec<ReadChannel>,
        /// The size at which the page is full, as history charges events; it holds at least one
        /// event.
        bytes_max: u64,
    },
    /// Connections left these channels. There is no answer.
    Leave(Vec<LeaveChannel>),
    /// Order these, one after the other, up to the first that is refused.
    Publish {
        /// Returned with the answer.
        ticket: Ticket,
        /// How far they may fill the lanes of the workers that have subscribers.
        share: Share,
        /// Which subscribers the answer tells of.
        counts: Counts,
        /// In the order to publish them.
        publications: Vec<Publication>,
    },
    /// Pass this on to another worker, or drop it if that worker's lane is full. The log gives no
    /// answer; the other worker may send one the same way.
    Forward {
        /// The worker to pass it to.
        to: u16,
        /// What to pass on.
        letter: Letter,
    },
    /// A page of a channel, for a reader that does not join it. The answer is a `Page`.
    List {
        /// Returned with the answer.
        ticket: Ticket,
        /// The channel's name.
        channel: Box<str>,
        /// Where to read from.
        cursor: Cursor,
        /// As in `Read`.
        bytes_max: u64,
    },
    /// The producer of a channel's stream is gone (no answer).
    StreamLost {
        /// The channel, of which one stream may be open.
        channel: Box<str>,
        /// The stream's name; another one may have begun meanwhile.
        id: Arc<str>,
        /// [`StreamAt::attempt`] of that producer; 0: it was not told.
        attempt: u64,
    },
    /// `GET /channels/{channel}`.
    Describe {
        /// Returned with the answer.
        ticket: Ticket,
        /// The channel's name.
        channel: Box<str>,
    },
    /// Who is on a channel.
    ListMembers {
        /// Returned with the answer.
        ticket: Ticket,
        /// The channel's name.
        channel: Box<str>,
    },
}

/// Which subscribers a publisher is told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counts {
    /// Those of this node.
    #[default]
    Here,
    /// Those of all nodes, too: they are asked.
    Everywhere,
}

/// How far a publisher's events may fill a worker's lane. Publishers with many requests under way
/// get less of it, so that they cannot get the others refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// All of it, for the publisher's only request.
    Whole,
    /// For a publisher that has other requests under way.
    ThreeQuarters,
    /// For many events at once.
    Half,
}

impl Share {
    /// This share of a number of places.
    pub fn of(self, places: usize) -> usize {
        match self {
            Self::Whole => places,
            Self::ThreeQuarters => places - places / 4,
            Self::Half => places.div_ceil(2),
        }
    }
}

/// Of which channel a page is wanted, and from where.
#[derive(Debug)]
pub struct ReadChannel {
    /// Shared with the worker's replica.
    pub name: Arc<ChannelName>,
    /// The name's hash under the shared hasher.
    pub hash: u64,
    /// The subscriber's cursor: it has everything up to here.
    pub after: u64,
    /// [`PageChannel::place`] of the last page, or [`NO_PLACE`] for the first.
    pub place: u32,
}

/// The place of a channel that has not been read yet.
pub const NO_PLACE: u32 = u32::MAX;

/// A piece of history: of each channel every kept event with `after < seq <= through`.
#[derive(Debug)]
pub struct Page {
    /// In log order, each with its channel's index in the request.
    pub events: Vec<(u16, Arc<Event>)>,
    /// The seq up to which the page is complete.
    pub through: u64,
    /// Whether the page ends at the head of the log.
    pub is_last: bool,
    /// Whether one of the channels is a state. What it has behind this page may be ordered again
    /// without being sent to its readers: only pages bring them to the head of the log.
    pub has_states: bool,
    /// In the order of the request.
    pub channels: Vec<PageChannel>,
}

/// How far a page came in one of its channels.
#[derive(Clone, Copy, Debug)]
pub struct PageChannel {
    /// Where the page begins: after the cursor if events after the cursor were lost.
    pub after: u64,
    /// The oldest event kept after that.
    pub first: Option<u64>,
    /// Where reading stopped in history, to be sent with the next request.
    pub place: u32,
    /// Whether what was lost is no fault of a slow reader: the store has it, and can't read it.
    pub unreadable: bool,
}

/// Subscribers of a worker that have left the same channel.
#[derive(Debug)]
pub struct LeaveChannel {
    /// Shared with the worker's replica.
    pub name: Arc<ChannelName>,
    /// How many of this worker's subscribers left.
    pub subscribers: u32,
    /// Who it was, if it was a member of the channel.
    pub member: Option<Arc<Identity>>,
}

impl LeaveChannel {
    /// Whether one more that is no member may be counted with these.
    pub(crate) fn is_more_of(&self, name: &Arc<ChannelName>) -> bool {
        self.member.is_none() && Arc::ptr_eq(&self.name, name)
    }
}

/// From the log to a worker.
#[derive(Debug)]
pub enum FromLog {
    /// A letter of another worker.
    Letter(Letter),
    /// An event of a channel this worker has subscribers on.
    Event(Arc<Event>),
    /// Someone other than its producer here has ended a channel's stream.
    StreamEnded {
        /// The channel; the worker knows which of its connections is the producer.
        channel: Arc<ChannelName>,
        /// How far it came.
        at: StreamAt,
    },
    /// An answer to a request.
    Answer {
        /// As in the request.
        ticket: Ticket,
        /// What is answered.
        answer: Answer,
    },
}

/// What the log answers.
#[derive(Debug)]
pub enum Answer {
    /// To `Join`.
    Joined {
        /// Newest event of the log at that moment.
        head_seq: u64,
        /// In the order of the request.
        channels: Vec<JoinedChannel>,
    },
    /// To `Join`: nothing was joined.
    JoinRefused(Refusal),
    /// To `Read` and `List`.
    Page(Page),
    /// To `Publish`.
    Published {
        /// How far it succeeded.
        outcome: Published,
        /// The publications that were not accepted, from the refused one on; they may be tried
        /// again. Those the store lost are not among them. An empty list is that of the request,
        /// back for its memory, if there was nothing to wait for.
        unaccepted: Vec<Publication>,
    },
    /// To `Describe`: the channel as it is. An unknown channel is described as an empty one.
    Described(Description),
    /// To `ListMembers`.
    Members(Result<MemberList, NoMembers>),
}

/// Why there is no list of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMembers {
    /// The channel has no presence.
    Off,
    /// This node has just started, and does not know the members of the others yet.
    Behind,
}

/// Who is on a channel.
#[derive(Debug)]
pub struct MemberList {
    /// The newest event of the log: later changes of the members come after it.
    pub head_seq: u64,
    /// How many there are.
    pub count: u32,
    /// The members, or some of very many.
    pub listed: Vec<Listed>,
    /// The nodes, each with its bit; empty without other nodes.
    pub nodes: Vec<(u16, NodeId)>,
}

/// A channel as the log holds it at the moment of a join.
#[derive(Debug)]
pub struct JoinedChannel {
    /// Its name, shared: the worker counts further subscribers in it.
    pub name: Arc<ChannelName>,
    /// Where the subscriber starts: it has everything up to here, or has lost it (see `gap`).
    pub after: u64,
    /// The newest event of the channel, 0 if none is known; what lies between has to be read.
    pub last_seq: u64,
    /// Set when events between the client's cursor and `after` may be lost.
    pub gap: Option<GapReason>,
    /// Whether the subscriber is a member of the channel from now on.
    pub is_member: bool,
}

/// Why a cursor could not be honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// History no longer holds the events after the cursor.
    Evicted,
    /// The cursor is of another epoch, ahead of the head, or not an id of ours at all.
    Epoch,
    /// History forgot what the subscriber had not read yet. Where the channel disconnects slow readers,
    /// only one whose replica would still serve it is told; the others are cut.
    Overrun,
}

/// The answer to a `Publish`: its first `accepted` publications are ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// How many are ordered, from the front.
    pub accepted: u32,
    /// `seq` of the first one (0 when none).
    pub first_seq: u64,
    /// `seq` of the last one (0 when none).
    pub last_seq: u64,
    /// Subscribers joined to the last one's channel at that moment.
    pub subscribers: u32,
    /// Subscribers at other nodes, if they were to be counted and could be.
    pub elsewhere: Option<u32>,
    /// Why the next one was refused, if one was.
    pub refusal: Option<Refusal>,
    /// How far the stream of the last one's channel is, if that was a part of it.
    pub stream: Option<StreamAt>,
}

/// The state of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAt {
    /// Its name.
    pub id: Arc<str>,
    /// Which of its producers is the present one.
    pub attempt: u64,
    /// Its tokens, all producers together.
    pub tokens: u64,
    /// Bytes of them.
    pub text_bytes: u64,
    /// The event of the first one (0 when none).
    pub first_token: u64,
    /// The event of the last one (0 when none).
    pub last_token: u64,
    /// Why it is over, if it is.
    pub ended: Option<End>,
}

/// Why the log refused. Nothing of the refused publication or join took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A worker's lane has no room: try again in a moment (503).
    Busy,
    /// The history's byte budget has no room for it even with all else evicted (503).
    Memory,
    /// `channels_max` is reached (503).
    Channels,
    /// The channel's publish rate is exceeded (429).
    Rate,
    /// The store takes no events at the moment (503). An event that was under way may still be
    /// kept.
    Store,
    /// The channel has no stream, or none that is open (404; to a reader: 204).
    NoStream,
    /// Another stream of the channel is open (409).
    StreamOpen,
    /// The stream has ended (409).
    StreamEnded,
    /// Another producer goes on with the stream (409).
    StreamTaken,
    /// The beginning of the stream is gone (410).
    StreamCut,
    /// The cursor is of an event that has not come to this node yet (503).
    Behind,
}

/// Answer to `GET /channels/{channel}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Newest event of the channel that was ever ordered, if any is known.
    pub last_seq: Option<u64>,
    /// Oldest event kept, if any.
    pub first_seq: Option<u64>,
    /// How many events are kept.
    pub events: u32,
    /// Subscribers joined, all workers together.
    pub subscribers: u32,
    /// The stream that is open or kept.
    pub stream: Option<StreamAt>,
    /// What of that is kept beside history.
    pub kept: KeptOfStream,
}

/// What is kept of a stream beside history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptOfStream {
    /// How many events.
    pub events: u32,
    /// Their bytes, as history charges them.
    pub bytes: u64,
    /// Events that were lost for want of room, or with the disk's.
    pub cut: u64,
}
