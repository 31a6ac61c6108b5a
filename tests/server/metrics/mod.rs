//! `/metrics`: every documented metric is there and no other, the text is what Prometheus reads,
//! and the numbers are those the clients counted.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::operator::{Client, await_that, connect, exchange, get, request, start};
use pushline::auth::Gate;
use pushline::config::Settings;
use pushline::proto::ws::frame::Opcode;
use socket2::{Domain, Socket, Type};

/// What the README documents: name, type, labels.
const DOCUMENTED: [(&str, &str, &[&str]); 81] = [
    ("process_cpu_seconds_total", "counter", &[]),
    ("process_max_fds", "gauge", &[]),
    ("process_open_fds", "gauge", &[]),
    ("process_resident_memory_bytes", "gauge", &[]),
    ("process_start_time_seconds", "gauge", &[]),
    ("process_threads", "gauge", &[]),
    ("process_virtual_memory_bytes", "gauge", &[]),
    ("pushline_accept_failures_total", "counter", &["reason"]),
    ("pushline_accepts_total", "counter", &["worker"]),
    ("pushline_build_info", "gauge", &["version"]),
    ("pushline_driver_info", "gauge", &["driver"]),
    ("pushline_busy_seconds_total", "counter", &["worker"]),
    ("pushline_channels", "gauge", &[]),
    ("pushline_client_fallbacks_total", "counter", &["reason"]),
    ("pushline_closes_total", "counter", &["reason"]),
    ("pushline_connection_refusals_total", "counter", &["reason"]),
    ("pushline_connections", "gauge", &["transport", "worker"]),
    ("pushline_connections_max", "gauge", &[]),
    ("pushline_deliveries_total", "counter", &["worker"]),
    ("pushline_delivery_lag_seconds", "histogram", &[]),
    ("pushline_draining", "gauge", &[]),
    ("pushline_events_published_total", "counter", &[]),
    ("pushline_evictions_total", "counter", &["cause"]),
    ("pushline_gaps_total", "counter", &["reason"]),
    ("pushline_head_seq", "gauge", &[]),
    ("pushline_heartbeats_total", "counter", &[]),
    ("pushline_history_bytes", "gauge", &[]),
    ("pushline_history_bytes_max", "gauge", &[]),
    ("pushline_history_events", "gauge", &[]),
    ("pushline_http2_floods_total", "counter", &["kind"]),
    ("pushline_http2_stream_closes_total", "counter", &["reason"]),
    ("pushline_http2_streams_total", "counter", &["worker"]),
    ("pushline_http_errors_total", "counter", &[]),
    ("pushline_http_requests_total", "counter", &[]),
    ("pushline_cluster_answer_duration_seconds", "histogram", &[]),
    ("pushline_cluster_behind_events", "gauge", &[]),
    ("pushline_cluster_behind_seconds", "gauge", &[]),
    ("pushline_cluster_events_received_total", "counter", &[]),
    ("pushline_cluster_openings_total", "counter", &[]),
    ("pushline_cluster_publishes_sent_total", "counter", &[]),
    ("pushline_cluster_publishes_unanswered_total", "counter", &[]),
    ("pushline_cluster_up", "gauge", &[]),
    ("pushline_journal_bytes", "gauge", &[]),
    ("pushline_journal_commit_duration_seconds", "histogram", &[]),
    ("pushline_journal_pages_total", "counter", &[]),
    ("pushline_journal_recovery_seconds", "gauge", &[]),
    ("pushline_journal_segments", "gauge", &[]),
    ("pushline_lane_depth", "gauge", &["worker"]),
    ("pushline_lines_dropped_total", "counter", &[]),
    ("pushline_log_lane_depth", "gauge", &[]),
    ("pushline_log_refusals_total", "counter", &["reason"]),
    ("pushline_log_up", "gauge", &[]),
    ("pushline_presence_members", "gauge", &[]),
    ("pushline_publish_refusals_total", "counter", &[]),
    ("pushline_publish_repeats_total", "counter", &[]),
    ("pushline_publishes_accepted_total", "counter", &[]),
    ("pushline_received_bytes_total", "counter", &[]),
    ("pushline_replays_total", "counter", &[]),
    ("pushline_replica_bytes", "gauge", &["worker"]),
    ("pushline_replicas", "gauge", &["worker"]),
    ("pushline_ring_cq_overflows_total", "counter", &["worker"]),
    ("pushline_ring_enters_total", "counter", &["worker"]),
    ("pushline_ring_no_buffers_total", "counter", &["worker"]),
    ("pushline_ring_sq_full_total", "counter", &["worker"]),
    ("pushline_ring_stale_total", "counter", &["worker"]),
    ("pushline_sends_total", "counter", &["kind"]),
    ("pushline_sent_bytes_total", "counter", &[]),
    ("pushline_short_sends_total", "counter", &[]),
    ("pushline_slow_consumers_total", "counter", &["action"]),
    ("pushline_stream_bytes", "gauge", &[]),
    ("pushline_stream_cuts_total", "counter", &[]),
    ("pushline_stream_events", "gauge", &[]),
    ("pushline_streams_ended_total", "counter", &["reason"]),
    ("pushline_streams_open", "gauge", &[]),
    ("pushline_subscriptions", "gauge", &["state", "worker"]),
    ("pushline_tls_connections", "gauge", &["version"]),
    ("pushline_tls_handshakes_total", "counter", &["result"]),
    ("pushline_tls_waiting", "gauge", &[]),
    ("pushline_tombstones", "gauge", &[]),
    ("pushline_turn_duration_seconds", "histogram", &[]),
    ("pushline_turns_total", "counter", &["worker"]),
];

