//! What a run measured, in numbers. Field names are unique over the whole report, so that a script
//! can pick one out of the JSON by name alone.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    args::{BenchOptions, Channels, Readers, Transport},
    messages::{ClientResult, DeliveryCounts},
    observe::Sample,
    publisher::Published,
    rates::{self, Window},
    tally::{self, SLOT_NS},
};

/// The whole report; parts that were not measured are `None`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was asked for, and where.
    pub run: RunFacts,
    pub connect: ConnectFacts,
    /// What the connections took.
    pub memory: MemoryFacts,
    pub hold: Option<HoldFacts>,
    /// Publishing and what was delivered.
    pub publish: Option<PublishFacts>,
    /// Latency distribution: (nanoseconds, deliveries).
    pub latency_steps: Vec<(u64, u64)>,
    /// Deliveries over time: (seconds since the first publish, deliveries in 1 ms).
    pub timeline: Vec<(f64, u64)>,
    /// The same as rates, in windows that suit the pace of publishing.
    pub rates: Vec<Window>,
}

/// What was asked for, and where.
#[derive(Debug, Clone, Serialize)]
pub struct RunFacts {
    /// The server.
    pub url: String,
    /// How subscribers listened.
    pub transport: Transport,
    /// Subscribers on each connection, if it was HTTP/2.
    pub streams_per_connection: Option<u32>,
    /// Subscribers asked for.
    pub connections: u32,
    /// How they were spread over channels.
    pub channels: Channels,
    /// Events back to back.
    pub burst: u32,
    /// Bytes of data per event.
    pub size_bytes: usize,
    pub client_processes: usize,
    /// Kernel release.
    pub kernel: String,
    /// Cores of this machine.
    pub cores: usize,
}

/// How connecting went.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ConnectFacts {
    /// Connections subscribed when the ramp was over.
    pub held: u64,
    /// Connects that failed, by kind.
    pub connect_failures: BTreeMap<String, u64>,
    /// Subscriptions that ended before we ended them, by kind.
    pub endings: BTreeMap<String, u64>,
    /// How long the ramp took.
    pub connect_seconds: f64,
    pub connects_per_s: f64,
    /// The server's CPU time per connection accepted and answered.
    pub server_cpu_us_per_connect: Option<f64>,
}

/// What the connections took.
#[derive(Debug, Clone, Default, Serialize)]
pub struct MemoryFacts {
    /// The server's resident memory before the first connection.
    pub server_rss_before_bytes: Option<u64>,
    /// The same with all of them.
    pub server_rss_after_bytes: Option<u64>,
    /// The difference per connection.
    pub server_rss_bytes_per_connection: Option<f64>,
    /// How much less memory the machine had available, per connection: both ends, if both are
    /// on it, and the client processes.
    pub system_bytes_per_connection: f64,
    /// Kernel slab growth per connection.
    pub slab_bytes_per_connection: f64,
    /// Growth of TCP buffer memory per connection.
    pub tcp_buffer_bytes_per_connection: f64,
    /// Resident memory of our client processes per connection, at the end.
    pub client_rss_bytes_per_connection: f64,
    /// How many more TCP sockets than before.
    pub tcp_sockets: i64,
}

/// The idle phase.
#[derive(Debug, Clone, Default, Serialize)]
pub struct HoldFacts {
    /// How long it lasted.
    pub hold_seconds: f64,
    /// The server's CPU time in percent of one core.
    pub server_idle_cpu_percent: Option<f64>,
    pub heartbeats: u64,
    /// Connections that saw at least one.
    pub connections_with_heartbeat: u64,
    /// Most and fewest heartbeats in a second, over all connections.
    pub heartbeats_per_s_max: u64,
}

/// The server's CPU time while events were published and delivered.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ServerCpu {
    /// From the scheduler's nanosecond counts.
    pub server_cpu_seconds: f64,
    /// The same per delivery, in microseconds.
    pub server_cpu_us_per_delivery: f64,
    /// Per delivery from user plus system ticks of 10 ms: coarse, but what other tools show.
    pub server_ticks_us_per_delivery: f64,
    /// Times a thread of the server went to sleep, per delivery.
    pub server_sleeps_per_delivery: f64,
}

