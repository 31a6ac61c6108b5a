//! When tokens are checked. Checking a public-key signature takes as long as sending to dozens of
//! subscribers, so each turn has a time budget for such checks, and requests whose token must wait
//! are in one of two lines. Addresses that have lately shown several bad tokens have a line of
//! their own, which gets a small part of the time: behind a proxy all clients share one address, so
//! they may be slowed down but not refused. Tokens signed with a shared secret cost next to nothing
//! and never wait.

use std::collections::VecDeque;
use std::time::Duration;

use super::state::Flags;
use super::{Cx, Sessions};
use crate::bits::Change;
use crate::bucket::Bucket;
use crate::limits::{
    FAILED_CHECKS_PER_SECOND, FAILURES_KEPT, SUSPECTS_PAUSE, TOKEN_CHECK_TIME_PER_TURN,
};
use crate::ring::Token;

/// The checks of one worker.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// Time the present turn's checks have taken.
    spent: Duration,
    waiting: VecDeque<Token>,
    suspects: VecDeque<Token>,
    /// The next suspect's token is not checked before this time.
    suspects_at: Duration,
    /// The connection whose request has come to the front of its line.
    called: Option<Token>,
    failures: Failures,
}

/// A line of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Waiting,
    Suspects,
}

/// Failed checks by address: a table of buckets indexed by the address's hash. Two addresses that
/// share a bucket are suspected together.
#[derive(Debug, Default)]
struct Failures(Box<[Bucket]>);

impl Failures {
    /// Where addresses are not known, all share one bucket.
    fn bucket(place: Option<u32>) -> usize {
        place.map_or(0, |place| place as usize % FAILURES_KEPT)
    }

    fn note(&mut self, place: Option<u32>, now: Duration) {
        if self.0.is_empty() {
            self.0 = vec![Bucket::default(); FAILURES_KEPT].into();
        }
        self.0[Self::bucket(place)].take(FAILED_CHECKS_PER_SECOND, now);
    }

    fn are_too_many(&self, place: Option<u32>, now: Duration) -> bool {
        let bucket = self.0.get(Self::bucket(place));
        bucket.is_some_and(|bucket| bucket.is_empty(FAILED_CHECKS_PER_SECOND, now))
    }
}

impl Checks {
    pub fn begin_turn(&mut self) {
        self.spent = Duration::ZERO;
    }

    /// When the next check is due.
    pub fn next_at(&self, now: Duration) -> Option<Duration> {
        match (self.waiting.is_empty(), self.suspects.is_empty()) {
            (false, _) => Some(now),
            (true, false) => Some(self.suspects_at),
            (true, true) => None,
        }
    }

    /// Whether the connection is in a line.
    pub fn has(&self, token: Token) -> bool {
        self.waiting.contains(&token) || self.suspects.contains(&token)
    }

    /// Whether both lines are empty.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.suspects.is_empty()
    }

    /// Takes the next request out of its line, if there is time for it. A suspect goes first once
    /// its time has come; otherwise a storm of the others would keep suspects waiting for ever.
    fn call(&mut self, now: Duration) -> Option<Token> {
        if self.spent >= TOKEN_CHECK_TIME_PER_TURN {
            return None;
        }
        let suspect = if self.suspects_at <= now { self.suspects.pop_front() } else { None };
        self.called = suspect.or_else(|| self.waiting.pop_front());
        self.called
    }

    /// Whether a check of this cost may be made now; if so, charges its time.
    fn may_go(&mut self, token: Token, line: Line, cost: Duration, now: Duration) -> bool {
        let called = self.called.take_if(|called| *called == token).is_some();
        let free = line == Line::Waiting
            && self.waiting.is_empty()
            && self.spent < TOKEN_CHECK_TIME_PER_TURN;
        if called || free {
            self.spent += cost;
        }
        if called && line == Line::Suspects {
            self.suspects_at = now + cost * SUSPECTS_PAUSE;
        }
        called || free
    }

    fn line(&mut self, line: Line) -> &mut VecDeque<Token> {
        match line {
            Line::Waiting => &mut self.waiting,
            Line::Suspects => &mut self.suspects,
        }
    }
}

