//! The operator's listener: health, readiness, the list of connections, cutting one, and that a
//! slow client delays no other.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::operator::{Client, await_that, connect, exchange, get, request, start};
use pushline::proto::ws::frame::Opcode;
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
    let server = start(|_| {});
    let answer = get(server.admin(), "/healthz");
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    let head = request(server.admin(), "HEAD", "/healthz");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), Some("3"));
    server.stop();
}

/// DNS rebinding: to a browser, a page of this name has the listener's own origin.
#[test]
fn a_page_whose_name_leads_here_is_told_nothing() {
    let server = start(|_| {});
    let with_host = |method: &str, path: &str, host: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        exchange(server.admin(), head.as_bytes())
    };
    for (method, path) in [
        ("GET", "/v1/connections"),
        ("GET", "/v1/channels"),
        ("GET", "/v1/nodes"),
        ("GET", "/metrics"),
        ("DELETE", "/v1/connections/0-0-0"),
    ] {
        let answer = with_host(method, path, "evil.example:8081");
        assert_eq!((answer.status, answer.code().as_str()), (403, "host"), "{method} {path}");
    }
    for host in ["localhost:8081", "127.0.0.1", "[::1]:8081"] {
        assert_eq!(with_host("GET", "/healthz", host).status, 200, "{host}");
    }
    server.stop();
}

#[test]
fn what_is_not_there_is_said_in_json() {
    let server = start(|_| {});
    let admin = server.admin();
    assert_eq!(get(admin, "/nothing").status, 404);
    assert_eq!(get(admin, "/nothing").code(), "not_found");
    for path in ["/healthz", "/readyz", "/metrics", "/v1/connections", "/v1/channels", "/v1/nodes"]
    {
        let answer = request(admin, "DELETE", path);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{path}");
        assert_eq!(answer.code(), "method_not_allowed");
    }
    let answer = get(admin, "/v1/connections/0-0-0");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("DELETE")));
    for bad in ["limit=0", "limit=many", "after=17", "colour=red"] {
        let answer = get(admin, &format!("/v1/connections?{bad}"));
        assert_eq!((answer.status, answer.code().as_str()), (400, "query"), "{bad}");
    }
    let answer = exchange(admin, b"NOT HTTP\r\n\r\n");
    assert_eq!(answer.status, 400);
    answer.code();
    // An unwanted body does not cost its sender the answer.
    let mut post =
        b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n".to_vec();
    post.extend_from_slice(&[b'x'; 60_000]);
    assert_eq!(exchange(admin, &post).status, 405);
    server.stop();
}

#[test]
fn idle_workers_are_ready_however_long_they_sleep() {
    let server = start(|settings| settings.workers = Some(3));
    for _ in 0..2 {
        let answer = get(server.admin(), "/readyz");
        assert_eq!((answer.status, answer.body.as_str()), (200, "ready\n"));
        // Longer than a worker may be silent while it has connections.
        std::thread::sleep(Duration::from_millis(1100));
    }
    server.stop();
}

#[test]
fn a_draining_server_is_alive_and_not_ready() {
    let server = start(|settings| settings.drain_time = Duration::from_secs(60));
    let (admin, listen) = (server.admin(), server.listen());
    // Most of the drain time may pass before the last of them is ended.
    let streams: Vec<Client> = (0..20).map(|_| Client::sse(listen, "channel=c")).collect();
    assert_eq!(get(admin, "/readyz").status, 200);
    let (cut, ended) = crossbeam_channel::bounded(1);
    let draining = std::thread::spawn(move || server.drain(&ended));
    await_that("not ready", || get(admin, "/readyz").status == 503);
    let answer = get(admin, "/readyz");
    assert_eq!(answer.code(), "draining");
    assert_eq!(get(admin, "/healthz").status, 200);
    let metrics = get(admin, "/metrics").body;
    assert!(metrics.lines().any(|line| line == "pushline_draining 1"), "{metrics}");
    cut.send(()).expect("the drain waits");
    draining.join().expect("the server ends");
    drop(streams);
}

#[test]
fn every_connection_is_listed_once_whatever_the_page_size() {
    let server = start(|_| {});
    let mut clients: Vec<Client> =
        (0..20).map(|_| Client::sse(server.listen(), "channel=one")).collect();
    clients.extend((0..5).map(|_| Client::ws(server.listen(), "channel=two")));
    clients.extend((0..3).map(|_| Client::sse(server.listen(), "channel=one&channel=two")));
    let silent: Vec<_> = (0..2).map(|_| connect(server.listen())).collect();
    await_that("all are listed", || all_connections(server.admin(), 1000).0.len() == 30);
    for limit in [1, 7, 1000] {
        let (all, sizes) = all_connections(server.admin(), limit);
        let ids: HashSet<String> = all.iter().map(id_of).collect();
        assert_eq!((all.len(), ids.len()), (30, 30), "limit {limit}");
        assert!(sizes.iter().all(|&size| size <= limit), "{sizes:?}");
    }
    let (all, _) = all_connections(server.admin(), 20);
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
    drop(silent);
    server.stop();
}

