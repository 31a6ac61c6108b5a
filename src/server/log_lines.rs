//! The operator's log lines about what happens in the workers: single lines as they come; and
//! refusals and faults from counters, so that a flood of refusals is one line now and then. They
//! have a thread of their own, because the reader of the log may be slow.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tracing::{debug, info, warn};

use self::Seriousness::{Info, Warn};
use super::{ServerError, Shared};
use crate::metrics::{Counter, ERROR_STATUSES, WorkerMetrics};
use crate::reason::{AcceptFailure, CloseReason, Refused};
use crate::worker::{LogLine, LoggedRequest};

/// Lines that may wait to be written: a burst of requests to all workers in one turn.
const LINES_WAITING_MAX: usize = 8192;

/// How often counters are looked at.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// How often there is a line about a number that keeps growing.
const TELL_PAUSE: Duration = Duration::from_secs(10);

/// Starts the thread. It ends when the last sender is dropped.
pub(super) fn start(shared: &Shared) -> Result<(Sender<LogLine>, JoinHandle<()>), ServerError> {
    let (to_log, lane) = bounded(LINES_WAITING_MAX);
    let metrics = shared.metrics.clone();
    let thread = thread::Builder::new()
        .name("lines".into())
        .spawn(move || write_lines(&lane, &metrics))
        .map_err(|error| ServerError::io("starting the thread of the log lines", error))?;
    Ok((to_log, thread))
}

fn write_lines(lane: &Receiver<LogLine>, metrics: &[impl AsRef<WorkerMetrics>]) {
    let (began, mut watch) = (Instant::now(), Watch::default());
    let mut look_at = began + LOOK_PAUSE;
    let look = |watch: &mut Watch| {
        let sum = |of: &Of| metrics.iter().map(|metrics| of(metrics.as_ref()).value()).sum();
        watch.look(began.elapsed(), sum).for_each(|grown| grown.write());
    };
    loop {
        match lane.recv_deadline(look_at) {
            Ok(line) => write(&line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return look(&mut watch),
        }
        if Instant::now() >= look_at {
            look(&mut watch);
            look_at = Instant::now() + LOOK_PAUSE;
        }
    }
}

fn write(line: &LogLine) {
    match line {
        LogLine::Answered { id, client, asked, status, took } => {
            let LoggedRequest { method, path, .. } = &**asked;
            let took_us = took.as_micros() as u64;
            let client = client.map(tracing::field::display);
            info!(connection = %id, client, method = %method, path = %path, status, took_us, "request");
        }
        LogLine::Opened { id, transport } => debug!(connection = %id, transport, "stream opened"),
        LogLine::Closed { id, transport, reason, age_s } => {
            let reason = CloseReason::LABELS[reason.index()];
            debug!(connection = %id, transport, reason, age_s, "connection ended");
        }
    }
}

/// Remembers what was reported, and when. No I/O.
struct Watch {
    counters: Vec<Watched>,
}

impl Default for Watch {
    fn default() -> Self {
        let single = SINGLE
            .map(|(what, reason, seriousness, of)| Watched::new(what, reason, seriousness, of));
        let of_connections =
            Watched::refusals_of_connections().chain(Watched::failures_to_accept());
        let labelled = of_connections.chain(Watched::refusals_of_requests());
        Self { counters: labelled.chain(single).collect() }
    }
}

impl Watch {
    /// Finds the counters that have grown and were not reported a moment ago.
    fn look<'w>(
        &'w mut self,
        now: Duration,
        sum: impl Fn(&Of) -> u64 + 'w,
    ) -> impl Iterator<Item = Grown<'w>> {
        self.counters.iter_mut().filter_map(move |watched| watched.look(now, &sum))
    }
}

/// Where a counter is.
type Of = Box<dyn Fn(&WorkerMetrics) -> &Counter + Send>;

/// A counter that is watched.
struct Watched {
    what: &'static str,
    reason: String,
    seriousness: Seriousness,
    of: Of,
    /// What was reported last, and when.
    told: (u64, Option<Duration>),
}

/// Whether the operator may have to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seriousness {
    Warn,
    Info,
}

