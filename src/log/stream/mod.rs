//! Token streams in the log: which channel has one, who produces it, and the events of it that history
//! has dropped. History goes by its own rules; an event of a stream that leaves it is kept here, so
//! that a reader who comes late gets the whole stream.
//!
//! Few channels have a stream, and one without pays nothing for this.

mod kept;
pub(super) mod nodes;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::event::Event;
use super::history::bytes_of;
use super::message::{Refusal, StreamAt};
use crate::proto::identity::NodeId;
use crate::proto::stream::{End, OrElse};
pub use crate::proto::stream::{Mark, Part};

/// What streams may keep beside history: the bytes of all history divided by this.
pub(crate) const STREAMS_SHARE: u64 = 2;

/// How long streams last without a producer, and after their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamTimes {
    /// From the loss of a producer to the end of its stream.
    pub grace: Duration,
    /// From the end of a stream until its events are kept by the rules of history alone.
    pub keep: Duration,
}

/// A channel's stream: open, or ended and still kept.
#[derive(Debug)]
struct Stream {
    id: Arc<str>,
    ended: Option<End>,
    /// The worker its producer is connected to; `None`: it is lost, or on another node.
    producer: Option<u16>,
    /// The node it is connected to, where there are many.
    home: Option<NodeId>,
    /// How many producers it has had: only the last one may append.
    attempt: u64,
    /// The event that opened it.
    first_seq: u64,
    /// Its first token, its last one, and its last event.
    first_token: u64,
    last_token: u64,
    last_seq: u64,
    tokens: u64,
    text_bytes: u64,
    /// When it is to end, or to be forgotten.
    due_at: Option<Duration>,
    /// Events of the channel since it opened that history has dropped.
    kept: VecDeque<Arc<Event>>,
    kept_bytes: u64,
    /// The newest event that is in neither history nor `kept`.
    cut_to: u64,
    /// Events lost up to there.
    cut: u64,
    /// Tokens that this node has sent where the order is given, and that have not come back.
    under_way: u64,
    /// Its beginning was before that of the log; what comes next of it says how far it is.
    is_adopted: bool,
}

/// What is done with a publication that is a part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It becomes an event.
    Order,
    /// Its stream is open already: the producer takes over.
    TakeOver,
    Refuse(Refusal),
}

/// What a stream's due time was for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Its producer did not come back.
    Lost(Mark),
    /// It was kept long enough, and has been forgotten.
    Forgotten,
}

/// What is known of a stream that this node has not seen from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Old {
    /// Nothing is known up to this event.
    Unclear(u64),
    /// It was opened here, and is known from then on.
    Known(u64),
}

/// All streams, by the index of their channel.
#[derive(Debug, Default)]
pub(super) struct Streams {
    by_channel: HashMap<u32, Stream>,
    open: u64,
    /// Events kept beside history, of all streams, and their bytes.
    kept_events: u64,
    kept_bytes: u64,
    due: BinaryHeap<Reverse<(Duration, u32)>>,
    /// Streams that have ended and are to be merged, and the event at which to go on.
    to_merge: VecDeque<(u32, u64)>,
    /// Streams that were opened up to here may be unknown.
    begun_behind: u64,
    /// By channel, what is known of such a stream.
    old: HashMap<u32, Old>,
}

