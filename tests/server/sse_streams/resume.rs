//! Where a stream begins: after a cursor by header or query, with all of history, or after a gap
//! that says exactly what is missing.

use std::time::Duration;

use pushline::config::ChannelSettings;
use pushline::proto::name::Pattern;
use serde_json::json;

use crate::common::{Sse, SseEvent, TestServer, await_that, describe, fetch, publish};

fn data(events: &[SseEvent]) -> Vec<&str> {
    events.iter().map(|event| event.data.as_str()).collect()
}

fn publish_all(server: &TestServer, channel: &str, data: &[&str]) {
    for text in data {
        publish(server.addr, channel, text);
    }
}

#[test]
fn without_a_cursor_a_stream_begins_now() {
    let server = TestServer::start();
    publish(server.addr, "c", "before");
    for headers in [&[][..], &[("Last-Event-ID", "")]] {
        let mut sse = Sse::open_with(server.addr, "channel=c&last_event_id=", headers);
        publish(server.addr, "c", "after");
        assert_eq!(sse.event().data, "after");
    }
}

#[test]
fn a_cursor_may_come_by_header_and_by_each_query_name() {
    let server = TestServer::start();
    publish_all(&server, "c", &["1", "2", "3"]);
    for name in ["last_event_id", "lastEventId", "lastEvent"] {
        let mut sse = Sse::open(server.addr, &format!("channel=c&{name}={}", server.id(1)));
        assert_eq!(data(&sse.events(2)), ["2", "3"], "{name}");
    }
    let by_header = [("Last-Event-ID", server.id(2))];
    let by_header = [(by_header[0].0, by_header[0].1.as_str())];
    let mut sse = Sse::open_with(server.addr, "channel=c", &by_header);
    assert_eq!(sse.event().data, "3");
    let query = format!("channel=c&last_event_id={}", server.id(1));
    let mut sse = Sse::open_with(server.addr, &query, &by_header);
    assert_eq!(sse.event().data, "3", "the header wins");
    let mut sse = Sse::open(server.addr, &format!("last_event_id={}&channel=c", server.id(3)));
    publish(server.addr, "c", "4");
    assert_eq!(sse.event().data, "4", "at the head nothing is replayed");
}

/// Wherever they are in the query; an empty one counts as none.
#[test]
fn of_several_cursors_the_first_by_name_counts() {
    let server = TestServer::start();
    publish_all(&server, "c", &["1", "2", "3"]);
    let (one, two) = (server.id(1), server.id(2));
    for (query, header, expected) in [
        (format!("lastEvent={one}&lastEventId={two}"), None, "3"),
        (format!("lastEventId={one}&last_event_id={two}"), None, "3"),
        (format!("last_event_id={two}&last_event_id={one}"), None, "3"),
        (format!("last_event_id=&lastEvent={two}"), None, "3"),
        (format!("last_event_id={two}"), Some(""), "3"),
        (format!("last_event_id={two}"), Some(one.as_str()), "2"),
    ] {
        let headers: Vec<_> = header.map(|text| ("Last-Event-ID", text)).into_iter().collect();
        let mut sse = Sse::open_with(server.addr, &format!("{query}&channel=c"), &headers);
        assert_eq!(sse.event().data, expected, "{query} {header:?}");
    }
}

#[test]
fn earliest_is_all_that_history_holds() {
    let server = TestServer::with(|settings| settings.channel_default.history_count = 3);
    publish_all(&server, "c", &["1", "2", "3", "4", "5"]);
    publish_all(&server, "short", &["6", "7"]);
    let mut sse = Sse::open(server.addr, "channel=short&last_event_id=earliest");
    assert_eq!(data(&sse.events(2)), ["6", "7"], "nothing is lost, nothing is told");
    let mut sse = Sse::open_with(server.addr, "channel=short", &[("Last-Event-ID", "earliest")]);
    assert_eq!(sse.event().data, "6");
    let mut empty = Sse::open(server.addr, "channel=empty&last_event_id=earliest");
    publish(server.addr, "empty", "first");
    assert_eq!(empty.event().data, "first");
}

