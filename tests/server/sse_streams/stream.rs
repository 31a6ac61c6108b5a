//! What is on a stream: preamble, events, envelopes, heartbeats.

use std::time::Duration;

use serde_json::json;

use crate::common::{
    Conn, Sse, TestServer, await_subscribers, await_that, fetch, metric, publish, request,
};

#[test]
fn a_stream_begins_at_once_with_headers_a_comment_and_retry() {
    let server = TestServer::start();
    let mut sse = Sse::open_with(server.addr, "channel=c", &[("Origin", "https://app.example")]);
    assert_eq!(sse.head.header("content-type"), Some("text/event-stream"));
    assert_eq!(sse.head.header("cache-control"), Some("no-cache, no-transform"));
    assert_eq!(sse.head.header("x-accel-buffering"), Some("no"));
    assert_eq!(sse.head.header("access-control-allow-origin"), Some("*"));
    assert_eq!(sse.head.header("content-length"), None);
    sse.await_comments(1);
    assert!(sse.retry_ms.is_some());
}

#[test]
fn retry_is_jittered_around_the_setting() {
    let server = TestServer::with(|settings| settings.retry = Duration::from_secs(4));
    let mut told: Vec<u64> = (0..40)
        .map(|_| {
            let mut sse = Sse::open(server.addr, "channel=c");
            sse.await_comments(1);
            sse.retry_ms.expect("retry is in the preamble")
        })
        .collect();
    assert!(told.iter().all(|retry| (2000..=6000).contains(retry)), "{told:?}");
    told.sort_unstable();
    told.dedup();
    assert!(told.len() > 20, "reconnects are not spread: {told:?}");
}

#[test]
fn lines_of_data_survive_however_they_end() {
    let server = TestServer::start();
    let mut sse = Sse::open(server.addr, "channel=c");
    let cases = [
        ("one", "one"),
        ("", ""),
        ("a\nb", "a\nb"),
        ("a\r\nb", "a\nb"),
        ("a\rb", "a\nb"),
        ("a\n\nb", "a\n\nb"),
        ("\n", "\n"),
        ("\r\n\r\n", "\n\n"),
        ("end\n", "end\n"),
        (" leading space", " leading space"),
        (":colon\nid: 7\nevent: x\nretry: 1", ":colon\nid: 7\nevent: x\nretry: 1"),
        ("\u{feff}bom \u{2028} \u{1f600}", "\u{feff}bom \u{2028} \u{1f600}"),
        ("nul\0", "nul\0"),
    ];
    for (place, (sent, received)) in cases.into_iter().enumerate() {
        let id = publish(server.addr, "c", sent);
        let event = sse.event();
        assert_eq!(event.data, received, "case {place}");
        assert_eq!(event.id, id);
        assert_eq!(event.event, "message");
    }
}

#[test]
fn several_channels_come_in_envelopes_in_log_order() {
    let server = TestServer::start();
    let mut sse = Sse::open(server.addr, "channel=a&channel=b&channel=c&channel=a");
    for n in 0..30 {
        publish(server.addr, ["a", "b", "c"][n % 3], &n.to_string());
    }
    for n in 0..30 {
        let event = sse.event();
        let id = server.id(n as u64 + 1);
        assert_eq!(event.id, id);
        let channel = ["a", "b", "c"][n % 3];
        let expected = json!({"id": id, "channel": channel, "data": n.to_string()});
        assert_eq!(event.json(), expected);
    }
}

#[test]
fn envelope_forces_either_form() {
    let server = TestServer::start();
    let mut enveloped = Sse::open(server.addr, "channel=a&envelope=json");
    let mut bare = Sse::open(server.addr, "channel=a&channel=b&envelope=none");
    let headers = [("Event-Type", "typed"), ("Content-Type", "application/json")];
    fetch(server.addr, "POST", "/channels/a", &headers, Some(b"{\n\"x\" : 1\n}"));
    let event = enveloped.event();
    assert_eq!(event.event, "typed");
    let expected = json!({"id": server.id(1), "channel": "a", "event": "typed", "data": {"x": 1}});
    assert_eq!(event.json(), expected);
    let event = bare.event();
    assert_eq!((event.event.as_str(), event.data.as_str()), ("typed", "{\n\"x\" : 1\n}"));
    for value in ["xml", "", "JSON"] {
        let target = format!("/sse?channel=a&envelope={value}");
        assert_eq!(fetch(server.addr, "GET", &target, &[], None).status, 400, "{value:?}");
    }
}

