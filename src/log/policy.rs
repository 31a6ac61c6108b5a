//! What the operator decided for each channel: how much history, for how long, and how fast events
//! may come.

use std::time::Duration;

use super::stream::StreamTimes;
use crate::bucket::Bucket;
use crate::proto::name::{Pattern, first_match};

/// How many rules there may be: under byte pressure each eviction looks at the oldest event of
/// every rule.
pub const POLICIES_MAX: usize = 64;

/// What an operator has set for all channels, and for some.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Budget for the history of all channels, see [`event_bytes`](super::history::event_bytes).
    pub history_bytes_max: u64,
    /// The part of it that may be in memory; less than all only where a store keeps the rest.
    pub history_memory_bytes_max: u64,
    /// Channels that may exist at one time.
    pub channels_max: usize,
    /// How long a subject without connections is still a member of a channel.
    pub presence_grace: Duration,
    /// Per-channel rules.
    pub policies: Policies,
    /// What holds for streams.
    pub streams: StreamTimes,
}

/// Which events of a channel history keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeps {
    /// All of them, or at least the newest ones.
    #[default]
    All,
    /// The newest of each event key: the channel is a state, and newcomers are given it.
    Latest,
}

/// What applies to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Most events kept; 0 keeps none.
    pub history_count: u32,
    /// Longest time an event is kept; zero keeps none.
    pub history_age: Duration,
    /// Events per second, with bursts of one second's worth; `None` is unlimited, 0 is none.
    pub publish_rate: Option<u32>,
    /// Bytes that all channels of the rule together may keep even when others need room.
    pub history_share: u64,
    /// Which events are kept.
    pub keeps: Keeps,
    /// Bytes of a stream that are kept beside what history keeps of it.
    pub stream_bytes: u64,
    /// Bytes up to which the tokens of a stream that has ended are merged into one event; 0: they are not
    /// merged.
    pub stream_compact: u64,
    /// Whether its subscribers may know of each other.
    pub presence: bool,
}

impl Policy {
    /// Events a channel may keep under this policy.
    pub(super) fn events_max(&self) -> u32 {
        if self.history_age.is_zero() { 0 } else { self.history_count }
    }

    /// The channel's bucket after one more event at `now`; `None` if the event is over the rate.
    pub(super) fn admit(&self, mut bucket: Bucket, now: Duration) -> Option<Bucket> {
        let admits = self.publish_rate.is_none_or(|rate| bucket.take(rate, now));
        admits.then_some(bucket)
    }
}

/// Rules in order, of which the first match wins, and a default.
#[derive(Clone, Debug)]
pub struct Policies {
    rules: Vec<(Pattern, Policy)>,
    default: Policy,
}

/// More than [`POLICIES_MAX`] rules: the operator's mistake, reported at start or reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyPolicies;

impl Policies {
    /// The same policy for every channel.
    pub fn uniform(default: Policy) -> Self {
        Self { rules: Vec::new(), default }
    }

    /// Rules in order, and the default for channels that match none.
    pub fn new(rules: Vec<(Pattern, Policy)>, default: Policy) -> Result<Self, TooManyPolicies> {
        if rules.len() > POLICIES_MAX { Err(TooManyPolicies) } else { Ok(Self { rules, default }) }
    }

    /// The policy of a channel.
    pub fn of(&self, name: &str) -> &Policy {
        self.at(self.index_of(name))
    }

    /// Whether any channel may have presence.
    pub(super) fn have_presence(&self) -> bool {
        self.rules.iter().map(|(_, policy)| policy).chain([&self.default]).any(|of| of.presence)
    }

    /// The index of a channel's policy; `count() - 1` is the default.
    pub(super) fn index_of(&self, name: &str) -> u8 {
        first_match(&self.rules, name) as u8
    }

    pub(super) fn at(&self, index: u8) -> &Policy {
        self.rules.get(usize::from(index)).map_or(&self.default, |(_, policy)| policy)
    }

    /// The share of each policy, by its index.
    pub(super) fn shares(&self) -> impl Iterator<Item = u64> {
        self.all().map(|policy| policy.history_share)
    }

    /// Every policy, by its index.
    pub(super) fn all(&self) -> impl Iterator<Item = &Policy> {
        self.rules.iter().map(|(_, policy)| policy).chain([&self.default])
    }

    pub(super) fn count(&self) -> u8 {
        self.rules.len() as u8 + 1
    }
}

const _: () = assert!(POLICIES_MAX < u8::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    fn rated(rate: u32) -> Policy {
        Policy {
            history_count: 1,
            history_age: Duration::MAX,
            publish_rate: Some(rate),
            history_share: 0,
            keeps: Keeps::All,
            stream_bytes: 0,
            stream_compact: 0,
            presence: false,
        }
    }

    #[test]
    fn rate_zero_admits_nothing_and_no_rate_admits_all() {
        let bucket = Bucket::default();
        assert_eq!(rated(0).admit(bucket, Duration::from_secs(1)), None);
        let unlimited = Policy { publish_rate: None, ..rated(0) };
        assert!((0..1000).all(|_| unlimited.admit(bucket, Duration::ZERO).is_some()));
    }

    #[test]
    fn the_first_matching_rule_wins_and_the_default_is_last() {
        let pattern = |text: &str| Pattern::parse(text).expect("a valid pattern");
        let rules = vec![
            (pattern("user:vip"), rated(1)),
            (pattern("user:*"), rated(2)),
            (pattern("user:vip"), rated(3)),
        ];
        let policies = Policies::new(rules, rated(9)).expect("few enough");
        let rate = |name| policies.of(name).publish_rate;
        assert_eq!(rate("user:vip"), Some(1));
        assert_eq!(rate("user:7"), Some(2));
        assert_eq!(rate("news"), Some(9));
    }
}
