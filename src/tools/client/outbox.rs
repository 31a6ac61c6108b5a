//! The lines a server has not confirmed. No I/O.
//!
//! Lines go out in requests that are answered as a whole, so lines of a broken request may or may
//! not have been published. Every line therefore has an idempotency key, and is sent again with the
//! same one: the server publishes it only once, as long as its history holds the key. That is why
//! few lines are under way at a time.

use std::collections::VecDeque;

/// Lines that may be unconfirmed: far fewer than the 1,000 events a channel's history holds by
/// default, so that the keys of all of them are still known.
pub const LINES_MAX: usize = 64;

/// Bytes that may be unconfirmed, not counting the last line.
pub const BYTES_MAX: usize = 4 * 1024 * 1024;

/// A line of the request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its line number in the input, from 1.
    pub number: u64,
    /// The publication as JSON, with the LF.
    pub json: Vec<u8>,
}

/// The unconfirmed lines, in order: those of requests that have ended, those of the request being
/// sent, and those that wait.
#[derive(Debug, Default)]
pub struct Outbox {
    lines: VecDeque<Line>,
    bytes: usize,
    /// The number of lines of each request that waits for its answer.
    ended: VecDeque<usize>,
    /// Lines of the request being sent.
    open: usize,
}

impl Outbox {
    /// Whether another line may come.
    pub fn has_room(&self) -> bool {
        self.lines.len() < LINES_MAX && self.bytes < BYTES_MAX
    }

    /// How many lines are unconfirmed.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether all is confirmed.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Lines of the request being sent.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Adds a line to send.
    pub fn push(&mut self, line: Line) {
        self.bytes += line.json.len();
        self.lines.push_back(line);
    }

    /// The next line to send, which belongs to the open request from now on.
    pub fn send_next(&mut self) -> Option<&Line> {
        let place = self.sent();
        let line = self.lines.get(place)?;
        self.open += 1;
        Some(line)
    }

    /// Whether a line waits to be sent.
    pub fn has_unsent(&self) -> bool {
        self.sent() < self.lines.len()
    }

    /// Ends the open request; its answer will come after those of earlier ones.
    pub fn end_request(&mut self) {
        debug_assert!(self.open > 0, "a request has lines");
        self.ended.push_back(std::mem::take(&mut self.open));
    }

    /// Confirms the oldest request: all of it is published.
    pub fn confirm(&mut self) {
        let count = self.ended.pop_front().unwrap_or(0);
        self.forget(count);
    }

    /// The oldest request was refused after this many lines. The connection is over, and everything
    /// else must be sent again.
    pub fn refuse(&mut self, published: usize) {
        let lines = self.ended.front().copied().unwrap_or(self.open);
        self.forget(published.min(lines));
        self.disconnect();
    }

    /// Drops the oldest line, which must not be sent again.
    pub fn drop_oldest(&mut self) -> Option<Line> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.json.len();
        Some(line)
    }

    /// The connection is over: what is unconfirmed must be sent again.
    pub fn disconnect(&mut self) {
        self.ended.clear();
        self.open = 0;
    }

    fn sent(&self) -> usize {
        self.ended.iter().sum::<usize>() + self.open
    }

    fn forget(&mut self, count: usize) {
        for line in self.lines.drain(..count) {
            self.bytes -= line.json.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64) -> Line {
        Line { number, json: number.to_string().into_bytes() }
    }

    fn outbox(lines: u64) -> Outbox {
        let mut outbox = Outbox::default();
        (1..=lines).for_each(|number| outbox.push(line(number)));
        outbox
    }

    fn send(outbox: &mut Outbox, count: usize) -> Vec<u64> {
        (0..count).map_while(|_| outbox.send_next().map(|line| line.number)).collect()
    }

    #[test]
    fn answers_confirm_requests_in_their_order() {
        let mut outbox = outbox(5);
        assert_eq!(send(&mut outbox, 2), [1, 2]);
        outbox.end_request();
        assert_eq!(send(&mut outbox, 9), [3, 4, 5]);
        assert!(!outbox.has_unsent());
        outbox.confirm();
        assert_eq!((outbox.len(), outbox.open()), (3, 3));
        outbox.end_request();
        outbox.confirm();
        assert!(outbox.is_empty() && outbox.ended.is_empty());
        assert_eq!(outbox.bytes, 0);
    }

    #[test]
    fn what_is_unconfirmed_is_sent_again_in_order() {
        let mut outbox = outbox(5);
        send(&mut outbox, 2);
        outbox.end_request();
        send(&mut outbox, 2);
        outbox.disconnect();
        assert_eq!(send(&mut outbox, 9), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_refusal_keeps_what_was_published_before_it() {
        let mut outbox = outbox(6);
        send(&mut outbox, 3);
        outbox.end_request();
        send(&mut outbox, 3);
        outbox.refuse(2);
        assert_eq!(outbox.drop_oldest(), Some(line(3)));
        assert_eq!(send(&mut outbox, 9), [4, 5, 6]);
        // A server that claims more than it was sent is not believed.
        outbox.refuse(99);
        assert!(outbox.is_empty());
    }

    #[test]
    fn room_is_bounded_in_lines_and_bytes() {
        assert!(outbox(LINES_MAX as u64 - 1).has_room());
        assert!(!outbox(LINES_MAX as u64).has_room());
        let mut outbox = Outbox::default();
        outbox.push(Line { number: 1, json: vec![b'x'; BYTES_MAX] });
        assert!(!outbox.has_room());
    }
}