#[test]
fn a_stream_needs_a_channel_and_takes_no_more_than_128() {
    let server = TestServer::start();
    for target in ["/sse", "/sse?", "/sse?channels=a", "/sse?channel="] {
        assert_eq!(fetch(server.addr, "GET", target, &[], None).status, 400, "{target}");
    }
    let query =
        |count: usize| (0..count).map(|n| format!("channel=c{n}")).collect::<Vec<_>>().join("&");
    let response = fetch(server.addr, "GET", &format!("/sse?{}", query(129)), &[], None);
    assert_eq!((response.status, response.error_code().as_str()), (400, "too_many_channels"));
    let mut sse = Sse::open(server.addr, &query(128));
    for n in (0..128).rev() {
        publish(server.addr, &format!("c{n}"), "x");
        assert_eq!(sse.event().json()["channel"], format!("c{n}"));
    }
}

#[test]
fn idle_streams_hear_comments() {
    let server = TestServer::with(|settings| settings.heartbeat = Duration::from_millis(100));
    let mut one = Sse::open(server.addr, "channel=c");
    let mut two = Sse::open(server.addr, "channel=c&channel=d");
    one.await_comments(5);
    two.await_comments(5);
    publish(server.addr, "c", "still in step");
    assert_eq!(one.event().data, "still in step");
    assert_eq!(two.event().json()["data"], "still in step");
}

/// Scripts see no comments. A stream of several channels has a cursor of its own, a stream of one
/// has none; either way the id stays as the last event left it.
#[test]
fn a_page_that_asks_for_it_sees_heartbeats() {
    let server = TestServer::with(|settings| settings.heartbeat = Duration::from_millis(100));
    for query in ["channel=c&heartbeat=event", "channel=c&channel=d&heartbeat=event"] {
        let mut sse = Sse::open(server.addr, query);
        let first = sse.event();
        assert_eq!((&*first.event, &*first.data), ("pushline.beat", r#"{"every_ms":100}"#));
        let id = publish(server.addr, "c", "one");
        let (mut beats, mut events) = (0, 0);
        while beats < 3 || events == 0 {
            match sse.event() {
                beat if beat.event == "pushline.beat" => beats += 1,
                event => events += usize::from(event.id == id),
            }
        }
        assert_eq!((events, sse.last_id), (1, id), "{query}");
        assert!(sse.comments.iter().all(|comment| !comment.is_empty()), "{:?}", sse.comments);
    }
    let wrong = fetch(server.addr, "GET", "/sse?channel=c&heartbeat=loud", &[], None);
    assert_eq!((wrong.status, wrong.error_code().as_str()), (400, "heartbeat"));
}

#[test]
fn clients_that_changed_their_transport_are_counted_by_why() {
    let server = TestServer::start();
    for reason in ["buffered", "buffered", "anything"] {
        Sse::open(server.addr, &format!("channel=c&fallback={reason}"));
    }
    let count = |reason: &str| {
        metric(server.admin, &format!("pushline_client_fallbacks_total{{reason=\"{reason}\"}}"))
    };
    assert_eq!(["buffered", "refused", "other"].map(count), [2, 0, 1]);
}

#[test]
fn a_stream_may_follow_other_requests_and_ends_them() {
    let server = TestServer::start();
    let mut conn = Conn::open(server.addr);
    let mut packet = request("POST", "/channels/c", &[], Some(b"before"));
    packet.extend(request("GET", "/sse?channel=c", &[], None));
    packet.extend(request("POST", "/channels/c", &[], Some(b"never")));
    conn.send(packet);
    assert_eq!(conn.response().status, 200);
    assert_eq!(conn.response_head().header("content-type"), Some("text/event-stream"));
    await_subscribers(server.addr, "c", 1);
    let id = publish(server.addr, "c", "after");
    assert_eq!(id, server.id(2), "what follows a stream's request is no request");
}

#[test]
fn subscribers_that_leave_are_forgotten() {
    let server = TestServer::start();
    let streams: Vec<Sse> =
        (0..16).map(|n| Sse::open(server.addr, &format!("channel=all&channel=c{n}"))).collect();
    await_subscribers(server.addr, "all", 16);
    drop(streams);
    await_subscribers(server.addr, "all", 0);
    await_that("all connections are gone", || server.open() == 0);
}

/// Events of two sizes on both transports: below and above what is sent at once.
#[test]
fn large_events_arrive_whole() {
    let server = TestServer::with(|settings| settings.event_bytes_max = 4 << 20);
    let mut one = Sse::open(server.addr, "channel=c");
    let mut two = Sse::open(server.addr, "channel=c&channel=d");
    let sizes =
        [31 << 10, (32 << 10) - 1, 32 << 10, 33 << 10, 127 << 10, 128 << 10, 200 << 10, 3 << 20];
    for size in sizes {
        let text: String = (0..size).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
        publish(server.addr, "c", &text);
        publish(server.addr, "c", "small");
        assert!(one.event().data == text, "{size}");
        assert_eq!(one.event().data, "small");
        assert!(two.event().json()["data"] == text.as_str(), "{size}");
        assert_eq!(two.event().json()["data"], "small");
    }
}
