//! Who reads: a cursor for its channels and a dialect. It knows no socket; where its bytes go is
//! its index.

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
    /// It reads none.
    #[default]
    None,
    /// In a replica's live list: it has no cursor of its own, all that was fanned out is behind it.
    Live {
        dialect: Dialect,
        replica: u32,
        /// Place in the replica's live list.
        place: u32,
    },
    /// It has cursors of its own.
    Explicit(Dialect, Box<Explicit>),
}

const _: () = assert!(size_of::<Subscriber>() <= 16, "an idle connection costs one cache line");

/// A subscriber with cursors of its own.
#[derive(Debug, Default)]
pub struct Explicit {
    /// An event the socket took only the front part of. It goes out before anything else.
    pub rest: Option<Rest>,
    /// Its channels.
    pub subs: Vec<Sub>,
    /// Where its next events come from.
    pub reading: Reading,
    /// Where reading left history, by channel.
    pub places: Vec<u32>,
    /// Of several channels read as one stream: everything up to here was sent, or told to be lost.
    pub position: u64,
    /// What its send of this batch is made of, among the hub's items.
    pub(super) items: Range<u32>,
}

/// The unsent remainder of an event.
#[derive(Debug)]
pub struct Rest {
    /// Pinned until it is sent.
    pub event: Arc<Event>,
    /// Bytes of its encoding that were taken.
    pub offset: usize,
}

/// A channel, and how far the subscriber has read it.
#[derive(Debug)]
pub struct Sub {
    pub replica: u32,
    /// Place in the replica's list of followers.
    pub place: u32,
    /// Everything up to here was sent (or is lost and told by `gap`).
    pub cursor: u64,
    /// A loss the client has not been told of.
    pub gap: Option<Box<Gap>>,
}

/// A loss to be told.
#[derive(Debug)]
pub struct Gap {
    pub reason: GapReason,
    /// The client's cursor, as it gave it.
    pub after: Box<str>,
    /// The oldest event behind it, where the log said so.
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
    /// Whether a later turn needs nothing of it.
    pub fn is_idle(&self) -> bool {
        self.rest.is_none() && self.subs.is_empty()
    }

    /// Whether there is an event to be sent, or a loss to be told.
    pub fn is_behind(&self, channels: &Channels) -> bool {
        match self.reading {
            Reading::Asked(_) => return false,
            Reading::Page(_) => return true,
            Reading::Replicas => {}
        }
        let is_alone = self.subs.len() == 1;
        self.subs.iter().any(|sub| {
            let replica = &channels[sub.replica];
            let has_next = match is_alone {
                true => replica.after(sub.cursor, replica.fanned_to).next().is_some(),
                false => replica.newest() > sub.cursor,
            };
            has_next || sub.gap.is_some() || sub.cursor < replica.base
        })
    }

    /// Where all its channels are complete, if one cursor is for all of them: no gap may take its
    /// id back behind that.
    pub fn complete_to(&self, dialect: Dialect) -> u64 {
        if dialect.has_one_cursor() && self.subs.len() > 1 { self.position } else { 0 }
    }
}
