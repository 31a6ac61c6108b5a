//! `/metrics`: all counters under their public names.
//!
//! A scrape costs the workers nothing: it reads memory they write anyway. Only the log is asked,
//! once. What tells workers apart (how full, how busy) has a label `worker`; all else is added up,
//! so that a machine with many cores does not have a thousand series.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::exposition::{CONTENT_TYPE, Exposition, Label};
use super::process::Process;
use super::reply::Reply;
use super::{STALL_TIME, State};
use crate::metrics::{Counter, ERROR_STATUSES, FALLBACKS, REFUSALS, TRANSPORTS, WorkerMetrics};
use crate::reason::CloseReason;
use crate::server::clerk::{LogOrder, LogReport};

impl State {
    /// `/metrics`. While the log is stalled, what it counts is left out.
    pub(super) fn metrics(&self) -> Reply {
        let asked = self.ask_log(LogOrder::Stats);
        let mut out = Exposition::default();
        self.write_server(&mut out);
        write_process(&mut out, &Process::now(), self.started_unix_s);
        self.write_connections(&mut out);
        self.write_requests(&mut out);
        self.write_delivery(&mut out);
        self.write_subscribers(&mut out);
        self.write_workers(&mut out);
        self.write_rings(&mut out);
        let deadline = Instant::now() + STALL_TIME;
        let report = asked.ok().and_then(|answer| answer.recv_deadline(deadline).ok());
        out.gauge("pushline_log_up", "1 while the log answers, 0 while it is stalled.")
            .only(u8::from(report.is_some()));
        if let Some(report) = report {
            write_log(&mut out, &report);
        }
        Reply::ok(CONTENT_TYPE, out.into_text().into_bytes())
    }

    fn write_server(&self, out: &mut Exposition) {
        let version = Label::Word(env!("CARGO_PKG_VERSION"));
        out.gauge("pushline_build_info", "1, with the version as a label.")
            .sample(&[("version", version)], 1);
        let driver = self.shared.driver.to_string();
        out.gauge("pushline_driver_info", "1, with what workers ask the kernel by as a label.")
            .sample(&[("driver", Label::Word(&driver))], 1);
        out.gauge("pushline_draining", "1 while the server is going away.")
            .only(u8::from(self.draining.load(Ordering::Relaxed)));
        out.gauge("pushline_connections_max", "Connections there is room for.")
            .only(self.shared.census.max());
        out.counter("pushline_lines_dropped_total", "Log lines nobody had time to write.")
            .only(self.sum(|of| &of.lines_dropped));
    }

    fn write_connections(&self, out: &mut Exposition) {
        let mut open = out.gauge("pushline_connections", "Connections open now.");
        for (worker, metrics) in self.numbered() {
            for (transport, count) in TRANSPORTS.into_iter().zip(&metrics.open) {
                let labels = [("transport", Label::Word(transport)), ("worker", worker)];
                open.sample(&labels, count.value());
            }
        }
        let name = "pushline_accepts_total";
        self.per_worker_total(out, name, "Connections accepted.", |of| &of.accepts);
        let name = "pushline_connection_refusals_total";
        let mut refusals = out.counter(name, "Connections accepted only to be refused.");
        for (place, reason) in REFUSALS.into_iter().enumerate() {
            let count = self.sum(|of| &of.refused[place]);
            refusals.sample(&[("reason", Label::Word(reason))], count);
        }
        let help = "Connections that ended, by the reason decided first.";
        let mut closes = out.counter("pushline_closes_total", help);
        for (place, reason) in CloseReason::LABELS.into_iter().enumerate() {
            let count = self.sum(|of| &of.closes[place]);
            closes.sample(&[("reason", Label::Word(reason))], count);
        }
    }

    fn write_requests(&self, out: &mut Exposition) {
        let errors =
            (0..ERROR_STATUSES.len()).map(|place| self.sum(|of| &of.request_errors[place]));
        let help = "HTTP requests answered with an error.";
        out.counter("pushline_http_errors_total", help).only(errors.sum::<u64>());
        let mut total = |name, help, of: fn(&WorkerMetrics) -> &Counter| {
            out.counter(name, help).only(self.sum(of));
        };
        total("pushline_http_requests_total", "HTTP requests, upgrades included.", |of| {
            &of.requests
        });
        total(
            "pushline_publishes_accepted_total",
            "Events the log took from publishers; repeats it recognised included.",
            |of| &of.published,
        );
        total(
            "pushline_publish_refusals_total",
            "Times the log refused what a publisher sent.",
            |of| &of.publish_refusals,
        );
        total("pushline_received_bytes_total", "Bytes received from clients.", |of| &of.bytes_in);
        total("pushline_sent_bytes_total", "Bytes sockets took.", |of| &of.bytes_out);
    }

