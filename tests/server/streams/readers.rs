//! Readers of a stream: late or live, of events or of the plain view.

use pushline::proto::path_map::PathMap;
use serde_json::json;

use super::{Producer, View, await_tokens, datas, read_view, stream_of};
use crate::common::ws::Ws;
use crate::common::{
    Sse, TestServer, await_subscribers, await_that, describe, fetch, metric, publish,
};

#[test]
fn a_body_of_events_is_a_stream_and_its_answer_says_how_far_it_came() {
    let server = TestServer::start();
    let mut reader = Sse::open(server.addr, "channel=chat:1&envelope=json");
    let mut producer = Producer::events(server.addr, "chat:1", &[("Stream-Id", "msg-7")]);
    producer.chunk(b"data: {\"delta\":\"Hel\"}\n\ndata: {\"del");
    producer.chunk(b"ta\":\"lo\"}\n\n");
    let answer = producer.end();
    assert_eq!(
        answer,
        json!({
            "id": "msg-7", "channel": "chat:1", "state": "done", "events": 2,
            "first_id": server.id(2), "last_id": server.id(3),
        })
    );
    let events: Vec<serde_json::Value> =
        (0..4).map(|_| serde_json::from_str(&reader.event().data).expect("an envelope")).collect();
    assert_eq!(events[0]["event"], "pushline.stream");
    assert_eq!(events[0]["data"], json!({"stream": "msg-7", "state": "open", "events": 0}));
    assert_eq!(events[1]["data"], "{\"delta\":\"Hel\"}");
    assert_eq!((&events[2]["stream"], &events[2]["offset"]), (&json!("msg-7"), &json!(1)));
    let end = json!({"stream": "msg-7", "state": "done", "events": 2, "reason": "done"});
    assert_eq!(events[3]["data"], end);
    assert_eq!(metric(server.admin, "pushline_streams_ended_total{reason=\"done\"}"), 1);
    assert_eq!(metric(server.admin, "pushline_streams_open"), 0);
}

#[test]
fn one_who_comes_late_gets_the_text_so_far_and_then_what_comes() {
    // History keeps less than the stream has: the events it drops are kept with the stream.
    let server = TestServer::with(|of| of.channel_default.history_count = 3);
    let mut producer = Producer::events(server.addr, "c", &[]);
    (0..20).for_each(|n| producer.token(&format!("t{n}")));
    await_tokens(server.addr, "c", 20);
    let mut late = Sse::open(server.addr, "channel=c&last_event_id=stream");
    let mut from_7 = Sse::open(server.addr, "channel=c&last_event_id=stream:7");
    let mut socket = Ws::bare(server.addr, "channel=c&last_event_id=stream");
    let view = View::open(server.addr, "/channels/c/stream");
    await_subscribers(server.addr, "c", 4);
    producer.token("live");
    producer.end();
    let expected: Vec<String> =
        (0..20).map(|n| format!("t{n}")).chain(["live".to_owned()]).collect();
    assert_eq!(late.event().event, "pushline.stream");
    assert_eq!((0..21).map(|_| late.event().data).collect::<Vec<_>>(), expected);
    assert_eq!((0..13).map(|_| from_7.event().data).collect::<Vec<_>>(), expected[8..]);
    // It has no place to say that an event is none of the channel's.
    let messages = (0..21).map(|_| socket.message().into_text().expect("text").to_string());
    assert_eq!(messages.collect::<Vec<_>>(), expected);
    let view = view.read();
    let text = view.text();
    assert_eq!(datas(&text)[..21], expected);
    assert_eq!(datas(&text)[21..], ["[DONE]"]);
}

