//! `/metrics`: the text is what Prometheus reads, and the numbers are those the clients counted.

mod documented;
mod scrape;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use pushline::auth::Gate;
use pushline::config::Settings;

use self::scrape::Scrape;
use crate::common::ws::{CLOSE, RawWs, TEXT, frame};
use crate::common::{
    Conn, Sse, TestServer, await_that, exchange, fetch, get, post, publish, request,
};

/// A server without heartbeats, so that bytes can be counted.
fn start(change: impl Fn(&mut Settings)) -> TestServer {
    TestServer::with(|settings| {
        settings.heartbeat = Duration::from_secs(10 * 365 * 86_400);
        change(settings);
    })
}

#[test]
fn prometheus_own_parser_reads_a_scrape() {
    let Some(python) = python_with_prometheus_client() else {
        return crate::common::skip("python3 with prometheus_client", "install python3-venv");
    };
    let server = TestServer::start();
    let mut subscriber = Sse::open(server.addr, "channel=c");
    publish(server.addr, "c", "x");
    assert_eq!(subscriber.event().data, "x");
    let text = get(server.admin, "/metrics").text();
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
    let (addr, admin) = (server.addr, server.admin);
    let mut live = [(); SSE].map(|()| Sse::open(addr, "channel=room"));
    let mut sockets = [(); WS].map(|()| RawWs::bare(addr, "channel=room"));
    let mut several = [(); SEVERAL].map(|()| Sse::open(addr, "channel=room&channel=side"));
    let mut publisher = Conn::open(addr);
    for number in 0..EVENTS {
        assert_eq!(post(&mut publisher, "room", &vec![b'x'; number * 40]).status, 200);
    }
    assert_eq!(post(&mut publisher, "side", b"to those with two channels").status, 200);
    for client in &mut live {
        client.events(EVENTS);
    }
    for client in &mut sockets {
        (0..EVENTS).for_each(|_| assert_eq!(client.frame().opcode, TEXT));
    }
    for client in &mut several {
        client.events(EVENTS + 1);
    }
    let counted = (SSE + WS) * EVENTS + SEVERAL * (EVENTS + 1);
    // What sockets took is counted when the next turn begins.
    await_that("all deliveries are counted", || {
        Scrape::of(admin).sum("pushline_deliveries_total", "") == counted as f64
    });
    let streams = live.iter().chain(&several).map(|client| &client.conn);
    let conns = streams.chain(sockets.iter().map(|client| &client.conn)).chain([&publisher]);
    let (sent, received) = bytes_of(conns);
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
}

/// Bytes that clients sent, and those they received.
fn bytes_of<'a>(conns: impl Iterator<Item = &'a Conn>) -> (u64, u64) {
    conns.fold((0, 0), |(sent, received), conn| {
        (sent + conn.sent_bytes, received + conn.received_bytes)
    })
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
    let (addr, admin) = (server.addr, server.admin);
    let mut subscribers =
        [(); 4].map(|()| Sse::over(Conn::open_narrow(addr, 4 * 1024), "channel=c", &[]));
    let mut publisher = Conn::open(addr);
    let mut highest = (0.0, 0.0);
    for number in 0..EVENTS {
        assert_eq!(post(&mut publisher, "c", &vec![b'x'; 1000 + number * 17]).status, 200);
        let scrape = Scrape::of(admin);
        let now =
            (scrape.sum("pushline_deliveries_total", ""), scrape.at("pushline_sent_bytes_total"));
        assert!(now.0 >= highest.0 && now.1 >= highest.1, "{now:?} after {highest:?}");
        highest = now;
    }
    assert!(Scrape::of(admin).at("pushline_short_sends_total") > 0.0, "no reader was slow");
    for subscriber in &mut subscribers {
        subscriber.events(EVENTS);
    }
    let conns = subscribers.iter().map(|subscriber| &subscriber.conn).chain([&publisher]);
    let (_, received) = bytes_of(conns);
    await_that("all is counted", || {
        Scrape::of(admin).at("pushline_sent_bytes_total") >= received as f64
    });
    let scrape = Scrape::of(admin);
    assert_eq!(scrape.sum("pushline_deliveries_total", ""), (4 * EVENTS) as f64);
    assert_eq!(scrape.at("pushline_sent_bytes_total"), received as f64);
}

