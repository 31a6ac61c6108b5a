//! What goes over the lanes: [`ToLog`] to the log, [`FromLog`] to a worker.
//!
//! A lane is FIFO, and the log sends under the log's lock. That is what makes a join exact: when
//! a worker handles `Joined{head_seq}` it has seen exactly the events up to `head_seq` of the
//! channels it had.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::channel_name::ChannelName;
use super::event::{Event, Publication};
use super::store::Stored;
use crate::proto::cursor::Cursor;

/// What comes over the log's lane.
#[derive(Debug)]
pub enum ToLog {
    /// A worker asks.
    Worker {
        /// Which one.
        worker: u16,
        /// What.
        body: Ask,
    },
    /// The store's thread reports.
    Store(Stored),
    /// Events that have their place in the order already: they were read back, or another node
    /// gave it to them.
    Feed(Vec<Fed>),
}

/// An event that comes with its place.
#[derive(Debug)]
pub struct Fed {
    /// Its place, behind all earlier ones; what is between is of no channel here.
    pub seq: u64,
    /// What was published.
    pub publication: Publication,
    /// When it was ordered, on the log's clock.
    pub ordered_at: Duration,
}

impl ToLog {
    /// Events and channels it is about, 1 at least: what it costs the log.
    pub fn weight(&self) -> usize {
        let count = match self {
            Self::Worker { body, .. } => body.weight(),
            Self::Store(Stored::Committed { count, .. }) => *count as usize,
            Self::Store(Stored::Down | Stored::Up) => 1,
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
            // A page hands out what is there: that is less than ordering as many events.
            Self::Read { channels, bytes_max, .. } => {
                channels.len() + usize::try_from(bytes_max / 1024).unwrap_or(usize::MAX / 2)
            }
            Self::Forward { .. } | Self::Describe { .. } => 1,
        }
    }
}

/// Tells a worker's requests apart; to the log it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u32);

/// What a worker tells another by way of the log, which does not open it.
pub type Letter = Box<dyn Any + Send>;

/// What a worker asks of the log. Every one but `Leave` and `Forward` gets exactly one
/// answer.
#[derive(Debug)]
pub enum Ask {
    /// One connection subscribes to these channels, all at one moment of the log.
    Join {
        /// Echoed.
        ticket: Ticket,
        /// Which channels.
        channels: Vec<Box<str>>,
        /// From where, the same for all of them.
        cursor: Cursor,
    },
    /// A connection's next page of the channels it has joined.
    Read {
        /// Echoed.
        ticket: Ticket,
        /// From where, each.
        channels: Vec<ReadChannel>,
        /// When the page is full, as history charges events; it holds at least one.
        bytes_max: u64,
    },
    /// Connections left these channels (no answer).
    Leave(Vec<LeaveChannel>),
    /// Order these, one after the other, until one can't be.
    Publish {
        /// Echoed.
        ticket: Ticket,
        /// How far they may fill the lanes of workers with subscribers.
        share: Share,
        /// In order.
        publications: Vec<Publication>,
    },
    /// Take this to another worker (no answer by the log; the other worker may send one back the
    /// same way). Lost if the other worker's lane is full.
    Forward {
        /// To whom.
        to: u16,
        /// What.
        letter: Letter,
    },
    /// `GET /channels/{channel}`.
    Describe {
        /// Echoed.
        ticket: Ticket,
        /// Which channel.
        channel: Box<str>,
    },
}

/// How far a publisher's events may fill a worker's lane. The rest is for publishers that ask for
/// less at a time, so that none of those who ask for much can get them refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// All of it: the publisher's only request.
    Whole,
    /// The publisher has further requests on their way.
    ThreeQuarters,
    /// Many events at once.
    Half,
}

impl Share {
    /// Of so many places.
    pub fn of(self, places: usize) -> usize {
        match self {
            Self::Whole => places,
            Self::ThreeQuarters => places - places / 4,
            Self::Half => places.div_ceil(2),
        }
    }
}

/// One channel of a read.
#[derive(Debug)]
pub struct ReadChannel {
    /// Its name.
    pub name: Arc<ChannelName>,
    /// The name's hash under the shared hasher.
    pub hash: u64,
    /// Everything up to here is behind the subscriber.
    pub after: u64,
    /// [`PageChannel::place`] of the page before, [`NO_PLACE`] for the first.
    pub place: u32,
}

