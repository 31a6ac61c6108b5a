//! The report as a table to read.

use std::{collections::BTreeMap, fmt};

use super::report::{
    ConnectFacts, HoldFacts, LatencyFacts, MemoryFacts, PublishFacts, Report, RunFacts,
};
use crate::tools::numbers::grouped as thousands;

/// Width of the column of names.
const NAME_WIDTH: usize = 28;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        run(f, &self.run)?;
        connect(f, &self.connect)?;
        memory(f, &self.memory, self.connect.held)?;
        if let Some(hold) = &self.hold {
            idle(f, hold)?;
        }
        match &self.publish {
            Some(facts) => publish(f, facts),
            None => Ok(()),
        }
    }
}

/// Below this, what else the machine does moves more memory than the connections.
const TELLING_CONNECTIONS: u64 = 5_000;

fn row(f: &mut fmt::Formatter<'_>, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "  {name:<NAME_WIDTH$}{value}")
}

fn row_if_some(f: &mut fmt::Formatter<'_>, name: &str, value: Option<String>) -> fmt::Result {
    value.map_or(Ok(()), |value| row(f, name, value))
}

fn run(f: &mut fmt::Formatter<'_>, run: &RunFacts) -> fmt::Result {
    let mut transport = format!("{:?}", run.transport).to_lowercase();
    if let Some(streams) = run.streams_per_connection {
        transport.push_str(&format!(" on HTTP/2, {streams} to a connection"));
    }
    writeln!(f, "{} over {transport}, {} channel(s)", run.url, run.channels)?;
    let (kernel, cores, processes) = (&run.kernel, run.cores, run.client_processes);
    let processes = match processes {
        1 => "1 client process".to_owned(),
        several => format!("{several} client processes"),
    };
    row(f, "machine", format!("Linux {kernel}, {cores} cores, {processes}"))
}

fn connect(f: &mut fmt::Formatter<'_>, connect: &ConnectFacts) -> fmt::Result {
    row(f, "connections held", thousands(connect.held))?;
    let (seconds, rate) = (connect.connect_seconds, connect.connects_per_s);
    row(f, "connect rate", format!("{}/s ({seconds:.1} s)", thousands(rate as u64)))?;
    row(f, "connect failures", kinds(&connect.connect_failures))?;
    row(f, "ended early", kinds(&connect.endings))?;
    let cpu = connect.server_cpu_us_per_connect.map(|cpu| format!("{cpu:.2} us"));
    row_if_some(f, "server CPU per connect", cpu)
}

fn memory(f: &mut fmt::Formatter<'_>, memory: &MemoryFacts, held: u64) -> fmt::Result {
    if let (Some(before), Some(after), Some(each)) = (
        memory.server_rss_before_bytes,
        memory.server_rss_after_bytes,
        memory.server_rss_bytes_per_connection,
    ) {
        row(f, "server RSS", format!("{} -> {}", mebibytes(before), mebibytes(after)))?;
        row(f, "server RSS per connection", format!("{each:.0} B"))?;
    }
    let all = memory.system_bytes_per_connection;
    let (slab, ours) = (memory.slab_bytes_per_connection, memory.client_rss_bytes_per_connection);
    let name = "system memory per connection";
    if held < TELLING_CONNECTIONS {
        return row(
            f,
            name,
            format!(" needs {} connections to be told apart", thousands(TELLING_CONNECTIONS)),
        );
    }
    let parts = format!("(kernel slab {slab:.0} B, our client processes {ours:.0} B)");
    row(f, name, format!(" {all:.0} B {parts}"))
}

fn idle(f: &mut fmt::Formatter<'_>, hold: &HoldFacts) -> fmt::Result {
    let cpu = hold.server_idle_cpu_percent;
    let seconds = hold.hold_seconds;
    let cpu = cpu.map(|cpu| format!("{cpu:.2} % of a core over {seconds:.1} s"));
    row_if_some(f, "server CPU while idle", cpu)?;
    let (seen, by) = (thousands(hold.heartbeats), thousands(hold.connections_with_heartbeat));
    let peak = thousands(hold.heartbeats_per_s_max);
    row(f, "heartbeats", format!("{seen}, seen by {by} connections, at most {peak}/s"))
}

fn publish(f: &mut fmt::Formatter<'_>, publish: &PublishFacts) -> fmt::Result {
    let refused = match &publish.last_refusal {
        Some(last) => format!(", {} refused ({last})", publish.publish_refused),
        None => String::new(),
    };
    let (published, seconds) = (thousands(publish.published), publish.publish_seconds);
    row(f, "published", format!("{published} in {seconds:.3} s{refused}"))?;
    let (made, due) = (thousands(publish.deliveries), thousands(publish.expected));
    row(f, "deliveries", format!("{made} of {due}"))?;
    row(f, "lost", thousands(publish.lost))?;
    row(f, "duplicated", thousands(publish.duplicated))?;
    row(f, "out of order", thousands(publish.out_of_order))?;
    let PublishFacts { misrouted, foreign, unstamped, .. } = publish;
    if misrouted + foreign + unstamped > 0 {
        let events = format!("{misrouted} of another channel, {foreign} of another run");
        row(f, "not ours", format!("{events}, {unstamped} messages without an event"))?;
    }
    if publish.readers_stopped {
        row(f, "latency, delivery rate", "not measured: the readers were stopped")?;
    } else {
        let [mean, peak] = [publish.deliveries_per_s, publish.deliveries_per_s_max]
            .map(|rate| thousands(rate.round() as u64));
        let seconds = publish.delivery_seconds;
        row(f, "delivery rate", format!("{mean}/s over {seconds:.3} s, at most {peak}/s"))?;
        latency(f, &publish.latency)?;
    }
    let cpu = publish.server_cpu.map(|cpu| {
        let (exact, ticks) = (cpu.server_cpu_us_per_delivery, cpu.server_ticks_us_per_delivery);
        format!("{exact:.3} us (by ticks {ticks:.2} us)")
    });
    row_if_some(f, "server CPU per delivery", cpu)
}

