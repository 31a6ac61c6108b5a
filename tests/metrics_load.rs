//! A scrape under a load of 10,000 connections has every metric and agrees with what the clients
//! counted: our own load generator on one side, the operator's listener on the other. Run one after
//! the other: on epoll all servers of this process share its descriptors.

mod common;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use pushline::config::DriverWanted;

use common::{TestServer, await_that, get};
use serde_json::Value;
use tempfile::NamedTempFile;

const CONNECTIONS: u64 = 10_000;

/// Fewer would fit two workers' rings or the generator's process, and the test would show nothing.
const DESCRIPTORS_MIN: u64 = CONNECTIONS + 1000;

#[test]
fn ten_thousand_sse_subscribers_and_the_operator_count_alike() {
    if !has_descriptors() {
        return;
    }
    count_alike("sse", DriverWanted::Auto);
}

#[test]
fn ten_thousand_websockets_and_the_operator_count_alike() {
    if !has_descriptors() {
        return;
    }
    count_alike("ws", DriverWanted::Auto);
}

#[test]
fn on_epoll_they_count_alike() {
    if !has_descriptors() {
        return;
    }
    count_alike("sse", DriverWanted::Epoll);
    count_alike("ws", DriverWanted::Epoll);
}

fn count_alike(transport: &str, driver: DriverWanted) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let server = TestServer::with(|settings| settings.driver = driver);
    let admin = server.admin;
    let names = names(admin);
    let report = NamedTempFile::new().expect("a file");
    let mut load = bench(server.addr, transport, &report);
    let connected = format!("\"{transport}\"");
    // A subscriber that was just answered becomes live a turn later.
    await_that("all are connected and at rest", || {
        let scrape = scrape(admin);
        sum(&scrape, "pushline_connections", &connected) == CONNECTIONS
            && sum(&scrape, "pushline_subscriptions", "live") == CONNECTIONS
    });
    let during = scrape(admin);
    assert_eq!(sum(&during, "pushline_connection_refusals_total", ""), 0);
    for name in names {
        assert!(during.lines().any(|line| line.starts_with(&name)), "{name} is not there");
    }
    assert!(load.wait().expect("it ends").success());

    let report = std::fs::read(report.path()).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    let counted = |name: &str| report["publish"][name].as_u64().expect("a number");
    assert_eq!(report["connect"]["held"], CONNECTIONS);
    assert_eq!((counted("lost"), counted("duplicated"), counted("out_of_order")), (0, 0, 0));
    assert!(counted("published") > 0);
    assert_eq!(counted("deliveries"), counted("published") * CONNECTIONS);
    await_that("all have gone", || sum(&scrape(admin), "pushline_connections", "") == 0);
    let after = scrape(admin);
    assert_eq!(sum(&after, "pushline_events_published_total", ""), counted("published"));
    assert_eq!(sum(&after, "pushline_deliveries_total", ""), counted("deliveries"));
    assert_eq!(sum(&after, "pushline_gaps_total", ""), 0);
    let accepts = sum(&after, "pushline_accepts_total", "");
    assert!(accepts > CONNECTIONS, "the publishers' are among them: {accepts}");
    assert_eq!(sum(&after, "pushline_closes_total", ""), accepts);
}

fn bench(url: SocketAddr, transport: &str, report: &NamedTempFile) -> Child {
    let connections = CONNECTIONS.to_string();
    Command::new(env!("CARGO_BIN_EXE_pushline"))
        .args(["bench", "--url", &format!("http://{url}"), "--transport", transport])
        .args(["--connections", &connections, "--publish-rate=10", "--burst=5", "--duration=1s"])
        // Time to look while nothing changes, on a machine that stands still for a while, too.
        .arg("--hold=6s")
        .arg("--json")
        .arg(report.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}

fn scrape(admin: SocketAddr) -> String {
    get(admin, "/metrics").text()
}

/// All metrics there are; histograms by their first series.
fn names(admin: SocketAddr) -> Vec<String> {
    let text = scrape(admin);
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
}

/// All samples of a metric that have this label.
fn sum(scrape: &str, name: &str, label: &str) -> u64 {
    let samples = scrape.lines().filter_map(|line| line.strip_prefix(name));
    let of = samples.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
    of.map(|rest| rest.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a number"))
        .sum()
}

/// Whether this machine lets a process have that many; says so loudly if not.
fn has_descriptors() -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.maximum.is_none_or(|maximum| maximum >= DESCRIPTORS_MIN) {
        return true;
    }
    common::skip(&format!("a hard limit of {DESCRIPTORS_MIN} open files"), "ulimit -Hn");
    false
}
