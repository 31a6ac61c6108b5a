//! What only some events have: who published them, what they replace, that they are not kept.

use std::net::SocketAddr;

use pushline::config::{PublisherShown, Settings, SlowPolicy};
use pushline::log::Keeps;
use pushline::proto::name::Pattern;
use serde_json::{Value, json};

use crate::common::ws::Ws;
use crate::common::{Conn, PUBLISH_KEY, Sse, TestServer, bearer_token, describe, fetch, publish};

const AUTH: &str = "hmac_secrets = [{ env = \"PUSHLINE_SECRET\" }]\nexpiry = \"optional\"\n\
                    publish_keys = [{ name = \"backend\", env = \"PUSHLINE_PUBLISH_KEY\" }]\n";

fn rule(settings: &mut Settings, pattern: &str, change: impl Fn(&mut Settings)) {
    let mut of = settings.clone();
    change(&mut of);
    let pattern = Pattern::parse(pattern).expect("a pattern");
    settings.channels.push((pattern, of.channel_default));
}

fn state(settings: &mut Settings) {
    rule(settings, "state:*", |of| of.channel_default.history = Keeps::Latest);
}

fn token_of(subject: Option<&str>) -> String {
    let rights = json!({"subscribe": ["*"], "publish": ["*"]});
    bearer_token(&match subject {
        Some(subject) => json!({"sub": subject, "pushline": rights}),
        None => json!({"pushline": rights}),
    })
}

fn post(addr: SocketAddr, channel: &str, headers: &[(&str, &str)], data: &str) -> Value {
    let target = format!("/channels/{channel}");
    fetch(addr, "POST", &target, headers, Some(data.as_bytes())).json()
}

/// Over every way to publish, and whatever the client says about it.
#[test]
fn an_event_says_who_published_it_and_no_client_can_forge_that() {
    let server = TestServer::guarded(AUTH, |settings| {
        rule(settings, "chat", |of| of.channel_default.publisher = PublisherShown::Subject);
    });
    let bearer = |subject| format!("Bearer {}", token_of(subject));
    let (jane, nobody) = (bearer(Some("jane")), bearer(None));
    let authorization = [("Authorization", jane.as_str())];
    let query = "channel=chat&channel=plain";
    let mut sse = Sse::open_with(server.addr, query, &authorization);
    assert_eq!(sse.event().event, "pushline.open");
    let mut ws = Ws::open(server.addr, query, Some("pushline.v1"), &authorization);
    let mut seen = || {
        let (over_sse, over_ws) = (sse.event().json(), ws.json());
        assert_eq!(over_sse, over_ws);
        over_sse["publisher"].clone()
    };

    post(server.addr, "chat", &authorization, "hello");
    assert_eq!(seen(), "jane");
    let forged = [authorization[0], ("Publisher", "queen")];
    post(server.addr, "chat", &forged, "hello");
    assert_eq!(seen(), "jane");
    let line = json!({"channel": "chat", "data": "x", "publisher": "queen"}).to_string();
    fetch(server.addr, "POST", "/publish", &authorization, Some(line.as_bytes()));
    assert_eq!(seen(), "jane");
    let mut own = Ws::open(server.addr, "channel=other", Some("pushline.v1"), &authorization);
    own.op(&json!({"op": "publish", "channel": "chat", "data": "x", "publisher": "queen"}));
    assert_eq!(seen(), "jane");
    Ws::open(server.addr, "channel=chat", None, &authorization).send("bare".into());
    assert_eq!(seen(), "jane");

    let without = json!(null);
    post(server.addr, "plain", &authorization, "no rule asks for it");
    assert_eq!(seen(), without);
    post(server.addr, "chat", &[("Authorization", &nobody)], "a token without a subject");
    assert_eq!(seen(), without);
    post(server.addr, "chat", &[("X-API-Key", PUBLISH_KEY)], "a key has a name, and is no subject");
    assert_eq!(seen(), without);
}