#[test]
fn the_plain_view_has_what_the_producer_sent_and_nothing_else() {
    let server = TestServer::start();
    assert_eq!(read_view(server.addr, "/channels/c/stream").status, 204, "there is no stream");
    publish(server.addr, "c", "before");
    let mut producer = Producer::events(server.addr, "c", &[]);
    producer.chunk(b"event: delta\ndata: a\n\n");
    await_tokens(server.addr, "c", 1);
    publish(server.addr, "c", "between");
    producer.token("b");
    producer.token("[DONE]");
    producer.end();
    publish(server.addr, "c", "behind");
    let view = read_view(server.addr, "/channels/c/stream");
    assert_eq!(view.header("x-vercel-ai-ui-message-stream"), Some("v1"));
    assert_eq!(view.header("content-type"), Some("text/event-stream"));
    assert_eq!(view.text(), "event: delta\ndata: a\n\ndata: b\n\ndata: [DONE]\n\n");
    let text = read_view(server.addr, "/channels/c/stream?view=text");
    assert_eq!(
        (text.text().as_str(), text.header("content-type")),
        ("ab", Some("text/plain; charset=utf-8"))
    );
    let rest = read_view(server.addr, "/channels/c/stream?starting_after=0");
    assert_eq!(rest.text(), "data: b\n\ndata: [DONE]\n\n");
    for query in ["view=x", "starting_after=-1", "starting_after="] {
        assert_eq!(read_view(server.addr, &format!("/channels/c/stream?{query}")).status, 400);
    }
}

#[test]
fn a_mapped_path_is_the_open_stream_of_its_channel() {
    let server = TestServer::with(|of| {
        let map = PathMap::parse("/api/chat/{id}/stream=chat:{id}").expect("a mapping");
        of.stream_paths = vec![map];
    });
    assert_eq!(read_view(server.addr, "/api/chat/7/stream").status, 204);
    assert_eq!(read_view(server.addr, "/api/chat/stream").status, 404);
    let mut producer = Producer::events(server.addr, "chat:7", &[]);
    let view = View::open(server.addr, "/api/chat/7/stream");
    producer.token("a");
    await_tokens(server.addr, "chat:7", 1);
    await_subscribers(server.addr, "chat:7", 1);
    producer.end();
    assert_eq!(view.read().text(), "data: a\n\ndata: [DONE]\n\n");
    assert_eq!(read_view(server.addr, "/api/chat/7/stream").status, 204, "it has ended");
}

#[test]
fn lines_are_json_tokens_and_text_is_cut_between_characters() {
    let server = TestServer::start();
    let mut lines = Producer::of(server.addr, "l", "application/x-ndjson", &[]);
    lines.chunk(b"{\"a\":1}\n\n[2");
    lines.chunk(b"]\n3");
    assert_eq!(lines.end()["events"], 3);
    let view = read_view(server.addr, "/channels/l/stream");
    assert_eq!(datas(&view.text()), ["{\"a\":1}", "[2]", "3", "[DONE]"]);
    let mut text = Producer::of(server.addr, "t", "text/plain", &[]);
    let euro = "\u{20ac}".as_bytes();
    text.chunk(b"a");
    await_tokens(server.addr, "t", 1);
    text.chunk(&euro[..1]);
    text.chunk(&euro[1..]);
    text.end();
    assert_eq!(read_view(server.addr, "/channels/t/stream?view=text").text(), "a\u{20ac}");
}

#[test]
fn history_may_be_off_and_a_stream_is_whole_all_the_same() {
    let server = TestServer::with(|of| of.channel_default.history_count = 0);
    let mut producer = Producer::events(server.addr, "c", &[]);
    (0..500).for_each(|n| producer.token(&n.to_string()));
    producer.end();
    let view = read_view(server.addr, "/channels/c/stream");
    assert_eq!(datas(&view.text()).len(), 501);
    assert_eq!(stream_of(server.addr, "c")["state"], "done");
}