/// A scrape, read by a parser that accepts only what format 0.0.4 allows, and expects the labels in
/// the order they were written.
#[derive(Debug, Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    /// By `name{labels}`.
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    fn of(admin: SocketAddr) -> Self {
        let answer = get(admin, "/metrics");
        assert_eq!(answer.status, 200);
        let content_type = answer.header("content-type");
        assert_eq!(content_type, Some("text/plain; version=0.0.4; charset=utf-8"));
        Self::parse(&answer.body)
    }

    fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let (mut scrape, mut helped) = (Self::default(), BTreeSet::new());
        let mut present = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').expect("a help has words");
                assert!(words.len() > 3 && helped.insert(name.to_owned()), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type has a kind");
                assert!(helped.contains(name) && is_name(name), "{line}");
                let before = scrape.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{line}");
                present = name.to_owned();
            } else {
                let (key, value) = line.rsplit_once(' ').expect("a sample has a value");
                let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
                let suffix = name.strip_prefix(&present).unwrap_or_else(|| panic!("lost: {line}"));
                let histogram = scrape.types[&present] == "histogram";
                let suffixes = if histogram { &["_bucket", "_sum", "_count"][..] } else { &[""] };
                assert!(suffixes.contains(&suffix), "{line}");
                let labels = labels.strip_suffix('}').expect("labels end");
                for label in labels.split(',').filter(|label| !label.is_empty()) {
                    let (key, value) = label.split_once("=\"").expect("a label has a value");
                    let value = value.strip_suffix('"').expect("a label's value ends");
                    assert!(is_name(key) && !value.contains(['"', '\\']), "{line}");
                }
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                assert!(value >= 0.0, "{line}");
                assert_eq!(scrape.samples.insert(key.to_owned(), value), None, "twice: {line}");
            }
        }
        scrape
    }

    /// One sample.
    fn at(&self, key: &str) -> f64 {
        *self.samples.get(key).unwrap_or_else(|| panic!("{key} is not there"))
    }

    /// All samples of a metric that have these labels.
    fn sum(&self, name: &str, label: &str) -> f64 {
        let wanted = |key: &str| {
            let labels = key.strip_prefix(name)?;
            (labels.is_empty() || labels.starts_with('{')).then(|| labels.contains(label))
        };
        let of = self.samples.iter().filter(|(key, _)| wanted(key) == Some(true));
        of.map(|(_, value)| value).sum()
    }
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[test]
fn every_documented_metric_is_there_and_no_other() {
    let server = start(|_| {});
    let scrape = Scrape::of(server.admin());
    let found: BTreeSet<(&str, &str)> =
        scrape.types.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
    let documented: BTreeSet<(&str, &str)> =
        DOCUMENTED.iter().map(|(name, kind, _)| (*name, *kind)).collect();
    assert_eq!(found, documented);
    for (name, kind, labels) in DOCUMENTED {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        assert_eq!(
            kind == "histogram",
            name.ends_with("_duration_seconds") || name.ends_with("_lag_seconds"),
            "{name}"
        );
        let units = ["_ms", "_us", "_ns", "_minutes", "_kb", "_kib", "_mib", "_percent"];
        assert!(units.iter().all(|unit| !name.contains(unit)), "{name}: not a base unit");
        let of = scrape.samples.keys().filter(|key| {
            key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        });
        let mut count = 0;
        for key in of {
            count += 1;
            let written = key.split_once('{').map_or("", |(_, labels)| labels);
            let names: Vec<&str> =
                written.split(',').filter_map(|label| label.split_once('=')).map(|l| l.0).collect();
            assert_eq!(names, labels, "{key}");
        }
        assert_eq!(count > 0, kind != "histogram", "{name} has no samples");
    }
    server.stop();
}

