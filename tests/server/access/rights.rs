//! A right to one thing gives no other: reading, publishing, and how much of it.

use super::*;
use crate::common::ws::{RawWs, TEXT, frame, header};
use crate::common::{Conn, PUBLISH_KEY, fetch, request};

/// Every way to publish there is.
#[test]
fn a_token_that_may_only_read_publishes_nothing() {
    let server = server();
    let token = token(&["news"], &["other"]);
    let (mut sse, _) = stream(server.addr, "channel=news", &token);
    let authorization = bearer(&token);
    let headers = [("Authorization", authorization.as_str())];
    let post = publish_with(server.addr, "/channels/news", &headers);
    assert_eq!(post, refused(403, "publish_forbidden"));

    let lines = "{\"channel\":\"other\",\"data\":1}\n{\"channel\":\"news\",\"data\":2}\n\
                 {\"channel\":\"other\",\"data\":3}\n";
    let answer = fetch(server.addr, "POST", "/publish", &headers, Some(lines.as_bytes()));
    assert_eq!(outcome(&answer), refused(403, "publish_forbidden"));
    assert_eq!((&answer.json()["published"], &answer.json()["line"]), (&json!(1), &json!(2)));

    let mut bare = RawWs::over(Conn::open(server.addr), "channel=news", &headers);
    bare.send(frame(true, TEXT, b"bare"));
    assert_eq!(bare.answer().close(), (1008, "publishing here is not allowed".to_owned()));

    let entry = format!("pushline.v1, bearer.{token}");
    let protocol = [("Sec-WebSocket-Protocol", entry.as_str())];
    let mut ws = RawWs::over(Conn::open(server.addr), "channel=news", &protocol);
    let op = json!({"op": "publish", "channel": "news", "data": "x", "ref": "r"}).to_string();
    ws.send(frame(true, TEXT, op.as_bytes()));
    let answer: Value = serde_json::from_slice(&ws.answer().payload).expect("JSON");
    assert_eq!(answer["error"]["code"], "publish_forbidden", "{answer}");

    // Nothing of all that got through.
    publish_as_backend(server.addr, "news", "last");
    assert_eq!(sse.event().data, "last");
}

/// A client without publish rights is told so before a body takes memory, and may send no long
/// messages.
#[test]
fn who_may_publish_nowhere_cannot_fill_memory_with_what_is_never_published() {
    let server = server();
    let token = token(&["news"], &[]);
    let authorization = bearer(&token);
    let headers = [("Authorization", authorization.as_str())];
    let mut conn = Conn::open(server.addr);
    let chunked = [headers[0], ("Transfer-Encoding", "chunked"), ("Expect", "100-continue")];
    conn.send(request("POST", "/publish", &chunked, None));
    let answer = conn.response();
    assert_eq!(outcome(&answer), refused(403, "publish_forbidden"));
    conn.expect_end();

    let mut bare = RawWs::over(Conn::open(server.addr), "channel=news", &headers);
    bare.send(header(true, TEXT, 4 * 1024 + 1, 0x80));
    bare.send([0; 4]);
    assert_eq!(bare.answer().close().0, 1009, "with the header that announces it");

    // In envelope mode its next token still fits.
    let entry = format!("pushline.v1, bearer.{token}");
    let protocol = [("Sec-WebSocket-Protocol", entry.as_str())];
    let mut ws = RawWs::over(Conn::open(server.addr), "channel=news", &protocol);
    let op = json!({"op": "auth", "token": "t".repeat(8 * 1024), "ref": "r"}).to_string();
    ws.send(frame(true, TEXT, op.as_bytes()));
    let answer: Value = serde_json::from_slice(&ws.answer().payload).expect("JSON");
    assert!(answer["error"].is_object(), "{answer}");
    ws.send(header(true, TEXT, 16 * 1024, 0x80));
    ws.send([0; 4]);
    assert_eq!(ws.answer().close().0, 1009);
}

#[test]
fn a_token_that_may_only_publish_reads_nothing() {
    let server = server();
    let token = token(&[], &["news"]);
    for target in ["/sse?channel=news", "/channels/news"] {
        let response = get_with(server.addr, target, &token);
        assert_eq!(outcome(&response), refused(403, "subscribe_forbidden"), "{target}");
    }
}

/// One channel that is not covered refuses the whole request: there is no stream of half the
/// channels.
#[test]
fn a_stream_is_all_or_nothing() {
    let server = server();
    let token = token(&["a", "b"], &[]);
    let response = get_with(server.addr, "/sse?channel=a&channel=b&channel=c", &token);
    assert_eq!(outcome(&response), refused(403, "subscribe_forbidden"));
    stream(server.addr, "channel=a&channel=b", &token);
}

