//! `/metrics`: reads every metric of [`METRICS`].
//!
//! A scrape costs the workers nothing: it reads memory they write anyway. Only the log is asked,
//! once. What distinguishes workers (how full, how busy) has a label `worker`; all else is summed,
//! so that a machine with many cores does not have a thousand series.

mod table;

use std::time::Instant;

use self::Reading::{Durations, Each, EachBy, Server, ServerBy, ServerDurations, Sum, SumBy};
use self::table::METRICS;
use super::exposition::{CONTENT_TYPE, Exposition, Label};
use super::process::Process;
use super::reply::Reply;
use super::{STALL_TIME, State};
use crate::log::LogStats;
use crate::metrics::{Counter, Histogram, WorkerMetrics};
use crate::server::Shared;
use crate::server::clerk::{LogCommand, LogReport};

/// A name, a line of help, and how the number is read. A name that ends in `_total` is a counter,
/// any other a gauge.
type Metric = (&'static str, &'static str, Reading);

/// Numbers by the value of a label.
type ByLabel = Vec<(&'static str, u64)>;

enum Reading {
    /// Of the whole server; left out if not known.
    Server(fn(&Scrape<'_>) -> Option<f64>),
    /// The same, by this label.
    ServerBy(&'static str, fn(&Scrape<'_>) -> ByLabel),
    /// Of all workers together.
    Sum(fn(&WorkerMetrics) -> &Counter),
    /// The same, by this label.
    SumBy(&'static str, fn(&WorkerMetrics) -> ByLabel),
    /// Of each worker.
    Each(fn(&WorkerMetrics) -> f64),
    /// The same, by this label.
    EachBy(&'static str, fn(&WorkerMetrics) -> ByLabel),
    /// Durations of all workers together.
    Durations(fn(&WorkerMetrics) -> &Histogram),
    /// Durations that no worker measures.
    ServerDurations(fn(&Shared) -> &Histogram),
}

/// What one scrape reads.
struct Scrape<'s> {
    state: &'s State,
    process: Process,
    /// `None` while the log is stalled.
    log: Option<LogReport>,
}

fn number(counter: &Counter) -> f64 {
    counter.value() as f64
}

fn labelled<'c>(
    labels: impl IntoIterator<Item = &'static str>,
    counters: impl IntoIterator<Item = &'c Counter>,
) -> ByLabel {
    labels.into_iter().zip(counters.into_iter().map(Counter::value)).collect()
}

impl State {
    /// `/metrics`. While the log is stalled, its figures are left out.
    pub(super) fn metrics(&self) -> Reply {
        let asked = self.ask_log(LogCommand::Stats);
        let process = Process::now();
        let deadline = Instant::now() + STALL_TIME;
        let log = asked.ok().and_then(|answer| answer.recv_deadline(deadline).ok());
        let scrape = Scrape { state: self, process, log };
        let mut out = Exposition::default();
        for metric in METRICS {
            scrape.write(metric, &mut out);
        }
        Reply::ok(CONTENT_TYPE, out.into_text().into_bytes())
    }
}

impl Scrape<'_> {
    fn write(&self, (name, help, reading): &Metric, out: &mut Exposition) {
        let mut samples = Vec::new();
        match reading {
            Durations(of) => return out.histogram(name, help, self.workers().map(of)),
            ServerDurations(of) => {
                let durations = of(&self.state.shared);
                return out.histogram(name, help, std::iter::once(durations));
            }
            Server(of) => samples.extend(of(self).map(|value| (vec![], value))),
            ServerBy(label, of) => samples.extend(by(label, of(self), None)),
            Sum(of) => samples.push((vec![], self.sum(of) as f64)),
            SumBy(label, of) => {
                let sum = self.workers().map(of).reduce(add).unwrap_or_default();
                samples.extend(by(label, sum, None));
            }
            Each(of) => {
                let numbers = self.workers().map(of).zip(0..);
                samples.extend(numbers.map(|(value, worker)| (vec![of_worker(worker)], value)));
            }
            EachBy(label, of) => {
                for (numbers, worker) in self.workers().map(of).zip(0..) {
                    samples.extend(by(label, numbers, Some(worker)));
                }
            }
        }
        if !samples.is_empty() {
            out.numbers(name, help, samples);
        }
    }

    fn workers(&self) -> impl Iterator<Item = &WorkerMetrics> {
        self.state.shared.metrics.iter().map(|metrics| &**metrics)
    }

    fn sum(&self, of: impl Fn(&WorkerMetrics) -> &Counter) -> u64 {
        self.workers().map(|metrics| of(metrics).value()).sum()
    }

    fn log_number(&self, of: fn(&LogStats) -> u64) -> Option<f64> {
        self.log.as_ref().map(|report| of(&report.stats) as f64)
    }

    fn log_numbers(&self, of: fn(&LogStats) -> ByLabel) -> ByLabel {
        self.log.as_ref().map(|report| of(&report.stats)).unwrap_or_default()
    }
}

fn of_worker(worker: u64) -> Label {
    Label::Number("worker", worker)
}

/// A sample for each value of a label.
fn by(
    label: &'static str,
    numbers: ByLabel,
    worker: Option<u64>,
) -> impl Iterator<Item = (Vec<Label>, f64)> {
    numbers.into_iter().map(move |(word, value)| {
        let labels = [Label::Word(label, word)].into_iter().chain(worker.map(of_worker));
        (labels.collect(), value as f64)
    })
}

fn add(left: ByLabel, right: ByLabel) -> ByLabel {
    left.into_iter().zip(right).map(|((label, left), (_, right))| (label, left + right)).collect()
}
