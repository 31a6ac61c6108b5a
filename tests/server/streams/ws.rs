//! Streams over a WebSocket: the operations `open`, `append`, `end` and `cancel`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{View, read_view, stream_of};
use crate::common::ws::Ws;
use crate::common::{Sse, TestServer, await_that, bearer_token, fetch};

/// An operation on the channel `c`, and its answer.
fn asked(ws: &mut Ws, op: &str, more: Value) -> Value {
    let mut whole = json!({"op": op, "channel": "c", "ref": 1});
    whole.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
    ws.op(&whole);
    ws.json()
}

fn code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or_default()
}

#[test]
fn what_is_appended_is_a_stream_like_any_other() {
    let server = TestServer::start();
    let mut ws = Ws::envelope(server.addr, "");
    let opened = asked(&mut ws, "open", json!({"stream": "msg-7"}));
    let expected = json!({"ref": 1, "ok": true, "channel": "c", "stream": "msg-7", "offset": 0});
    assert_eq!(opened, expected);
    let view = View::open(server.addr, "/channels/c/stream?view=text");
    let mut live = Sse::open(server.addr, "channel=c&envelope=json&last_event_id=stream");
    assert_eq!(live.event().json()["data"]["state"], "open");
    let mut text = String::new();
    for number in 0..200 {
        let word = format!("word {number}, ");
        // Without a `ref` there is no answer.
        ws.op(&json!({"op": "append", "channel": "c", "data": word}));
        text += &word;
    }
    let answer = asked(&mut ws, "append", json!({"data": {"json": 1}, "event": "typed"}));
    assert_eq!((&answer["offset"], &answer["id"]), (&json!(200), &json!(server.id(202))));
    let ended = asked(&mut ws, "end", json!({}));
    let expected = json!({"ref": 1, "ok": true, "channel": "c", "stream": "msg-7", "state": "done",
        "events": 201, "first_id": server.id(2), "last_id": server.id(202)});
    assert_eq!(ended, expected);
    assert_eq!(view.read().text(), text + "{\"json\": 1}".replace(' ', "").as_str());
    for number in 0..201 {
        assert_eq!(live.event().json()["offset"], number);
    }
    assert_eq!(live.event().json()["data"]["state"], "done");
    assert_eq!(code(&asked(&mut ws, "append", json!({"data": "late"}))), "no_stream");
}

#[test]
fn a_connection_produces_several_streams_and_says_how_they_end() {
    let server = TestServer::start();
    let mut ws = Ws::envelope(server.addr, "");
    for channel in ["a", "b"] {
        ws.op(&json!({"op": "open", "channel": channel, "ref": channel}));
        assert_eq!(ws.json()["ref"], channel);
    }
    for word in ["one ", "two"] {
        for channel in ["a", "b"] {
            ws.op(
                &json!({"op": "append", "channel": channel, "data": format!("{channel}:{word}")}),
            );
        }
    }
    ws.op(&json!({"op": "end", "channel": "a", "state": "error", "ref": 1}));
    assert_eq!(ws.json()["state"], "error");
    ws.op(&json!({"op": "end", "channel": "b", "state": "done", "ref": 2}));
    assert_eq!(ws.json()["events"], 2);
    assert_eq!(read_view(server.addr, "/channels/a/stream?view=text").text(), "a:one a:two");
    assert_eq!(read_view(server.addr, "/channels/b/stream?view=text").text(), "b:one b:two");
    ws.op(&json!({"op": "end", "channel": "a", "state": "over", "ref": 3}));
    assert_eq!(code(&ws.json()), "bad_state");
}

