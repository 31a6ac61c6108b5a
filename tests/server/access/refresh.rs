//! Tokens that expire, and new ones for connections that stay.

use std::time::Duration;

use super::*;
use crate::common::ws::{CLOSE, RawWs, TEXT, frame};
use crate::common::{Conn, fetch};

/// As the README's, with clocks that agree.
fn strict_server(workers: u16) -> TestServer {
    let auth = format!("{}leeway_s = 0\n", readme_auth());
    TestServer::guarded(&auth, |settings| settings.workers = Some(workers))
}

/// A short token expires in this many seconds: enough to use it before, on a machine that stands
/// still for a while.
const SHORT_S: u64 = 6;

/// Longer than a short token lasts.
const PAST_EXPIRY: Duration = Duration::from_millis(7500);

fn short_token(subscribe: &[&str]) -> String {
    token_until(now_unix_s() + SHORT_S, subscribe, &[])
}

/// An envelope WebSocket, its token in the subprotocol.
fn websocket(server: &TestServer, token: &str) -> RawWs {
    let entry = format!("pushline.v1, bearer.{token}");
    let headers = [("Sec-WebSocket-Protocol", entry.as_str())];
    RawWs::over(Conn::open(server.addr), "channel=news", &headers)
}

fn op(ws: &mut RawWs, op: &Value) -> Value {
    ws.send(frame(true, TEXT, op.to_string().as_bytes()));
    serde_json::from_slice(&ws.answer().payload).expect("JSON")
}

/// `POST /sse/{connection}/token`.
fn refresh(server: &TestServer, name: &str, token: &str) -> Response {
    let authorization = bearer(token);
    let target = format!("/sse/{name}/token");
    fetch(server.addr, "POST", &target, &[("Authorization", &authorization)], Some(b""))
}

#[test]
fn a_connection_ends_with_its_token() {
    let server = strict_server(2);
    let short = short_token(&["news"]);
    let (mut sse, _) = stream(server.addr, "channel=news", &short);
    let mut ws = websocket(&server, &short);
    let mut bare =
        RawWs::over(Conn::open(server.addr), "channel=news", &[("Authorization", &bearer(&short))]);
    assert_eq!(ws.answer().close(), (4401, "token expired".to_owned()));
    assert_eq!(bare.answer().close(), (4401, "token expired".to_owned()));
    expect_end(&mut sse, "token_expired", 4401, "token expired");
    let again = get_with(server.addr, "/sse?channel=news", &short);
    assert_eq!(outcome(&again), refused(401, "token_expired"));
}

/// A new token without a reconnect, WebSocket.
#[test]
fn a_websocket_goes_on_with_a_new_token() {
    let server = strict_server(2);
    let mut ws = websocket(&server, &short_token(&["news"]));
    let fresh = token(&["news", "more"], &[]);
    let denied = op(&mut ws, &json!({"op": "subscribe", "channel": "more", "ref": "1"}));
    assert_eq!(denied["error"]["code"], "subscribe_forbidden", "{denied}");
    let answer = op(&mut ws, &json!({"op": "auth", "token": fresh, "ref": "2"}));
    assert_eq!(answer, json!({"ref": "2", "ok": true}));
    let more = op(&mut ws, &json!({"op": "subscribe", "channel": "more", "ref": "3"}));
    assert_eq!(more["ok"], true, "{more}");
    assert!(ws.conn.is_silent_for(PAST_EXPIRY), "it lives on the new token");
    publish_as_backend(server.addr, "news", "still here");
    let event: Value = serde_json::from_slice(&ws.answer().payload).expect("JSON");
    assert_eq!(event["data"], "still here");
}

/// A token that is refused changes nothing: the old one stays, and ends the connection when it
/// expires.
#[test]
fn a_bad_new_token_changes_nothing() {
    let server = strict_server(2);
    let mut ws = websocket(&server, &token(&["news"], &[]));
    let expired = token_until(now_unix_s() - 1, &["news"], &[]);
    for (new, code) in [
        (expired.as_str(), "token_expired"),
        (&token(&["other"], &[]), "subscribe_forbidden"),
        ("rubbish", "credentials_malformed"),
        ("", "credentials_malformed"),
    ] {
        let answer = op(&mut ws, &json!({"op": "auth", "token": new, "ref": "r"}));
        assert_eq!(answer["error"]["code"], code, "{answer}");
        assert!(new.is_empty() || !answer.to_string().contains(new));
    }
    publish_as_backend(server.addr, "news", "as before");
    assert_eq!(ws.answer().opcode, TEXT);
}

