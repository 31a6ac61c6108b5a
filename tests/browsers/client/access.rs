//! Tokens: renewed during a connection, and refusals that a page is told about.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::{BOTH, Pages};
use crate::common::browser::Kind;
use crate::common::{PUBLISH_KEY, TestServer, bearer_token, fetch};

const AUTH: &str = "hmac_secrets = [{ env = \"PUSHLINE_SECRET\" }]\n\
                    publish_keys = [{ name = \"test\", env = \"PUSHLINE_PUBLISH_KEY\" }]";

/// A token for a channel that expires in this many seconds.
fn token(channel: &str, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
    let rights = json!({ "subscribe": [channel], "publish": [channel] });
    bearer_token(&json!({ "sub": "ann", "exp": now + seconds, "pushline": rights }))
}

#[test]
fn a_token_is_renewed_on_the_open_connection_before_it_runs_out() {
    let server = TestServer::guarded(AUTH, |_| {});
    for (kind, transport) in [(Kind::Chromium, "ws"), (Kind::Firefox, "sse")] {
        let Some(mut pages) = Pages::one(kind, server.addr) else { return };
        // It is renewed 30 s before it expires: here at once, and then not again.
        let tokens = json!([token("c", 32), token("c", 3600)]);
        pages.first(&format!("void (tokens = {tokens}, asked = 0)"));
        pages.follow(&format!("transport: '{transport}', token: () => tokens[asked++]"));
        pages.await_in(0..1, "asked === 2");
        let key = [("X-API-Key", PUBLISH_KEY)];
        assert_eq!(fetch(server.addr, "POST", "/channels/c", &key, Some(b"after")).status, 200);
        pages.expected.push(json!("after"));
        pages.await_seen();
        assert_eq!(pages.first("states.filter((s) => s.startsWith('connecting')).length"), 1);
    }
}

#[test]
fn a_connection_whose_token_ran_out_comes_back_with_a_new_one() {
    let server = TestServer::guarded(AUTH, |_| {});
    for transport in BOTH {
        let Some(mut pages) = Pages::one(Kind::Chromium, server.addr) else { return };
        // No new one comes in time.
        let tokens = json!([token("c", 2), token("c", 3600)]);
        pages.first(&format!("void (tokens = {tokens}, isCut = false)"));
        pages.follow(&format!("transport: '{transport}', token: () => tokens[+isCut]"));
        pages.first("void client.on('state', (state) => isCut ||= state === 'waiting')");
        pages.await_in(0..1, "isCut && client.state === 'open'");
        assert_eq!(pages.first("errors"), json!([]));
    }
}

#[test]
fn a_page_is_told_that_it_may_not() {
    let server = TestServer::guarded(AUTH, |_| {});
    for (transport, given, expected) in [
        ("sse", token("other", 3600), "403 subscribe_forbidden"),
        ("ws", token("other", 3600), "403 subscribe_forbidden"),
        ("sse", token("c", -60), "401 token_expired"),
        ("ws", token("c", -60), "401 token_expired"),
    ] {
        let Some(mut pages) = Pages::one(Kind::Chromium, server.addr) else { return };
        let options = format!("channels: ['c'], transport: '{transport}', token: '{given}'");
        pages.first(&format!("void follow('{}', {{ {options} }})", pages.base));
        pages.await_in(0..1, "errors.length > 0 && client.state === 'denied'");
        assert_eq!(pages.first("errors[0]"), expected, "{transport}");
        // The same goes for a publisher.
        let sent = "client.publish('c', 'x').catch(({ status }) => status)";
        let status: u64 = expected[..3].parse().expect("a status");
        assert_eq!(pages.first(sent), status);
    }
}
