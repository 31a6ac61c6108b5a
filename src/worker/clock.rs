//! Time, in one place: deadlines of the few connections in the middle of something, the seconds at
//! which grants run out, and the hand that goes round all connections once per heartbeat. An idle
//! connection has no timer.
//!
//! All waits of one kind are equally long, so a queue per kind is always in order. An entry that no
//! longer matters is dropped when its time comes, or once there are enough of them to be worth
//! looking for.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::limits::TICK;
use crate::ring::Token;

/// What a connection must have done by its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The request head must be complete.
    Head,
    /// The request body, or the message, must have made progress.
    Body,
    /// The next token of a stream must have come.
    Stream,
    /// The peer must have closed after its last answer.
    Linger,
    /// The closing handshake must be over.
    WsClose,
    /// The same if the peer has stopped reading, so that the close frame cannot be sent yet.
    WsCloseStalled,
    /// A connection there is no room for must have sent its request.
    Refusal,
    /// Another worker must have answered.
    Letter,
    /// A publisher's lines that were refused are due to be tried again.
    Retry,
    /// A stream whose window was closed must have been sent something.
    Stalled,
}

const WHYS: [Why; 10] = [
    Why::Head,
    Why::Body,
    Why::Stream,
    Why::Linger,
    Why::WsClose,
    Why::WsCloseStalled,
    Why::Refusal,
    Why::Letter,
    Why::Retry,
    Why::Stalled,
];

/// The point at which a wait began: which request, and how far into its body. For a stream that takes
/// nothing: how much its connection was sent, and how much of that it was itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub requests: u32,
    pub progress: u32,
}

/// A connection's deadline.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Duration,
    pub token: Token,
    pub mark: Mark,
}

/// Length from which a queue is searched for entries that no longer matter. Otherwise a storm of
/// connections would leave one entry each, for as long as a head may take.
const TIDY_FROM: usize = 1024;

/// A worker's clock.
#[derive(Debug)]
pub struct Clock {
    waits: [VecDeque<Deadline>; WHYS.len()],
    /// No deadline is before this; most turns look no further.
    none_before: Duration,
    /// Length at which each queue is tidied next.
    tidy_at: [usize; WHYS.len()],
    /// The seconds of unix time at which grants of streams run out, soonest first.
    expiries: BinaryHeap<Reverse<(u32, Token)>>,
    hand: Hand,
}

/// Walks the slots so that each is visited once per period.
#[derive(Debug)]
struct Hand {
    period: Duration,
    moved_at: Duration,
    /// The next slot to visit.
    slot: u32,
    /// The fraction of a slot the hand is behind, in nanoseconds of the period times slots.
    owed_ns: u128,
}

impl Clock {
    /// A clock whose hand visits each connection once per `period`.
    pub fn new(period: Duration) -> Self {
        Self {
            waits: Default::default(),
            none_before: Duration::MAX,
            tidy_at: [0; WHYS.len()],
            expiries: BinaryHeap::new(),
            hand: Hand { period, moved_at: Duration::ZERO, slot: 0, owed_ns: 0 },
        }
    }

    /// When it is due next, at the latest. The hand rests while there is nothing to watch.
    pub fn next(&self, is_watched: bool) -> Option<Duration> {
        let deadline = Some(self.none_before).filter(|&at| at < Duration::MAX);
        let hand = is_watched.then(|| self.hand.next());
        deadline.into_iter().chain(hand).min()
    }

    // --- deadlines ---

    /// Gives the connection the time of this kind, from now on. When the queue has doubled since it
    /// was last tidied, entries that no longer matter are removed: constant work per entry, and a
    /// queue never longer than twice what matters.
    pub fn wait(
        &mut self,
        why: Why,
        token: Token,
        mark: Mark,
        (now, time): (Duration, Duration),
        matters: impl Fn(&Deadline) -> bool,
    ) {
        let queue = &mut self.waits[why as usize];
        let tidy_at = &mut self.tidy_at[why as usize];
        if queue.len() >= (*tidy_at).max(TIDY_FROM) {
            queue.retain(matters);
            *tidy_at = queue.len() * 2;
        }
        let at = match why {
            Why::Retry => now + time,
            _ => next_tick(now + time),
        };
        queue.push_back(Deadline { at, token, mark });
        self.none_before = self.none_before.min(at);
    }

