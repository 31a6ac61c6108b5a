//! What a subscriber may see of a channel: all of it, in order, once; or a gap that says what is
//! missing.

use serde_json::Value;

use crate::truth::Truth;

/// The cursor before the first event.
pub const EARLIEST: &str = "earliest";

/// A subscription as its client knows it.
#[derive(Clone, Debug)]
pub struct Follow {
    pub channel: String,
    pub stand: Stand,
    /// The cursor it came with, as sent by the client.
    pub asked: String,
    /// What the last gap told.
    lost: Option<Lost>,
}

/// Whether a subscription has a stream of its own. On a shared one a gap's id is a place in the
/// stream, not the end of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    Alone,
    Shared,
}

/// How much is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// All before this event, which comes next.
    Before(u64),
    /// Everything there was then.
    All,
}

/// Where a subscription is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Begun without a cursor: it may begin anywhere, but not after what is ordered by the time the
    /// server said it has begun.
    Begun { head_then: u64 },
    /// Everything up to here was seen or is known to be lost.
    At(u64),
    /// It came with a cursor that cannot be honoured: a gap must say so first.
    Foreign,
}

/// A gap as told.
#[derive(Debug)]
pub struct Gap<'a> {
    pub id: u64,
    pub data: &'a Value,
}

impl Follow {
    pub fn new(channel: String, stand: Stand, asked: String) -> Self {
        Self { channel, stand, asked, lost: None }
    }

    /// An event of the channel arrived.
    pub fn event(&mut self, seq: u64, truth: &Truth) {
        let at = self.floor();
        assert_eq!(truth.event(seq).channel, self.channel);
        match (self.lost, &self.stand) {
            (Some(Lost::Before(first)), _) => assert_eq!(seq, first, "{self:?}: promised"),
            (Some(Lost::All), _) => assert!(seq > at, "{self:?}: {seq} again"),
            (None, Stand::Begun { head_then }) if seq <= *head_then => {}
            (None, _) => {
                let next = truth.next(&self.channel, at);
                assert_eq!(Some(seq), next, "{self:?}: the next");
            }
        }
        self.lost = None;
        self.stand = Stand::At(seq);
    }

    /// An event without an id arrived, as on a bare WebSocket. If a tag was ordered twice, it may
    /// be unclear which of the two it is.
    pub fn tagged_event(&mut self, tag: u64, truth: &Truth) {
        match (&self.stand, truth.seqs(tag)) {
            (Stand::Begun { .. }, [only]) => self.event(*only, truth),
            (Stand::Begun { head_then }, seqs) => {
                let last = seqs.last().expect("it was ordered");
                self.stand = Stand::Begun { head_then: *last.max(head_then) };
            }
            (_, seqs) => {
                let next = truth.next(&self.channel, self.floor());
                let place = seqs.iter().find(|seq| Some(**seq) == next);
                let place = place.unwrap_or_else(|| panic!("{self:?}: tag {tag}, not {next:?}"));
                self.event(*place, truth);
            }
        }
    }

    /// A gap of the channel was told.
    pub fn gap(&mut self, gap: &Gap<'_>, company: Company, truth: &Truth) {
        let Gap { id, data } = *gap;
        assert_eq!(data["channel"], self.channel[..]);
        let (reason, after) = (&data["reason"], data["after"].as_str().expect("text"));
        let next = truth.next(&self.channel, id);
        let first = data["first"].as_str().map(|first| truth.seq_of(first));
        let lost = match (first, company) {
            (Some(first), Company::Alone) => {
                assert_eq!(Some(first), next, "{self:?}: first");
                Some(Lost::Before(first))
            }
            (Some(first), Company::Shared) => Some(Lost::Before(first)),
            (None, Company::Alone) => None,
            (None, Company::Shared) => Some(Lost::All),
        };
        let end = first.map_or(u64::MAX, |first| first - 1);
        match reason.as_str() {
            Some("epoch") => {
                assert_eq!(self.stand, Stand::Foreign, "{}: a cursor of ours", self.channel);
                assert_eq!(after, self.asked);
            }
            Some("evicted") => {
                assert_eq!(after, self.asked);
                let after = if after == EARLIEST { 0 } else { truth.seq_of(after) };
                let name = &self.channel;
                let is_forgotten = after < truth.forgotten_to;
                let is_lost = is_forgotten || truth.has_between(name, after, end);
                assert!(is_lost, "{self:?}: nothing is lost");
                self.check_place(after, truth);
            }
            // Nothing may be lost after all, if another subscriber's replay brought it back.
            Some("overrun") => self.check_place(truth.seq_of(after), truth),
            other => panic!("a gap of reason {other:?}"),
        }
        self.lost = lost;
        self.stand = Stand::At(id);
    }

    /// `after` is the same place as ours.
    fn check_place(&self, after: u64, truth: &Truth) {
        let name = &self.channel;
        assert!(!matches!(self.stand, Stand::Foreign), "{name}: reason epoch was due");
        let at = self.seen_to();
        match self.stand {
            _ if self.lost == Some(Lost::All) => {}
            Stand::Begun { .. } => {
                assert!(!truth.has_between(name, at, after), "{name}: a loss not told");
            }
            _ => {
                let (low, high) = (at.min(after), at.max(after));
                assert!(!truth.has_between(name, low, high), "{self:?}: after {after}");
            }
        }
    }

    /// It comes back with this id: everything up to it must have been seen, or told to be lost.
    pub fn resume(&mut self, id: u64, truth: &Truth) {
        let seen_to = match self.stand {
            // Another channel's gap gave it an id of ours.
            Stand::Foreign => id,
            _ => self.seen_to(),
        };
        assert!(!truth.has_between(&self.channel, seen_to, id), "{self:?}: {id} skips some");
        self.stand = match self.stand {
            Stand::At(at) => Stand::At(at.max(id)),
            Stand::Begun { .. } | Stand::Foreign => Stand::At(id),
        };
        self.asked = truth.id(id);
        self.lost = None;
    }

    /// It comes back without a cursor.
    pub fn begin_anew(&mut self, head_then: u64) {
        self.stand = Stand::Begun { head_then };
        self.lost = None;
    }

    /// What is still missing; 0 stands for a gap.
    pub fn missing(&self, truth: &Truth) -> Option<u64> {
        if self.stand == Stand::Foreign {
            return Some(0);
        }
        truth.next(&self.channel, self.seen_to())
    }

    /// Everything up to here was seen or told to be lost.
    fn seen_to(&self) -> u64 {
        match self.lost {
            Some(Lost::Before(first)) => first - 1,
            Some(Lost::All) => u64::MAX - 1,
            None => self.floor(),
        }
    }

    /// Events after this must be seen.
    fn floor(&self) -> u64 {
        match self.stand {
            Stand::Begun { head_then } => head_then,
            Stand::At(seq) => seq,
            Stand::Foreign => panic!("{}: an event, but a gap was due", self.channel),
        }
    }
}