#[test]
fn a_stream_longer_than_its_bound_says_that_its_beginning_is_gone() {
    let server = TestServer::with(|of| {
        of.channel_default.history_count = 2;
        of.channel_default.stream_bytes = 4 << 10;
    });
    let mut producer = Producer::events(server.addr, "c", &[]);
    (0..100).for_each(|n| producer.token(&n.to_string()));
    await_tokens(server.addr, "c", 100);
    let view = read_view(server.addr, "/channels/c/stream");
    assert_eq!((view.status, view.error_code().as_str()), (410, "stream_cut"));
    let mut late = Sse::open(server.addr, "channel=c&last_event_id=stream");
    let gap = late.event();
    assert_eq!(gap.event, "pushline.gap");
    assert!(gap.data.contains("\"evicted\""), "{}", gap.data);
    let cuts = metric(server.admin, "pushline_stream_cuts_total");
    assert!(cuts > 80);
    let shown =
        &fetch(server.admin, "GET", "/v1/channels", &[], None).json()["channels"][0]["stream"];
    assert_eq!((&shown["state"], &shown["events"]), (&json!("open"), &json!(100)));
    assert_eq!(shown["cut_events"], cuts);
    // It opens with an event, and history has the last two.
    assert_eq!(shown["kept_events"], 101 - 2 - cuts);
    assert_eq!(shown["kept_events"], metric(server.admin, "pushline_stream_events"));
    assert_eq!(shown["kept_bytes"], metric(server.admin, "pushline_stream_bytes"));
    producer.end();
    let rest = read_view(server.addr, "/channels/c/stream?starting_after=97");
    assert_eq!(datas(&rest.text()), ["98", "99", "[DONE]"]);
}

#[test]
fn a_view_in_the_middle_of_five_thousand_tokens_misses_none_and_has_none_twice() {
    const TOKENS: usize = 5000;
    let server = TestServer::start();
    let mut producer = Producer::events(server.addr, "c", &[]);
    let mut views = Vec::new();
    for part in 0..10 {
        let tokens: String =
            (0..TOKENS / 10).map(|n| format!("data: {}\n\n", part * TOKENS / 10 + n)).collect();
        producer.chunk(tokens.as_bytes());
        let view = View::open(server.addr, "/channels/c/stream");
        views.push(view);
    }
    assert_eq!(producer.end()["events"], TOKENS);
    let expected: Vec<String> =
        (0..TOKENS).map(|n| n.to_string()).chain(["[DONE]".to_owned()]).collect();
    for view in views {
        assert_eq!(datas(&view.read().text()), expected);
    }
    let head = fetch(server.addr, "HEAD", "/channels/c/stream", &[], None);
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn who_resumes_in_the_middle_gets_the_rest_across_compaction_and_who_comes_late_one_event() {
    const TOKENS: usize = 300;
    let server = TestServer::with(|settings| {
        settings.channel_default.stream_compact = 64 << 10;
        settings.channel_default.history_count = 50;
    });
    let word = |number: usize| format!("word {number}\n");
    let all: String = (0..TOKENS).map(word).collect();
    let from = |number: usize| (number..TOKENS).map(word).collect::<String>();
    let mut producer = Producer::of(server.addr, "c", "text/plain", &[]);
    let query = "channel=c&envelope=json";
    let mut early = Sse::open(server.addr, &format!("{query}&last_event_id=stream"));
    for number in 0..TOKENS {
        producer.chunk(word(number).as_bytes());
        await_tokens(server.addr, "c", number as u64 + 1);
    }
    let mut middle = early.event().json();
    for number in 0..100 {
        middle = early.event().json();
        assert_eq!(middle["data"], word(number));
    }
    drop(early);
    assert_eq!(producer.end()["events"], TOKENS);
    await_that("it is compact", || describe(server.addr, "c")["events"].as_u64() <= Some(3));
    let id = middle["id"].as_str().expect("an id");
    let mut resumed = Sse::resume(server.addr, query, id);
    let rest = resumed.event().json();
    assert_eq!((&rest["offset"], &rest["tokens"]), (&json!(100), &json!(TOKENS - 100)));
    assert_eq!(rest["data"], from(100));
    assert_eq!(resumed.event().json()["data"]["state"], "done");
    let mut late = Sse::open(server.addr, &format!("{query}&last_event_id=stream"));
    assert_eq!(late.event().json()["data"]["state"], "open");
    assert_eq!(late.event().json()["data"], all);
    assert_eq!(late.event().json()["data"]["state"], "done");
    let view = |query: &str| {
        read_view(server.addr, &format!("/channels/c/stream?view=text{query}")).text()
    };
    assert_eq!((view(""), view("&starting_after=249")), (all, from(250)));
}