    fn write_delivery(&self, out: &mut Exposition) {
        let help = "Events sockets took, each once per subscriber.";
        self.per_worker_total(out, "pushline_deliveries_total", help, |of| &of.deliveries);
        let help = "Sends to subscribers that are live, and to all other connections. \
                    Deliveries per send is how well events are batched.";
        out.counter("pushline_sends_total", help)
            .sample(&[("kind", Label::Word("live"))], self.sum(|of| &of.sends_live))
            .sample(&[("kind", Label::Word("explicit"))], self.sum(|of| &of.sends_explicit));
        out.counter("pushline_short_sends_total", "Sends a socket did not take whole.")
            .only(self.sum(|of| &of.sends_short));
        out.counter("pushline_heartbeats_total", "Heartbeats sent to idle streams.")
            .only(self.sum(|of| &of.heartbeats));
        let name = "pushline_delivery_lag_seconds";
        let help = "From the ordering of an event to its hand-out to the last live subscriber of \
                    a worker; once per worker and batch of events.";
        out.histogram(name, help, self.all().map(|of| &of.delivery_lag));
    }

    fn write_subscribers(&self, out: &mut Exposition) {
        let help = "Subscriptions now: live ones have all there is, explicit ones a cursor of \
                    their own.";
        let mut subscriptions = out.gauge("pushline_subscriptions", help);
        for (worker, metrics) in self.numbered() {
            let (live, all) = (metrics.live.value(), metrics.subscriptions.value());
            let mut sample = |state, count| {
                subscriptions.sample(&[("state", Label::Word(state)), ("worker", worker)], count);
            };
            sample("live", live);
            // The two were not read at one moment.
            sample("explicit", all.saturating_sub(live));
        }
        out.counter("pushline_replays_total", "Joins with a cursor.")
            .only(self.sum(|of| &of.replays));
        out.counter("pushline_gaps_total", "Losses subscribers were told of.")
            .sample(&[("reason", Label::Word("evicted"))], self.sum(|of| &of.gaps_evicted))
            .sample(&[("reason", Label::Word("epoch"))], self.sum(|of| &of.gaps_epoch))
            .sample(&[("reason", Label::Word("overrun"))], self.sum(|of| &of.gaps_overrun));
        let help = "Browser clients that changed between SSE and WebSocket, by why.";
        let mut fallbacks = out.counter("pushline_client_fallbacks_total", help);
        for (place, reason) in FALLBACKS.into_iter().enumerate() {
            let count = self.sum(|of| &of.client_fallbacks[place]);
            fallbacks.sample(&[("reason", Label::Word(reason))], count);
        }
        let help = "Times a subscriber was slower than its channel, by what the policy did.";
        out.counter("pushline_slow_consumers_total", help)
            .sample(&[("action", Label::Word("skip"))], self.sum(|of| &of.gaps_overrun))
            .sample(&[("action", Label::Word("disconnect"))], self.sum(|of| &of.slow_disconnects));
    }

    fn write_workers(&self, out: &mut Exposition) {
        let help = "Channels a worker has subscribers of.";
        self.per_worker(out, "pushline_replicas", help, |of| &of.channels);
        let help = "Payload bytes a worker holds for slow readers, and of what is under way.";
        self.per_worker(out, "pushline_replica_bytes", help, |of| &of.replica_bytes);
        let help = "Notices from the log that waited when the worker's last turn began.";
        self.per_worker(out, "pushline_lane_depth", help, |of| &of.lane_depth);
        self.per_worker_total(out, "pushline_turns_total", "Turns taken.", |of| &of.turns);
        let help = "Time a worker spent deciding, sleeps and system calls left out.";
        let mut busy = out.counter("pushline_busy_seconds_total", help);
        for (worker, metrics) in self.numbered() {
            busy.sample(&[("worker", worker)], metrics.turn_time.sum_s());
        }
        let name = "pushline_turn_duration_seconds";
        let help = "How long turns took, sleeps and system calls left out.";
        out.histogram(name, help, self.all().map(|of| &of.turn_time));
    }