/// A channel whose beginning is gone: by count, because it keeps none, or because all of it has
/// aged out and only a tombstone is left.
#[test]
fn earliest_tells_what_is_gone() {
    let server = TestServer::with(|settings| {
        let rule = |count, age| ChannelSettings {
            history_count: count,
            history_age: Duration::from_millis(age),
            ..settings.channel_default.clone()
        };
        let pattern = |text| Pattern::parse(text).expect("a pattern");
        let (unkept, brief) = (rule(0, 60_000), rule(10, 10));
        settings.channels = vec![(pattern("unkept"), unkept), (pattern("brief"), brief)];
        settings.channel_default.history_count = 3;
    });
    publish_all(&server, "c", &["1", "2", "3", "4", "5"]);
    publish_all(&server, "unkept", &["6"]);
    publish_all(&server, "brief", &["7"]);
    publish_all(&server, "whole", &["8"]);
    await_that("it is forgotten", || describe(server.addr, "brief")["events"] == 0);
    let gap = |channel: &str, first: Option<String>| json!({"channel": channel, "reason": "evicted", "after": "earliest", "first": first});
    for (channel, id, first) in [("c", 2, Some(3)), ("unkept", 8, None), ("brief", 8, None)] {
        let mut sse = Sse::open(server.addr, &format!("channel={channel}&last_event_id=earliest"));
        let told = sse.event();
        assert_eq!((&told.event[..], &told.id), ("pushline.gap", &server.id(id)));
        assert_eq!(told.json(), gap(channel, first.map(|seq| server.id(seq))));
    }
    // On one stream gaps come first, in the order of the request, and nothing else is lost.
    let all = "channel=c&channel=unkept&channel=brief&channel=whole&last_event_id=earliest";
    let mut sse = Sse::open(server.addr, all);
    for (channel, first) in [("c", Some(3)), ("unkept", None), ("brief", None)] {
        let told = sse.event().json()["data"].clone();
        assert_eq!(told, gap(channel, first.map(|seq| server.id(seq))));
    }
    let ids: Vec<String> = sse.events(4).into_iter().map(|event| event.id).collect();
    assert_eq!(ids, [3, 4, 5, 8].map(|seq| server.id(seq)));
}

#[test]
fn an_evicted_cursor_is_a_gap_and_then_the_oldest_kept() {
    let server = TestServer::with(|settings| settings.channel_default.history_count = 2);
    publish_all(&server, "c", &["1", "2", "3", "4", "5"]);
    let mut sse = Sse::resume(server.addr, "channel=c", &server.id(1));
    let gap = sse.event();
    assert_eq!(gap.event, "pushline.gap");
    let expected = json!({
        "channel": "c", "reason": "evicted", "after": server.id(1), "first": server.id(4)
    });
    assert_eq!(gap.json(), expected);
    assert_eq!(gap.id, server.id(3), "a reconnect from here was told");
    assert_eq!(data(&sse.events(2)), ["4", "5"]);
    let mut again = Sse::resume(server.addr, "channel=c", &gap.id);
    assert_eq!(data(&again.events(2)), ["4", "5"], "and is not told twice");
    // The last evicted one itself: nothing after it is missing.
    let mut sse = Sse::resume(server.addr, "channel=c", &server.id(3));
    assert_eq!(data(&sse.events(2)), ["4", "5"]);
    let mut sse = Sse::resume(server.addr, "channel=c", &server.id(2));
    assert_eq!(sse.event().json()["after"], server.id(2));
}

#[test]
fn an_id_of_another_life_is_a_gap_of_reason_epoch() {
    let server = TestServer::start();
    publish_all(&server, "c", &["1", "2"]);
    let long = "x".repeat(500);
    let foreign = ["aaaaaaaa-1", "42", "nonsense", "-", &format!("{}-01", server.epoch()), &long];
    for id in foreign {
        let mut sse = Sse::resume(server.addr, "channel=c", id);
        let gap = sse.event();
        assert_eq!(gap.event, "pushline.gap", "{id}");
        assert_eq!(gap.json()["reason"], "epoch", "{id}");
        assert_eq!(gap.json()["first"], server.id(1), "{id}");
        let after = gap.json()["after"].as_str().expect("text").to_owned();
        assert!(id.starts_with(&after) && after.len() >= id.len().min(64), "{id}: {after}");
        assert_eq!(data(&sse.events(2)), ["1", "2"], "{id}");
    }
}

#[test]
fn an_id_ahead_of_the_log_is_a_gap_of_reason_epoch() {
    let server = TestServer::start();
    publish(server.addr, "c", "1");
    for ahead in [2, u64::MAX] {
        let mut sse = Sse::resume(server.addr, "channel=c", &server.id(ahead));
        let expected = json!({
            "channel": "c", "reason": "epoch", "after": server.id(ahead), "first": server.id(1)
        });
        assert_eq!(sse.event().json(), expected);
        assert_eq!(sse.event().data, "1");
    }
    let mut nothing_kept = Sse::resume(server.addr, "channel=empty", "foreign-1");
    assert_eq!(nothing_kept.event().json()["first"], json!(null));
    publish(server.addr, "empty", "first");
    assert_eq!(nothing_kept.event().data, "first");
}

#[test]
fn one_cursor_resumes_many_channels_in_log_order() {
    let server = TestServer::start();
    let names = ["a", "b", "c", "d"];
    for n in 0..40 {
        publish(server.addr, names[n * 7 % 4], &n.to_string());
    }
    for after in [0, 1, 17, 39] {
        let id = server.id(after);
        let mut sse = Sse::resume(server.addr, "channel=d&channel=c&channel=b&channel=a", &id);
        for seq in after + 1..=40 {
            let event = sse.event();
            assert_eq!(event.id, server.id(seq));
            assert_eq!(event.json()["channel"], names[(seq as usize - 1) * 7 % 4]);
        }
    }
}