/// `scripts/check-prometheus` has their expressions read by promtool.
#[test]
fn alerts_and_the_grafana_dashboard_ask_for_metrics_that_are_there() {
    let files = [
        include_str!("../../tuning/prometheus/alerts.yml"),
        include_str!("../../tuning/prometheus/grafana.json"),
    ];
    for file in files {
        let words = file.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let named: BTreeSet<&str> = words.filter(|word| word.starts_with("pushline_")).collect();
        assert!(named.len() > 5, "{named:?}");
        for name in named {
            let name = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(DOCUMENTED.iter().any(|(known, ..)| *known == name), "{name}");
        }
    }
}

#[test]
fn prometheus_own_parser_reads_a_scrape() {
    let Some(python) = python_with_prometheus_client() else {
        return crate::common::skip("python3 with prometheus_client", "install python3-venv");
    };
    let server = start(|_| {});
    let mut subscriber = Client::sse(server.listen(), "channel=c");
    Client::new(connect(server.listen())).publish("c", "x");
    subscriber.read_sse_events(1);
    let text = get(server.admin(), "/metrics").body;
    let script = "import sys\n\
        from prometheus_client.parser import text_string_to_metric_families as parse\n\
        for family in parse(sys.stdin.read()):\n\
        \x20   assert family.documentation, family.name\n\
        \x20   for sample in family.samples:\n\
        \x20       print(family.type, sample.name, float(sample.value))\n";
    let mut child = Command::new(python)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("python reads");
    let output = child.wait_with_output().expect("python ends");
    assert!(output.status.success(), "the parser refused:\n{text}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let ours = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(printed.lines().count(), ours, "it read other samples:\n{printed}");
    assert!(printed.contains("counter pushline_events_published_total 1.0"), "{printed}");
    assert!(printed.contains("histogram pushline_delivery_lag_seconds_count"), "{printed}");
    assert!(!printed.contains("unknown"), "{printed}");
    server.stop();
}

/// A Python that has the package: the system's, or a virtual environment made for this once.
fn python_with_prometheus_client() -> Option<PathBuf> {
    let works = |python: &PathBuf| {
        let mut command = Command::new(python);
        command.args(["-c", "import prometheus_client"]).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let system = PathBuf::from("python3");
    if works(&system) {
        return Some(system);
    }
    let environment = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("prometheus-client");
    let own = environment.join("bin/python");
    if !works(&own) {
        Command::new("python3").args(["-m", "venv"]).arg(&environment).status().ok()?;
        let mut pip = Command::new(&own);
        pip.args(["-m", "pip", "install", "--quiet", "--timeout", "20", "prometheus_client"]);
        pip.status().ok()?;
    }
    works(&own).then_some(own)
}

/// Subscribers of one channel over each transport, and of two channels.
const SSE: usize = 60;
const WS: usize = 20;
const SEVERAL: usize = 20;

/// Events on the channel all of them have.
const EVENTS: usize = 25;

#[test]
fn the_numbers_are_those_the_clients_counted() {
    let server = start(|_| {});
    let (listen, admin) = (server.listen(), server.admin());
    let mut live: Vec<Client> = (0..SSE).map(|_| Client::sse(listen, "channel=room")).collect();
    let mut sockets: Vec<Client> = (0..WS).map(|_| Client::ws(listen, "channel=room")).collect();
    let mut several: Vec<Client> =
        (0..SEVERAL).map(|_| Client::sse(listen, "channel=room&channel=side")).collect();
    let mut publisher = Client::new(connect(listen));
    for number in 0..EVENTS {
        publisher.publish("room", &"x".repeat(number * 40));
    }
    publisher.publish("side", "to those with two channels");
    let mut counted = 0;
    for client in &mut live {
        counted += client.read_sse_events(EVENTS);
    }
    for client in &mut sockets {
        client.read_ws_frames(EVENTS);
        counted += EVENTS as u64;
    }
    for client in &mut several {
        counted += client.read_sse_events(EVENTS + 1);
    }
    // What sockets took is counted when the next turn begins.
    await_that("all deliveries are counted", || {
        Scrape::of(admin).sum("pushline_deliveries_total", "") == counted as f64
    });
    let clients = || live.iter().chain(&sockets).chain(&several).chain([&publisher]);
    let received: u64 = clients().map(|client| client.received_bytes).sum();
    let sent: u64 = clients().map(|client| client.sent_bytes).sum();
    let scrape = Scrape::of(admin);
    assert_eq!(scrape.at("pushline_sent_bytes_total"), received as f64);
    assert_eq!(scrape.at("pushline_received_bytes_total"), sent as f64);
    everyone_is_counted(&scrape);
    delivery_is_counted(&scrape);
    histograms_are_cumulative(&scrape);

    drop((live, sockets, several, publisher));
    await_that("all are gone", || Scrape::of(admin).sum("pushline_connections", "") == 0.0);
    let scrape = Scrape::of(admin);
    let closes = scrape.sum("pushline_closes_total", "");
    assert_eq!(closes, scrape.sum("pushline_accepts_total", ""));
    assert_eq!(scrape.sum("pushline_subscriptions", ""), 0.0);
    server.stop();
}

fn everyone_is_counted(scrape: &Scrape) {
    let subscribers = SSE + WS + SEVERAL;
    let connections = |transport: &str| scrape.sum("pushline_connections", transport) as usize;
    assert_eq!(connections("\"sse\""), SSE + SEVERAL);
    assert_eq!((connections("\"ws\""), connections("\"http\"")), (WS, 1));
    assert_eq!(scrape.sum("pushline_accepts_total", ""), (subscribers + 1) as f64);
    assert_eq!(scrape.at("pushline_http_requests_total"), (subscribers + EVENTS + 1) as f64);
    assert_eq!(scrape.at("pushline_http_errors_total"), 0.0);
    assert_eq!(scrape.sum("pushline_subscriptions", "live"), (SSE + WS) as f64);
    assert_eq!(scrape.sum("pushline_subscriptions", "explicit"), (2 * SEVERAL) as f64);
    assert_eq!(scrape.at("pushline_channels"), 2.0);
}

fn delivery_is_counted(scrape: &Scrape) {
    let published = (EVENTS + 1) as f64;
    for name in [
        "pushline_events_published_total",
        "pushline_publishes_accepted_total",
        "pushline_head_seq",
        "pushline_history_events",
    ] {
        assert_eq!(scrape.at(name), published, "{name}");
    }
    let live_sends = scrape.at("pushline_sends_total{kind=\"live\"}");
    assert!((1.0..=((SSE + WS) * EVENTS) as f64).contains(&live_sends), "{live_sends}");
    // Each was sent a head, and those with two channels at least one send of events.
    let explicit_sends = scrape.at("pushline_sends_total{kind=\"explicit\"}");
    assert!(explicit_sends >= (SSE + WS + 2 * SEVERAL) as f64, "{explicit_sends}");
    // Both workers have every event, alone or in a batch.
    let lags = scrape.at("pushline_delivery_lag_seconds_count");
    assert!((1.0..=2.0 * published).contains(&lags), "{lags}");
    let lag_s = scrape.at("pushline_delivery_lag_seconds_sum") / lags;
    assert!(lag_s < 5.0, "clocks that do not compare: {lag_s} s");
    assert!(scrape.at("pushline_turn_duration_seconds_count") > 0.0);
}

fn histograms_are_cumulative(scrape: &Scrape) {
    for name in ["pushline_turn_duration_seconds", "pushline_delivery_lag_seconds"] {
        let prefix = format!("{name}_bucket{{le=\"");
        let mut buckets: Vec<(f64, f64)> = scrape
            .samples
            .iter()
            .filter_map(|(key, count)| {
                let bound = key.strip_prefix(&prefix)?.strip_suffix("\"}")?;
                Some((bound.parse().expect("a bound"), *count))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{buckets:?}");
        let (last, count) = *buckets.last().expect("buckets");
        assert!(last.is_infinite());
        assert_eq!(count, scrape.at(&format!("{name}_count")));
    }
}

/// Sockets that take only a part of what they are sent must not produce numbers that are too high
/// or that decrease.
#[test]
fn short_sends_are_counted_by_what_was_taken() {
    const EVENTS: usize = 100;
    let server = start(|settings| {
        settings.send_buffer = Some(16 * 1024);
        settings.channel_default.history_count = 1000;
    });
    let (listen, admin) = (server.listen(), server.admin());
    let mut subscribers: Vec<Client> =
        (0..4).map(|_| Client::sse_on(connect_narrow(listen), "channel=c")).collect();
    let mut publisher = Client::new(connect(listen));
    let mut highest = (0.0, 0.0);
    for number in 0..EVENTS {
        publisher.publish("c", &"x".repeat(1000 + number * 17));
        let scrape = Scrape::of(admin);
        let now =
            (scrape.sum("pushline_deliveries_total", ""), scrape.at("pushline_sent_bytes_total"));
        assert!(now.0 >= highest.0 && now.1 >= highest.1, "{now:?} after {highest:?}");
        highest = now;
    }
    assert!(Scrape::of(admin).at("pushline_short_sends_total") > 0.0, "no reader was slow");
    let counted: u64 = subscribers.iter_mut().map(|client| client.read_sse_events(EVENTS)).sum();
    assert_eq!(counted, 4 * EVENTS as u64);
    let received: u64 =
        subscribers.iter().chain([&publisher]).map(|client| client.received_bytes).sum();
    await_that("all is counted", || {
        Scrape::of(admin).at("pushline_sent_bytes_total") >= received as f64
    });
    let scrape = Scrape::of(admin);
    assert_eq!(scrape.sum("pushline_deliveries_total", ""), counted as f64);
    assert_eq!(scrape.at("pushline_sent_bytes_total"), received as f64);
    server.stop();
}

/// A connection whose peer has little room.
fn connect_narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4 * 1024).expect("a buffer size");
    socket.connect(&address.into()).expect("the server accepts");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(crate::operator::PATIENCE)).expect("a timeout");
    stream
}

#[test]
fn every_connection_ends_for_one_reason() {
    let server = start(|settings| {
        settings.head_time = Duration::from_millis(200);
        settings.body_time = Duration::from_millis(200);
    });
    let (listen, admin) = (server.listen(), server.admin());
    // answered: the last request says so.
    assert_eq!(request(listen, "GET", "/").status, 200);
    assert_eq!(exchange(listen, b"NOT HTTP\r\n\r\n").status, 400);
    assert_eq!(exchange(listen, b"GET / HT").status, 408);
    let body = b"POST /channels/c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf";
    assert_eq!(exchange(listen, body).status, 408);
    assert!(Client::new(connect(listen)).is_ended(), "no head came in time");
    drop(Client::sse(listen, "channel=peer"));
    // A WebSocket that closes by the book, one that breaks the rules, and one that is cut.
    let mut closing = Client::ws(listen, "channel=closes");
    closing.send(&[0x88, 0x80, 0, 0, 0, 0]);
    assert_eq!(closing.read_ws_frames(1).0, Opcode::Close);
    let mut broken = Client::ws(listen, "channel=breaks");
    broken.send(&[0x81, 0x01, b'x']);
    assert_eq!(broken.read_ws_frames(1).0, Opcode::Close);
    drop(broken);
    let mut cut = Client::ws(listen, "channel=cut");
    let list = get(admin, "/v1/connections").json();
    let entries = list["connections"].as_array().expect("a list");
    let entry = entries.iter().find(|entry| entry["channels"][0] == "cut").expect("it is listed");
    let id = entry["id"].as_str().expect("an id");
    assert_eq!(request(admin, "DELETE", &format!("/v1/connections/{id}")).status, 204);
    assert_eq!(cut.read_ws_frames(1).0, Opcode::Close);
    drop((cut, closing));

    await_that("all are gone", || Scrape::of(admin).sum("pushline_connections", "") == 0.0);
    let scrape = Scrape::of(admin);
    let closes = |reason: &str| scrape.at(&format!("pushline_closes_total{{reason=\"{reason}\"}}"));
    assert_eq!(scrape.sum("pushline_accepts_total", ""), 9.0);
    assert_eq!(scrape.sum("pushline_closes_total", ""), 9.0, "{scrape:#?}");
    assert_eq!(closes("answered"), 1.0);
    assert_eq!(closes("bad_request"), 1.0);
    assert_eq!(closes("head_timeout"), 2.0);
    assert_eq!(closes("body_timeout"), 1.0);
    assert_eq!(closes("violation"), 1.0);
    assert_eq!(closes("operator"), 1.0);
    assert_eq!(closes("peer_closed") + closes("peer_gone"), 2.0);
    assert_eq!(scrape.at("pushline_http_errors_total"), 3.0);
    server.stop();
}

#[test]
fn replays_and_gaps_are_counted() {
    let server = start(|settings| settings.channel_default.history_count = 3);
    let (listen, admin) = (server.listen(), server.admin());
    let mut publisher = Client::new(connect(listen));
    for _ in 0..5 {
        publisher.publish("c", "x");
    }
    let epoch = server.shared().epoch;
    let _evicted = Client::sse(listen, &format!("channel=c&last_event_id={epoch}-1"));
    let _foreign = Client::sse(listen, "channel=c&last_event_id=stranger-1");
    let _resumed = Client::sse(listen, &format!("channel=c&last_event_id={epoch}-4"));
    let scrape = Scrape::of(admin);
    assert_eq!(scrape.at("pushline_replays_total"), 3.0);
    assert_eq!(scrape.at("pushline_gaps_total{reason=\"evicted\"}"), 1.0);
    assert_eq!(scrape.at("pushline_gaps_total{reason=\"epoch\"}"), 1.0);
    assert_eq!(scrape.at("pushline_evictions_total{cause=\"count\"}"), 2.0);
    server.stop();
}

#[test]
fn who_finds_no_room_is_counted_as_refused() {
    let server = start(|settings| settings.connections_max = Some(2));
    let _two = [0, 1].map(|_| Client::sse(server.listen(), "channel=c"));
    assert_eq!(exchange(server.listen(), b"").status, 503);
    let scrape = Scrape::of(server.admin());
    assert_eq!(scrape.at("pushline_connections_max"), 2.0);
    assert_eq!(scrape.at("pushline_connection_refusals_total{reason=\"room\"}"), 1.0);
    server.stop();
}

#[test]
fn limits_are_those_in_force_after_a_reload() {
    let mut server = start(|settings| settings.connections_max = Some(7));
    let limits = |admin| {
        let scrape = Scrape::of(admin);
        (scrape.at("pushline_connections_max"), scrape.at("pushline_history_bytes_max"))
    };
    let admin = server.admin();
    let before = server.settings().clone();
    assert_eq!(limits(admin), (7.0, before.history_bytes as f64));
    let wanted =
        Settings { connections_max: Some(9), history_bytes: before.history_bytes / 2, ..before };
    let expected = (9.0, wanted.history_bytes as f64);
    server.reload(wanted, Gate::open()).expect("it may change");
    await_that("the log has the new settings", || limits(admin) == expected);
    server.stop();
}