    /// The next deadline that has passed, kind by kind.
    pub fn pop_due(&mut self, now: Duration) -> Option<(Why, Deadline)> {
        if now < self.none_before {
            return None;
        }
        let due = WHYS.into_iter().find_map(|why| Some((why, self.pop_due_of(why, now)?)));
        if due.is_none() {
            let firsts = self.waits.iter().filter_map(|queue| queue.front());
            self.none_before = firsts.map(|first| first.at).min().unwrap_or(Duration::MAX);
        }
        due
    }

    /// The oldest deadline of this kind, if it has passed.
    pub fn pop_due_of(&mut self, why: Why, now: Duration) -> Option<Deadline> {
        let queue = &mut self.waits[why as usize];
        let deadline = queue.pop_front_if(|deadline| deadline.at <= now);
        if queue.is_empty() && queue.capacity() > TIDY_FROM {
            *queue = VecDeque::new();
        }
        deadline
    }

    // --- grants that run out ---

    /// Notes that a stream's grant runs out in this second of unix time.
    pub fn expires(&mut self, unix_s: u32, token: Token) {
        self.expiries.push(Reverse((unix_s, token)));
    }

    /// The next stream whose second has come.
    pub fn pop_expired(&mut self, unix_s: u64) -> Option<Token> {
        let &Reverse((at, token)) = self.expiries.peek()?;
        if u64::from(at) > unix_s {
            return None;
        }
        self.expiries.pop();
        Some(token)
    }

    /// Whether most of these entries must be stale, given how many connections are open: every
    /// renewal and every stream that ends early leaves one, and its second may be hours away.
    pub fn is_crowded(&self, open: u32) -> bool {
        self.expiries.len() > TIDY_FROM.max(2 * open as usize)
    }

    /// Keeps each entry that is still of use, once.
    pub fn tidy_expiries(&mut self, is_of_use: impl Fn(u32, Token) -> bool) {
        let mut entries = std::mem::take(&mut self.expiries).into_vec();
        entries.retain(|&Reverse((at, token))| is_of_use(at, token));
        entries.sort_unstable();
        entries.dedup();
        entries.shrink_to(TIDY_FROM);
        self.expiries = entries.into();
    }

    // --- the hand ---

    /// Makes the hand go round once in this time from now on.
    pub fn set_period(&mut self, period: Duration) {
        self.hand.period = period;
        self.hand.owed_ns = 0;
    }

    /// Whether the hand is due to move.
    pub fn is_hand_due(&self, now: Duration) -> bool {
        self.hand.next() <= now
    }

    /// Moves the hand; returns how many of this many slots to visit now.
    pub fn advance(&mut self, now: Duration, slots: u32) -> u32 {
        let Hand { period, moved_at, owed_ns, .. } = &mut self.hand;
        let period_ns = period.as_nanos().max(1);
        let elapsed = (now - *moved_at).min(*period);
        *moved_at = now;
        *owed_ns += elapsed.as_nanos() * u128::from(slots);
        let due = *owed_ns / period_ns;
        *owed_ns %= period_ns;
        due.min(u128::from(slots)) as u32
    }

    /// The slot to visit.
    pub fn look_on(&mut self, slots: u32) -> u32 {
        let slot = self.hand.slot % slots;
        self.hand.slot = slot + 1;
        slot
    }
}

impl Hand {
    fn next(&self) -> Duration {
        self.moved_at + TICK.min(self.period / 4).max(Duration::from_millis(1))
    }
}