/// The new token's expiry is the connection's, whether earlier or later than the old one's.
#[test]
fn a_connection_ends_with_its_newest_token() {
    let server = strict_server(2);
    let mut sooner = websocket(&server, &token(&["news"], &[]));
    let mut later = websocket(&server, &short_token(&["news"]));
    let (mut sse, name) = stream(server.addr, "channel=news", &token(&["news"], &[]));
    let new = token_until(now_unix_s() + SHORT_S + 1, &["news"], &[]);
    for ws in [&mut sooner, &mut later] {
        assert_eq!(op(ws, &json!({"op": "auth", "token": new, "ref": 1}))["ok"], true);
    }
    assert_eq!(refresh(&server, &name, &new).status, 204);
    for ws in [&mut sooner, &mut later] {
        assert_eq!(ws.answer().close(), (4401, "token expired".to_owned()));
    }
    expect_end(&mut sse, "token_expired", 4401, "token expired");
}

/// One of several channels is enough: the new token would not let the connection reopen it.
#[test]
fn a_new_token_must_open_every_channel() {
    let server = strict_server(2);
    let both = token(&["news", "more"], &[]);
    let (mut sse, name) = stream(server.addr, "channel=news&channel=more", &both);
    let mut ws = websocket(&server, &both);
    let more = json!({"op": "subscribe", "channel": "more", "ref": 1});
    assert_eq!(op(&mut ws, &more)["ok"], true);
    for one in ["news", "more"] {
        let weaker = token(&[one], &[]);
        assert_eq!(outcome(&refresh(&server, &name, &weaker)), refused(403, "subscribe_forbidden"));
        let answer = op(&mut ws, &json!({"op": "auth", "token": weaker, "ref": 2}));
        assert_eq!(answer["error"]["code"], "subscribe_forbidden", "{answer}");
    }
    publish_as_backend(server.addr, "more", "as before");
    assert_eq!(sse.event().json()["data"], "as before");
    // After an unsubscribe the token may lack the channel.
    let event: Value = serde_json::from_slice(&ws.answer().payload).expect("JSON");
    assert_eq!(event["data"], "as before");
    let less = json!({"op": "unsubscribe", "channel": "more", "ref": 3});
    assert_eq!(op(&mut ws, &less)["ok"], true);
    let news = json!({"op": "auth", "token": token(&["news"], &[]), "ref": 4});
    assert_eq!(op(&mut ws, &news)["ok"], true);
    let again = op(&mut ws, &more);
    assert_eq!(again["error"]["code"], "subscribe_forbidden", "{again}");
}

/// A connection has one subject: another subject's token neither prolongs it nor takes it over.
#[test]
fn a_connection_is_not_handed_to_another_subject() {
    let server = strict_server(2);
    let of = |subject: Option<&str>| {
        let rights = json!({"subscribe": ["news"]});
        sign(&json!({"exp": now_unix_s() + 600, "sub": subject, "pushline": rights}))
    };
    let (_sse, name) = stream(server.addr, "channel=news", &of(Some("alice")));
    let mut ws = websocket(&server, &of(Some("alice")));
    for (subject, expected) in [(Some("bob"), 403), (None, 403), (Some("alice"), 204)] {
        let response = refresh(&server, &name, &of(subject));
        assert_eq!(response.status, expected, "{subject:?}");
        let answer = op(&mut ws, &json!({"op": "auth", "token": of(subject), "ref": 1}));
        if expected == 204 {
            assert_eq!(answer["ok"], true, "{answer}");
        } else {
            assert_eq!(response.error_code(), "token_subject");
            assert_eq!(answer["error"]["code"], "token_subject", "{answer}");
        }
    }
    // A connection without a subject may get one.
    let mut unnamed = websocket(&server, &of(None));
    let answer = op(&mut unnamed, &json!({"op": "auth", "token": of(Some("bob")), "ref": 1}));
    assert_eq!(answer["ok"], true, "{answer}");
}

/// A new token without a reconnect, SSE.
#[test]
fn a_stream_goes_on_with_a_new_token() {
    let server = strict_server(2);
    let (mut sse, name) = stream(server.addr, "channel=news", &short_token(&["news"]));
    assert_eq!(refresh(&server, &name, &token(&["news"], &[])).status, 204);
    assert!(sse.conn.is_silent_for(PAST_EXPIRY), "it lives on the new token");
    publish_as_backend(server.addr, "news", "still here");
    assert_eq!(sse.event().data, "still here");
}

/// A page with a cookie session does the same, if it is a listed one.
#[test]
fn a_stream_is_refreshed_by_cookie_from_a_listed_page_only() {
    let server = strict_server(2);
    let (_sse, name) = stream(server.addr, "channel=news", &token(&["news"], &[]));
    let (target, cookie) =
        (format!("/sse/{name}/token"), format!("session={}", token(&["news"], &[])));
    let from = |origin| {
        let headers = [("Origin", origin), ("Cookie", cookie.as_str())];
        fetch(server.addr, "POST", &target, &headers, Some(b""))
    };
    assert_eq!(from(APP).status, 204);
    assert_eq!(outcome(&from(FOREIGN)), refused(403, "origin_forbidden"));
}

