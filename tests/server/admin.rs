//! The operator's listener: health, readiness, the list of connections, cutting one, and that a
//! slow client delays no other.

use std::collections::HashSet;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::ws::RawWs;
use crate::common::{
    Conn, PATIENCE, Sse, TestServer, assert_ever, await_that, exchange, fetch, get, post, publish,
    request, seq_of,
};
use serde_json::Value;

/// All pages of `/v1/connections`, and the sizes of the pages.
fn all_connections(admin: SocketAddr, limit: usize) -> (Vec<Value>, Vec<usize>) {
    let (mut all, mut sizes) = (Vec::new(), Vec::new());
    let mut after = String::new();
    loop {
        let page = get(admin, &format!("/v1/connections?limit={limit}{after}")).json();
        let connections = page["connections"].as_array().expect("a list").clone();
        sizes.push(connections.len());
        all.extend(connections);
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return (all, sizes),
        }
    }
}

fn id_of(entry: &Value) -> String {
    entry["id"].as_str().expect("an id").to_owned()
}

#[test]
fn health_is_text_and_its_head_has_no_body() {
    let server = TestServer::start();
    let answer = get(server.admin, "/healthz");
    assert_eq!((answer.status, &*answer.text()), (200, "ok\n"));
    let head = fetch(server.admin, "HEAD", "/healthz", &[], None);
    assert_eq!((head.status, &*head.text()), (200, ""));
    assert_eq!(head.header("content-length"), Some("3"));
}

/// DNS rebinding: to a browser, a page of this name has the listener's own origin.
#[test]
fn a_page_whose_name_leads_here_is_told_nothing() {
    let server = TestServer::start();
    let with_host = |method: &str, path: &str, host: &str| {
        exchange(server.admin, format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    };
    for (method, path) in [
        ("GET", "/v1/connections"),
        ("GET", "/v1/channels"),
        ("GET", "/v1/nodes"),
        ("GET", "/metrics"),
        ("DELETE", "/v1/connections/0-0-0"),
    ] {
        let answer = with_host(method, path, "evil.example:8081");
        assert_eq!((answer.status, answer.error_code().as_str()), (403, "host"), "{method} {path}");
    }
    for host in ["localhost:8081", "127.0.0.1", "[::1]:8081"] {
        assert_eq!(with_host("GET", "/healthz", host).status, 200, "{host}");
    }
}

#[test]
fn what_is_not_there_is_said_in_json() {
    let server = TestServer::start();
    let admin = server.admin;
    assert_eq!(get(admin, "/nothing").status, 404);
    assert_eq!(get(admin, "/nothing").error_code(), "not_found");
    for path in ["/healthz", "/readyz", "/metrics", "/v1/connections", "/v1/channels", "/v1/nodes"]
    {
        let answer = fetch(admin, "DELETE", path, &[], None);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{path}");
        assert_eq!(answer.error_code(), "method_not_allowed");
    }
    let answer = get(admin, "/v1/connections/0-0-0");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("DELETE")));
    for bad in ["limit=0", "limit=many", "after=17", "colour=red"] {
        let answer = get(admin, &format!("/v1/connections?{bad}"));
        assert_eq!((answer.status, answer.error_code().as_str()), (400, "query"), "{bad}");
    }
    let answer = exchange(admin, "NOT HTTP\r\n\r\n");
    assert_eq!((answer.status, answer.error_code().is_empty()), (400, false));
    // An unwanted body does not cost its sender the answer.
    let post = request("POST", "/metrics", &[], Some(&[b'x'; 60_000]));
    assert_eq!(exchange(admin, post).status, 405);
}

#[test]
fn idle_workers_are_ready_however_long_they_sleep() {
    let server = TestServer::with(|settings| settings.workers = Some(3));
    for _ in 0..2 {
        // A machine that stands still may be late once.
        assert_ever("they are ready", || {
            let answer = get(server.admin, "/readyz");
            (answer.status, &*answer.text()) == (200, "ready\n")
        });
        // Longer than a worker may be silent while it has connections.
        std::thread::sleep(Duration::from_millis(1100));
    }
}