/// Publishing and what was delivered.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PublishFacts {
    /// Events the server accepted.
    pub published: u64,
    /// Publish requests it refused.
    pub publish_refused: u64,
    /// The reason of the last refusal.
    pub last_refusal: Option<String>,
    /// From the first request to the last answer.
    pub publish_seconds: f64,
    /// Expected deliveries: events times their subscribers.
    pub expected: u64,
    pub deliveries: u64,
    /// Deliveries that were expected and not made.
    pub lost: u64,
    /// The same event again.
    pub duplicated: u64,
    /// An older event after a newer one.
    pub out_of_order: u64,
    /// Events of another channel.
    pub misrouted: u64,
    /// Events of another run.
    pub foreign: u64,
    /// Messages without an event.
    pub unstamped: u64,
    /// From the first request to the last delivery.
    pub delivery_seconds: f64,
    /// Deliveries per second of that.
    pub deliveries_per_s: f64,
    /// The most in a window of `rates`.
    pub deliveries_per_s_max: f64,
    /// Whether readers were stopped meanwhile, which makes rate and latency meaningless.
    pub readers_stopped: bool,
    /// Publish to delivery.
    pub latency: LatencyFacts,
    /// What it cost the server.
    pub server_cpu: Option<ServerCpu>,
}

/// Publish to delivery, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct LatencyFacts {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

/// The raw material of a report, as the phases gather it.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub client_processes: usize,
    pub before: Sample,
    pub ramped: Sample,
    pub settled: Sample,
    pub held: u64,
    pub connect_seconds: f64,
    pub hold: Option<HoldFacts>,
    pub publish: Option<(Published, Sample, Sample)>,
}

impl Report {
    /// Whether events were published to subscribers and not one arrived.
    pub fn delivered_nothing(&self) -> bool {
        let publish = self.publish.as_ref();
        publish.is_some_and(|publish| publish.expected > 0 && publish.deliveries == 0)
    }

    /// Combines what the phases and the clients measured.
    pub(super) fn new(
        options: &BenchOptions,
        findings: Findings,
        results: &[ClientResult],
    ) -> Self {
        let latencies = merged_latencies(results);
        let began_ns = findings.publish.as_ref().map_or(0, |(published, ..)| published.began_ns);
        let mut publish = findings.publish.as_ref().map(|(published, before, after)| {
            publish_facts(options, published, (before, after), results, &latencies)
        });
        let timeline = merged_timeline(results, began_ns);
        let end_s = publish.as_ref().map_or(0.0, |publish| publish.delivery_seconds);
        let rates = rates::windows(&timeline, SLOT_NS as f64 / 1e9, end_s, options.period());
        if let Some(publish) = &mut publish {
            publish.deliveries_per_s_max = rates::peak(&rates);
        }
        Self {
            run: RunFacts {
                url: options.url.clone(),
                transport: options.transport,
                streams_per_connection: options.streams,
                connections: options.connections,
                channels: options.channels,
                burst: options.burst,
                size_bytes: options.size_bytes,
                client_processes: findings.client_processes,
                kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
                cores: std::thread::available_parallelism().map_or(1, usize::from),
            },
            connect: connect_facts(options, &findings, results),
            memory: memory_facts(options, &findings, results),
            hold: findings.hold,
            publish,
            latency_steps: latencies
                .iter_recorded()
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
            timeline,
            rates,
        }
    }
}

fn merged_latencies(results: &[ClientResult]) -> hdrhistogram::Histogram<u64> {
    let mut merged = tally::latencies();
    for (value, count) in results.iter().flat_map(|result| &result.latencies) {
        merged.saturating_record_n(*value, *count);
    }
    merged
}

fn merged_timeline(results: &[ClientResult], began_ns: u64) -> Vec<(f64, u64)> {
    let mut slots = BTreeMap::<u64, u64>::new();
    for (slot, count) in results.iter().flat_map(|result| &result.timeline) {
        *slots.entry(*slot).or_default() += count;
    }
    let began = began_ns / SLOT_NS;
    let second = |slot: u64| slot.saturating_sub(began) as f64 * SLOT_NS as f64 / 1e9;
    slots.into_iter().map(|(slot, count)| (second(slot), count)).collect()
}

/// The counts of several clients, kind by kind.
pub(super) fn merged_kinds<'a>(
    maps: impl Iterator<Item = &'a BTreeMap<String, u64>>,
) -> BTreeMap<String, u64> {
    let mut merged = BTreeMap::<String, u64>::new();
    for (kind, count) in maps.flatten() {
        *merged.entry(kind.clone()).or_default() += count;
    }
    merged
}

