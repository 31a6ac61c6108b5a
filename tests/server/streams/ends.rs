//! How a stream ends: by its producer, without it, or by a cancel.

use std::time::Duration;

use super::{Producer, View, await_tokens, datas, read_view, stream_of};
use crate::common::{TestServer, await_that, fetch, metric};

fn cancel(server: &TestServer) -> crate::common::Response {
    fetch(server.addr, "POST", "/channels/c/stream/cancel", &[], Some(b""))
}

#[test]
fn cancel_is_the_end_of_the_producers_response_at_once() {
    let server = TestServer::start();
    assert_eq!(cancel(&server).status, 404);
    let mut producer = Producer::events(server.addr, "c", &[("Stream-Id", "s")]);
    producer.token("a");
    await_tokens(server.addr, "c", 1);
    let view = View::open(server.addr, "/channels/c/stream");
    let cancelled = cancel(&server);
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    assert_eq!(cancelled.json()["state"], "cancelled");
    assert_eq!(cancelled.json()["id"], "s", "which stream it was");
    let answer = producer.answer();
    assert_eq!((answer.status, answer.json()["state"].as_str()), (200, Some("cancelled")));
    assert_eq!(answer.json()["events"], 1);
    assert_eq!(datas(&view.read().text()), ["a", "[DONE]"]);
    assert_eq!(cancel(&server).json()["state"], "cancelled", "it is over, as was wanted");
    assert_eq!(metric(server.admin, "pushline_streams_ended_total{reason=\"cancelled\"}"), 1);
}

#[test]
fn a_channel_has_one_open_stream() {
    let server = TestServer::start();
    let first = Producer::events(server.addr, "c", &[("Stream-Id", "one")]);
    let body = Some(&b"data: x\n\n"[..]);
    let other = [("Content-Type", "text/event-stream"), ("Stream-Id", "two")];
    let refused = fetch(server.addr, "POST", "/channels/c/stream", &other, body);
    assert_eq!((refused.status, refused.error_code().as_str()), (409, "stream_open"));
    first.end();
    let next = fetch(server.addr, "POST", "/channels/c/stream", &other, body);
    assert_eq!((next.status, next.json()["events"].as_u64()), (200, Some(1)));
    let again = fetch(server.addr, "POST", "/channels/c/stream", &other, body);
    assert_eq!((again.status, again.error_code().as_str()), (409, "stream_ended"));
}

#[test]
fn a_producer_that_was_cut_goes_on_and_no_token_is_there_twice() {
    let server = TestServer::with(|of| of.stream_grace = Duration::from_secs(600));
    let mut cut = Producer::events(server.addr, "c", &[("Stream-Id", "s")]);
    (0..5).for_each(|n| cut.token(&n.to_string()));
    await_tokens(server.addr, "c", 5);
    drop(cut);
    // It begins again with token 3, of which it does not know that it came through.
    let resumed = [("Stream-Id", "s"), ("Stream-Offset", "3")];
    let mut again = Producer::events(server.addr, "c", &resumed);
    (3..8).for_each(|n| again.token(&n.to_string()));
    let answer = again.end();
    assert_eq!((&answer["events"], &answer["state"]), (&8.into(), &"done".into()));
    let view = read_view(server.addr, "/channels/c/stream");
    assert_eq!(datas(&view.text()), ["0", "1", "2", "3", "4", "5", "6", "7", "[DONE]"]);
}

#[test]
fn text_is_resumed_by_bytes_and_one_who_is_ahead_is_told_where_to_begin() {
    let server = TestServer::with(|of| of.stream_grace = Duration::from_secs(600));
    let mut cut = Producer::of(server.addr, "c", "text/plain", &[("Stream-Id", "s")]);
    cut.chunk("gr\u{fc}n".as_bytes());
    await_tokens(server.addr, "c", 1);
    drop(cut);
    let ahead = [("Stream-Id", "s"), ("Stream-Offset", "9")];
    let mut ahead = Producer::of(server.addr, "c", "text/plain", &ahead);
    let refused = ahead.answer();
    assert_eq!((refused.status, refused.error_code().as_str()), (409, "stream_behind"));
    assert_eq!(refused.header("stream-offset"), Some("5"));
    let resumed = [("Stream-Id", "s"), ("Stream-Offset", "2")];
    let mut again = Producer::of(server.addr, "c", "text/plain", &resumed);
    again.chunk("\u{fc}nes".as_bytes());
    again.end();
    assert_eq!(read_view(server.addr, "/channels/c/stream?view=text").text(), "gr\u{fc}nes");
}

#[test]
fn a_producer_that_does_not_come_back_leaves_a_stream_that_ends_in_error() {
    let server = TestServer::with(|of| of.stream_grace = Duration::from_millis(10));
    let mut cut = Producer::events(server.addr, "c", &[]);
    cut.token("a");
    await_tokens(server.addr, "c", 1);
    let view = View::open(server.addr, "/channels/c/stream");
    drop(cut);
    assert_eq!(datas(&view.read().text()), ["a"], "without [DONE] it is not done");
    assert_eq!(stream_of(server.addr, "c")["state"], "error");
    assert_eq!(metric(server.admin, "pushline_streams_ended_total{reason=\"lost\"}"), 1);
}

#[test]
fn a_producer_that_says_nothing_and_one_that_says_nonsense_are_refused() {
    let server = TestServer::with(|of| of.stream_idle = Duration::from_millis(200));
    let mut silent = Producer::events(server.addr, "c", &[]);
    let answer = silent.answer();
    assert_eq!((answer.status, answer.error_code().as_str()), (408, "stream_idle"));
    assert_eq!(stream_of(server.addr, "c")["state"], "error");
    let lines = [("Content-Type", "application/x-ndjson")];
    let body = Some(&b"{}\n{\n"[..]);
    let answer = fetch(server.addr, "POST", "/channels/d/stream", &lines, body);
    assert_eq!((answer.status, answer.error_code().as_str()), (400, "not_json"));
    assert_eq!(stream_of(server.addr, "d")["state"], "error");
    assert_eq!(stream_of(server.addr, "d")["events"], 1, "what was before it is there");
    let image = [("Content-Type", "image/png")];
    let answer = fetch(server.addr, "POST", "/channels/d/stream", &image, body);
    assert_eq!((answer.status, answer.error_code().as_str()), (415, "media_type"));
}

#[test]
fn an_ended_stream_is_kept_for_a_while_and_then_forgotten() {
    let server = TestServer::with(|of| {
        of.stream_keep = Duration::from_millis(50);
        of.channel_default.history_count = 0;
    });
    let mut producer = Producer::events(server.addr, "c", &[]);
    producer.token("a");
    producer.end();
    await_that("it is forgotten", || read_view(server.addr, "/channels/c/stream").status == 204);
    assert_eq!(metric(server.admin, "pushline_stream_bytes"), 0);
    assert_eq!(metric(server.admin, "pushline_stream_events"), 0);
}

#[test]
fn who_may_not_publish_may_neither_produce_nor_cancel() {
    let server = TestServer::guarded(
        "anonymous = { subscribe = ['*'] }\nhmac_secrets = [{ env = 'PUSHLINE_SECRET' }]",
        |_| {},
    );
    let produce = fetch(server.addr, "POST", "/channels/c/stream", &[], Some(b"x"));
    assert_eq!(produce.status, 403, "{}", produce.text());
    assert_eq!(cancel(&server).status, 403, "{}", cancel(&server).text());
    assert_eq!(read_view(server.addr, "/channels/c/stream").status, 204);
}
