//! `pushline.v1`: JSON both ways; every operation, every answer and every error.

use serde_json::{Value, json};
use tungstenite::Message;

use crate::common::ws::Ws;
use crate::common::{TestServer, await_subscribers, describe, fetch, publish};

fn code(answer: &Value) -> &str {
    assert!(answer["error"]["message"].is_string(), "{answer}");
    answer["error"]["code"].as_str().expect("a code")
}

#[test]
fn events_come_in_envelopes() {
    let server = TestServer::start();
    let mut ws = Ws::envelope(server.addr, "channel=a&channel=b");
    publish(server.addr, "a", "text");
    let headers = [("Content-Type", "application/json"), ("Event-Type", "typed")];
    fetch(server.addr, "POST", "/channels/b", &headers, Some(b"{\"n\": 1}"));
    let binary = [("Content-Type", "application/octet-stream")];
    fetch(server.addr, "POST", "/channels/a", &binary, Some(b"\xff\x00"));
    assert_eq!(ws.json(), json!({"id": server.id(1), "channel": "a", "data": "text"}));
    let typed = json!({"id": server.id(2), "channel": "b", "event": "typed", "data": {"n": 1}});
    assert_eq!(ws.json(), typed);
    assert_eq!(ws.json(), json!({"id": server.id(3), "channel": "a", "data_base64": "/wA="}));
}

#[test]
fn subscribing_and_unsubscribing() {
    let server = TestServer::start();
    publish(server.addr, "a", "before");
    let mut ws = Ws::envelope(server.addr, "");
    ws.op(&json!({"op": "subscribe", "channel": "a", "ref": "r1"}));
    let ok = json!({"ref": "r1", "ok": true, "channel": "a", "id": server.id(1)});
    assert_eq!(ws.json(), ok);
    publish(server.addr, "a", "1");
    assert_eq!(ws.json()["data"], "1");
    ws.op(&json!({"op": "subscribe", "channel": "b", "ref": 2}));
    assert_eq!(ws.json(), json!({"ref": 2, "ok": true, "channel": "b", "id": server.id(2)}));
    for n in 0..10 {
        let channel = ["a", "b"][n % 2];
        publish(server.addr, channel, &n.to_string());
        let event = ws.json();
        assert_eq!((&event["channel"], &event["data"]), (&json!(channel), &json!(n.to_string())));
    }
    ws.op(&json!({"op": "unsubscribe", "channel": "a", "ref": 3}));
    assert_eq!(ws.json(), json!({"ref": 3, "ok": true, "channel": "a"}));
    await_subscribers(server.addr, "a", 0);
    publish(server.addr, "a", "unheard");
    publish(server.addr, "b", "heard");
    assert_eq!(ws.json()["data"], "heard");
    ws.op(&json!({"op": "unsubscribe", "channel": "b", "ref": 4}));
    assert_eq!(ws.json()["ok"], true);
    ws.op(&json!({"op": "subscribe", "channel": "a", "ref": 5}));
    assert_eq!(ws.json()["ok"], true);
    publish(server.addr, "a", "again");
    assert_eq!(ws.json()["data"], "again");
}

/// A connection that has caught up with its only channel, and asks for another one.
#[test]
fn a_live_subscriber_may_subscribe_to_more() {
    let server = TestServer::start();
    let mut ws = Ws::envelope(server.addr, "channel=c0");
    publish(server.addr, "c0", "live");
    assert_eq!(ws.json()["data"], "live");
    for n in 1..128 {
        ws.op(&json!({"op": "subscribe", "channel": format!("c{n}"), "ref": n}));
        let answer = ws.json();
        assert_eq!(answer["ok"], true, "{answer}");
        assert_eq!(answer["channel"], format!("c{n}"));
    }
    ws.op(&json!({"op": "subscribe", "channel": "c128", "ref": "over"}));
    let answer = ws.json();
    assert_eq!((code(&answer), &answer["ref"]), ("too_many_channels", &json!("over")));
    for n in (0..128).rev() {
        publish(server.addr, &format!("c{n}"), "x");
        assert_eq!(ws.json()["channel"], format!("c{n}"));
    }
}

#[test]
fn subscribing_with_a_cursor_replays() {
    let server = TestServer::with(|settings| settings.channel_default.history_count = 3);
    for n in 1..=5 {
        publish(server.addr, "c", &n.to_string());
    }
    let subscribe = |after: &str| {
        let mut ws = Ws::envelope(server.addr, "channel=other");
        ws.op(&json!({"op": "subscribe", "channel": "c", "after": after, "ref": 1}));
        let answer = ws.json();
        assert_eq!(answer["ok"], true, "{answer}");
        ws
    };
    let mut ws = subscribe(&server.id(3));
    assert_eq!(ws.json()["data"], "4");
    assert_eq!(ws.json()["data"], "5");
    for (after, reason) in [
        (server.id(1), "evicted"),
        ("earliest".into(), "evicted"),
        (server.id(9), "epoch"),
        ("x".into(), "epoch"),
    ] {
        let mut ws = subscribe(&after);
        let gap = json!({
            "id": server.id(2), "channel": "c", "event": "pushline.gap",
            "data": {"channel": "c", "reason": reason, "after": after, "first": server.id(3)}
        });
        assert_eq!(ws.json(), gap);
        assert_eq!(ws.json()["data"], "3");
    }
}

