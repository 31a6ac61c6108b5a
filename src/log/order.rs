//! How far the log has come: which seq was assigned last, and which event can be seen.

/// The two ends of what is ordered and not seen.
#[derive(Debug, Default)]
pub(super) struct Order {
    assigned: u64,
    seen: u64,
}

impl Order {
    /// The last seq that was assigned.
    pub fn assigned(&self) -> u64 {
        self.assigned
    }

    /// The newest event that may be seen: the head of the log.
    pub fn head(&self) -> u64 {
        self.seen
    }

    /// Assigns the next seq.
    pub fn assign(&mut self) -> u64 {
        self.assigned += 1;
        self.assigned
    }

    /// Comes to an event that has its seq already. Returns whether the log has not come so far before.
    pub fn follow(&mut self, seq: u64) -> bool {
        let is_new = seq > self.assigned;
        self.assigned = self.assigned.max(seq);
        is_new
    }

    /// This event may be seen, and with it all before it.
    pub fn show(&mut self, seq: u64) {
        debug_assert!(seq <= self.assigned);
        self.seen = self.seen.max(seq);
    }

    /// Goes on after this seq, of which all may be seen.
    pub fn resume_at(&mut self, seq: u64) {
        debug_assert!(self.seen <= seq);
        (self.assigned, self.seen) = (seq, seq);
    }

    pub fn check_invariants(&self) {
        assert!(self.seen <= self.assigned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_never_goes_back_and_never_overtakes_what_is_assigned() {
        let mut order = Order::default();
        assert_eq!([order.assign(), order.assign(), order.head()], [1, 2, 0]);
        order.show(2);
        order.show(1);
        assert_eq!(order.head(), 2);
        assert_eq!([order.follow(2), order.follow(9), order.follow(9)], [false, true, false]);
        assert_eq!([order.assigned(), order.head()], [9, 2]);
        order.resume_at(20);
        assert_eq!([order.assign(), order.head()], [21, 20]);
        order.check_invariants();
    }
}
