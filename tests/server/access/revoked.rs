//! A subject is revoked: its earlier tokens are void at once, and its connections end.

use super::*;
use crate::common::ws::RawWs;
use crate::common::{Conn, await_that, fetch};

fn token_of(subject: &str, issued_at: u64) -> String {
    sign(&json!({
        "exp": now_unix_s() + 3600,
        "iat": issued_at,
        "sub": subject,
        "pushline": {"subscribe": ["*"], "publish": ["*"]},
    }))
}

fn call_back(server: &TestServer, subject: &str) -> (u16, String) {
    let target = format!("/v1/subjects/{subject}");
    outcome(&fetch(server.admin, "DELETE", &target, &[], None))
}

fn connections_of(server: &TestServer, subject: &str) -> Value {
    let target = format!("/v1/connections?subject={subject}");
    fetch(server.admin, "GET", &target, &[], None).json()["connections"].take()
}

#[test]
fn a_subject_is_cut_everywhere_and_comes_back_with_a_new_token_only() {
    let server = server();
    let (hers, his) = (token_of("jane/1", now_unix_s()), token_of("joe", now_unix_s()));
    let (mut sse, name) = stream(server.addr, "channel=news", &hers);
    let headers = [("Authorization", bearer(&hers))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut ws = RawWs::over(Conn::open(server.addr), "channel=news", &headers);
    let mut kept_alive = Conn::open(server.addr);
    kept_alive.send(crate::common::request("GET", "/channels/news", &headers, None));
    assert_eq!(kept_alive.response().status, 200);
    let (mut other, _) = stream(server.addr, "channel=news", &his);
    let listed = connections_of(&server, "jane/1");
    assert_eq!(listed.as_array().expect("a list").len(), 3, "{listed}");
    assert!(listed.as_array().expect("a list").iter().all(|entry| entry["subject"] == "jane/1"));

    assert_eq!(call_back(&server, "jane%2F1"), (204, String::new()));
    expect_end(&mut sse, "operator", 1008, "closed by the operator");
    assert_eq!(ws.answer().close(), (1008, "closed by the operator".to_owned()));
    for target in ["/sse?channel=news", "/channels/news"] {
        assert_eq!(outcome(&get_with(server.addr, target, &hers)), refused(401, "token_revoked"));
    }
    let target = format!("/sse/{name}/token");
    let refresh = fetch(server.addr, "POST", &target, &headers, Some(b""));
    assert_eq!(outcome(&refresh), refused(401, "token_revoked"));

    let fresh = token_of("jane/1", now_unix_s() + 2);
    assert_eq!(outcome(&get_with(server.addr, "/channels/news", &fresh)), allowed());
    publish_as_backend(server.addr, "news", "for him");
    assert_eq!(other.event().data, "for him");
    await_that("none of hers is left open", || {
        drop(std::mem::replace(&mut kept_alive, Conn::open(server.addr)));
        connections_of(&server, "jane/1").as_array().expect("a list").len() <= 1
    });
}

#[test]
fn a_subject_is_named_in_the_path() {
    let server = server();
    assert_eq!(call_back(&server, ""), refused(400, "subject"));
    assert_eq!(call_back(&server, "%"), refused(400, "subject"));
    let wrong = fetch(server.admin, "GET", "/v1/subjects/jane", &[], None);
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("DELETE")));
}