#[test]
fn a_cursor_in_the_query_holds_for_all_its_channels() {
    let server = TestServer::with(|settings| settings.channel_default.history_count = 2);
    for n in 1..=6 {
        publish(server.addr, ["even", "odd"][n % 2], &n.to_string());
    }
    let query = format!("channel=odd&channel=even&last_event_id={}", server.id(1));
    let mut ws = Ws::envelope(server.addr, &query);
    let gap = ws.json();
    assert_eq!((&gap["event"], &gap["channel"]), (&json!("pushline.gap"), &json!("even")));
    for n in 3..=6 {
        assert_eq!(ws.json()["data"], n.to_string());
    }
}

#[test]
fn publishing_is_acknowledged_and_comes_back() {
    let server = TestServer::start();
    let mut ws = Ws::envelope(server.addr, "channel=c");
    let publish = |data: Value, reference: u64| {
        let mut op = json!({"op": "publish", "channel": "c", "ref": reference});
        op.as_object_mut().expect("an object").extend(data.as_object().expect("one").clone());
        op
    };
    // The event goes out before its acknowledgement: both come, in either order.
    let mut both = |op: Value| {
        ws.op(&op);
        let (first, second) = (ws.json(), ws.json());
        if first["ok"] == true { (first, second) } else { (second, first) }
    };
    let (ok, event) = both(publish(json!({"data": "text"}), 1));
    assert_eq!(ok, json!({"ref": 1, "ok": true, "id": server.id(1), "subscribers": 1}));
    assert_eq!(event, json!({"id": server.id(1), "channel": "c", "data": "text"}));
    let (_, event) = both(publish(json!({"data": [1, null], "event": "typed"}), 2));
    assert_eq!(event["data"], json!([1, null]));
    assert_eq!(event["event"], "typed");
    let (_, event) = both(publish(json!({"data_base64": "/wA"}), 3));
    assert_eq!(event["data_base64"], "/wA=");
    let (first, _) = both(publish(json!({"data": "keyed", "key": "k"}), 4));
    ws.op(&publish(json!({"data": "again", "key": "k"}), 5));
    assert_eq!(ws.json()["id"], first["id"], "a repeat is acknowledged with the first id");
    // Without `ref` there is no answer.
    ws.op(&json!({"op": "publish", "channel": "c", "data": "quiet"}));
    assert_eq!(ws.json()["data"], "quiet");
    ws.op(&json!({"op": "publish", "channel": "elsewhere", "data": 1, "ref": 6}));
    assert_eq!(ws.json()["subscribers"], 0);
    assert_eq!(describe(server.addr, "elsewhere")["events"], 1);
}

#[test]
fn one_publish_goes_to_many_channels() {
    let server = TestServer::start();
    let mut ws = Ws::envelope(server.addr, "channel=b");
    let op = json!({"op": "publish", "channels": ["a", "b", "c"], "data": 1, "key": "k", "ref": 1});
    ws.op(&op);
    let (first, second) = (ws.json(), ws.json());
    let (ok, event) = if first["ok"] == true { (first, second) } else { (second, first) };
    assert_eq!(ok, json!({"ref": 1, "ok": true, "id": server.id(3), "published": 3}));
    assert_eq!(event, json!({"id": server.id(2), "channel": "b", "data": 1}));
    ws.op(&op);
    assert_eq!(ws.json(), ok, "a repeat is no event in any of them");
    for channel in ["a", "b", "c"] {
        assert_eq!(describe(server.addr, channel)["events"], 1);
    }
}