#[test]
fn a_draining_server_is_alive_and_not_ready() {
    let server = TestServer::with(|settings| settings.drain_time = Duration::from_secs(60));
    let (admin, addr) = (server.admin, server.addr);
    // Most of the drain time may pass before the last of them is ended.
    let streams: Vec<Sse> = (0..20).map(|_| Sse::open(addr, "channel=c")).collect();
    await_that("ready", || get(admin, "/readyz").status == 200);
    let (cut, ended) = crossbeam_channel::bounded(1);
    let draining = std::thread::spawn(move || server.into_server().drain(&ended));
    await_that("not ready", || get(admin, "/readyz").status == 503);
    let answer = get(admin, "/readyz");
    assert_eq!(answer.error_code(), "draining");
    assert_eq!(get(admin, "/healthz").status, 200);
    let metrics = get(admin, "/metrics").text();
    assert!(metrics.lines().any(|line| line == "pushline_draining 1"), "{metrics}");
    cut.send(()).expect("the drain waits");
    draining.join().expect("the server ends");
    drop(streams);
}

#[test]
fn every_connection_is_listed_once_whatever_the_page_size() {
    let server = TestServer::start();
    let _one = [(); 20].map(|()| Sse::open(server.addr, "channel=one"));
    let _two = [(); 5].map(|()| RawWs::bare(server.addr, "channel=two"));
    let _both = [(); 3].map(|()| Sse::open(server.addr, "channel=one&channel=two"));
    let _silent = [(); 2].map(|()| Conn::open(server.addr));
    await_that("all are listed", || all_connections(server.admin, 1000).0.len() == 30);
    for limit in [1, 7, 1000] {
        let (all, sizes) = all_connections(server.admin, limit);
        let ids: HashSet<String> = all.iter().map(id_of).collect();
        assert_eq!((all.len(), ids.len()), (30, 30), "limit {limit}");
        assert!(sizes.iter().all(|&size| size <= limit), "{sizes:?}");
    }
    let (all, _) = all_connections(server.admin, 20);
    let count = |key: &str, value: &str| all.iter().filter(|entry| entry[key] == value).count();
    assert_eq!((count("transport", "sse"), count("transport", "ws")), (23, 5));
    assert_eq!(count("transport", "http"), 2);
    assert_eq!((count("state", "live"), count("state", "explicit")), (25, 3));
    for entry in &all {
        let channels = entry["channels"].as_array().expect("names");
        assert_eq!(entry["channel_count"], channels.len());
        let expected = match (entry["transport"].as_str(), entry["state"].as_str()) {
            (Some("ws"), _) => vec!["two"],
            (Some("sse"), Some("explicit")) => vec!["one", "two"],
            (Some("sse"), _) => vec!["one"],
            _ => vec![],
        };
        assert_eq!(channels, &expected);
        assert_eq!(entry["behind"], 0);
        assert!(entry["age_seconds"].as_u64().is_some_and(|age| age < 60));
        assert_eq!(
            id_of(entry).split('-').next(),
            entry["worker"].as_u64().map(|w| w.to_string()).as_deref()
        );
    }
}

#[test]
fn a_connection_is_cut_by_its_id_and_only_that_one() {
    let server = TestServer::start();
    let admin = server.admin;
    let mut sse = Sse::open(server.addr, "channel=sse");
    let mut ws = RawWs::bare(server.addr, "channel=ws");
    let mut stays = Sse::open(server.addr, "channel=stays");
    let id_on = |channel: &str| {
        let (all, _) = all_connections(admin, 100);
        let on_it = all.iter().find(|entry| entry["channels"][0] == channel);
        id_of(on_it.unwrap_or_else(|| panic!("none on {channel}")))
    };
    let delete = |id: &str| fetch(admin, "DELETE", &format!("/v1/connections/{id}"), &[], None);

    let sse_id = id_on("sse");
    let answer = delete(&sse_id);
    assert_eq!((answer.status, &*answer.text()), (204, ""));
    assert_eq!((sse.event().event.as_str(), sse.next_event()), ("pushline.end", None));
    let again = delete(&sse_id);
    assert_eq!((again.status, again.error_code().as_str()), (404, "no_such_connection"));

    assert_eq!(delete(&id_on("ws")).status, 204);
    assert_eq!(ws.answer().close().0, 1008);

    // The slot's next connection is another one.
    let _next = Sse::open(server.addr, "channel=next");
    assert_eq!(delete(&sse_id).status, 404);
    assert_eq!(delete("9-0-0").status, 404);
    for bad in ["", "x", "0-0", "0-0-0-0", "%2e"] {
        assert_eq!(delete(bad).status, 400, "{bad}");
    }
    publish(server.addr, "stays", "still here");
    assert_eq!(stays.event().data, "still here");
}

