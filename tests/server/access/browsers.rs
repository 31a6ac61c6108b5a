//! What a browser's page, and a backend, do; byte by byte what `readme` runs as it is in the
//! README.

use super::*;
use crate::common::ws::{RawWs, TEXT, frame, upgrade};
use crate::common::{Conn, PUBLISH_KEY, Sse, fetch, request};

#[test]
fn the_claims_of_the_readme_are_understood() {
    let line = README.lines().find(|line| line.starts_with("{\"exp\""));
    let mut claims: Value = serde_json::from_str(line.expect("a snippet")).expect("JSON");
    claims["exp"] = (now_unix_s() + 60).into();
    let (server, token) = (server(), sign(&claims));
    let query = "channel=news&channel=user:42:inbox";
    let (mut sse, _) = stream(server.addr, query, &token);
    let authorization = bearer(&token);
    let headers = [("Authorization", authorization.as_str())];
    assert_eq!(publish_with(server.addr, "/channels/chat:1", &headers), allowed());
    publish_as_backend(server.addr, "user:42:inbox", "hi");
    assert_eq!(sse.event().json()["data"], "hi");
}

/// A cookie session on SSE.
#[test]
fn a_cookie_opens_a_stream_for_a_listed_page() {
    let server = server();
    let cookie = format!("theme=dark; session={}", token(&["news"], &[]));
    let headers = [("Origin", APP), ("Cookie", cookie.as_str())];
    let mut sse = Sse::open_with(server.addr, "channel=news", &headers);
    assert_eq!(sse.head.header("access-control-allow-origin"), Some(APP));
    assert_eq!(sse.head.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(sse.head.header("vary"), Some("Origin"));
    connection_name(&mut sse);
    publish_as_backend(server.addr, "news", "hello");
    assert_eq!(sse.event().data, "hello");
    let without = fetch(server.addr, "GET", "/sse?channel=news", &[("Origin", APP)], None);
    assert_eq!(outcome(&without), refused(401, "credentials_missing"));
    assert_eq!(without.header("www-authenticate"), Some("Bearer realm=\"pushline\""));
}

/// A JWT on a browser WebSocket. A browser fails the handshake unless the answer names one of the
/// offered entries, which must not be the token's.
#[test]
fn a_subprotocol_entry_carries_the_token_and_is_not_echoed() {
    let (server, token) = (server(), token(&["news"], &["news"]));
    for offered in [format!("pushline.v1, bearer.{token}"), format!("bearer.{token}, pushline.v1")]
    {
        let headers = [("Origin", APP), ("Sec-WebSocket-Protocol", offered.as_str())];
        let mut ws = RawWs::over(Conn::open(server.addr), "channel=news", &headers);
        assert_eq!(ws.head.header("sec-websocket-protocol"), Some("pushline.v1"));
        assert!(!format!("{:?}", ws.head).contains(&token));
        let op = json!({"op": "publish", "channel": "news", "data": "hi"}).to_string();
        ws.send(frame(true, TEXT, op.as_bytes()));
        let event: Value = serde_json::from_slice(&ws.answer().payload).expect("JSON");
        assert_eq!(event["data"], "hi");
    }
}

/// A backend that publishes.
#[test]
fn a_publish_key_publishes_and_does_nothing_else() {
    let server = server();
    let as_bearer = bearer(PUBLISH_KEY);
    for header in [("Authorization", as_bearer.as_str()), ("X-API-Key", PUBLISH_KEY)] {
        assert_eq!(publish_with(server.addr, "/channels/any:thing", &[header]), allowed());
        let read = fetch(server.addr, "GET", "/sse?channel=any:thing", &[header], None);
        assert_eq!(outcome(&read), refused(403, "subscribe_forbidden"));
    }
    let almost = PUBLISH_KEY.replace('e', "f");
    let key = [("X-API-Key", almost.as_str())];
    let answer = publish_with(server.addr, "/channels/a", &key);
    assert_eq!(answer, refused(401, "publish_key_unknown"));
    // It may just as well be a truncated token, whose sender would look for a key in vain.
    let garbage = bearer("not-a-token-and-no-key");
    let read = fetch(server.addr, "GET", "/sse?channel=a", &[("Authorization", &garbage)], None);
    assert_eq!(outcome(&read), refused(401, "credentials_malformed"));
    let nothing = publish_with(server.addr, "/channels/a", &[]);
    assert_eq!(nothing, refused(401, "credentials_missing"));
}

/// Private channels per user.
#[test]
fn a_users_private_channels_are_that_users_only() {
    let server = server();
    let (mut hers, _) = stream(server.addr, "channel=user:42:inbox", &token(&["user:42:*"], &[]));
    let his = get_with(server.addr, "/sse?channel=user:42:inbox", &token(&["user:4:*"], &[]));
    assert_eq!(outcome(&his), refused(403, "subscribe_forbidden"));
    publish_as_backend(server.addr, "user:42:inbox", "for her");
    assert_eq!(hers.event().data, "for her");
}

/// A page of another origin, whatever it brings, above all a good cookie.
#[test]
fn a_page_that_is_not_listed_gets_nothing_in_the_users_name() {
    let server = server();
    let token = token(&["*"], &["*"]);
    let (cookie, authorization) = (format!("session={token}"), bearer(&token));
    let entry = format!("pushline.v1, bearer.{token}");
    let (mut refusals, mut foreign) = (Vec::new(), vec![FOREIGN, "null", "http://app.example"]);
    foreign.extend(["https://app.example.evil.example", "https://app.example:8443", ""]);
    for origin in foreign {
        let origin = ("Origin", origin);
        for credential in [("Cookie", cookie.as_str()), ("Authorization", &authorization)] {
            let headers = [origin, credential];
            let body: Option<&[u8]> = Some(b"x");
            refusals.push(fetch(server.addr, "GET", "/sse?channel=a", &headers, None));
            refusals.push(fetch(server.addr, "GET", "/channels/a", &headers, None));
            refusals.push(fetch(server.addr, "POST", "/channels/a", &headers, body));
            refusals.push(fetch(server.addr, "POST", "/publish", &headers, body));
            refusals.push(fetch(server.addr, "POST", "/sse/0-1-1-1/token", &headers, body));
            refusals.push(try_upgrade(&server, &headers));
        }
        refusals.push(try_upgrade(&server, &[origin, ("Sec-WebSocket-Protocol", &entry)]));
        // Also without credentials: CORS does not protect a WebSocket.
        refusals.push(try_upgrade(&server, &[origin]));
    }
    for response in &refusals {
        assert_eq!(outcome(response), refused(403, "origin_forbidden"));
        assert_eq!(response.header("access-control-allow-origin"), None);
        assert_eq!(response.header("access-control-allow-credentials"), None);
        assert_eq!(response.header("vary"), Some("Origin"));
    }
}

/// The answer to an upgrade.
fn try_upgrade(server: &TestServer, headers: &[(&str, &str)]) -> Response {
    let mut conn = Conn::open(server.addr);
    conn.send(upgrade("/ws?channel=a", headers));
    conn.response()
}

/// CORS: the answer to a foreign page's preflight does not let it continue, that to a listed page's
/// does; and `*` is never sent together with credentials.
#[test]
fn preflights_name_the_listed_page_and_nobody_else() {
    let server = server();
    let ask = |origin: &str| {
        let asked = ("Access-Control-Request-Method", "POST");
        let headers = [("Origin", origin), asked, ("Access-Control-Request-Headers", "x-api-key")];
        fetch(server.addr, "OPTIONS", "/channels/news", &headers, None)
    };
    let listed = ask(APP);
    assert_eq!(listed.header("access-control-allow-origin"), Some(APP));
    assert_eq!(listed.header("access-control-allow-credentials"), Some("true"));
    let foreign = ask(FOREIGN);
    assert_eq!(foreign.header("access-control-allow-origin"), None);
    assert_eq!(foreign.header("access-control-allow-credentials"), None);
    assert_eq!(foreign.header("vary"), Some("Origin"));
}

/// A guarded server never says `*`, not even in answer to something that is not a request.
#[test]
fn a_guarded_server_never_allows_every_origin() {
    let server = server();
    let mut conn = Conn::open(server.addr);
    conn.send("GET / HTTP/1.1\r\nOrigin: https://evil.example\r\nbad header\r\n\r\n");
    let response = conn.response();
    assert_eq!(response.status, 400);
    assert_eq!(response.header("access-control-allow-origin"), None);
}

/// A page must be able to read that it should come back later, even before it has made a request.
#[test]
fn a_refused_connection_may_be_read_as_any_answer() {
    let full = |settings: &mut pushline::config::Settings| settings.connections_max = Some(1);
    let (open, guarded) = (TestServer::with(full), TestServer::guarded(&readme_auth(), full));
    for (server, allowed) in [(open, Some("*")), (guarded, None)] {
        // One that had made no request would make room.
        let mut only = Conn::open(server.addr);
        only.send(request("GET", "/", &[], None));
        assert_eq!(only.response().status, 200);
        let mut conn = Conn::open(server.addr);
        let response = conn.response();
        assert_eq!(response.status, 503);
        assert_eq!(response.header("access-control-allow-origin"), allowed);
    }
}

/// No keys, but still a user's machine: only pages of this machine are let in. That includes plain
/// requests, which a browser sends without asking first.
#[test]
fn an_open_server_takes_nothing_from_a_foreign_page() {
    let server = TestServer::with(|settings| settings.open = false);
    for origin in [FOREIGN, "null", "http://localhost.evil.example", ""] {
        let headers = [("Origin", origin)];
        let post = fetch(server.addr, "POST", "/channels/a", &headers, Some(b"x"));
        let read = fetch(server.addr, "GET", "/sse?channel=a", &headers, None);
        for refusal in [try_upgrade(&server, &headers), post, read] {
            assert_eq!(outcome(&refusal), refused(403, "origin_forbidden"), "{origin}");
            assert_eq!(refusal.header("access-control-allow-origin"), None);
        }
    }
    for origin in ["http://localhost:3000", "http://127.0.0.1"] {
        RawWs::over(Conn::open(server.addr), "channel=a", &[("Origin", origin)]);
        let read = Sse::open_with(server.addr, "channel=a", &[("Origin", origin)]);
        assert_eq!(read.head.header("access-control-allow-origin"), Some("*"));
        assert_eq!(read.head.header("vary"), Some("Origin"));
    }
}

/// A page whose name leads to this machine (DNS rebinding) is of our origin, as a browser sees it.
#[test]
fn an_open_server_is_not_asked_by_name() {
    let server = TestServer::with(|settings| settings.open = false);
    let status = |host: &str| {
        let mut conn = Conn::open(server.addr);
        conn.send(format!("GET /channels/a HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        outcome(&conn.response())
    };
    assert_eq!(status("evil.example:8080"), refused(403, "host_forbidden"));
    for host in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "192.0.2.7"] {
        assert_eq!(status(host), allowed(), "{host}");
    }
}

/// With `--open` every page may do everything, and is offered no credentials with it.
#[test]
fn a_server_told_to_be_open_takes_every_page_without_credentials() {
    let server = TestServer::with(|settings| settings.open = true);
    let foreign = [("Origin", FOREIGN)];
    RawWs::over(Conn::open(server.addr), "channel=a", &foreign);
    let response = fetch(server.addr, "GET", "/channels/a", &foreign, None);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.header("access-control-allow-credentials"), None);
    assert_eq!(response.header("access-control-expose-headers"), Some("Retry-After"));
    let mut conn = Conn::open(server.addr);
    conn.send("GET / HTTP/1.1\r\nbad header\r\n\r\n");
    let response = conn.response();
    assert_eq!(response.header("access-control-allow-origin"), Some("*"), "{response:?}");
}

/// An image of a foreign page: the browser adds the cookie, and no `Origin`.
#[test]
fn a_foreign_page_opens_no_stream_as_an_image() {
    let server = server();
    let cookie = format!("session={}", token(&["news"], &[]));
    let with = |site: &str| {
        let headers = [("Cookie", cookie.as_str()), ("Sec-Fetch-Site", site)];
        outcome(&fetch(server.addr, "GET", "/channels/news", &headers, None))
    };
    assert_eq!(with("cross-site"), refused(403, "origin_forbidden"));
    assert_eq!(with("same-origin"), allowed());
}