/// One asker, so one worker; streams on all four. The new tokens take effect on each.
#[test]
fn a_stream_on_any_worker_takes_a_new_token() {
    let server = strict_server(4);
    let short = token_until(now_unix_s() + SHORT_S + 2, &["news"], &[]);
    let mut streams = std::collections::HashMap::new();
    while streams.len() < 4 {
        let (sse, name) = stream(server.addr, "channel=news", &short);
        let worker = name.split('-').next().expect("the worker").to_owned();
        streams.entry(worker).or_insert((sse, name));
    }
    let authorization = bearer(&token(&["news"], &[]));
    let weaker = bearer(&token(&["other"], &[]));
    let mut asker = Conn::open(server.addr);
    for (_, name) in streams.values() {
        let target = format!("/sse/{name}/token");
        for (authorization, expected) in [(&weaker, 403), (&authorization, 204)] {
            let headers = [("Authorization", authorization.as_str())];
            asker.send(crate::common::request("POST", &target, &headers, Some(b"")));
            assert_eq!(asker.response().status, expected);
        }
    }
    std::thread::sleep(PAST_EXPIRY + Duration::from_secs(2));
    publish_as_backend(server.addr, "news", "still here");
    for (sse, _) in streams.values_mut() {
        assert_eq!(sse.event().data, "still here");
    }
}

#[test]
fn a_stream_is_found_by_its_whole_name_only() {
    let server = strict_server(2);
    let good = token(&["news"], &[]);
    let (_sse, name) = stream(server.addr, "channel=news", &good);
    let (id, proof) = name.rsplit_once('-').expect("a proof");
    let flipped = if proof.starts_with('0') { '1' } else { '0' };
    let wrong_proof = format!("{id}-{flipped}{}", &proof[1..]);
    let (worker, rest) = id.split_once('-').expect("a worker");
    let (slot, generation) = rest.split_once('-').expect("a slot");
    let other = format!("{worker}-{slot}-{}", generation.parse::<u32>().expect("digits") + 1);
    for target in [
        wrong_proof,
        id.to_owned(),
        format!("{id}-"),
        format!("{other}-{proof}"),
        format!("{id}-{}", proof.to_uppercase().replace(char::is_numeric, "A")),
        "x".to_owned(),
    ] {
        let response = refresh(&server, &target, &good);
        assert_eq!(outcome(&response), refused(404, "connection"), "{target}");
    }
    let weaker = refresh(&server, &name, &token(&["other"], &[]));
    assert_eq!(outcome(&weaker), refused(403, "subscribe_forbidden"));
    let target = format!("/sse/{name}/token");
    let nothing = fetch(server.addr, "POST", &target, &[], Some(b""));
    assert_eq!(outcome(&nothing), refused(401, "credentials_missing"));
    assert_eq!(refresh(&server, &name, &good).status, 204);
}

/// An ended stream's name is void, even when its slot is taken again.
#[test]
fn a_name_dies_with_its_stream() {
    let server = strict_server(1);
    let good = token(&["news"], &[]);
    let (sse, name) = stream(server.addr, "channel=news", &good);
    drop(sse);
    crate::common::await_that("the stream is gone", || server.open() == 0);
    let (_sse, other) = stream(server.addr, "channel=news", &good);
    assert_ne!(name, other);
    assert_eq!(outcome(&refresh(&server, &name, &good)), refused(404, "connection"));
}

/// A body that takes longer than its token is valid: what comes later is not published.
#[test]
fn a_token_does_not_publish_after_its_end() {
    let server = strict_server(1);
    let short = bearer(&token_until(now_unix_s() + SHORT_S, &[], &["news"]));
    let line = b"{\"channel\":\"news\",\"data\":1}";
    let begin = |target: &str| {
        let mut conn = Conn::open(server.addr);
        let headers = [("Authorization", short.as_str())];
        let mut whole = crate::common::request("POST", target, &headers, Some(line));
        whole.truncate(whole.len() - 10);
        conn.send(whole);
        conn
    };
    let (mut one, mut lines) = (begin("/channels/news"), begin("/publish"));
    assert!(one.is_silent_for(PAST_EXPIRY));
    for conn in [&mut one, &mut lines] {
        conn.send(&line[line.len() - 10..]);
        assert_eq!(outcome(&conn.response()), refused(403, "publish_forbidden"));
    }
    let description = get_with(server.addr, "/channels/news", &token(&["news"], &[]));
    assert_eq!(description.json()["last_id"], Value::Null, "{}", description.text());
}

/// What a token allows ends with it, even before the connection is closed for it.
#[test]
fn nothing_is_published_behind_the_close() {
    let server = strict_server(1);
    let short = token_until(now_unix_s() + SHORT_S, &["news"], &["news"]);
    let mut ws = websocket(&server, &short);
    while ws.answer().opcode != CLOSE {}
    let op = json!({"op": "publish", "channel": "news", "data": "late"}).to_string();
    ws.send(frame(true, TEXT, op.as_bytes()));
    ws.send(frame(true, CLOSE, &4401_u16.to_be_bytes()));
    ws.conn.expect_gone();
    let description = get_with(server.addr, "/channels/news", &token(&["news"], &[]));
    assert_eq!(description.json()["last_id"], Value::Null, "{}", description.text());
}
