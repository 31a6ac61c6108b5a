//! `pushline sub` and `pushline pub` as a user runs them: what is published is printed once and in
//! order, across cuts, restarts and refusals; signals and closed pipes end them quietly.

mod tools;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tools::{Client, Relay, Server, Stranger, run, run_into_closed_pipe, until};

const TRANSPORTS: [&str; 2] = ["sse", "ws"];

fn publish(url: &str, channel: &str, data: &str) -> String {
    let (status, out, errors) = run(&["pub", channel, data, "--url", url]);
    assert!(status.success(), "{errors}");
    out
}

/// A subscriber from the beginning of everything history holds.
fn subscribe(url: &str, channel: &str, transport: &str) -> Client {
    let from = ["--after", "earliest", "--transport", transport];
    Client::start(&[&["sub", channel, "--url", url], &from[..]].concat())
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn events_are_printed_as_data_or_as_json() {
    let server = Server::start();
    let url = server.url();
    let answer = publish(&url, "a", "hello");
    assert!(answer.contains("\"id\":") && answer.contains("\"channel\":\"a\""), "{answer}");
    let json = ["--content-type", "application/json", "--event", "t"];
    let (status, ..) = run(&[&["pub", "b", "{\"x\": 1}", "--url", &url], &json[..]].concat());
    assert!(status.success());
    for transport in TRANSPORTS {
        let common = ["sub", "a", "b", "--after", "earliest", "--url", &url];
        let plain = Client::start(&[&common[..], &["--transport", transport]].concat());
        assert_eq!(plain.lines(2), ["hello", "{\"x\": 1}"], "{transport}");
        let full = Client::start(&[&common[..], &["--transport", transport, "--json"]].concat());
        let first: serde_json::Value = serde_json::from_str(&full.line()).expect("JSON");
        assert_eq!((&first["channel"], &first["data"]), (&"a".into(), &"hello".into()));
        let second: serde_json::Value = serde_json::from_str(&full.line()).expect("JSON");
        assert_eq!((&second["event"], &second["data"]["x"]), (&"t".into(), &1.into()));
        assert!(second["id"].is_string());
    }
}

#[test]
fn a_key_is_published_once() {
    let server = Server::start();
    let url = server.url();
    let again = || run(&["pub", "a", "once", "--key", "k", "--url", &url]).1;
    assert_eq!(again(), again());
    publish(&url, "a", "then");
    assert_eq!(subscribe(&url, "a", "sse").lines(2), ["once", "then"]);
}

#[test]
fn a_subscriber_resumes_across_cuts() {
    let server = Server::start();
    for transport in TRANSPORTS {
        let relay = Relay::start(server.address);
        let subscriber = subscribe(&relay.url(), transport, transport);
        for number in numbers(1..=12) {
            if number.ends_with(['3', '7']) {
                relay.cut();
            }
            publish(&server.url(), transport, &number);
        }
        assert_eq!(subscriber.lines(12), numbers(1..=12), "{transport}");
    }
}

#[test]
fn a_cut_before_the_first_event_loses_nothing() {
    let server = Server::start();
    publish(&server.url(), "a", "long ago");
    let relay = Relay::start(server.address);
    let subscriber = Client::start(&["sub", "a", "--url", &relay.url(), "--transport", "sse"]);
    until(|| describe(&server).contains("\"subscribers\":1"));
    relay.cut();
    publish(&server.url(), "a", "new");
    assert_eq!(subscriber.line(), "new", "and nothing from before");
}

/// `GET /channels/a`.
fn describe(server: &Server) -> String {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(server.address).expect("the server listens");
    let request = b"GET /channels/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    socket.write_all(request).expect("the server reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("the server answers");
    answer
}

#[test]
fn a_restarted_server_is_a_gap_and_not_the_end() {
    for transport in TRANSPORTS {
        let server = Server::start();
        publish(&server.url(), "a", "before");
        let subscriber = subscribe(&server.url(), "a", transport);
        assert_eq!(subscriber.line(), "before");
        let server = Server::start_again(server.stop());
        subscriber.message("trying again");
        let gap = subscriber.message("gap on a");
        assert!(gap.contains("epoch"), "{gap}");
        publish(&server.url(), "a", "after");
        assert_eq!(subscriber.line(), "after", "{transport}");
    }
}

#[test]
fn a_gap_is_a_json_object_among_json_objects() {
    let server = Server::start();
    publish(&server.url(), "a", "kept");
    for transport in TRANSPORTS {
        let from = ["--after", "stranger-1", "--json", "--transport", transport];
        let subscriber =
            Client::start(&[&["sub", "a", "--url", &server.url()], &from[..]].concat());
        let json = || serde_json::from_str::<serde_json::Value>(&subscriber.line()).expect("JSON");
        let gap = json();
        assert_eq!(
            (&gap["event"], &gap["data"]["reason"]),
            (&"pushline.gap".into(), &"epoch".into())
        );
        assert_eq!(json()["data"], "kept");
        subscriber.message("gap on a");
    }
}

#[test]
fn a_line_is_published_when_it_comes() {
    let server = Server::start();
    let mut publisher = Client::start(&["pub", "a", "--url", &server.url()]);
    let subscriber = subscribe(&server.url(), "a", "sse");
    for number in numbers(1..=5) {
        publisher.write(&format!("{number}\n"));
        // Before the next one, and while the input stays open.
        assert_eq!(subscriber.line(), number);
    }
    publisher.write("no line end");
    publisher.end_input();
    assert!(publisher.wait().success());
    assert_eq!(subscriber.line(), "no line end");
}

#[test]
fn lines_survive_cuts_and_are_published_once() {
    let server = Server::start();
    // Cuts fall anywhere: into heads, chunks, ends, and between a body and its answer.
    let relay = Relay::start_cutting(server.address, 500..12_000, 7);
    let mut publisher = Client::start(&["pub", "a", "--url", &relay.url()]);
    publisher.write(&text(&numbers(1..=300)));
    publisher.end_input();
    publisher.message("trying again");
    assert!(publisher.wait().success());
    let mut subscriber = subscribe(&server.url(), "a", "ws");
    assert_eq!(subscriber.lines(300), numbers(1..=300));
    publish(&server.url(), "a", "end");
    assert_eq!(subscriber.line(), "end", "and nothing twice");
    subscriber.signal(Signal::INT);
    assert_eq!(subscriber.rest(), [""; 0]);
}

#[test]
fn lines_survive_a_restart_and_are_published_once() {
    let server = Server::start();
    let mut publisher = Client::start(&["pub", "a", "--url", &server.url()]);
    publisher.write(&text(&numbers(1..=20)));
    let subscriber = subscribe(&server.url(), "a", "sse");
    assert_eq!(subscriber.lines(20), numbers(1..=20));
    // The publisher's request is open, or has just ended: a draining server answers it.
    let address = server.stop();
    publisher.write(&text(&numbers(21..=40)));
    publisher.message("trying again");
    let server = Server::start_again(address);
    publisher.message("connected again");
    publisher.write("41\n");
    publisher.end_input();
    assert!(publisher.wait().success());
    let late = subscribe(&server.url(), "a", "sse");
    assert_eq!(late.lines(21), numbers(21..=41), "all of the new, and nothing of the old again");
    assert_eq!(subscriber.lines(21), numbers(21..=41), "the gap was at the restart");
}

#[test]
fn a_refused_line_does_not_stop_the_others() {
    let server = Server::start();
    let mut publisher = Client::start(&["pub", "a", "--url", &server.url()]);
    let large = "x".repeat(70_000);
    publisher.write(&format!("1\n2\n{large}\n4\n"));
    publisher.message("line 3 is not published");
    publisher.write("5\n");
    publisher.end_input();
    assert_eq!(publisher.wait().code(), Some(1));
    publisher.message("1 lines were refused");
    let subscriber = subscribe(&server.url(), "a", "sse");
    assert_eq!(subscriber.lines(4), ["1", "2", "4", "5"]);
}

#[test]
fn a_signal_ends_both_quietly() {
    let server = Server::start();
    let mut publisher = Client::start(&["pub", "a", "--url", &server.url()]);
    publisher.write("line\n");
    let mut subscriber = subscribe(&server.url(), "a", "sse");
    assert_eq!(subscriber.line(), "line");
    for client in [&mut publisher, &mut subscriber] {
        client.signal(Signal::INT);
        assert_eq!(client.wait().code(), Some(0));
        assert_eq!(client.rest(), [""; 0]);
    }
}

#[test]
fn a_reader_that_leaves_ends_the_subscriber_quietly() {
    let server = Server::start();
    let url = server.url();
    publish(&url, "a", "first");
    let arguments = ["sub", "a", "--after", "earliest", "--url", &url];
    let status = run_into_closed_pipe(&arguments, || drop(publish(&url, "a", "second")));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn nobody_reading_standard_error_ends_neither() {
    let server = Server::start();
    let relay = Relay::start(server.address);
    let mut publisher = Client::start_without_errors(&["pub", "a", "--url", &relay.url()]);
    let from = ["--after", "earliest"];
    let subscriber =
        Client::start_without_errors(&[&["sub", "a", "--url", &relay.url()], &from[..]].concat());
    publisher.write("1\n");
    assert_eq!(subscriber.line(), "1");
    // Both have something to say now.
    relay.cut();
    publisher.write("2\n");
    assert_eq!(subscriber.line(), "2");
    publisher.end_input();
    assert!(publisher.wait().success());
}

#[test]
fn what_another_try_would_not_help_against_is_told() {
    let server = Server::start();
    let (status, _, errors) = run(&["sub", "not/a/name", "--url", &server.url()]);
    assert_eq!(status.code(), Some(2));
    assert!(errors.contains("channel name"), "{errors}");
    let unknown = ["sub", "a", "--url", "https://example.com", "--ca", "/none.pem"];
    let (status, _, errors) = run(&unknown);
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("/none.pem cannot be used"), "{errors}");
    let (status, _, errors) = run(&["sub", "a", "--url", &format!("{}/x", server.url())]);
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("no such path (404)"), "{errors}");
    let (status, _, errors) = run(&["pub", "a", "x", "--url", "http://127.0.0.1:1"]);
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("no server at 127.0.0.1:1"), "{errors}");
    let (status, _, errors) = run(&["pub", "a", "x", "--token-env", "NOT_SET_ANYWHERE"]);
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("NOT_SET_ANYWHERE is not set"), "{errors}");
}