#[test]
fn gaps_of_many_channels_come_first_and_move_no_cursor() {
    let server = TestServer::with(|settings| settings.channel_default.history_count = 2);
    // a: 1 3 5 7, b: 2 4 6, quiet: 8
    for n in 1..=7 {
        publish(server.addr, ["b", "a"][n % 2], &n.to_string());
    }
    publish(server.addr, "quiet", "8");
    let mut sse = Sse::resume(server.addr, "channel=a&channel=b&channel=quiet", &server.id(1));
    let mut seen = Vec::new();
    for _ in 0..7 {
        let event = sse.event();
        let json = event.json();
        let what = match event.event.as_str() {
            "pushline.gap" => {
                assert_eq!(json["event"], "pushline.gap");
                assert_eq!(json["data"]["reason"], "evicted");
                assert_eq!(json["data"]["after"], server.id(1));
                assert_eq!(json["data"]["channel"], json["channel"]);
                format!("gap of {} to {}", json["channel"], json["data"]["first"])
            }
            _ => json["data"].to_string(),
        };
        seen.push((event.id.split_once('-').expect("an id").1.to_owned(), what));
    }
    let first = |seq: u64| format!("\"{}\"", server.id(seq));
    let expected = [
        ("1", format!("gap of \"a\" to {}", first(5))),
        ("1", format!("gap of \"b\" to {}", first(4))),
        ("4", "\"4\"".into()),
        ("5", "\"5\"".into()),
        ("6", "\"6\"".into()),
        ("7", "\"7\"".into()),
        ("8", "\"8\"".into()),
    ];
    let seen: Vec<(&str, String)> = seen.iter().map(|(id, it)| (id.as_str(), it.clone())).collect();
    assert_eq!(seen, expected);
}

#[test]
fn history_ends_by_age() {
    let server = TestServer::with(|settings| {
        settings.channel_default.history_age = Duration::from_millis(300);
    });
    publish_all(&server, "c", &["1", "2"]);
    await_that("history is gone", || describe(server.addr, "c")["events"] == 0);
    assert_eq!(describe(server.addr, "c")["last_id"], server.id(2), "its last id is remembered");
    let mut sse = Sse::resume(server.addr, "channel=c", &server.id(1));
    let expected =
        json!({"channel": "c", "reason": "evicted", "after": server.id(1), "first": null});
    assert_eq!(sse.event().json(), expected);
    let mut at_head = Sse::resume(server.addr, "channel=c", &server.id(2));
    publish(server.addr, "c", "3");
    assert_eq!(at_head.event().data, "3", "a client that has seen all of it has lost nothing");
    assert_eq!(sse.event().data, "3");
}

#[test]
fn history_ends_by_bytes_in_log_order_over_all_channels() {
    let server = TestServer::with(|settings| settings.history_bytes = 100_000);
    let large = "x".repeat(10_000);
    publish(server.addr, "quiet", "the oldest");
    for n in 0..30 {
        publish(server.addr, ["a", "b"][n % 2], &large);
    }
    assert_eq!(describe(server.addr, "quiet")["events"], 0, "the oldest event leaves first");
    let firsts: Vec<u64> = ["a", "b"]
        .map(|name| {
            let first = describe(server.addr, name)["first_id"].as_str().expect("an id").to_owned();
            crate::common::seq_of(&first)
        })
        .to_vec();
    assert_eq!(firsts[0].abs_diff(firsts[1]), 1, "{firsts:?}");
    assert!((21..=26).contains(&firsts[0]), "{firsts:?}");
    let mut sse = Sse::resume(server.addr, "channel=a&channel=quiet", &server.id(0));
    assert_eq!(sse.event().json()["data"]["channel"], "a");
    assert_eq!(sse.event().json()["data"]["channel"], "quiet");
    // What alone exceeds the budget is refused, and evicts nothing.
    let server = TestServer::with(|settings| settings.history_bytes = 5_000);
    publish(server.addr, "c", "kept");
    let response = fetch(server.addr, "POST", "/channels/c", &[], Some(large.as_bytes()));
    assert_eq!(response.status, 503);
    assert!(response.header("retry-after").is_some());
    assert_eq!(describe(server.addr, "c")["events"], 1);
}

#[test]
fn history_count_zero_keeps_nothing_and_delivers_all_the_same() {
    let server = TestServer::with(|settings| settings.channel_default.history_count = 0);
    let mut live = Sse::open(server.addr, "channel=c");
    publish_all(&server, "c", &["1", "2"]);
    assert_eq!(data(&live.events(2)), ["1", "2"]);
    let mut sse = Sse::resume(server.addr, "channel=c", &server.id(1));
    assert_eq!(sse.event().event, "pushline.gap");
    publish(server.addr, "c", "3");
    assert_eq!(sse.event().data, "3");
}
