//! Access end to end: real sockets, real tokens, the settings of the README. Each rule has a test
//! that fails when the rule is taken away.

mod backend;
mod browsers;
mod channels;
mod forgeries;
mod injection;
mod listeners;
mod readme;
mod refresh;
mod reload;
mod revoked;
mod rights;
mod secrets;

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::{Response, SECRET, Sse, TestServer, bearer_token as sign, fetch};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

const README: &str = include_str!("../../../README.md");

/// The origin in the README's settings.
const APP: &str = "https://app.example";
const FOREIGN: &str = "https://evil.example";

/// A guarded server with the settings of the README.
fn server() -> TestServer {
    TestServer::guarded(&readme_auth(), |_| {})
}

/// The `[auth]` section of the README.
fn readme_auth() -> String {
    let (_, from) = README.split_once("# pushline.toml\n[auth]\n").expect("a snippet");
    from.split_once("```").expect("its end").0.to_owned()
}

fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A token for an hour.
fn token(subscribe: &[&str], publish: &[&str]) -> String {
    token_until(now_unix_s() + 3600, subscribe, publish)
}

fn token_until(exp: u64, subscribe: &[&str], publish: &[&str]) -> String {
    sign(&json!({
        "exp": exp,
        "sub": "somebody",
        "pushline": {"subscribe": subscribe, "publish": publish},
    }))
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A request with a token and no body.
fn get_with(addr: SocketAddr, target: &str, token: &str) -> Response {
    let mut conn = crate::common::Conn::open(addr);
    let authorization = bearer(token);
    conn.send(crate::common::request("GET", target, &[("Authorization", &authorization)], None));
    // A stream has no length: there is only its head to look at.
    conn.response()
}

/// Status and code of a publish with these headers.
fn publish_with(addr: SocketAddr, target: &str, headers: &[(&str, &str)]) -> (u16, String) {
    outcome(&fetch(addr, "POST", target, headers, Some(b"x")))
}

/// Status, and code if it is an error.
fn outcome(response: &Response) -> (u16, String) {
    let code = if response.status < 400 { String::new() } else { response.error_code() };
    (response.status, code)
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn allowed() -> (u16, String) {
    (200, String::new())
}

/// A stream opened with a token, and the name that its first event tells.
fn stream(addr: SocketAddr, query: &str, token: &str) -> (Sse, String) {
    let mut sse = Sse::open_with(addr, query, &[("Authorization", &bearer(token))]);
    let name = connection_name(&mut sse);
    (sse, name)
}

/// What the stream's first event says.
fn connection_name(sse: &mut Sse) -> String {
    let first = sse.event();
    assert_eq!(first.event, "pushline.open");
    first.json()["connection"].as_str().expect("a name").to_owned()
}

/// Publishes with the README's publish key.
fn publish_as_backend(addr: SocketAddr, channel: &str, data: &str) {
    let headers = [("X-API-Key", crate::common::PUBLISH_KEY)];
    let target = format!("/channels/{channel}");
    let response = fetch(addr, "POST", &target, &headers, Some(data.as_bytes()));
    assert_eq!(response.status, 200, "{}", response.text());
}

/// A stream says why it ends. Its id is kept, so that the page resumes where it was.
fn expect_end(sse: &mut Sse, reason: &str, code: u16, message: &str) {
    let before = sse.last_id.clone();
    let end = sse.event();
    assert_eq!(end.event, "pushline.end");
    assert_eq!(end.json(), json!({"reason": reason, "code": code, "message": message}));
    assert!(before.is_empty() || sse.last_id == before, "{end:?}");
    assert_eq!(sse.next_event(), None);
}