const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\
    Content-Length: 13\r\n\r\n<html></html>";
const MISSING: &str = "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\
    Content-Length: 13\r\n\r\n<html></html>";
const MOVED: &str = "HTTP/1.1 301 Moved\r\nLocation: https://a.example/\r\n\
    Content-Length: 0\r\n\r\n";
const OTHER_JSON: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
    Content-Length: 11\r\n\r\n{\"ok\":true}";

#[test]
fn a_server_that_is_no_pushline_is_told_of_and_nothing_counts_as_published() {
    for (answer, told) in [
        (PAGE, "not a Pushline server: it answered text/html, not application/json"),
        (MISSING, "refused with text/html, not by a Pushline server; is the URL right? (404)"),
        (MOVED, "the server redirects to https://a.example/"),
        (OTHER_JSON, "not a Pushline server: its answer "),
    ] {
        let stranger = Stranger::start(answer);
        let url = stranger.url();
        for arguments in [
            &["pub", "a", "x", "--url", &url][..],
            &["sub", "a", "--url", &url],
            &["sub", "a", "--url", &url, "--transport", "ws"],
        ] {
            let (status, out, errors) = run(arguments);
            assert_eq!((status.code(), &*out), (Some(1), ""), "{arguments:?}: {errors}");
            assert!(errors.contains(told), "{arguments:?}: {errors}");
        }
        let mut lines = Client::start(&["pub", "a", "--url", &url]);
        lines.write("x\n");
        lines.end_input();
        assert_eq!(lines.wait().code(), Some(1), "{answer}");
        lines.message(told);
    }
    let page = Stranger::start(PAGE);
    let (status, _, errors) = run(&["sub", "a", "--after", "earliest", "--url", &page.url()]);
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("it answered text/html, not text/event-stream"), "{errors}");
}