#[test]
fn every_wrong_operation_is_answered_and_the_connection_goes_on() {
    let server = TestServer::start();
    let mut ws = Ws::envelope(server.addr, "channel=c");
    let long_ref = format!(r#"{{"op":"ping","ref":"{}"}}"#, "r".repeat(63));
    let cases = [
        ("", "bad_json", None),
        ("[]", "bad_json", None),
        ("{", "bad_json", None),
        ("{}", "unknown_op", None),
        (r#"{"op":"dance","ref":1}"#, "unknown_op", Some(json!(1))),
        (r#"{"op":"ping","ref":{}}"#, "bad_ref", None),
        (r#"{"op":"ping","ref":true}"#, "bad_ref", None),
        (&long_ref, "bad_ref", None),
        (r#"{"op":"subscribe","ref":"s"}"#, "bad_channel", Some(json!("s"))),
        (r#"{"op":"subscribe","channel":"a/b","ref":2}"#, "channel_name_invalid", Some(json!(2))),
        (r#"{"op":"subscribe","channel":"c","ref":3}"#, "already_subscribed", Some(json!(3))),
        (r#"{"op":"subscribe","channel":1,"ref":3}"#, "bad_json", None),
        (r#"{"op":"unsubscribe","channel":"x","ref":4}"#, "not_subscribed", Some(json!(4))),
        (r#"{"op":"unsubscribe","ref":4}"#, "bad_channel", Some(json!(4))),
        (r#"{"op":"publish","channel":"c","ref":5}"#, "bad_data", Some(json!(5))),
        (r#"{"op":"publish","data":1,"ref":6}"#, "bad_channel", Some(json!(6))),
        (
            r#"{"op":"publish","channel":"a b","data":1,"ref":7}"#,
            "channel_name_invalid",
            Some(json!(7)),
        ),
        (
            r#"{"op":"publish","channel":"c","data":1,"event":"pushline.x","ref":8}"#,
            "reserved_event_type",
            Some(json!(8)),
        ),
        (r#"{"op":"publish","channel":"c","data":1,"key":"","ref":9}"#, "bad_key", Some(json!(9))),
    ];
    for (text, expected, reference) in cases {
        ws.send(Message::text(text));
        let answer = ws.json();
        assert_eq!(code(&answer), expected, "{text}");
        assert_eq!(answer.get("ref"), reference.as_ref(), "{text}");
    }
    ws.op(&json!({"op": "ping", "ref": "still here", "unknown": []}));
    let pong = ws.json();
    let name = &pong["connection"];
    let told = json!({"ref": "still here", "ok": true, "every_ms": 25_000, "connection": name});
    assert_eq!(pong, told);
    ws.op(&json!({"op": "ping"}));
    assert_eq!(ws.json(), json!({"ok": true, "every_ms": 25_000, "connection": name}));
    assert_eq!(describe(server.addr, "c")["events"], 0);
}

/// Operations take effect in the order they were sent, also in one packet.
#[test]
fn operations_take_effect_in_order() {
    let server = TestServer::start();
    let mut ws = Ws::envelope(server.addr, "");
    for round in 0..20 {
        let ops = [
            json!({"op": "subscribe", "channel": "c", "ref": 1}),
            json!({"op": "publish", "channel": "c", "data": round, "ref": 2}),
            json!({"op": "unsubscribe", "channel": "c", "ref": 3}),
            json!({"op": "publish", "channel": "c", "data": "unheard", "ref": 4}),
        ];
        for op in &ops {
            ws.socket.write(Message::text(op.to_string())).expect("room to write");
        }
        ws.socket.flush().expect("the server reads");
        let mut answers = Vec::new();
        while answers.len() < 4 {
            let message = ws.json();
            match message.get("ref") {
                Some(reference) => {
                    assert_eq!(message["ok"], true, "{message}");
                    answers.push(reference.as_u64().expect("a number"));
                }
                None => assert_eq!(message["data"], round, "{message}"),
            }
        }
        answers.sort_unstable();
        assert_eq!(answers, [1, 2, 3, 4]);
    }
}

#[test]
fn binary_messages_are_1003() {
    let server = TestServer::start();
    let mut ws = Ws::envelope(server.addr, "channel=c");
    ws.send(Message::binary(&b"{}"[..]));
    ws.expect_close(1003, "pushline.v1 speaks text");
}

#[test]
fn a_key_that_no_publication_has_is_refused_and_elsewhere_it_is_ignored() {
    let server = TestServer::start();
    let mut ws = Ws::envelope(server.addr, "channel=c");
    ws.op(&json!({"op": "publish", "channel": "c", "data": 1, "evnet": "done", "ref": 1}));
    let refused = ws.json();
    assert_eq!((code(&refused), &refused["ref"]), ("unknown_key", &json!(1)));
    ws.op(&json!({"op": "ping", "ref": 2, "unknown": []}));
    assert_eq!(ws.json()["ok"], true);
}

#[test]
fn too_large_a_publication_is_an_error_and_not_the_end() {
    let server = TestServer::with(|settings| settings.event_bytes_max = 10_000);
    let mut ws = Ws::envelope(server.addr, "channel=c");
    let data = "x".repeat(10_001);
    ws.op(&json!({"op": "publish", "channel": "c", "data": data, "ref": 1}));
    let refused = ws.json();
    assert_eq!(code(&refused), "event_too_large");
    assert!(refused.to_string().contains("max_event_bytes is 10000"), "{refused}");
    ws.op(&json!({"op": "publish", "channel": "c", "data": data[1..], "ref": 2}));
    let (first, second) = (ws.json(), ws.json());
    assert!(first["ok"] == true || second["ok"] == true);
}