#[test]
fn every_connection_ends_for_one_reason() {
    let server = TestServer::with(|settings| {
        // Enough for the heads that do come.
        settings.head_time = Duration::from_secs(2);
        settings.body_time = Duration::from_millis(200);
    });
    let (addr, admin) = (server.addr, server.admin);
    // answered: the last request says so.
    let last = request("GET", "/", &[("Connection", "close")], None);
    assert_eq!(exchange(addr, last).status, 200);
    assert_eq!(exchange(addr, "NOT HTTP\r\n\r\n").status, 400);
    assert_eq!(exchange(addr, "GET / HT").status, 408);
    let body = "POST /channels/c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf";
    assert_eq!(exchange(addr, body).status, 408);
    // No head comes in time.
    Conn::open(addr).expect_end();
    drop(Sse::open(addr, "channel=peer"));
    // A WebSocket that closes by the book, one that breaks the rules, and one that is cut.
    let mut closing = RawWs::bare(addr, "channel=closes");
    closing.send(frame(true, CLOSE, b""));
    assert_eq!(closing.frame().opcode, CLOSE);
    let mut broken = RawWs::bare(addr, "channel=breaks");
    broken.send([0x81, 0x01, b'x']);
    assert_eq!(broken.frame().opcode, CLOSE);
    drop(broken);
    let mut cut = RawWs::bare(addr, "channel=cut");
    let list = get(admin, "/v1/connections").json();
    let entries = list["connections"].as_array().expect("a list");
    let entry = entries.iter().find(|entry| entry["channels"][0] == "cut").expect("it is listed");
    let id = entry["id"].as_str().expect("an id");
    let path = format!("/v1/connections/{id}");
    assert_eq!(fetch(admin, "DELETE", &path, &[], None).status, 204);
    assert_eq!(cut.frame().opcode, CLOSE);
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
}

#[test]
fn replays_and_gaps_are_counted() {
    let server = TestServer::with(|settings| settings.channel_default.history_count = 3);
    let (addr, admin) = (server.addr, server.admin);
    (0..5).for_each(|_| drop(publish(addr, "c", "x")));
    let _evicted = Sse::resume(addr, "channel=c", &server.id(1));
    let _foreign = Sse::resume(addr, "channel=c", "stranger-1");
    let _resumed = Sse::resume(addr, "channel=c", &server.id(4));
    let scrape = Scrape::of(admin);
    assert_eq!(scrape.at("pushline_replays_total"), 3.0);
    assert_eq!(scrape.at("pushline_gaps_total{reason=\"evicted\"}"), 1.0);
    assert_eq!(scrape.at("pushline_gaps_total{reason=\"epoch\"}"), 1.0);
    assert_eq!(scrape.at("pushline_evictions_total{cause=\"count\"}"), 2.0);
}

#[test]
fn a_connection_without_room_is_counted_as_refused() {
    let server = TestServer::with(|settings| settings.connections_max = Some(2));
    let _two = [(); 2].map(|()| Sse::open(server.addr, "channel=c"));
    assert_eq!(exchange(server.addr, "").status, 503);
    let scrape = Scrape::of(server.admin);
    assert_eq!(scrape.at("pushline_connections_max"), 2.0);
    assert_eq!(scrape.at("pushline_connection_refusals_total{reason=\"room\"}"), 1.0);
}

#[test]
fn limits_are_those_in_force_after_a_reload() {
    let mut server = TestServer::with(|settings| settings.connections_max = Some(7));
    let limits = |admin| {
        let scrape = Scrape::of(admin);
        (scrape.at("pushline_connections_max"), scrape.at("pushline_history_bytes_max"))
    };
    let admin = server.admin;
    let before = server.server().settings().clone();
    assert_eq!(limits(admin), (7.0, before.history_bytes as f64));
    let wanted =
        Settings { connections_max: Some(9), history_bytes: before.history_bytes / 2, ..before };
    let expected = (9.0, wanted.history_bytes as f64);
    server.server_mut().reload(wanted, Gate::open()).expect("it may change");
    await_that("the log has the new settings", || limits(admin) == expected);
}