fn latency(f: &mut fmt::Formatter<'_>, latency: &LatencyFacts) -> fmt::Result {
    let [p50, p99, p999, max] =
        [latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us].map(duration);
    row(f, "latency p50 p99 p99.9 max", format!("{p50}  {p99}  {p999}  {max}"))
}

fn duration(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.0} us"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// `3 refused, 1 reset`
pub(super) fn kinds(kinds: &BTreeMap<String, u64>) -> String {
    if kinds.is_empty() {
        return "0".to_owned();
    }
    let each = kinds.iter().map(|(kind, count)| format!("{} {kind}", thousands(*count)));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::args::{Channels, Transport},
        super::rates::Window,
        super::report::ServerCpu,
        *,
    };

    /// A report with something in each field.
    pub(in super::super) fn full() -> Report {
        let server_cpu = ServerCpu {
            server_cpu_seconds: 0.06,
            server_cpu_us_per_delivery: 3.9876,
            server_ticks_us_per_delivery: 4.0,
            server_sleeps_per_delivery: 0.01,
        };
        Report {
            run: RunFacts {
                url: "http://127.0.0.1:8080".to_owned(),
                transport: Transport::Sse,
                streams_per_connection: Some(100),
                connections: 15_000,
                channels: Channels::Shared(1),
                burst: 1,
                size_bytes: 64,
                client_processes: 1,
                kernel: "6.18".to_owned(),
                cores: 2,
            },
            connect: ConnectFacts {
                held: 1_000_000,
                connect_failures: [("refused".to_owned(), 3)].into(),
                connect_seconds: 50.0,
                connects_per_s: 20_000.0,
                server_cpu_us_per_connect: Some(7.5),
                ..ConnectFacts::default()
            },
            memory: MemoryFacts {
                server_rss_before_bytes: Some(1 << 20),
                server_rss_after_bytes: Some(3 << 20),
                server_rss_bytes_per_connection: Some(127.6),
                system_bytes_per_connection: 7_800.0,
                ..MemoryFacts::default()
            },
            hold: Some(HoldFacts { heartbeats: 12, ..HoldFacts::default() }),
            publish: Some(PublishFacts {
                published: 20,
                deliveries: 300_000,
                expected: 300_001,
                lost: 1,
                latency: LatencyFacts { p50_us: 90.0, p99_us: 1_500.0, ..LatencyFacts::default() },
                server_cpu: Some(server_cpu),
                ..PublishFacts::default()
            }),
            latency_steps: vec![(90_000, 200_000), (1_500_000, 100_000)],
            timeline: vec![(0.0, 1), (0.01, 299_999)],
            rates: vec![Window { from_s: 0.0, width_s: 0.02, deliveries_per_s: 15e6 }],
        }
    }

    #[test]
    fn the_table_names_what_went_wrong_and_what_it_cost() {
        let text = full().to_string();
        for line in [
            "connections held            1,000,000",
            "connect failures            3 refused",
            "server RSS per connection   128 B",
            "deliveries                  300,000 of 300,001",
            "lost                        1",
            "server CPU per delivery     3.988 us (by ticks 4.00 us)",
            "latency p50 p99 p99.9 max   90 us  1.50 ms  0 us  0 us",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn what_was_not_measured_is_not_shown() {
        let mut report = full();
        report.connect.server_cpu_us_per_connect = None;
        report.memory.server_rss_before_bytes = None;
        report.publish = None;
        let text = report.to_string();
        for absent in ["CPU per connect", "server RSS", "lost", "latency"] {
            assert!(!text.contains(absent), "{absent} is in\n{text}");
        }
    }

    #[test]
    fn stopped_readers_give_no_latency() {
        let mut report = full();
        report.publish.as_mut().unwrap().readers_stopped = true;
        assert!(report.to_string().contains("not measured: the readers were stopped"));
    }

    #[test]
    fn names_in_the_json_are_unique() {
        fn names(value: &serde_json::Value, all: &mut Vec<String>) {
            if let serde_json::Value::Object(fields) = value {
                for (name, value) in fields {
                    all.push(name.clone());
                    names(value, all);
                }
            }
        }
        let mut all = Vec::new();
        names(&serde_json::to_value(full()).unwrap(), &mut all);
        all.sort();
        let before = all.len();
        all.dedup();
        assert_eq!(all.len(), before);
    }
}