/// Deadlines are rounded up to ticks, so that thousands of connections accepted within one tick are
/// handled in one turn and not each in its own.
fn next_tick(at: Duration) -> Duration {
    let tick = TICK.as_nanos() as u64;
    Duration::from_nanos((at.as_nanos() as u64).next_multiple_of(tick))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(25);
    const LATER: Duration = Duration::from_secs(10);

    fn token(slot: u32) -> Token {
        Token { slot, generation: 1 }
    }

    fn wait(clock: &mut Clock, slot: u32, matters: impl Fn(&Deadline) -> bool) {
        clock.wait(Why::Head, token(slot), Mark::default(), (Duration::ZERO, LATER), matters);
    }

    #[test]
    fn deadlines_that_lost_their_meaning_do_not_pile_up_and_the_others_stay_in_order() {
        let mut clock = Clock::new(PERIOD);
        for slot in 0..100_000 {
            wait(&mut clock, slot, |other| other.token.slot % 1000 == 0);
            assert!(clock.waits[Why::Head as usize].len() <= TIDY_FROM);
        }
        let mut kept = Vec::new();
        while let Some((_, due)) = clock.pop_due(LATER) {
            kept.push(due.token.slot);
        }
        assert!(kept.is_sorted());
        assert_eq!(kept.iter().filter(|slot| *slot % 1000 == 0).count(), 100);
    }

    #[test]
    fn deadlines_that_matter_all_stay() {
        let mut clock = Clock::new(PERIOD);
        for slot in 0..10_000 {
            wait(&mut clock, slot, |_| true);
        }
        assert_eq!(clock.waits[Why::Head as usize].len(), 10_000);
    }

    #[test]
    fn the_next_time_is_that_of_the_soonest_deadline_of_any_kind() {
        let mut clock = Clock::new(PERIOD);
        for (why, slot, seconds) in [(Why::Body, 1, 30), (Why::Head, 2, 20), (Why::Stream, 3, 10)] {
            let times = (Duration::ZERO, Duration::from_secs(seconds));
            clock.wait(why, token(slot), Mark::default(), times, |_| true);
        }
        for (seconds, slot) in [(10, 3), (20, 2), (30, 1)] {
            let at = Duration::from_secs(seconds);
            assert_eq!(clock.next(false), Some(at));
            assert!(clock.pop_due(at - TICK).is_none());
            assert_eq!(clock.pop_due(at).map(|(_, due)| due.token.slot), Some(slot));
            assert!(clock.pop_due(at).is_none());
        }
        assert_eq!(clock.next(false), None);
    }

    #[test]
    fn the_soonest_grant_comes_first_and_none_before_its_second() {
        let mut clock = Clock::new(PERIOD);
        for (at, slot) in [(30, 3), (10, 1), (20, 2)] {
            clock.expires(at, token(slot));
        }
        assert_eq!(clock.pop_expired(9), None);
        assert_eq!(clock.pop_expired(20), Some(token(1)));
        assert_eq!(clock.pop_expired(20), Some(token(2)));
        assert_eq!(clock.pop_expired(20), None);
    }

    /// One connection that shows two tokens alternately, over and over.
    #[test]
    fn renewals_do_not_pile_up() {
        let mut clock = Clock::new(PERIOD);
        for renewal in 0..100_000 {
            let at = 1000 + renewal % 2;
            clock.expires(at, token(0));
            if clock.is_crowded(1) {
                clock.tidy_expiries(|kept, _| kept == at);
                assert_eq!(clock.expiries.len(), 1);
            }
            assert!(clock.expiries.len() <= TIDY_FROM);
        }
    }

    #[test]
    fn with_many_connections_open_their_grants_are_not_crowded() {
        let mut clock = Clock::new(PERIOD);
        for slot in 0..10_000 {
            clock.expires(1000, token(slot));
        }
        assert!(!clock.is_crowded(5_000));
        assert!(clock.is_crowded(4_999));
    }
}
