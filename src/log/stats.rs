//! What the log counts, and what it shows of its channels.

use std::sync::Arc;

use super::channel_name::ChannelName;
use super::message::{Description, Refusal};
use crate::proto::stream::End;

/// The log at one moment. Counters count from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Newest event of the log.
    pub head_seq: u64,
    /// Events kept.
    pub events: u64,
    /// Bytes charged for kept events.
    pub bytes: u64,
    /// Bytes that may be charged.
    pub bytes_max: u64,
    /// Channels that exist.
    pub channels: u64,
    /// Freed channels remembered one by one.
    pub tombstones: u64,
    /// Streams that are open.
    pub streams: u64,
    /// Events of streams kept beside history.
    pub stream_events: u64,
    /// Bytes of them.
    pub stream_bytes: u64,
    /// Members of all channels with presence: a subject on two channels counts twice.
    pub members: u64,
    /// Whether the store refuses events.
    pub store_is_down: bool,
    /// Channels that are not remembered may have lost events up to here.
    pub forgotten_to: u64,
    /// What it has counted since its start.
    pub counters: LogCounters,
}

/// What the log has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounters {
    /// Publications ordered.
    pub published: u64,
    /// Publications whose idempotency key was answered from history.
    pub repeated: u64,
    /// Events for which their channel's count had no room, including those never kept.
    pub evicted_by_count: u64,
    /// Events that grew too old.
    pub evicted_by_age: u64,
    /// Events evicted for lack of bytes.
    pub evicted_by_bytes: u64,
    /// Requests refused, by reason.
    pub refused: Refused,
    /// Channels joined with a backlog.
    pub replays: u64,
    /// Channels joined with a gap.
    pub gaps: u64,
    /// Streams that have ended, by [`End::index`](crate::proto::stream::End::index).
    pub streams_ended: [u64; End::ALL.len()],
    /// Events of streams that were lost for want of room before their stream was.
    pub cut_of_streams: u64,
}

/// Joins and publishes refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// [`Refusal::Busy`].
    pub busy: u64,
    /// [`Refusal::Memory`].
    pub memory: u64,
    /// [`Refusal::Channels`].
    pub channels: u64,
    /// [`Refusal::Rate`].
    pub rate: u64,
    /// [`Refusal::Store`].
    pub store: u64,
    /// Because of the state of a stream.
    pub stream: u64,
    /// [`Refusal::Behind`].
    pub behind: u64,
}

impl Refused {
    pub(super) fn count(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Busy => self.busy += 1,
            Refusal::Memory => self.memory += 1,
            Refusal::Channels => self.channels += 1,
            Refusal::Rate => self.rate += 1,
            Refusal::Store => self.store += 1,
            Refusal::NoStream
            | Refusal::StreamOpen
            | Refusal::StreamEnded
            | Refusal::StreamTaken
            | Refusal::StreamCut => self.stream += 1,
            Refusal::Behind => self.behind += 1,
        }
    }
}

/// A part of the list of channels.
#[derive(Clone, Debug, Default)]
pub struct ChannelPage {
    /// In order of index.
    pub channels: Vec<(Arc<ChannelName>, Description)>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<u32>,
}
