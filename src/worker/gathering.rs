//! When a worker waits for some more tokens before it looks at those that have come. Producers send
//! them one by one, each over a socket of its own, and to be woken for each costs more than the token
//! does. No gathering begins after a turn in which anything else came, so that a worker with other
//! work to do does that at once; and where tokens are rare each is taken as it comes.

use std::time::Duration;

use crate::limits::GATHER_TIME;

/// What came in this turn, and when tokens came before it.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    now: Duration,
    /// When tokens came last, before this turn.
    before: Duration,
    /// Requests of this turn with tokens.
    tokens: u32,
    /// Those before what is being received.
    tokens_before: u32,
    /// Something was received that was no token.
    others: bool,
}

impl Gathering {
    pub fn begin_turn(&mut self, now: Duration) {
        if std::mem::take(&mut self.tokens) > 0 {
            self.before = self.now;
        }
        (self.now, self.others) = (now, false);
    }

    /// Tokens go to the log.
    pub fn token(&mut self) {
        self.tokens += 1;
    }

    pub fn begin_receiving(&mut self) {
        self.tokens_before = self.tokens;
    }

    /// What was received has had its effect.
    pub fn end_receiving(&mut self) {
        self.others |= self.tokens == self.tokens_before;
    }

    /// Whether it is worth waiting: two tokens or more are to be expected in the time it takes.
    pub fn pays(&self) -> bool {
        let expected = GATHER_TIME * self.tokens >= (self.now - self.before) * 2;
        self.tokens > 0 && !self.others && expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_come_close_behind_each_other_are_gathered_unless_anything_else_comes() {
        let mut gathering = Gathering::default();
        let mut turn = |at: u32, received: &[bool]| {
            gathering.begin_turn(Duration::from_secs(1) + GATHER_TIME * at / 4);
            for &is_token in received {
                gathering.begin_receiving();
                if is_token {
                    gathering.token();
                }
                gathering.end_receiving();
            }
            gathering.pays()
        };
        assert!(!turn(0, &[true]), "the first one");
        assert!(turn(2, &[true]));
        assert!(turn(6, &[true, true]));
        assert!(!turn(8, &[true, true, false]));
        assert!(!turn(9, &[]));
        assert!(turn(10, &[true]));
        assert!(!turn(14, &[true]), "they become rare");
    }
}
