//! Rules that change while connections are open: what a connection was let in by must still exist.

use std::time::Duration;

use super::*;
use crate::common::ws::{RawWs, TEXT, frame};
use crate::common::{Conn, PUBLISH_KEY, Sse, fetch, request};

const SECRETS: &str = "hmac_secrets = [{ env = \"PUSHLINE_SECRET\" }]";
const OTHER_SECRET: &str = "{ value = \"a-second-secret-of-32-bytes-or-more\" }";

/// The settings of the README. One worker: what one has been told, another may not know yet.
fn server() -> TestServer {
    TestServer::guarded(&readme_auth(), |settings| settings.workers = Some(1))
}

/// The settings of the README with a change.
fn changed(from: &str, to: &str) -> String {
    let auth = readme_auth();
    assert!(auth.contains(from), "{from}");
    auth.replace(from, to)
}

/// An envelope WebSocket of a backend, with its publish key.
fn backend(server: &TestServer) -> RawWs {
    let headers = [("X-API-Key", PUBLISH_KEY), ("Sec-WebSocket-Protocol", "pushline.v1")];
    RawWs::over(Conn::open(server.addr), "", &headers)
}

fn op(ws: &mut RawWs, op: &Value) -> Value {
    ws.send(frame(true, TEXT, op.to_string().as_bytes()));
    serde_json::from_slice(&ws.answer().payload).expect("JSON")
}

#[test]
fn a_secret_that_is_gone_takes_its_connections_along() {
    let mut server = server();
    let old = token(&["news"], &[]);
    let (mut sse, _) = stream(server.addr, "channel=news", &old);
    let authorization = bearer(&old);
    let headers = [("Authorization", authorization.as_str())];
    let mut ws = RawWs::over(Conn::open(server.addr), "channel=news", &headers);
    let mut backend = backend(&server);
    server.reload(&changed(SECRETS, &format!("hmac_secrets = [{OTHER_SECRET}]"))).expect("taken");
    expect_end(&mut sse, "key_removed", 4401, "key removed");
    assert_eq!(ws.answer().close(), (4401, "key removed".to_owned()));
    let again = get_with(server.addr, "/sse?channel=news", &old);
    assert_eq!(outcome(&again), refused(401, "token_signature"));
    // What another key let in stays.
    let answer = op(&mut backend, &json!({"op": "publish", "channel": "a", "data": 1, "ref": 1}));
    assert_eq!(answer["ok"], true, "{answer}");
}

/// The old secret is kept beside the new one until its tokens have expired: no client notices.
#[test]
fn a_secret_is_changed_without_a_reconnect() {
    let mut server = server();
    let (mut sse, _) = stream(server.addr, "channel=news", &token(&["news"], &[]));
    let both = format!("hmac_secrets = [{OTHER_SECRET}, {{ env = \"PUSHLINE_SECRET\" }}]");
    server.reload(&changed(SECRETS, &both)).expect("taken");
    assert!(sse.conn.is_silent_for(Duration::from_millis(300)));
    publish_as_backend(server.addr, "news", "still here");
    assert_eq!(sse.event().data, "still here");
}

/// Over a WebSocket that is open, and a body that is being sent.
#[test]
fn a_publish_key_that_is_gone_publishes_no_more() {
    let mut server = server();
    let (mut sse, _) = stream(server.addr, "channel=news", &token(&["news"], &[]));
    let mut open = backend(&server);
    let mut lines = Conn::open(server.addr);
    let line = b"{\"channel\":\"news\",\"data\":1}";
    let headers = [("X-API-Key", PUBLISH_KEY), ("Expect", "100-continue")];
    let whole = request("POST", "/publish", &headers, Some(line));
    lines.send(&whole[..whole.len() - line.len()]);
    assert!(lines.until(b"\r\n\r\n").starts_with(b"HTTP/1.1 100"));
    let event = json!({"op": "publish", "channel": "news", "data": "first", "ref": 1});
    assert_eq!(op(&mut open, &event)["ok"], true);
    let auth = changed("env = \"PUSHLINE_PUBLISH_KEY\"", "value = \"another-key-of-the-backend\"");
    server.reload(&auth).expect("taken");
    assert_eq!(open.answer().close(), (4401, "key removed".to_owned()));
    lines.send(line);
    assert_eq!(outcome(&lines.response()), refused(403, "publish_forbidden"));
    let key = [("X-API-Key", "another-key-of-the-backend")];
    assert_eq!(publish_with(server.addr, "/channels/news", &key), allowed());
    assert_eq!((sse.event().data.as_str(), sse.event().data.as_str()), ("first", "x"));
}

#[test]
fn an_open_server_that_gets_keys_ends_whom_it_let_in() {
    let mut server = TestServer::with(|settings| settings.workers = Some(1));
    let mut sse = Sse::open(server.addr, "channel=news");
    let mut ws = RawWs::over(Conn::open(server.addr), "channel=news", &[]);
    server.reload(&readme_auth()).expect("taken");
    expect_end(&mut sse, "key_removed", 4401, "key removed");
    assert_eq!(ws.answer().close(), (4401, "key removed".to_owned()));
    let again = fetch(server.addr, "GET", "/sse?channel=news", &[], None);
    assert_eq!(outcome(&again), refused(401, "credentials_missing"));
}

/// A file without keys is as open as no file: it is refused where others can reach the server.
#[test]
fn keys_are_not_lost_by_a_reload_that_would_open_the_server() {
    let everywhere = "0.0.0.0:0".parse().expect("an address");
    let mut server = TestServer::guarded(&readme_auth(), |settings| {
        (settings.listen, settings.open) = (everywhere, false);
    });
    assert!(server.reload("").is_err());
    let local = SocketAddr::from(([127, 0, 0, 1], server.addr.port()));
    let without = fetch(local, "GET", "/channels/a", &[], None);
    assert_eq!(outcome(&without), refused(401, "credentials_missing"));
}
