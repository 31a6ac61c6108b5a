//! The token streams that a WebSocket produces, and its operations that wait for the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::PUBLISH_BATCH_BYTES_MAX;
use crate::log::event::Publication;

/// The streams a WebSocket produces.
#[derive(Debug, Default)]
pub struct WsStreams {
    pub open: Vec<Produced>,
    /// Operations that the log has not answered, in order.
    pub line: VecDeque<Waiting>,
    /// How many of them are at the log, from the front.
    pub asked: usize,
    /// Bytes of memory of the others.
    pub bytes: usize,
    /// The clock will look for streams that are idle.
    pub watched: bool,
}

/// A stream that this connection produces.
#[derive(Debug)]
pub struct Produced {
    pub channel: Box<str>,
    pub id: Arc<str>,
    /// Which of the stream's producers this is; 0: the log has not said so yet.
    pub attempt: u64,
    /// The number of the token that is appended next.
    pub next: u64,
    /// Tokens the stream had when it was opened: those that are sent again are skipped.
    pub had: u64,
    /// When it was opened, or last appended to.
    pub heard_at: Duration,
}

/// An operation that waits for the log.
#[derive(Debug)]
pub struct Waiting {
    pub channel: Box<str>,
    pub reference: Option<Box<str>>,
    pub what: What,
    /// `None` while the log has it.
    pub publication: Option<Publication>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// With the number of the first token to be appended, if the client gave one.
    Open(Option<u64>),
    /// A token, with its number.
    Append(u64),
    End,
}

impl WsStreams {
    /// Bytes of memory it takes.
    pub fn held_bytes(&self) -> usize {
        self.open.capacity() * size_of::<Produced>() + self.bytes
    }

    /// Whether no stream is open and no operation waits.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.line.is_empty()
    }

    /// Whether it may be dropped.
    pub fn is_spare(&self) -> bool {
        self.is_idle() && !self.watched
    }

    /// Whether further operations have to wait. Nothing can be appended to a stream before the log has
    /// said how many tokens it has.
    pub fn is_busy(&self) -> bool {
        self.bytes >= PUBLISH_BATCH_BYTES_MAX || self.open.iter().any(|of| of.attempt == 0)
    }

    pub fn of(&mut self, channel: &str) -> Option<&mut Produced> {
        self.open.iter_mut().find(|of| *of.channel == *channel)
    }

    pub fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.publication.as_ref().map_or(0, Publication::held_bytes);
        self.line.push_back(waiting);
    }

    /// What goes to the log next: tokens, up to and including an operation that opens or ends a stream.
    /// That must be the last of a request, because the log returns the state of the last one's stream.
    pub fn next_batch(&mut self) -> Vec<Publication> {
        let last = self.line.iter().position(|of| !matches!(of.what, What::Append(_)));
        self.asked = last.map_or(self.line.len(), |last| last + 1);
        let asked = self.line.iter_mut().take(self.asked);
        let batch: Vec<_> = asked.filter_map(|of| of.publication.take()).collect();
        self.bytes -= batch.iter().map(Publication::held_bytes).sum::<usize>();
        batch
    }

    /// Takes back what the log has not taken, which is the end of what it was sent.
    pub fn put_back(&mut self, unaccepted: Vec<Publication>) {
        let asked = std::mem::take(&mut self.asked);
        let from = asked.saturating_sub(unaccepted.len());
        for (waiting, publication) in self.line.iter_mut().skip(from).zip(unaccepted) {
            self.bytes += publication.held_bytes();
            waiting.publication = Some(publication);
        }
    }

    pub fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.line.pop_front()?;
        self.bytes -= waiting.publication.as_ref().map_or(0, Publication::held_bytes);
        Some(waiting)
    }
}