/// The bound is far below the sum of the last pauses, and far above ten pauses without back-off,
/// each of which is at most the `retry:`.
#[test]
fn streams_that_end_at_once_are_asked_for_less_and_less_often() {
    const RETRY: Duration = Duration::from_millis(10);
    let ending = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 10\n\n";
    let stranger = Stranger::start(ending);
    let began = Instant::now();
    let _client = Client::start(&["sub", "a", "--after", "earliest", "--url", &stranger.url()]);
    until(|| stranger.answered.load(Ordering::Relaxed) >= 10);
    assert!(began.elapsed() > RETRY * 20, "{:?}", began.elapsed());
}

#[test]
fn bench_finds_its_events_in_an_envelope_and_sends_header_lines() {
    let server = Server::start();
    let url = server.url();
    let watcher =
        Client::start(&["sub", "bench-0", "--json", "--after", "earliest", "--url", &url]);
    let enveloped = ["--subscribe-path", "/sse?channel={channel}&envelope=json"];
    let typed = ["--publish-header", "Event-Type: measured"];
    let common = ["bench", "--url", &url, "--connections", "3", "--burst", "2"];
    let (status, out, errors) = run(&[&common[..], &enveloped, &typed].concat());
    assert!(status.success(), "{errors}");
    assert!(out.contains("6 of 6") && !out.contains("not ours"), "{out}");
    let event: serde_json::Value = serde_json::from_str(&watcher.line()).expect("JSON");
    assert_eq!(event["event"], "measured");
}

#[test]
fn bench_holds_many_subscribers_on_a_connection_of_http2() {
    let server = Server::start();
    let url = server.url();
    let many = ["--http2", "--streams", "5", "--connections", "12", "--channels", "3"];
    let common = ["bench", "--url", &url, "--burst", "6"];
    let (status, out, errors) = run(&[&common[..], &many].concat());
    assert!(status.success(), "{errors}");
    assert!(out.contains("HTTP/2, 5 to a connection") && out.contains("24 of 24"), "{out}");
    assert!(!out.contains("not ours"), "{out}");
    // What is refused is counted by stream: the server takes 128 of them.
    let more = ["--http2", "--streams", "130", "--connections", "130", "--idle"];
    let (status, out, errors) = run(&[&["bench", "--url", &url], &more[..]].concat());
    assert!(status.success(), "{errors}");
    assert!(out.contains("2 reset by the server"), "{out}");
}

#[test]
fn bench_fails_where_nothing_is_measured() {
    let page = Stranger::start(PAGE);
    let (status, _, errors) = run(&["bench", "--url", &page.url(), "--connections", "2"]);
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("something else than text/event-stream"), "{errors}");
    let server = Server::start();
    let url = server.url();
    let elsewhere = format!("{url}/channels/elsewhere");
    let arguments = ["--connections", "2", "--burst", "1", "--publish-url", &elsewhere];
    let (status, _, errors) = run(&[&["bench", "--url", &url], &arguments[..]].concat());
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("no subscriber received an event"), "{errors}");
}
