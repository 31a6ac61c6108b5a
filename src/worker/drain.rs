//! Shutting down. The port and idle connections are closed at once, requests that still come are
//! refused, and streams end one after the other: a few within milliseconds, many spread over the
//! time allowed, so that clients do not all reconnect at once.
//!
//! If another process takes over the port, the worker retires first: it accepts no more and serves
//! the connections it has as usual. No client notices, and the drain follows.

use std::time::Duration;

use crossbeam_channel::Sender;

use super::effect::Ending;
use super::session::{self, Protocol};
use super::turn::Core;
use crate::limits::TICK;
use crate::reason::CloseReason;
use crate::ring::Op;

/// Streams end over this part of the drain time; the rest is for sending to the last of them.
const SPREAD_PARTS: (u32, u32) = (3, 4);

/// Pause between the ends of two streams if the time allows it: 200 clients a second reconnect from
/// each worker.
const STREAM_PACE: Duration = Duration::from_millis(5);

/// Pause between two looks at the streams while there are few.
const STEP: Duration = Duration::from_millis(10);

/// Turns before the first connection ends. What was published before the shutdown may still be in
/// the log's lane in the first of them; in the second it is taken, and sent to its readers.
const DELIVERY_TURNS: u8 = 2;

/// How long a connection that was just accepted has for its first request. That is nearly always
/// there already: the kernel holds a connection back until its first bytes come.
const NEWCOMER_TIME: Duration = Duration::from_millis(250);

/// How far a worker's shutdown has come.
#[derive(Debug, Default)]
pub(super) enum Drain {
    /// It has not begun.
    #[default]
    No,
    /// Nothing is accepted; accepted connections are heard until then.
    Retiring { until: Duration, heard: Option<Sender<()>> },
    /// Streams are being ended.
    Draining(Pace),
    /// Everything is ended.
    Stopped,
}

/// How fast streams end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    began: Duration,
    per_stream: Duration,
    /// When to look at the streams again.
    next_at: Duration,
    /// Turns before that.
    turns_left: u8,
    /// Streams ended so far.
    ended: u64,
}

impl Pace {
    fn new(now: Duration, streams: u32, drain_time: Duration) -> Self {
        let (part, parts) = SPREAD_PARTS;
        let per_stream = STREAM_PACE.min(drain_time * part / parts / streams.max(1));
        Self { began: now, per_stream, next_at: now, turns_left: DELIVERY_TURNS, ended: 0 }
    }

    /// How many streams should have ended by now; the first ends at once.
    fn due(&self, now: Duration) -> u64 {
        let elapsed = (now - self.began).as_nanos();
        let due = elapsed.checked_div(self.per_stream.as_nanos());
        due.map_or(u64::MAX, |due| u64::try_from(due).unwrap_or(u64::MAX).saturating_add(1))
    }

    fn step(&self) -> Duration {
        if self.per_stream < STREAM_PACE { TICK } else { STEP }
    }

    fn are_newcomers_late(&self, now: Duration) -> bool {
        now >= self.began + NEWCOMER_TIME
    }
}

impl Core {
    /// Whether the worker has nothing left to do and was told to end.
    pub fn is_done(&self) -> bool {
        match self.drain {
            Drain::No | Drain::Retiring { .. } => false,
            Drain::Draining(_) => {
                self.open() == 0 && self.net.is_idle() && !self.net.is_stopping_to_accept()
            }
            Drain::Stopped => self.net.is_idle(),
        }
    }

    fn is_draining(&self) -> bool {
        matches!(self.drain, Drain::Draining(_) | Drain::Stopped)
    }

    /// When the shutdown's next step is due.
    pub(super) fn next_drain_step(&self) -> Option<Duration> {
        match &self.drain {
            Drain::No => None,
            Drain::Retiring { heard, .. } => heard.as_ref().map(|_| self.now + STEP),
            Drain::Draining(pace) => Some(pace.next_at),
            Drain::Stopped => Some(self.now),
        }
    }

    /// Accepts no more, but leaves the port to another process. `heard` is told when every accepted
    /// connection has made its request or has had the time to.
    pub(super) fn retire(&mut self, heard: Sender<()>) {
        self.net.stop_accepting(Op::AcceptStop);
        let (until, heard) = (self.now + NEWCOMER_TIME, Some(heard));
        self.drain = Drain::Retiring { until, heard };
    }