/// The limit applies over HTTP, to a WebSocket's query and to its operations.
#[test]
fn nobody_has_more_channels_than_a_connection_may_have() {
    let limit = |settings: &mut pushline::config::Settings| settings.connection_channels_max = 2;
    let server = TestServer::guarded(&readme_auth(), limit);
    let token = token(&["*"], &[]);
    let three = "channel=a&channel=b&channel=c";
    let response = get_with(server.addr, &format!("/sse?{three}"), &token);
    assert_eq!(outcome(&response), refused(400, "too_many_channels"));
    let entry = format!("pushline.v1, bearer.{token}");
    let protocol = [("Sec-WebSocket-Protocol", entry.as_str())];
    let mut conn = Conn::open(server.addr);
    conn.send(crate::common::ws::upgrade(&format!("/ws?{three}"), &protocol));
    assert_eq!(outcome(&conn.response()), refused(400, "too_many_channels"));
    let mut ws = RawWs::over(Conn::open(server.addr), "channel=a&channel=b", &protocol);
    ws.send(frame(true, TEXT, br#"{"op":"subscribe","channel":"c","ref":"r"}"#));
    let answer: Value = serde_json::from_slice(&ws.answer().payload).expect("JSON");
    assert_eq!(answer["error"]["code"], "too_many_channels", "{answer}");
}

/// A proxy sends requests of different people over one connection: what one brought must not serve
/// the next.
#[test]
fn credentials_are_good_for_one_request() {
    let server = server();
    let authorization = bearer(&token(&["*"], &["*"]));
    let mut conn = Conn::open(server.addr);
    for target in ["/channels/a", "/sse?channel=a"] {
        let headers = [("Authorization", authorization.as_str())];
        conn.send(request("POST", "/channels/a", &headers, Some(b"x")));
        assert_eq!(conn.response().status, 200);
        conn.send(request("GET", target, &[], None));
        assert_eq!(outcome(&conn.response()), refused(401, "credentials_missing"), "{target}");
    }
}

/// With two of the same header it is unclear which counts, so neither does.
#[test]
fn doubled_credentials_are_refused() {
    let server = server();
    let good = bearer(&token(&["a"], &[]));
    let cookie = format!("session={}", token(&["a"], &[]));
    for headers in [
        [("Authorization", good.as_str()), ("Authorization", good.as_str())],
        [("Authorization", good.as_str()), ("Authorization", "Basic eA==")],
        [("Cookie", cookie.as_str()), ("Cookie", "a=b")],
        [("Cookie", cookie.as_str()), ("Cookie", cookie.as_str())],
        [("X-API-Key", crate::common::PUBLISH_KEY), ("X-API-Key", crate::common::PUBLISH_KEY)],
    ] {
        let response = fetch(server.addr, "GET", "/channels/a", &headers, None);
        assert_eq!(outcome(&response), refused(401, "credentials_malformed"), "{headers:?}");
    }
    let origins = [("Origin", APP), ("Origin", FOREIGN)];
    let response = fetch(server.addr, "GET", "/sse?channel=a", &origins, None);
    assert_eq!(outcome(&response), refused(401, "credentials_malformed"));
}

/// The same for what is not a header: offers of a subprotocol, and the query.
#[test]
fn doubled_tokens_are_refused() {
    let auth = format!("{}query_token = \"enabled\"\n", readme_auth());
    let server = TestServer::guarded(&auth, |_| {});
    let good = token(&["a"], &[]);
    let two = format!("bearer.{good}, pushline.v1, bearer.{good}");
    let mut conn = Conn::open(server.addr);
    conn.send(crate::common::ws::upgrade("/ws?channel=a", &[("Sec-WebSocket-Protocol", &two)]));
    assert_eq!(outcome(&conn.response()), refused(401, "credentials_malformed"));
    let target = format!("/channels/a?access_token={good}&access_token={good}");
    let response = fetch(server.addr, "GET", &target, &[], None);
    assert_eq!(outcome(&response), refused(401, "credentials_malformed"));
}

/// What anonymous clients may do needs no token, and they may do nothing else.
#[test]
fn anonymous_may_do_what_the_settings_say() {
    let auth = format!("{}anonymous = {{ subscribe = [\"public:*\"] }}\n", readme_auth());
    let server = TestServer::guarded(&auth, |_| {});
    let private = fetch(server.addr, "GET", "/sse?channel=private", &[], None);
    assert_eq!(outcome(&private), refused(403, "subscribe_forbidden"));
    let publish = publish_with(server.addr, "/channels/public:a", &[]);
    assert_eq!(publish, refused(403, "publish_forbidden"));
    let mut sse = Sse::open(server.addr, "channel=public:a");
    connection_name(&mut sse);
    publish_as_backend(server.addr, "public:a", "for all");
    assert_eq!(sse.event().data, "for all");
}

/// In the URL a token would end up in the logs of every proxy; it is only accepted if the operator
/// says so.
#[test]
fn a_token_in_the_url_is_refused_unless_enabled() {
    let token = token(&["a"], &[]);
    let target = format!("/channels/a?access_token={token}");
    let server = server();
    let response = fetch(server.addr, "GET", &target, &[], None);
    assert_eq!(outcome(&response), refused(401, "query_token_disabled"));
    let auth = format!("{}query_token = \"enabled\"\n", readme_auth());
    let enabled = TestServer::guarded(&auth, |_| {});
    assert_eq!(fetch(enabled.addr, "GET", &target, &[], None).status, 200);
}

/// The same idempotency key from another publisher is another key, on every way to publish; a new
/// token of the same subject is the same publisher.
#[test]
fn an_idempotency_key_is_its_publishers_own() {
    let server = server();
    let token = |subject: &str, exp: u64| {
        let rights = json!({"subscribe": ["*"], "publish": ["*"]});
        sign(&json!({"exp": now_unix_s() + exp, "sub": subject, "pushline": rights}))
    };
    let post = |credential: &str| {
        let authorization = bearer(credential);
        let headers = [("Authorization", authorization.as_str()), ("Idempotency-Key", "goal-17")];
        let answer = fetch(server.addr, "POST", "/channels/a", &headers, Some(b"goal"));
        answer.json()["id"].as_str().expect("an id").to_owned()
    };
    let lines = |credential: &str| {
        let authorization = bearer(credential);
        let headers = [("Authorization", authorization.as_str())];
        let line = b"{\"channel\":\"a\",\"data\":1,\"key\":\"goal-17\"}";
        let answer = fetch(server.addr, "POST", "/publish", &headers, Some(line));
        answer.json()["first_id"].as_str().expect("an id").to_owned()
    };
    let op = |credential: &str| {
        let entry = format!("pushline.v1, bearer.{credential}");
        let headers = [("Sec-WebSocket-Protocol", entry.as_str())];
        let mut ws = RawWs::over(Conn::open(server.addr), "channel=b", &headers);
        let op = json!({"op": "publish", "channel": "a", "data": 1, "key": "goal-17", "ref": 1});
        ws.send(frame(true, TEXT, op.to_string().as_bytes()));
        let answer: Value = serde_json::from_slice(&ws.answer().payload).expect("JSON");
        answer["id"].as_str().expect("an id").to_owned()
    };
    let (mallory, alice) = (post(&token("mallory", 60)), post(&token("alice", 60)));
    let backend = post(PUBLISH_KEY);
    assert!(mallory != alice && backend != alice && backend != mallory);
    assert_eq!(post(&token("alice", 61)), alice);
    assert_eq!((lines(&token("alice", 60)), op(&token("alice", 60))), (alice.clone(), alice));
    assert_eq!(
        (lines(&token("mallory", 60)), op(&token("mallory", 60))),
        (mallory.clone(), mallory)
    );
}

/// A client that may publish but not subscribe need not learn how many subscribers there are.
#[test]
fn a_client_is_not_told_of_subscribers_where_the_operator_says_so() {
    let server = TestServer::guarded(&readme_auth(), |settings| settings.hide_subscribers = true);
    let token = token(&["b"], &["a"]);
    let post = |credential: &str| {
        let headers = [("Authorization", bearer(credential))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        fetch(server.addr, "POST", "/channels/a", &headers, Some(b"x")).json()
    };
    assert_eq!(post(&token)["subscribers"], Value::Null);
    assert_eq!(post(PUBLISH_KEY)["subscribers"], 0);
    let entry = format!("pushline.v1, bearer.{token}");
    let headers = [("Sec-WebSocket-Protocol", entry.as_str())];
    let mut ws = RawWs::over(Conn::open(server.addr), "channel=b", &headers);
    let op = json!({"op": "publish", "channel": "a", "data": "x", "ref": "r"}).to_string();
    ws.send(frame(true, TEXT, op.as_bytes()));
    let answer: Value = serde_json::from_slice(&ws.answer().payload).expect("JSON");
    assert!(answer["id"].is_string() && answer["subscribers"].is_null(), "{answer}");
}