#[test]
fn a_slow_reader_is_seen_to_be_behind() {
    let server = TestServer::with(|settings| {
        settings.send_buffer = Some(8 * 1024);
        settings.channel_default.history_count = 10_000;
    });
    let slow = Sse::open(server.addr, "channel=c");
    let mut publisher = Conn::open(server.addr);
    for _ in 0..200 {
        assert_eq!(post(&mut publisher, "c", &[b'x'; 60_000]).status, 200);
    }
    await_that("it is behind", || {
        let (all, _) = all_connections(server.admin, 10);
        let entry = all.iter().find(|entry| entry["transport"] == "sse").expect("it is listed");
        entry["state"] == "explicit" && entry["behind"].as_u64().is_some_and(|n| n > 0)
    });
    drop(slow);
}

#[test]
fn every_channel_is_listed_once_with_what_the_log_holds_of_it() {
    let server = TestServer::start();
    let _subscriber = Sse::open(server.addr, "channel=c7");
    let mut publisher = Conn::open(server.addr);
    for channel in 0..30 {
        for _ in 0..=channel % 3 {
            assert_eq!(post(&mut publisher, &format!("c{channel}"), b"x").status, 200);
        }
    }
    let (mut names, mut from) = (HashSet::new(), 0);
    loop {
        let page = get(server.admin, &format!("/v1/channels?limit=7&from={from}")).json();
        for entry in page["channels"].as_array().expect("a list") {
            let name = entry["channel"].as_str().expect("a name").to_owned();
            let number: u64 = name[1..].parse().expect("a number");
            assert_eq!(entry["events"], number % 3 + 1);
            assert_eq!(entry["subscribers"], u64::from(number == 7));
            let seq = |id: &Value| seq_of(id.as_str().expect("an id"));
            assert_eq!(seq(&entry["last_id"]) - seq(&entry["first_id"]), number % 3);
            assert!(names.insert(name), "listed twice: {entry}");
        }
        match page["next"].as_u64() {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(names.len(), 30);
}

#[test]
fn a_client_that_drips_is_cut_and_keeps_no_other_waiting() {
    /// More than there are threads that answer.
    const DRIPPERS: usize = 30;
    let server = TestServer::start();
    let admin = server.admin;
    assert_ever("answers come while all of them drip", || {
        let begun = Arc::new(Barrier::new(DRIPPERS + 1));
        let start = |_| {
            let begun = begun.clone();
            std::thread::spawn(move || drip(admin, &begun))
        };
        let drippers: Vec<_> = (0..DRIPPERS).map(start).collect();
        begun.wait();
        (0..3).for_each(|_| assert_eq!(get(admin, "/healthz").status, 200));
        let all_drip = !drippers.iter().any(JoinHandle::is_finished);
        drippers.into_iter().for_each(|dripper| dripper.join().expect("it is cut"));
        all_drip
    });
}

/// Sends a byte of a request now and then, until it is cut.
fn drip(admin: SocketAddr, begun: &Barrier) {
    let began = Instant::now();
    let mut conn = Conn::open(admin);
    conn.send("G");
    begun.wait();
    while conn.stream.write_all(b"G").is_ok() && conn.is_silent_for(Duration::from_millis(300)) {
        assert!(began.elapsed() < PATIENCE, "it is not cut");
    }
}