/// Where reading begins that has not been anywhere.
pub const NO_PLACE: u32 = u32::MAX;

/// A piece of history: of each channel every kept event with `after < seq <= through`.
#[derive(Debug)]
pub struct Page {
    /// In log order, with the place of their channel in the request.
    pub events: Vec<(u16, Arc<Event>)>,
    /// Up to where.
    pub through: u64,
    /// Whether there was no more: `through` is the head of the log.
    pub is_last: bool,
    /// In the order of the request.
    pub channels: Vec<PageChannel>,
}

/// One channel of a page.
#[derive(Clone, Copy, Debug)]
pub struct PageChannel {
    /// Where the page begins: beyond the cursor if events behind it were lost.
    pub after: u64,
    /// The oldest event kept after that.
    pub first: Option<u64>,
    /// Where history was left, to be echoed.
    pub place: u32,
}

/// One channel of a leave.
#[derive(Debug)]
pub struct LeaveChannel {
    /// Its name.
    pub name: Arc<ChannelName>,
    /// How many of this worker's subscribers left.
    pub subscribers: u32,
}

/// From the log to a worker.
#[derive(Debug)]
pub enum FromLog {
    /// Another worker's letter.
    Letter(Letter),
    /// A channel this worker has subscribers on got an event.
    Event(Arc<Event>),
    /// Answer to `Join`.
    Joined {
        /// As in the request.
        ticket: Ticket,
        /// Newest event of the log at that moment.
        head_seq: u64,
        /// In the order of the request.
        channels: Vec<JoinedChannel>,
    },
    /// Answer to `Read`.
    Page {
        /// As in the request.
        ticket: Ticket,
        /// What was read.
        page: Page,
    },
    /// Answer to `Join`: nothing was joined.
    JoinRefused {
        /// As in the request.
        ticket: Ticket,
        /// Why.
        refusal: Refusal,
    },
    /// Answer to `Publish`.
    Published {
        /// As in the request.
        ticket: Ticket,
        /// What became of it.
        outcome: Published,
        /// The publications that were not accepted, from the refused one on: they may be tried
        /// again. Those the store lost are not among them.
        unaccepted: Vec<Publication>,
    },
    /// Answer to `Describe`.
    Described {
        /// As in the request.
        ticket: Ticket,
        /// The channel as it is; an unknown channel is described as an empty one.
        description: Description,
    },
}

/// A channel as the log holds it at the moment of a join.
#[derive(Debug)]
pub struct JoinedChannel {
    /// Its name, shared; further subscribers of the worker are counted here.
    pub name: Arc<ChannelName>,
    /// The name's hash under the shared hasher.
    pub hash: u64,
    /// Where the subscriber stands now: everything up to here is behind it (or lost, see `gap`).
    pub after: u64,
    /// The newest event of the channel, 0 when none is known: what is between is to be read.
    pub last_seq: u64,
    /// Set when events between the client's cursor and `after` may be lost.
    pub gap: Option<GapReason>,
}

/// Why a cursor could not be honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// History no longer holds the events behind the cursor.
    Evicted,
    /// The cursor is not of this epoch, ahead of the head, or no id of ours at all.
    Epoch,
    /// The subscriber was slower than the channel and its policy is `skip`.
    Overrun,
}

/// What became of a `Publish`: the first `accepted` publications are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// How many, from the front.
    pub accepted: u32,
    /// `seq` of the first one (0 when none).
    pub first_seq: u64,
    /// `seq` of the last one (0 when none).
    pub last_seq: u64,
    /// Subscribers joined to the last one's channel at that moment.
    pub subscribers: u32,
    /// Why the one after them was refused, if any was.
    pub refusal: Option<Refusal>,
}

/// Why the log refused. Nothing of the refused publication or join took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A worker's lane has no room: try again in a moment (503).
    Busy,
    /// The history's byte budget can't take it even after evicting all else (503).
    Memory,
    /// `channels_max` is reached (503).
    Channels,
    /// The channel's publish rate is exceeded (429).
    Rate,
    /// The store takes no events at the moment (503). One that was on its way may be kept all the
    /// same.
    Store,
}

/// Answer to `GET /channels/{channel}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Newest event of the channel that was ever ordered, if any is known.
    pub last_seq: Option<u64>,
    /// Oldest event kept.
    pub first_seq: Option<u64>,
    /// How many are kept.
    pub events: u32,
    /// Subscribers joined, all workers together.
    pub subscribers: u32,
}
