//! The home of the log's order: what gives an event its place, decides when it may be seen and its
//! publisher answered, and outlives the process.
//!
//! | store | order given by | an event is seen and its publish answered | told to the sequencer by |
//! |---|---|---|---|
//! | [`memory`] | the sequencer | at once | [`Taken::Seen`] |
//! | [`journal`](crate::journal) | the sequencer | after the group commit it is part of | [`Taken::Later`], then [`Stored::Committed`] |
//! | a broker's stream | the broker | when it comes back on the stream / when the broker says so | [`ToLog::Feed`] / [`Stored::Answered`] |
//!
//! [`ToLog::Feed`]: super::message::ToLog::Feed
//!
//! Older history than memory holds (`history_memory_bytes`) is read where the store keeps it: the log
//! lists which stretches of the order hold a channel's events, [`Store::read_older`] takes a page of
//! them to a thread that may wait, and that thread comes back with an [`OlderPage`]. A page ends
//! with the stretches that were asked for, or earlier when it is full; the log drops what was lost
//! meanwhile. A new store implements this one method, and its reader never touches the log's lock.
//!
//! [`OlderPage`]: super::older::OlderPage
//!
//! The sequencer calls a store under the log's lock, so nothing here may wait: a store with a disk
//! or a broker behind it has a thread for that, and this is the near end of its lane. The thread's
//! reports come back over the log's own lane.

pub mod memory;

use std::fmt::Debug;
use std::sync::Arc;

use super::event::{Event, Publication};
use super::message::Counts;
use super::older::OlderRead;

/// The home of the log's order, as the sequencer sees it.
pub trait Store: Debug + Send {
    /// Takes an event that has just got its place. Only called while the store is up.
    fn append(&mut self, event: &Arc<Event>) -> Taken;

    /// Everything that belongs together was appended: the store may begin to commit it.
    fn flush(&mut self) {}

    /// Gives up all that was appended and not committed: none of it may be written any more.
    fn give_up(&mut self);

    /// Reads a page of what memory no longer holds; comes back as [`ToLog::Older`] over the log's
    /// lane, even if nothing could be read ([`OlderChannel::lost_to`]). Pages are asked for one at a
    /// time by each subscriber and answered in the order in which they were asked for, so that none
    /// waits for another's second.
    ///
    /// [`ToLog::Older`]: super::message::ToLog::Older
    /// [`OlderChannel::lost_to`]: super::older::OlderChannel::lost_to
    fn read_older(&mut self, read: OlderRead);

    /// Ends the store in an orderly way: nothing more is appended, and what was is still committed.
    fn close(&mut self) {}

    /// Whether the order is given elsewhere: publications are sent there, and come back as events
    /// that have their place.
    fn is_elsewhere(&self) -> bool {
        false
    }

    /// Sends a publication to where it gets its place. Exactly one answer comes back with this number
    /// ([`Stored::Answered`]), within a bounded time. Only called while the store is up.
    fn send(&mut self, _number: u64, _publication: Publication, _counts: Counts) {}

    /// If the order is given elsewhere: the newest event there, as far as is known. `None` if it is not
    /// known.
    fn newest(&self) -> Option<u64> {
        None
    }

    /// History holds nothing before this seq. Returns what the store has no room for.
    fn keeps_from(&mut self, _seq: u64) -> Shortage {
        Shortage::default()
    }
}

/// What a store has no room for. It makes room at its oldest end alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shortage {
    /// Events before this are lost.
    pub lost_before: u64,
    /// Events before this are the next: what is to outlive them has to be ordered again.
    pub scarce_before: u64,
}

/// When an event that was appended may be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// At once: it can't be lost any more.
    Seen,
    /// Once [`Stored::Committed`] says so.
    Later,
}

/// What a store's thread reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Everything appended up to this seq is as safe as this store makes it.
    Committed {
        /// The newest event committed.
        through: u64,
        /// Events since the last report: the cost to the log of showing them.
        count: u32,
    },
    /// What became of publications that were sent.
    Answered(Vec<Answered>),
    /// What was appended and not committed is lost, and further events are refused.
    Down,
    /// Events are accepted again.
    Up,
}

/// What became of a publication that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// As it was sent.
    pub number: u64,
    /// The place it got; `None` if it was refused, or if it is not known whether it was taken.
    pub seq: Option<u64>,
    /// Subscribers of its channel at other nodes, if they were to be counted.
    pub elsewhere: Option<u32>,
}

impl Answered {
    /// Without a count.
    pub fn new(number: u64, seq: Option<u64>) -> Self {
        Self { number, seq, elsewhere: None }
    }
}