#[test]
fn an_ephemeral_event_is_live_in_order_and_never_kept() {
    let server = TestServer::start();
    let mut sse = Sse::open(server.addr, "channel=chat&envelope=json");
    let mut ws = Ws::envelope(server.addr, "channel=chat");
    let first = publish(server.addr, "chat", "one");
    post(server.addr, "chat", &[("Event-Ephemeral", "true")], "typing");
    let line = b"{\"channel\":\"chat\",\"data\":\"typing\",\"ephemeral\":true}";
    fetch(server.addr, "POST", "/publish", &[], Some(line));
    publish(server.addr, "chat", "two");
    for (data, ephemeral) in [
        ("one", json!(null)),
        ("typing", json!(true)),
        ("typing", json!(true)),
        ("two", json!(null)),
    ] {
        let event = sse.event().json();
        assert_eq!((&event["data"], &event["ephemeral"]), (&json!(data), &ephemeral));
        assert_eq!(ws.json(), event);
    }
    assert_eq!(describe(server.addr, "chat")["events"], 2);
    let mut resumed = Sse::resume(server.addr, "channel=chat&channel=b", &first);
    assert_eq!(resumed.event().json()["data"], "two", "no gap is told for what was not kept");
    // A channel that had nothing else leaves nothing behind.
    post(server.addr, "quiet", &[("Event-Ephemeral", "true")], "typing");
    assert_eq!(describe(server.addr, "quiet")["last_id"], json!(null));
}

#[test]
fn what_a_publisher_says_wrongly_of_an_event_is_refused() {
    let server = TestServer::start();
    let code = |headers: &[(&str, &str)], data: &str| {
        post(server.addr, "state:a", headers, data)["error"]["code"].clone()
    };
    assert_eq!(code(&[("Event-Key", "")], "x"), "bad_event_key");
    assert_eq!(code(&[("Event-Tombstone", "true")], ""), "bad_tombstone");
    assert_eq!(code(&[("Event-Key", "k"), ("Event-Tombstone", "true")], "x"), "bad_tombstone");
    assert_eq!(code(&[("Event-Ephemeral", "yes")], "x"), "bad_switch");
    assert_eq!(code(&[("Event-Key", "k"), ("Event-Tombstone", "true")], ""), json!(null));
}

#[test]
fn a_newcomer_gets_the_state_and_then_its_changes() {
    let server = TestServer::with(state);
    let set = |key: &str, data: &str| {
        post(server.addr, "state:rates", &[("Event-Key", key)], data)["id"].clone()
    };
    let first = set("EUR", "1.0");
    set("USD", "2.0");
    set("EUR", "1.1");
    post(server.addr, "state:rates", &[("Event-Key", "USD"), ("Event-Tombstone", "true")], "");
    set("GBP", "3.0");
    publish(server.addr, "news", "before");
    let of = |event: Value| {
        let [key, data, tombstone] = ["event_key", "data", "tombstone"].map(|of| event[of].clone());
        (key, if tombstone == json!(true) { json!(null) } else { data })
    };
    let expected =
        [(json!("EUR"), json!("1.1")), (json!("USD"), json!(null)), (json!("GBP"), json!("3.0"))];

    let mut sse = Sse::open(server.addr, "channel=state:rates&envelope=json");
    let mut mixed = Sse::open(server.addr, "channel=news&channel=state:rates");
    let mut ws = Ws::envelope(server.addr, "channel=state:rates");
    // A cursor older than what was replaced causes no gap.
    let first = first.as_str().expect("an id");
    let mut resumed = Sse::resume(server.addr, "channel=state:rates&envelope=json", first);
    for expected in expected.iter().chain(&[(json!("EUR"), json!("1.2"))]) {
        if expected.1 == "1.2" {
            set("EUR", "1.2");
        }
        assert_eq!(of(sse.event().json()), *expected);
        assert_eq!(of(mixed.event().json()), *expected);
        assert_eq!(of(ws.json()), *expected);
        assert_eq!(of(resumed.event().json()), *expected);
    }
    assert_eq!(describe(server.addr, "state:rates")["events"], 3);
    // Another reader on the same worker: what the worker holds of the channel is not all of it.
    let mut late = Sse::open(server.addr, "channel=state:rates&envelope=json");
    assert_eq!(late.events(3).len(), 3);
}

