//! Publications on their way to the stream. Each is answered at a subject of its own. If there is no
//! answer in time, the publisher is told so; the event may or may not be in the stream.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;
use serde::Deserialize;

use crate::log::store::Answered;

/// How long the broker may take to answer: electing a leader takes less.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// What JetStream answers.
#[derive(Debug, Deserialize)]
struct Ack {
    /// Of the message, or of the first with the same key.
    seq: Option<u64>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    description: Option<String>,
}

/// The publications that are on their way.
#[derive(Debug, Default)]
pub struct Unanswered {
    since: HashMap<u64, Duration>,
    order: VecDeque<u64>,
}

impl Unanswered {
    pub fn push(&mut self, number: u64, now: Duration) {
        self.since.insert(number, now);
        self.order.push_back(number);
    }

    /// Whether all are answered.
    pub fn is_empty(&self) -> bool {
        self.since.is_empty()
    }

    /// Takes an answer. Returns what it means and how long it took; `None` if it came too late.
    pub fn answer(
        &mut self,
        number: u64,
        payload: &[u8],
        now: Duration,
    ) -> Option<(Answered, Duration)> {
        let took = now.saturating_sub(self.since.remove(&number)?);
        // An empty answer (503): no server could take it.
        let ack: Option<Ack> = serde_json::from_slice(payload).ok();
        if let Some(Refusal { description }) = ack.as_ref().and_then(|ack| ack.error.as_ref()) {
            let why = description.as_deref().unwrap_or_default();
            tracing::debug!(why, "JetStream refused a publication");
        }
        let seq = ack.filter(|ack| ack.error.is_none()).and_then(|ack| ack.seq);
        Some((Answered::new(number, seq), took))
    }

    /// Gives up those that have waited for too long.
    pub fn overdue(&mut self, now: Duration) -> Vec<Answered> {
        let mut given_up = Vec::new();
        while let Some(&number) = self.order.front() {
            match self.since.get(&number) {
                Some(since) if now.saturating_sub(*since) < ANSWER_TIME_MAX => break,
                Some(_) => given_up.push(Answered::new(number, None)),
                None => {}
            }
            self.since.remove(&number);
            self.order.pop_front();
        }
        given_up
    }

    /// Those that are not answered, none of which will be.
    pub fn give_up(&mut self) -> Vec<Answered> {
        self.order.clear();
        self.since.drain().map(|(number, _)| Answered::new(number, None)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_answered_in_time_is_given_up_and_answered_once() {
        let mut unanswered = Unanswered::default();
        for number in 1..=3 {
            unanswered.push(number, Duration::from_secs(number));
        }
        let ack = br#"{"stream":"S","seq":7,"duplicate":true}"#;
        let (answered, took) = unanswered.answer(2, ack, Duration::from_secs(3)).expect("awaited");
        assert_eq!((answered.seq, took), (Some(7), Duration::from_secs(1)));
        assert!(unanswered.answer(2, ack, Duration::ZERO).is_none(), "doubled");
        assert_eq!(unanswered.overdue(Duration::from_secs(6)), [Answered::new(1, None)]);
        let refused = br#"{"error":{"code":503,"description":"no leader"}}"#;
        let answered = unanswered.answer(3, refused, Duration::ZERO).expect("awaited").0;
        assert_eq!(answered.seq, None);
        assert!(unanswered.is_empty());
        unanswered.push(4, Duration::ZERO);
        assert_eq!(unanswered.give_up(), [Answered::new(4, None)]);
    }
}