impl Streams {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.by_channel.is_empty()
    }

    /// Whether the channel has a stream, open or kept.
    #[inline]
    pub fn has(&self, channel: u32) -> bool {
        !self.is_empty() && self.by_channel.contains_key(&channel)
    }

    /// Streams that are open.
    pub fn open(&self) -> u64 {
        self.open
    }

    /// Events that are kept because they are of streams.
    pub fn kept_events(&self) -> u64 {
        self.kept_events
    }

    /// Bytes of them.
    pub fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// The state of a channel's stream.
    pub fn at(&self, channel: u32) -> Option<StreamAt> {
        let of = self.by_channel.get(&channel)?;
        Some(StreamAt {
            id: of.id.clone(),
            attempt: of.attempt,
            tokens: of.tokens,
            text_bytes: of.text_bytes,
            first_token: of.first_token,
            last_token: of.last_token,
            ended: of.ended,
        })
    }

    /// The name of a channel's stream.
    pub fn id(&self, channel: u32) -> Option<&Arc<str>> {
        self.by_channel.get(&channel).map(|of| &of.id)
    }

    /// The worker that is to be told when the stream ends.
    pub fn producer(&self, channel: u32) -> Option<u16> {
        if self.is_empty() { None } else { self.by_channel.get(&channel)?.producer }
    }

    // --- producers ---

    /// What to do with a part that a publisher sends.
    pub(crate) fn judge(&self, channel: Option<u32>, mark: &Mark) -> Verdict {
        let stream = channel.and_then(|channel| self.by_channel.get(&channel));
        match (mark.part, stream) {
            (Part::Open, None) => Verdict::Order,
            (Part::Open, Some(of)) => match (of.ended, of.id == mark.id) {
                (None, true) => Verdict::TakeOver,
                (None, false) => Verdict::Refuse(Refusal::StreamOpen),
                (Some(_), true) => Verdict::Refuse(Refusal::StreamEnded),
                (Some(_), false) => Verdict::Order,
            },
            (_, None) => Verdict::Refuse(Refusal::NoStream),
            (_, Some(of)) if of.ended.is_some() => Verdict::Refuse(Refusal::StreamEnded),
            (Part::End(End::Cancelled | End::Lost), Some(_)) => Verdict::Order,
            (_, Some(of)) if of.id == mark.id && of.attempt == mark.at => Verdict::Order,
            (_, Some(_)) => Verdict::Refuse(Refusal::StreamTaken),
        }
    }

    /// The number that a part gets when it is ordered.
    pub fn number(&self, channel: u32) -> u64 {
        self.by_channel.get(&channel).map_or(0, |of| of.tokens)
    }

    /// Another producer continues an open stream.
    pub(crate) fn take_over(&mut self, channel: u32) {
        if let Some(of) = self.by_channel.get_mut(&channel) {
            of.attempt = of.attempt.saturating_add(1);
            (of.producer, of.due_at) = (None, None);
        }
    }

    /// The producer is connected to this worker.
    pub(crate) fn set_producer(&mut self, channel: u32, worker: u16) {
        if let Some(of) = self.by_channel.get_mut(&channel) {
            of.producer = Some(worker);
        }
    }

    /// A producer of the stream is gone, and may come back until `until`. `attempt` says which one; 0 if
    /// it had not been told. `own`: this node.
    pub fn lose(&mut self, channel: u32, (id, attempt): (&str, u64), own: NodeId, until: Duration) {
        let stream = self.by_channel.get_mut(&channel).filter(|of| of.ended.is_none());
        // It did not know, and there may be one elsewhere.
        let is_here = |of: &Stream| attempt > 0 || of.home.is_none_or(|home| home == own);
        let is_its =
            |of: &&mut Stream| *of.id == *id && [0, of.attempt].contains(&attempt) && is_here(of);
        let Some(of) = stream.filter(is_its) else { return };
        of.producer = None;
        self.set_due(channel, until);
    }

    /// All producers are gone, as after a restart.
    pub(crate) fn lose_all(&mut self, until: Duration) {
        let open = self.by_channel.iter().filter(|(_, of)| of.ended.is_none());
        let lost: Vec<(u32, Arc<str>)> = open.map(|(at, of)| (*at, of.id.clone())).collect();
        for (channel, id) in lost {
            self.lose(channel, (&id, 0), NodeId(0), until);
        }
    }

    fn set_due(&mut self, channel: u32, at: Duration) {
        if let Some(of) = self.by_channel.get_mut(&channel) {
            of.due_at = Some(at);
            self.due.push(Reverse((at, channel)));
        }
    }

    /// The next stream that is due, with the index of its channel.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<(u32, Due)> {
        loop {
            let Reverse((at, channel)) = *self.due.peek().filter(|due| due.0.0 <= now)?;
            self.due.pop();
            let Some(of) = self.by_channel.get(&channel).filter(|of| of.due_at == Some(at)) else {
                continue; // It was taken over, or replaced by another stream.
            };
            if of.ended.is_some() {
                self.forget(channel);
                return Some((channel, Due::Forgotten));
            }
            let mark = Mark { id: of.id.clone(), part: Part::End(End::Lost), at: of.attempt };
            return Some((channel, Due::Lost(mark)));
        }
    }

    /// The stream could not be ended now: tries again at `until`.
    pub(crate) fn put_off(&mut self, channel: u32, until: Duration) {
        self.set_due(channel, until);
    }

    /// When the next stream is due.
    pub fn due_at(&self) -> Option<Duration> {
        self.due.peek().map(|due| due.0.0)
    }

    fn forget(&mut self, channel: u32) {
        if let Some(of) = self.by_channel.remove(&channel) {
            self.kept_events -= of.kept.len() as u64;
            self.kept_bytes -= of.kept_bytes;
            self.open -= u64::from(of.ended.is_none());
        }
    }

    // --- events of streams ---

    /// An event has its place. `worker` has its publisher, if that is on this node. A stream that ends
    /// by it is kept until `keep_until`.
    pub fn ordered(
        &mut self,
        channel: u32,
        event: &Event,
        worker: Option<u16>,
        keep_until: Duration,
    ) {
        let Some(mark) = event.mark() else { return };
        if mark.part == Part::Open {
            self.forget(channel);
            self.open += 1;
            self.by_channel.insert(channel, Stream::new(mark.id.clone(), event.seq, worker));
            return;
        }
        let stream = self.by_channel.get_mut(&channel);
        let Some(of) = stream.filter(|of| of.id == mark.id && of.ended.is_none()) else { return };
        of.last_seq = event.seq;
        match mark.part {
            Part::End(end) => {
                of.ended = Some(end);
                self.open -= 1;
                self.set_due(channel, keep_until);
            }
            Part::Open | Part::Token => {
                of.add_token(event);
                // A producer that appends is not lost.
                if worker.is_some() {
                    (of.producer, of.due_at) = (worker, None);
                }
            }
        }
    }

    /// An event that was ordered is lost. The newest one is always lost first.
    pub(crate) fn undo(&mut self, channel: u32, event: &Event) {
        let Some(mark) = event.mark() else { return };
        let Some(of) = self.by_channel.get_mut(&channel).filter(|of| of.id == mark.id) else {
            return;
        };
        match mark.part {
            Part::Open => self.forget(channel),
            Part::Token => {
                of.tokens -= 1;
                of.text_bytes -= event.data.len() as u64;
                of.last_token = event.seq - 1;
            }
            Part::End(_) => {
                (of.ended, of.due_at) = (None, None);
                self.open += 1;
            }
        }
    }

    /// Takes the worker of the producer, which has to be told that the stream has ended.
    pub(crate) fn take_producer(&mut self, channel: u32) -> Option<u16> {
        self.by_channel.get_mut(&channel)?.producer.take()
    }

    // --- readers ---

    /// The event after which a reader of the channel's stream begins; `None` if there is no stream for
    /// it. `newer` are the channel's events in history.
    pub fn begin(
        &self,
        channel: u32,
        after: Option<u64>,
        or_else: OrElse,
        mut newer: impl Iterator<Item = Arc<Event>>,
    ) -> Option<u64> {
        let of = self.by_channel.get(&channel)?;
        if of.ended.is_some() && or_else == OrElse::RefuseEnded {
            return None;
        }
        let Some(number) = after else { return Some(of.first_seq - 1) };
        if number.saturating_add(1) >= of.tokens {
            return Some(of.last_token.max(of.first_seq));
        }
        let found = of.kept.iter().find_map(|event| event.seq_of_token(number));
        // If the token was cut, the reader is told of a gap, which ends where the cut does.
        let found = found.or_else(|| newer.find_map(|event| event.seq_of_token(number)));
        found.or(Some(of.first_seq))
    }

    /// Panics when streams contradict themselves.
    pub fn check_invariants(&self, exists: impl Fn(u32) -> bool) {
        let bytes = |of: &Stream| of.kept.iter().map(|event| bytes_of(event)).sum::<u64>();
        assert_eq!(self.kept_bytes, self.by_channel.values().map(bytes).sum::<u64>());
        let events = self.by_channel.values().map(|of| of.kept.len() as u64);
        assert_eq!(self.kept_events, events.sum::<u64>());
        let open = self.by_channel.values().filter(|of| of.ended.is_none()).count();
        assert_eq!(self.open, open as u64);
        for (channel, of) in &self.by_channel {
            assert!(exists(*channel), "a channel with a stream is not freed");
            assert_eq!(of.kept_bytes, bytes(of));
            assert!(of.kept.iter().map(|event| event.seq).is_sorted());
            assert!(of.kept.front().is_none_or(|first| first.seq > of.cut_to));
            assert!(of.cut == 0 || of.cut_to > 0);
            assert!(
                of.ended.is_none() || of.due_at.is_some(),
                "an ended stream is forgotten in time"
            );
        }
    }
}

impl Stream {
    fn new(id: Arc<str>, seq: u64, worker: Option<u16>) -> Self {
        Self {
            id,
            ended: None,
            producer: worker,
            attempt: 1,
            first_seq: seq,
            first_token: 0,
            last_token: 0,
            last_seq: seq,
            tokens: 0,
            text_bytes: 0,
            due_at: None,
            kept: VecDeque::new(),
            kept_bytes: 0,
            cut_to: 0,
            cut: 0,
            home: None,
            under_way: 0,
            is_adopted: false,
        }
    }

    fn add_token(&mut self, event: &Event) {
        if self.tokens == 0 {
            self.first_token = event.seq;
        }
        self.tokens = self.tokens.saturating_add(1);
        self.text_bytes += event.data.len() as u64;
        self.last_token = event.seq;
    }
}
