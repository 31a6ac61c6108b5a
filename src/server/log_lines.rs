//! The operator's log lines about what happens in the workers: single lines as they come; and
//! refusals and faults from counters, so that a flood of refusals is one line now and then. They
//! have a thread of their own, because the reader of the log may be slow.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tracing::{debug, info, warn};

use super::{ServerError, Shared};
use crate::metrics::{Counter, ERROR_STATUSES, WorkerMetrics};
use crate::reason::{CloseReason, Refused};
use crate::worker::{Asked, LogLine};

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
        let sum = |of: Of| metrics.iter().map(|metrics| of(metrics.as_ref()).value()).sum();
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
            let Asked { method, path, .. } = &**asked;
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

type Of = fn(&WorkerMetrics) -> &Counter;

/// What is watched: what happened, its cause, whether the operator may have to act, and the
/// counter.
const WATCHED: [(&str, &str, Seriousness, Of); 23] = [
    ("connections refused", Refused::LABELS[0], Seriousness::Warn, |of| &of.refused[0]),
    ("connections refused", Refused::LABELS[1], Seriousness::Warn, |of| &of.refused[1]),
    ("connections refused", Refused::LABELS[2], Seriousness::Warn, |of| &of.refused[2]),
    ("connections refused", Refused::LABELS[3], Seriousness::Info, |of| &of.refused[3]),
    ("accepting fails", "no descriptor", Seriousness::Warn, |of| &of.accept_failures[0]),
    ("accepting fails", "epoll.max_user_watches", Seriousness::Warn, |of| &of.accept_failures[1]),
    ("accepting fails", "no memory", Seriousness::Warn, |of| &of.accept_failures[2]),
    ("requests refused", ERROR_STATUSES[0].1, Seriousness::Info, |of| &of.request_errors[0]),
    ("requests refused", ERROR_STATUSES[1].1, Seriousness::Info, |of| &of.request_errors[1]),
    ("requests refused", ERROR_STATUSES[2].1, Seriousness::Info, |of| &of.request_errors[2]),
    ("requests refused", ERROR_STATUSES[3].1, Seriousness::Info, |of| &of.request_errors[3]),
    ("requests refused", ERROR_STATUSES[4].1, Seriousness::Info, |of| &of.request_errors[4]),
    ("requests refused", ERROR_STATUSES[5].1, Seriousness::Info, |of| &of.request_errors[5]),
    ("requests refused", ERROR_STATUSES[6].1, Seriousness::Info, |of| &of.request_errors[6]),
    ("requests refused", ERROR_STATUSES[7].1, Seriousness::Info, |of| &of.request_errors[7]),
    ("requests refused", ERROR_STATUSES[8].1, Seriousness::Info, |of| &of.request_errors[8]),
    ("requests refused", ERROR_STATUSES[9].1, Seriousness::Info, |of| &of.request_errors[9]),
    ("publishes refused", "the log", Seriousness::Warn, |of| &of.publish_refusals),
    ("slow readers", "skipped", Seriousness::Warn, |of| &of.gaps_overrun),
    ("slow readers", "disconnected", Seriousness::Warn, |of| &of.slow_disconnects),
    ("completion queue", "overflow", Seriousness::Warn, |of| &of.ring_cq_overflows),
    ("receive buffers", "none free", Seriousness::Info, |of| &of.ring_no_buffers),
    ("log lines dropped", "not written in time", Seriousness::Warn, |of| &of.lines_dropped),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seriousness {
    Warn,
    Info,
}

/// A counter that has grown since it was last reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grown {
    what: &'static str,
    reason: &'static str,
    seriousness: Seriousness,
    count: u64,
}

impl Grown {
    fn write(self) {
        let Self { what, reason, seriousness, count } = self;
        match seriousness {
            Seriousness::Warn => warn!(reason, count, "{what}"),
            Seriousness::Info => info!(reason, count, "{what}"),
        }
    }
}

/// Remembers what was reported, and when. No I/O.
#[derive(Debug, Default)]
struct Watch {
    told: [(u64, Option<Duration>); WATCHED.len()],
}

impl Watch {
    /// Finds the counters that have grown and were not reported a moment ago.
    fn look<'w>(
        &'w mut self,
        now: Duration,
        sum: impl Fn(Of) -> u64 + 'w,
    ) -> impl Iterator<Item = Grown> + 'w {
        let look_at = move |(told, watched): (&mut (u64, Option<Duration>), _)| {
            let &(what, reason, seriousness, of): &(_, _, _, Of) = watched;
            let (known, at) = *told;
            let value = sum(of);
            let too_soon = at.is_some_and(|at| now.saturating_sub(at) < TELL_PAUSE);
            if value <= known || too_soon {
                return None;
            }
            *told = (value, Some(now));
            Some(Grown { what, reason, seriousness, count: value - known })
        };
        self.told.iter_mut().zip(&WATCHED).filter_map(look_at)
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
            metrics.refused[2].add(100);
            let grown = watch.look(Duration::from_secs(second), |of| of(&metrics).value());
            counts.extend(grown.map(|grown| (second, grown.reason, grown.count)));
        }
        assert_eq!(counts, [(0, "rate", 100), (10, "rate", 1000), (20, "rate", 1000)]);
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
