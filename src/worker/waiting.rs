//! Requests that wait for room at the log, in an order that is fair to connections: one with many
//! requests under way waits behind those with few, and each connection's own requests stay in
//! order.
//!
//! Time is counted in rounds. A connection's first request is for the next round, its second for
//! the one after, and so on; each request that leaves moves the round on to its own. So a request
//! waits for one round of all connections, and one more for each request its own connection has
//! before it.

use std::collections::{BTreeMap, VecDeque};

use crate::log::message::ToLog;

/// Requests that wait for room at the log.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// That of the last request that left.
    round: u64,
    /// The round that leaves next, or is leaving.
    present_round: u64,
    /// What is left of it.
    present: VecDeque<ToLog>,
    /// Later rounds, each in the order in which its requests came. There are few at a time.
    later: BTreeMap<u64, VecDeque<ToLog>>,
    len: usize,
    /// The memory of a round that is over.
    spare: VecDeque<ToLog>,
}

impl Waiting {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a request of a connection that has `outstanding` requests under way already.
    pub fn push(&mut self, request: ToLog, outstanding: u16) {
        if self.is_empty() && outstanding == 0 {
            // The common case: it is a round of its own.
            self.present_round = self.round + 1;
            self.present.push_back(request);
        } else {
            let round = self.round + 1 + u64::from(outstanding);
            let spare = &mut self.spare;
            let line = self.later.entry(round).or_insert_with(|| std::mem::take(spare));
            line.push_back(request);
        }
        self.len += 1;
    }

    /// Sends the next request; returns whether it went. If it comes back, it keeps its place.
    pub fn send(&mut self, send: impl FnOnce(ToLog) -> Result<(), ToLog>) -> bool {
        if self.is_empty() {
            return false;
        }
        if self.present.is_empty()
            && let Some((round, line)) = self.later.pop_first()
        {
            self.present_round = round;
            self.spare = std::mem::replace(&mut self.present, line);
        }
        let Some(request) = self.present.pop_front() else { return false };
        if let Err(request) = send(request) {
            self.present.push_front(request);
            self.put_back();
            return false;
        }
        self.round = self.present_round;
        self.len -= 1;
        true
    }

    /// Makes the present round one of the later ones again: a request of an earlier round may come
    /// before there is room.
    fn put_back(&mut self) {
        let mut line = std::mem::take(&mut self.present);
        line.extend(self.later.remove(&self.present_round).into_iter().flatten());
        self.later.insert(self.present_round, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::message::Ask;

    /// A request recognised by its worker's number.
    fn request(number: u16) -> ToLog {
        ToLog::Worker { worker: number, body: Ask::Leave(Vec::new()) }
    }

    fn number_of(request: &ToLog) -> u16 {
        match request {
            ToLog::Worker { worker, .. } => *worker,
            other => panic!("not a worker's: {other:?}"),
        }
    }

    fn drained(waiting: &mut Waiting, count: usize) -> Vec<u16> {
        let mut sent = Vec::new();
        while sent.len() < count
            && waiting.send(|request| {
                sent.push(number_of(&request));
                Ok(())
            })
        {}
        sent
    }

    #[test]
    fn a_connection_with_many_waits_behind_those_with_few_and_keeps_its_order() {
        let mut waiting = Waiting::default();
        for outstanding in 0..50 {
            waiting.push(request(100 + outstanding), outstanding);
        }
        waiting.push(request(1), 0);
        waiting.push(request(2), 0);
        assert_eq!(drained(&mut waiting, 3), [100, 1, 2]);
        assert_eq!(drained(&mut waiting, 50), (101..150).collect::<Vec<_>>());
        assert!(waiting.is_empty());
    }

    /// A connection's second request is sent even if new connections keep coming with their first.
    #[test]
    fn no_request_waits_for_ever() {
        let mut waiting = Waiting::default();
        waiting.push(request(100), 3);
        let mut sent = Vec::new();
        for number in 0..10 {
            waiting.push(request(number), 0);
            sent.extend(drained(&mut waiting, 1));
        }
        assert!(sent.contains(&100), "{sent:?}");
    }

    #[test]
    fn what_comes_back_keeps_its_place() {
        let mut waiting = Waiting::default();
        waiting.push(request(1), 0);
        waiting.push(request(2), 0);
        assert!(!waiting.send(Err));
        assert_eq!(waiting.len(), 2);
        assert_eq!(drained(&mut waiting, 2), [1, 2]);
    }

    #[test]
    fn a_newcomer_goes_before_a_later_round_that_found_no_room() {
        let mut waiting = Waiting::default();
        waiting.push(request(100), 5);
        assert!(!waiting.send(Err));
        waiting.push(request(1), 0);
        assert_eq!(drained(&mut waiting, 2), [1, 100]);
    }
}
