//! When grants run out. An entry is left behind by every renewal and by every stream that ends early,
//! and its second may be hours away: so the entries are looked through before they outnumber the
//! connections by far, and the stale ones go.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::ring::Token;

/// Entries below which nobody looks for stale ones.
const ENTRIES_KEPT: usize = 1024;

/// The seconds (unix time) at which grants of streams run out, soonest first.
#[derive(Debug, Default)]
pub(super) struct Expiries(BinaryHeap<Reverse<(u32, Token)>>);

impl Expiries {
    pub fn push(&mut self, unix_s: u32, token: Token) {
        self.0.push(Reverse((unix_s, token)));
    }

    /// The next whose second has come.
    pub fn pop_due(&mut self, unix_s: u64) -> Option<Token> {
        let &Reverse((at, token)) = self.0.peek()?;
        if u64::from(at) > unix_s {
            return None;
        }
        self.0.pop();
        Some(token)
    }

    /// Whether most entries must be stale, with this many connections open.
    pub fn are_crowded(&self, open: u32) -> bool {
        self.0.len() > ENTRIES_KEPT.max(2 * open as usize)
    }

    /// Keeps the entries that are of use, each once.
    pub fn retain(&mut self, is_of_use: impl Fn(u32, Token) -> bool) {
        let mut entries = std::mem::take(&mut self.0).into_vec();
        entries.retain(|&Reverse((at, token))| is_of_use(at, token));
        entries.sort_unstable();
        entries.dedup();
        entries.shrink_to(ENTRIES_KEPT);
        self.0 = entries.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(slot: u32) -> Token {
        Token { slot, generation: 1 }
    }

    #[test]
    fn the_soonest_comes_first_and_none_before_its_second() {
        let mut expiries = Expiries::default();
        for (at, slot) in [(30, 3), (10, 1), (20, 2)] {
            expiries.push(at, token(slot));
        }
        assert_eq!(expiries.pop_due(9), None);
        assert_eq!(expiries.pop_due(20), Some(token(1)));
        assert_eq!(expiries.pop_due(20), Some(token(2)));
        assert_eq!(expiries.pop_due(20), None);
    }

    /// One connection that shows two tokens in turn, over and over.
    #[test]
    fn renewals_do_not_pile_up() {
        let mut expiries = Expiries::default();
        for renewal in 0..100_000 {
            let at = 1000 + renewal % 2;
            expiries.push(at, token(0));
            if expiries.are_crowded(1) {
                expiries.retain(|kept, _| kept == at);
                assert_eq!(expiries.0.len(), 1);
            }
            assert!(expiries.0.len() <= ENTRIES_KEPT);
        }
    }

    #[test]
    fn with_many_connections_open_their_entries_are_not_crowded() {
        let mut expiries = Expiries::default();
        for slot in 0..10_000 {
            expiries.push(1000, token(slot));
        }
        assert!(!expiries.are_crowded(5_000));
        assert!(expiries.are_crowded(4_999));
    }
}