impl Sessions {
    /// The next session whose token is to be checked, if this turn has time for it.
    pub fn next_check(&mut self) -> Option<Token> {
        self.shared.checks.call(self.shared.now)
    }

    /// Ends this turn's checks.
    pub fn end_checks(&mut self) {
        self.shared.checks.called = None;
    }

    /// When the next token is due to be checked.
    pub fn next_check_at(&self) -> Option<Duration> {
        self.shared.checks.next_at(self.shared.now)
    }
}

/// Whether a token with so costly a check has to wait. If so, the input that brought it is read
/// again once it is at the front of its line.
pub(super) fn has_to_wait(cx: &mut Cx<'_>, cost: Duration) -> bool {
    if cost.is_zero() {
        return false;
    }
    let (token, line) = (cx.token, line_of(cx));
    if cx.shared.checks.may_go(token, line, cost, cx.shared.now) {
        return false;
    }
    if cx.session.flags.raise(Flags::UNREAD) {
        cx.shared.checks.line(line).push_back(token);
    }
    true
}

fn line_of(cx: &Cx<'_>) -> Line {
    match cx.shared.checks.failures.are_too_many(cx.world.client_place(), cx.shared.now) {
        true => Line::Suspects,
        false => Line::Waiting,
    }
}

/// Counts a costly check that failed against the client's address.
pub(super) fn count_failure(cx: &mut Cx<'_>) {
    cx.shared.checks.failures.note(cx.world.client_place(), cx.shared.now);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn token(slot: u32) -> Token {
        Token { slot, generation: 1 }
    }

    fn called(checks: &mut Checks, now: Duration) -> Vec<u32> {
        let mut slots = Vec::new();
        while let Some(token) = checks.call(now) {
            let line = if token.slot < 100 { Line::Waiting } else { Line::Suspects };
            assert!(checks.may_go(token, line, TOKEN_CHECK_TIME_PER_TURN / 4, now));
            slots.push(token.slot);
        }
        slots
    }

    #[test]
    fn a_turn_has_time_for_so_many_and_the_others_keep_their_order() {
        let mut checks = Checks::default();
        checks.waiting.extend((0..10).map(token));
        assert_eq!(called(&mut checks, MS), [0, 1, 2, 3]);
        checks.begin_turn();
        assert_eq!(called(&mut checks, MS), [4, 5, 6, 7]);
        assert!(!checks.may_go(token(50), Line::Waiting, MS, MS), "others are before it");
    }

    #[test]
    fn suspects_get_a_part_of_the_time_and_always_that() {
        let mut checks = Checks::default();
        checks.suspects.extend((100..110).map(token));
        checks.waiting.extend((0..100).map(token));
        assert_eq!(called(&mut checks, MS), [100, 0, 1, 2]);
        checks.begin_turn();
        assert_eq!(called(&mut checks, MS), [3, 4, 5, 6]);
        checks.begin_turn();
        let later = MS + TOKEN_CHECK_TIME_PER_TURN / 4 * SUSPECTS_PAUSE;
        assert_eq!(called(&mut checks, later), [101, 7, 8, 9]);
        assert_eq!(checks.next_at(later), Some(later));
    }

    #[test]
    fn an_address_is_suspected_after_several_failures_and_no_longer_than_they_last() {
        let mut failures = Failures::default();
        let now = Duration::from_secs(100);
        assert!(!failures.are_too_many(Some(7), now));
        for _ in 0..100 * FAILED_CHECKS_PER_SECOND {
            failures.note(Some(7), now);
        }
        assert!(failures.are_too_many(Some(7), now));
        assert!(!failures.are_too_many(Some(8), now));
        assert!(!failures.are_too_many(Some(7), now + Duration::from_secs(1)));
        assert_eq!(failures.0.len(), FAILURES_KEPT);
    }
}