    /// Leaves the port, unless another process has it, and begins to end connections.
    pub(super) fn begin_drain(&mut self) {
        if self.is_draining() {
            return;
        }
        if matches!(self.drain, Drain::No) {
            self.net.stop_accepting(Op::ListenStop);
        }
        self.sessions.begin_drain();
        let streams =
            self.connections().filter(|&index| self.sessions[index].is_subscriber()).count();
        let streams = u32::try_from(streams).unwrap_or(u32::MAX);
        let pace = Pace::new(self.now, streams, self.settings.drain_time);
        self.drain = Drain::Draining(pace);
        for index in self.net.indices() {
            if self.net.is_open(index) && self.sessions[index].protocol() == Protocol::Http2 {
                self.session(index, session::announce_drain);
            }
        }
    }

    /// Connections other than those that linger.
    fn connections(&self) -> impl Iterator<Item = u32> {
        self.net.indices().filter(|&index| self.net.is_open(index) && !self.net.is_lingering(index))
    }

    /// Ends what is left, at once.
    pub(super) fn stop(&mut self) {
        self.begin_drain();
        for index in self.net.indices() {
            if self.net.is_open(index) {
                self.end(index, Ending::Now(CloseReason::Drain));
            }
        }
        self.drain = Drain::Stopped;
    }

    /// Takes the next step of the shutdown.
    pub(super) fn drain_on(&mut self) {
        if let Drain::Draining(Pace { turns_left: left @ 1.., .. }) = &mut self.drain {
            *left -= 1;
            return;
        }
        match &self.drain {
            Drain::No | Drain::Stopped => {}
            Drain::Retiring { until, .. } => {
                let waits = |index| {
                    self.sessions[index].protocol() == Protocol::Http
                        && !self.sessions[index].has_begun()
                };
                let settled = self.net.has_stopped_accepting() && !self.connections().any(waits);
                if settled || self.now >= *until {
                    self.tell_heard();
                }
            }
            &Drain::Draining(pace) if self.now >= pace.next_at => self.let_go(pace),
            Drain::Draining(_) => {}
        }
    }

    fn tell_heard(&mut self) {
        if let Drain::Retiring { heard, .. } = &mut self.drain
            && let Some(heard) = heard.take()
        {
            // The asker may have given up waiting.
            let _ = heard.try_send(());
        }
    }

    /// Ends all that is idle, and as many streams as are due.
    fn let_go(&mut self, mut pace: Pace) {
        let due = pace.due(self.now);
        for index in self.net.indices() {
            if !self.net.is_open(index) || self.net.is_lingering(index) {
                continue;
            }
            match self.sessions[index].protocol() {
                Protocol::Sse | Protocol::Ws if pace.ended < due => {
                    pace.ended += 1;
                    self.disconnect(index, CloseReason::Drain);
                }
                Protocol::Http if self.is_idle(index) => {
                    if self.sessions[index].has_begun() || pace.are_newcomers_late(self.now) {
                        self.end(index, Ending::Now(CloseReason::Drain));
                    }
                }
                Protocol::Http2 if self.net.stream_count(index) == 0 => {
                    self.disconnect(index, CloseReason::Drain);
                }
                // A publish that was accepted is completed and answered.
                Protocol::Sse
                | Protocol::Ws
                | Protocol::Http
                | Protocol::Http2
                | Protocol::WsClosing => {}
            }
        }
        pace.next_at = self.now + pace.step();
        self.drain = Drain::Draining(pace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN_TIME: Duration = Duration::from_secs(20);

    /// When the last of this many streams ends.
    fn last_end(streams: u32) -> Duration {
        let pace = Pace::new(Duration::ZERO, streams, DRAIN_TIME);
        let mut now = Duration::ZERO;
        while pace.due(now) < u64::from(streams) {
            now += pace.step();
        }
        now
    }

    #[test]
    fn one_stream_ends_at_once_and_many_are_spread_over_the_time_there_is() {
        assert_eq!(last_end(0), Duration::ZERO);
        assert_eq!(last_end(1), Duration::ZERO);
        assert!(last_end(10) <= Duration::from_millis(50), "{:?}", last_end(10));
        let thousand = last_end(1000);
        assert!((4..=6).contains(&thousand.as_secs()), "{thousand:?}");
        let crowd = last_end(100_000);
        assert!((14..=15).contains(&crowd.as_secs()), "{crowd:?}");
    }

    #[test]
    fn without_time_all_end_at_once() {
        let pace = Pace::new(Duration::from_secs(5), 7, Duration::ZERO);
        assert_eq!(pace.due(Duration::from_secs(5)), u64::MAX);
    }
}