#[test]
fn a_connection_is_cut_by_its_id_and_only_that_one() {
    let server = start(|_| {});
    let admin = server.admin();
    let mut sse = Client::sse(server.listen(), "channel=sse");
    let mut ws = Client::ws(server.listen(), "channel=ws");
    let mut stays = Client::sse(server.listen(), "channel=stays");
    let id_on = |channel: &str| {
        let (all, _) = all_connections(admin, 100);
        let on_it = all.iter().find(|entry| entry["channels"][0] == channel);
        id_of(on_it.unwrap_or_else(|| panic!("none on {channel}")))
    };
    let delete = |id: &str| request(admin, "DELETE", &format!("/v1/connections/{id}"));

    let sse_id = id_on("sse");
    let answer = delete(&sse_id);
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert!(sse.is_ended());
    let again = delete(&sse_id);
    assert_eq!((again.status, again.code().as_str()), (404, "no_such_connection"));

    assert_eq!(delete(&id_on("ws")).status, 204);
    let (opcode, payload) = ws.read_ws_frames(1);
    assert_eq!((opcode, &payload[..2]), (Opcode::Close, &1008u16.to_be_bytes()[..]));

    // The slot's next connection is another one.
    let _next = Client::sse(server.listen(), "channel=next");
    assert_eq!(delete(&sse_id).status, 404);
    assert_eq!(delete("9-0-0").status, 404);
    for bad in ["", "x", "0-0", "0-0-0-0", "%2e"] {
        assert_eq!(delete(bad).status, 400, "{bad}");
    }
    Client::new(connect(server.listen())).publish("stays", "still here");
    assert_eq!(stays.read_sse_events(1), 1);
    server.stop();
}

#[test]
fn a_slow_reader_is_seen_to_be_behind() {
    let server = start(|settings| {
        settings.send_buffer = Some(8 * 1024);
        settings.channel_default.history_count = 10_000;
    });
    let slow = Client::sse(server.listen(), "channel=c");
    let mut publisher = Client::new(connect(server.listen()));
    let data = "x".repeat(60_000);
    for _ in 0..200 {
        publisher.publish("c", &data);
    }
    await_that("it is behind", || {
        let (all, _) = all_connections(server.admin(), 10);
        let entry = all.iter().find(|entry| entry["transport"] == "sse").expect("it is listed");
        entry["state"] == "explicit" && entry["behind"].as_u64().is_some_and(|n| n > 0)
    });
    drop(slow);
    server.stop();
}

#[test]
fn every_channel_is_listed_once_with_what_the_log_holds_of_it() {
    let server = start(|_| {});
    let _subscriber = Client::sse(server.listen(), "channel=c7");
    let mut publisher = Client::new(connect(server.listen()));
    for channel in 0..30 {
        for _ in 0..=channel % 3 {
            publisher.publish(&format!("c{channel}"), "x");
        }
    }
    let (mut names, mut from) = (HashSet::new(), 0);
    loop {
        let page = get(server.admin(), &format!("/v1/channels?limit=7&from={from}")).json();
        for entry in page["channels"].as_array().expect("a list") {
            let name = entry["channel"].as_str().expect("a name").to_owned();
            let number: u64 = name[1..].parse().expect("a number");
            assert_eq!(entry["events"], number % 3 + 1);
            assert_eq!(entry["subscribers"], u64::from(number == 7));
            let seq = |id: &Value| -> u64 {
                let (_, seq) = id.as_str().and_then(|id| id.split_once('-')).expect("an id");
                seq.parse().expect("a number")
            };
            assert_eq!(seq(&entry["last_id"]) - seq(&entry["first_id"]), number % 3);
            assert!(names.insert(name), "listed twice: {entry}");
        }
        match page["next"].as_u64() {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(names.len(), 30);
    server.stop();
}

#[test]
fn a_client_that_drips_is_cut_and_keeps_nobody_waiting() {
    /// More than there are threads that answer.
    const DRIPPERS: usize = 30;
    let server = start(|_| {});
    let admin = server.admin();
    let began = Instant::now();
    let drip = move || {
        let mut stream = connect(admin);
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        while stream.write_all(b"G").is_ok() && began.elapsed() < crate::operator::PATIENCE {
            match stream.read(&mut [0; 64]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        began.elapsed()
    };
    let drippers: Vec<_> = (0..DRIPPERS).map(|_| std::thread::spawn(drip)).collect();
    for _ in 0..20 {
        let asked = Instant::now();
        assert_eq!(get(admin, "/healthz").status, 200);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
    for dripper in drippers {
        let cut_after = dripper.join().expect("it is cut");
        assert!(cut_after < Duration::from_secs(4), "{cut_after:?}");
    }
    server.stop();
}