/// What was lost before it came is no loss of its own: it is told of no gap, and not turned away.
#[test]
fn a_newcomer_gets_what_there_is_of_a_state_that_has_lost_values() {
    let server = TestServer::with(|settings| {
        rule(settings, "state:*", |of| {
            of.channel_default.history = Keeps::Latest;
            of.channel_default.history_count = 2;
            of.channel_default.slow = SlowPolicy::Disconnect;
        });
    });
    for key in ["a", "b", "c"] {
        post(server.addr, "state:rates", &[("Event-Key", key)], key);
    }
    let mut newcomer = Sse::open(server.addr, "channel=state:rates");
    let mut mixed = Sse::open(server.addr, "channel=news&channel=state:rates&envelope=none");
    for data in ["b", "c"] {
        assert_eq!(newcomer.event().data, data);
        assert_eq!(mixed.event().data, data);
    }
}

/// It had no room for the events, and most of them were replaced.
#[test]
fn a_slow_reader_of_a_state_gets_the_newest_of_each_key_and_no_gap() {
    const COUNT: usize = 3_000;
    let server = TestServer::with(|settings| {
        settings.send_buffer = Some(16 << 10);
        settings.replica_bytes = 64 << 10;
        state(settings);
    });
    let conn = Conn::open_narrow(server.addr, 8 << 10);
    let mut stalled = Sse::over(conn, "channel=state:rates&envelope=json", &[]);
    let filler = "x".repeat(2_000);
    let lines: String = (0..COUNT)
        .map(|n| {
            let (key, data) = (format!("k{}", n % 4), format!("{n} {filler}"));
            json!({"channel": "state:rates", "data": data, "event_key": key}).to_string() + "\n"
        })
        .collect();
    let answer = fetch(server.addr, "POST", "/publish", &[], Some(lines.as_bytes()));
    assert_eq!(answer.json()["published"], COUNT);
    let (mut read, mut last) = (0, 0);
    while last < COUNT as u64 {
        let event = stalled.event();
        assert_ne!(event.event, "pushline.gap");
        let seq = crate::common::seq_of(&event.id);
        assert!(seq > last, "in order");
        (read, last) = (read + 1, seq);
    }
    assert!(read < COUNT / 2, "it read {read} of {COUNT}");
}

#[test]
fn a_restart_keeps_the_state() {
    let dir = tempfile::tempdir().expect("a folder");
    let start = || {
        TestServer::with(|settings| {
            settings.data_dir = Some(dir.path().to_owned());
            state(settings);
        })
    };
    let server = start();
    for (key, data) in [("a", "1"), ("b", "2"), ("a", "3")] {
        post(server.addr, "state:s", &[("Event-Key", key)], data);
    }
    post(server.addr, "state:s", &[("Event-Ephemeral", "true")], "passing");
    server.drain();
    let server = start();
    let mut sse = Sse::open(server.addr, "channel=state:s&envelope=json");
    let of = |event: Value| (event["event_key"].clone(), event["data"].clone());
    assert_eq!(of(sse.event().json()), (json!("b"), json!("2")));
    assert_eq!(of(sse.event().json()), (json!("a"), json!("3")));
    post(server.addr, "state:s", &[("Event-Key", "b")], "4");
    assert_eq!(of(sse.event().json()), (json!("b"), json!("4")));
}