#[test]
fn a_producer_that_was_cut_goes_on_where_the_stream_is() {
    let server = TestServer::start();
    let mut first = Ws::envelope(server.addr, "");
    asked(&mut first, "open", json!({"stream": "msg"}));
    for word in ["a", "b", "c"] {
        asked(&mut first, "append", json!({"data": word}));
    }
    let mut second = Ws::envelope(server.addr, "");
    assert_eq!(code(&asked(&mut second, "open", json!({"stream": "other"}))), "stream_open");
    drop(first);
    // From the beginning: what the stream has is skipped.
    let opened = asked(&mut second, "open", json!({"stream": "msg", "offset": 0}));
    assert_eq!(opened["offset"], 3);
    for (number, word) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let answer = asked(&mut second, "append", json!({"data": word}));
        assert_eq!((&answer["offset"], answer["id"].is_null()), (&json!(number), number < 3));
    }
    // A third one takes over, from where the stream is.
    let mut third = Ws::envelope(server.addr, "");
    assert_eq!(
        code(&asked(&mut third, "open", json!({"stream": "msg", "offset": 5}))),
        "stream_behind"
    );
    assert_eq!(asked(&mut third, "open", json!({"stream": "msg"}))["offset"], 4);
    asked(&mut third, "append", json!({"data": "e"}));
    assert_eq!(code(&asked(&mut second, "append", json!({"data": "x"}))), "stream_taken");
    assert_eq!(asked(&mut third, "end", json!({}))["events"], 5);
    assert_eq!(read_view(server.addr, "/channels/c/stream?view=text").text(), "abcde");
}

#[test]
fn a_lost_connection_leaves_a_stream_that_ends_as_an_error_after_the_grace() {
    let server = TestServer::with(|settings| settings.stream_grace = Duration::from_millis(50));
    let mut ws = Ws::envelope(server.addr, "");
    asked(&mut ws, "open", json!({}));
    ws.op(&json!({"op": "append", "channel": "c", "data": "half of it"}));
    drop(ws);
    await_that("it has ended", || stream_of(server.addr, "c")["state"] == "error");
    assert_eq!(stream_of(server.addr, "c")["events"], 1);
}

#[test]
fn a_stream_to_which_nothing_is_appended_ends_while_others_go_on() {
    // A stream that is busy may pause for as long, should this test have to.
    let server = TestServer::with(|settings| settings.stream_idle = Duration::from_secs(4));
    let mut ws = Ws::envelope(server.addr, "");
    asked(&mut ws, "open", json!({}));
    ws.op(&json!({"op": "open", "channel": "busy", "ref": 2}));
    assert_eq!(ws.json()["ok"], true);
    await_that("it is idle", || {
        ws.op(&json!({"op": "append", "channel": "busy", "data": "still here"}));
        stream_of(server.addr, "c")["state"] == "error"
    });
    assert_eq!(stream_of(server.addr, "busy")["state"], "open");
    let told = ws.json();
    assert_eq!((&told["channel"], &told["state"]), (&json!("c"), &json!("error")));
}

#[test]
fn a_cancel_reaches_a_producer_on_a_websocket_and_is_a_right_of_its_own() {
    let auth = "hmac_secrets = [{ env = \"PUSHLINE_SECRET\" }]\nexpiry = \"optional\"\n";
    let server = TestServer::guarded(auth, |_| {});
    let bearer = |rights: Value| format!("Bearer {}", bearer_token(&json!({"pushline": rights})));
    let open = |rights: Value| {
        Ws::open(server.addr, "", Some("pushline.v1"), &[("Authorization", &bearer(rights))])
    };
    let mut producer = open(json!({"publish": ["c"]}));
    let mut reader = open(json!({"subscribe": ["c"]}));
    let mut stopper = open(json!({"subscribe": ["c"], "cancel": ["c"]}));
    assert_eq!(code(&asked(&mut reader, "open", json!({}))), "publish_forbidden");
    assert_eq!(code(&asked(&mut stopper, "cancel", json!({}))), "no_stream");
    asked(&mut producer, "open", json!({"stream": "msg"}));
    asked(&mut producer, "append", json!({"data": "much more than"}));
    assert_eq!(code(&asked(&mut reader, "cancel", json!({}))), "cancel_forbidden");
    let of_reader = [("Authorization", &*bearer(json!({"subscribe": ["c"]})))];
    let refused = fetch(server.addr, "POST", "/channels/c/stream/cancel", &of_reader, Some(b""));
    assert_eq!((refused.status, &*refused.error_code()), (403, "cancel_forbidden"));
    let cancelled = asked(&mut stopper, "cancel", json!({}));
    assert_eq!((&cancelled["stream"], &cancelled["state"]), (&json!("msg"), &json!("cancelled")));
    let told = producer.json();
    assert_eq!((&told["stream"], &told["state"]), (&json!("msg"), &json!("cancelled")));
    assert_eq!(code(&asked(&mut producer, "append", json!({"data": "x"}))), "no_stream");
}