/// A counter without a label: what happened, its cause, its seriousness, and where it is counted.
type Single = (&'static str, &'static str, Seriousness, fn(&WorkerMetrics) -> &Counter);

const SINGLE: [Single; 6] = [
    ("publishes refused", "the log", Warn, |of| &of.publish_refusals),
    ("slow readers", "skipped", Warn, |of| &of.gaps_overrun),
    ("slow readers", "disconnected", Warn, |of| &of.slow_disconnects),
    ("completion queue", "overflow", Warn, |of| &of.ring_cq_overflows),
    ("receive buffers", "none free", Info, |of| &of.ring_no_buffers),
    ("log lines dropped", "not written in time", Warn, |of| &of.lines_dropped),
];

impl Watched {
    fn new(
        what: &'static str,
        reason: impl Into<String>,
        seriousness: Seriousness,
        of: impl Fn(&WorkerMetrics) -> &Counter + Send + 'static,
    ) -> Self {
        Self { what, reason: reason.into(), seriousness, of: Box::new(of), told: (0, None) }
    }

    fn refusals_of_connections() -> impl Iterator<Item = Self> {
        Refused::ALL.into_iter().map(|refused| {
            let seriousness = if refused == Refused::Draining { Info } else { Warn };
            Self::new("connections refused", refused.label(), seriousness, move |of| {
                &of.refused[refused as usize]
            })
        })
    }

    fn failures_to_accept() -> impl Iterator<Item = Self> {
        AcceptFailure::ALL.into_iter().map(|failure| {
            Self::new("accepting fails", failure.cause(), Warn, move |of| {
                &of.accept_failures[failure as usize]
            })
        })
    }

    fn refusals_of_requests() -> impl Iterator<Item = Self> {
        let statuses = ERROR_STATUSES.iter().map(|status| format!("status {status}"));
        let reasons = statuses.chain(["another error status".to_owned()]);
        reasons.enumerate().map(|(place, reason)| {
            Self::new("requests refused", reason, Info, move |of| &of.request_errors[place])
        })
    }

    /// Tells what the counter has grown to, unless that was done a moment ago.
    fn look(&mut self, now: Duration, sum: impl Fn(&Of) -> u64) -> Option<Grown<'_>> {
        let (known, at) = self.told;
        let value = sum(&self.of);
        let too_soon = at.is_some_and(|at| now.saturating_sub(at) < TELL_PAUSE);
        if value <= known || too_soon {
            return None;
        }
        self.told = (value, Some(now));
        let Self { what, ref reason, seriousness, .. } = *self;
        Some(Grown { what, reason, seriousness, count: value - known })
    }
}

/// A counter that has grown since it was last reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grown<'w> {
    what: &'static str,
    reason: &'w str,
    seriousness: Seriousness,
    count: u64,
}

impl Grown<'_> {
    fn write(self) {
        let Self { what, reason, seriousness, count } = self;
        match seriousness {
            Warn => warn!(reason, count, "{what}"),
            Info => info!(reason, count, "{what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_a_line_at_once_and_then_one_every_ten_seconds() {
        let metrics = WorkerMetrics::default();
        let mut watch = Watch::default();
        let mut counts = Vec::new();
        for second in 0..25 {
            metrics.refused[Refused::Rate as usize].add(100);
            let grown = watch.look(Duration::from_secs(second), |of| of(&metrics).value());
            counts.extend(grown.map(|grown| (second, grown.reason.to_owned(), grown.count)));
        }
        let rate = |second, count| (second, "rate".to_owned(), count);
        assert_eq!(counts, [rate(0, 100), rate(10, 1000), rate(20, 1000)]);
    }

    #[test]
    fn what_does_not_grow_is_not_told_of() {
        let metrics = WorkerMetrics::default();
        let mut watch = Watch::default();
        assert_eq!(watch.look(Duration::ZERO, |of| of(&metrics).value()).count(), 0);
        metrics.gaps_overrun.add(1);
        let at = |second| Duration::from_secs(second);
        assert_eq!(watch.look(at(1), |of| of(&metrics).value()).count(), 1);
        assert_eq!(watch.look(at(60), |of| of(&metrics).value()).count(), 0);
    }
}