/// Over a WebSocket the sender is the connection itself.
#[test]
fn what_is_published_to_others_is_not_sent_to_the_connection_that_publishes_it() {
    let server = TestServer::start();
    // Live, with a cursor of its own, and with several channels.
    for query in ["channel=chat", "channel=chat&last_event_id=earliest", "channel=chat&channel=b"] {
        let mut own = Ws::envelope(server.addr, query);
        let mut other = Ws::envelope(server.addr, "channel=chat");
        for round in 0..20 {
            let to = if round % 2 == 0 { "others" } else { "all" };
            own.op(&json!({"op": "publish", "channel": "chat", "data": round, "to": to}));
        }
        let seen = |ws: &mut Ws, count: usize| -> Vec<Value> {
            std::iter::repeat_with(|| ws.json())
                .filter(|event| event["data"].is_number())
                .take(count)
                .map(|event| event["data"].clone())
                .collect()
        };
        let odd: Vec<Value> = (0..20).filter(|round| round % 2 == 1).map(Value::from).collect();
        let all: Vec<Value> = (0..20).map(Value::from).collect();
        assert_eq!(seen(&mut other, 20), all);
        let before = if query.contains("earliest") { 20 } else { 0 };
        seen(&mut own, before);
        assert_eq!(seen(&mut own, 10), odd, "{query}");
        post(server.addr, "chat", &[], "the end");
        while other.json()["data"] != "the end" {}
        while own.json()["data"] != "the end" {}
    }
}

/// And over HTTP the stream that the request names; after a reconnect it is another one.
#[test]
fn a_stream_is_left_out_by_the_name_it_was_told_and_not_once_it_resumes() {
    let server = TestServer::start();
    let mut own = Sse::open(server.addr, "channel=chat&open=event&envelope=json");
    let opened = own.event();
    assert_eq!(opened.event, "pushline.open");
    let name = opened.json()["connection"].as_str().expect("a name").to_owned();
    let before = publish(server.addr, "chat", "before");
    assert_eq!(own.event().json()["data"], "before");
    let headers = [("Publish-To", "others"), ("Publish-From", &*name)];
    let sent = post(server.addr, "chat", &headers, "mine");
    let line = json!({"channels": ["chat", "b"], "data": "mine too", "to": "others"}).to_string();
    fetch(server.addr, "POST", "/publish", &headers[1..], Some(line.as_bytes()));
    publish(server.addr, "chat", "after");
    assert_eq!(own.event().json()["data"], "after");
    drop(own);
    let mut resumed = Sse::resume(server.addr, "channel=chat&envelope=json", &before);
    let first = resumed.event().json();
    assert_eq!((&first["data"], &first["id"]), (&json!("mine"), &sent["id"]));
    assert_eq!(resumed.event().json()["data"], "mine too");
    assert_eq!(resumed.event().json()["data"], "after");
}

#[test]
fn a_websocket_learns_by_a_ping_what_it_is_called_in_requests() {
    let server = TestServer::start();
    let mut own = Ws::envelope(server.addr, "channel=chat");
    own.op(&json!({"op": "ping", "ref": 1}));
    let name = own.json()["connection"].as_str().expect("a name").to_owned();
    post(server.addr, "chat", &[("Publish-To", "others"), ("Publish-From", &name)], "mine");
    post(server.addr, "chat", &[], "after");
    assert_eq!(own.json()["data"], "after");
}

#[test]
fn a_name_that_was_not_told_leaves_nobody_out_and_none_at_all_is_refused() {
    let server = TestServer::start();
    let mut sse = Sse::open(server.addr, "channel=chat&open=event&envelope=json");
    let name = sse.event().json()["connection"].as_str().expect("a name").to_owned();
    let (guess, _) = name.rsplit_once('-').expect("a proof");
    let guess = format!("{guess}-{}", "0".repeat(32));
    post(server.addr, "chat", &[("Publish-To", "others"), ("Publish-From", &guess)], "seen");
    assert_eq!(sse.event().json()["data"], "seen");
    let code =
        |headers: &[(&str, &str)]| post(server.addr, "chat", headers, "x")["error"]["code"].clone();
    assert_eq!(code(&[("Publish-To", "others")]), "publish_from");
    assert_eq!(code(&[("Publish-To", "everyone")]), "bad_to");
    let line = json!({"channel": "chat", "data": "x", "to": "others"}).to_string();
    let refused = fetch(server.addr, "POST", "/publish", &[], Some(line.as_bytes()));
    assert_eq!(refused.error_code(), "publish_from");
}
