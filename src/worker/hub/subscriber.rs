//! A subscriber: a dialect, and a cursor for each of its channels. It knows no socket; its bytes go
//! to its index.

use std::ops::Range;
use std::sync::Arc;

use super::channels::Channels;
use super::reading::Reading;
use crate::log::event::Event;
use crate::log::message::GapReason;
use crate::proto::dialect::Dialect;
use crate::worker::pool::Reuse;

/// A connection as a reader of channels.
#[derive(Debug, Default)]
pub enum Subscriber {
    /// It reads no channel.
    #[default]
    None,
    /// In a replica's live list. It has no cursor of its own: it has all that was fanned out.
    Live {
        dialect: Dialect,
        replica: u32,
        /// Its place in that list.
        place: u32,
    },
    /// It has cursors of its own.
    Explicit(Dialect, Box<Explicit>),
}

const _: () = assert!(size_of::<Subscriber>() <= 16, "an idle connection costs one cache line");

/// A subscriber with cursors of its own.
#[derive(Debug, Default)]
pub struct Explicit {
    /// An event of which the socket took only the first part. The rest goes out before anything
    /// else.
    pub rest: Option<Rest>,
    /// Its channels.
    pub subs: Vec<Sub>,
    /// Where its next events come from.
    pub reading: Reading,
    /// Where reading stopped in history, by channel.
    pub places: Vec<u32>,
    /// If several channels are read as one stream: everything up to here was sent, or told to be
    /// lost.
    pub position: u64,
    /// The items of its send in this batch, among the hub's.
    pub(super) items: Range<u32>,
}

/// The unsent remainder of an event.
#[derive(Debug)]
pub struct Rest {
    /// Pinned until it is sent.
    pub event: Arc<Event>,
    /// Bytes of its encoding the socket took.
    pub offset: usize,
}

/// A channel, and how far the subscriber has read it.
#[derive(Debug)]
pub struct Sub {
    pub replica: u32,
    /// Its place in the replica's list of followers.
    pub place: u32,
    /// Everything up to here was sent (or is lost, as `gap` tells).
    pub cursor: u64,
    /// A loss the client has not been told of.
    pub gap: Option<Box<Gap>>,
}

/// A loss the client is to be told of.
#[derive(Debug)]
pub struct Gap {
    pub reason: GapReason,
    /// The client's cursor, as it sent it.
    pub after: Box<str>,
    /// The oldest event after it, if the log said so.
    pub first: Option<u64>,
}

impl Reuse for Explicit {
    fn clear(&mut self) {
        let mut subs = std::mem::take(&mut self.subs);
        subs.clear();
        *self = Self { subs, ..Self::default() };
    }
}

impl Explicit {
    /// Whether it holds nothing a later turn needs.
    pub fn is_idle(&self) -> bool {
        self.rest.is_none() && self.subs.is_empty()
    }

    /// Whether there is an event to send, or a loss to tell.
    pub fn is_behind(&self, channels: &Channels) -> bool {
        match self.reading {
            Reading::Asked(_) => return false,
            Reading::Page(_) | Reading::Log => return true,
            Reading::Replicas => {}
        }
        let is_alone = self.subs.len() == 1;
        self.subs.iter().any(|sub| {
            let replica = &channels[sub.replica];
            let has_next = match is_alone {
                true => replica.after(sub.cursor, replica.fanned_to()).next().is_some(),
                false => replica.newest() > sub.cursor,
            };
            has_next || sub.gap.is_some() || sub.cursor < replica.base()
        })
    }

    /// Up to where all its channels are complete, if one cursor covers them all: no gap's id may be
    /// older than that.
    pub fn complete_to(&self, dialect: Dialect) -> u64 {
        if dialect.has_one_cursor() && self.subs.len() > 1 { self.position } else { 0 }
    }
}