    fn write_rings(&self, out: &mut Exposition) {
        let mut each = |name, help, of: fn(&WorkerMetrics) -> &Counter| {
            self.per_worker_total(out, name, help, of);
        };
        each(
            "pushline_ring_enters_total",
            "Times a worker entered its driver (io_uring_enter, epoll_wait).",
            |of| &of.ring_enters,
        );
        each(
            "pushline_ring_sq_full_total",
            "Batches that did not fit the submission queue at once.",
            |of| &of.ring_sq_full,
        );
        each(
            "pushline_ring_cq_overflows_total",
            "Times the kernel parked completions outside the completion queue.",
            |of| &of.ring_cq_overflows,
        );
        each("pushline_ring_no_buffers_total", "Receives that found no buffer free.", |of| {
            &of.ring_no_buffers
        });
        each("pushline_ring_stale_total", "Completions of connections that had ended.", |of| {
            &of.ring_stale
        });
    }

    // --- reading workers' counters ---

    fn all(&self) -> impl Iterator<Item = &WorkerMetrics> {
        self.shared.metrics.iter().map(|metrics| &**metrics)
    }

    fn numbered(&self) -> impl Iterator<Item = (Label<'static>, &WorkerMetrics)> {
        self.all().enumerate().map(|(worker, metrics)| (Label::Number(worker as u64), metrics))
    }

    fn sum(&self, of: impl Fn(&WorkerMetrics) -> &Counter) -> u64 {
        self.all().map(|metrics| of(metrics).value()).sum()
    }

    fn per_worker(
        &self,
        out: &mut Exposition,
        name: &'static str,
        help: &str,
        of: fn(&WorkerMetrics) -> &Counter,
    ) {
        let mut gauge = out.gauge(name, help);
        for (worker, metrics) in self.numbered() {
            gauge.sample(&[("worker", worker)], of(metrics).value());
        }
    }

    fn per_worker_total(
        &self,
        out: &mut Exposition,
        name: &'static str,
        help: &str,
        of: fn(&WorkerMetrics) -> &Counter,
    ) {
        let mut counter = out.counter(name, help);
        for (worker, metrics) in self.numbered() {
            counter.sample(&[("worker", worker)], of(metrics).value());
        }
    }
}

fn write_log(out: &mut Exposition, report: &LogReport) {
    let LogReport { stats, waiting } = report;
    let counters = &stats.counters;
    out.counter("pushline_events_published_total", "Events ordered.").only(counters.published);
    let help = "Publishes answered from history because their idempotency key was known.";
    out.counter("pushline_publish_repeats_total", help).only(counters.repeated);
    let refused = &counters.refused;
    out.counter("pushline_log_refusals_total", "Publishes and joins the log refused.")
        .sample(&[("reason", Label::Word("busy"))], refused.busy)
        .sample(&[("reason", Label::Word("memory"))], refused.memory)
        .sample(&[("reason", Label::Word("channels"))], refused.channels)
        .sample(&[("reason", Label::Word("rate"))], refused.rate);
    out.counter(
        "pushline_evictions_total",
        "Events that left history, by what there was no room in.",
    )
    .sample(&[("cause", Label::Word("count"))], counters.evicted_by_count)
    .sample(&[("cause", Label::Word("age"))], counters.evicted_by_age)
    .sample(&[("cause", Label::Word("bytes"))], counters.evicted_by_bytes);
    out.gauge("pushline_head_seq", "Newest event of the log.").only(stats.head_seq);
    out.gauge("pushline_history_events", "Events history holds.").only(stats.events);
    out.gauge("pushline_history_bytes", "Bytes history holds.").only(stats.bytes);
    out.gauge("pushline_history_bytes_max", "Bytes history may hold.").only(stats.bytes_max);
    out.gauge("pushline_channels", "Channels that exist.").only(stats.channels);
    out.gauge("pushline_tombstones", "Freed channels that are remembered.").only(stats.tombstones);
    out.gauge("pushline_log_lane_depth", "Requests waiting for the log.").only(waiting);
}

/// Under the names that every client library uses.
fn write_process(out: &mut Exposition, process: &Process, started_unix_s: f64) {
    let mut gauge = |name, help, value: Option<u64>| {
        if let Some(value) = value {
            out.gauge(name, help).only(value);
        }
    };
    let help = "Resident memory size in bytes.";
    gauge("process_resident_memory_bytes", help, process.resident_bytes);
    let help = "Virtual memory size in bytes.";
    gauge("process_virtual_memory_bytes", help, process.virtual_bytes);
    let help = "Open file descriptors; connections have none.";
    gauge("process_open_fds", help, process.open_fds);
    gauge("process_max_fds", "Open file descriptors at most.", process.max_fds);
    gauge("process_threads", "Threads.", process.threads);
    if let Some(cpu_s) = process.cpu_s {
        let help = "User and system CPU time spent in seconds.";
        out.counter("process_cpu_seconds_total", help).only(cpu_s);
    }
    let help = "When the process began, in seconds since 1970.";
    out.gauge("process_start_time_seconds", help).only(started_unix_s);
}