fn connect_facts(
    options: &BenchOptions,
    findings: &Findings,
    results: &[ClientResult],
) -> ConnectFacts {
    let held = findings.held;
    let cpu_ns = findings.ramped.cpu_ns - findings.before.cpu_ns;
    ConnectFacts {
        held,
        connect_failures: merged_kinds(results.iter().map(|result| &result.failures)),
        endings: merged_kinds(results.iter().map(|result| &result.endings)),
        connect_seconds: findings.connect_seconds,
        connects_per_s: held as f64 / findings.connect_seconds.max(1e-9),
        server_cpu_us_per_connect: measured(options, ratio(cpu_ns as f64 / 1e3, held)),
    }
}

fn memory_facts(
    options: &BenchOptions,
    findings: &Findings,
    results: &[ClientResult],
) -> MemoryFacts {
    let (before, after, held) = (&findings.before, &findings.settled, findings.held);
    let per_connection = |before: u64, after: u64| ratio(after as f64 - before as f64, held);
    let client_rss_bytes: u64 = results.iter().map(|result| result.rss_bytes).sum();
    MemoryFacts {
        server_rss_before_bytes: measured(options, before.rss_bytes),
        server_rss_after_bytes: measured(options, after.rss_bytes),
        server_rss_bytes_per_connection: measured(
            options,
            per_connection(before.rss_bytes, after.rss_bytes),
        ),
        system_bytes_per_connection: per_connection(after.available_bytes, before.available_bytes),
        slab_bytes_per_connection: per_connection(before.slab_bytes, after.slab_bytes),
        tcp_buffer_bytes_per_connection: per_connection(
            before.tcp_buffer_bytes,
            after.tcp_buffer_bytes,
        ),
        client_rss_bytes_per_connection: ratio(client_rss_bytes as f64, held),
        tcp_sockets: after.tcp_sockets as i64 - before.tcp_sockets as i64,
    }
}

fn publish_facts(
    options: &BenchOptions,
    published: &Published,
    (before, after): (&Sample, &Sample),
    results: &[ClientResult],
    latencies: &hdrhistogram::Histogram<u64>,
) -> PublishFacts {
    let mut counts = DeliveryCounts::default();
    results.iter().for_each(|result| counts += result.counts);
    let expected: u64 = results.iter().map(|result| result.expected).sum();
    let last_ns = results.iter().map(|result| result.last_delivery_ns).max().unwrap_or(0);
    let delivery_seconds = last_ns.saturating_sub(published.began_ns) as f64 / 1e9;
    let cpu_ns = (after.cpu_ns - before.cpu_ns) as f64;
    let ticks_ns = (after.cpu_ticks_ns - before.cpu_ticks_ns) as f64;
    let sleeps = after.sleeps.saturating_sub(before.sleeps) as f64;
    PublishFacts {
        published: published.events,
        publish_refused: published.refused,
        last_refusal: published.last_refusal.clone(),
        publish_seconds: published.seconds,
        expected,
        deliveries: counts.received,
        lost: expected.saturating_sub(counts.received - counts.duplicated),
        duplicated: counts.duplicated,
        out_of_order: counts.out_of_order,
        misrouted: counts.misrouted,
        foreign: counts.foreign,
        unstamped: counts.unstamped,
        delivery_seconds,
        deliveries_per_s: counts.received as f64 / delivery_seconds.max(1e-9),
        deliveries_per_s_max: 0.0,
        readers_stopped: options.readers == Readers::Stopped,
        latency: latency_facts(latencies),
        server_cpu: measured(
            options,
            ServerCpu {
                server_cpu_seconds: cpu_ns / 1e9,
                server_cpu_us_per_delivery: ratio(cpu_ns / 1e3, counts.received),
                server_ticks_us_per_delivery: ratio(ticks_ns / 1e3, counts.received),
                server_sleeps_per_delivery: ratio(sleeps, counts.received),
            },
        ),
    }
}

fn latency_facts(latencies: &hdrhistogram::Histogram<u64>) -> LatencyFacts {
    let microseconds = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    LatencyFacts {
        p50_us: microseconds(0.5),
        p99_us: microseconds(0.99),
        p999_us: microseconds(0.999),
        max_us: latencies.max() as f64 / 1e3,
    }
}

/// The value, if the server's processes could be measured.
fn measured<T>(options: &BenchOptions, value: T) -> Option<T> {
    (!options.server_pids.is_empty()).then_some(value)
}

fn ratio(sum: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum / count as f64 }
}
