//! `GET /channels/{channel}/events`: history in pages, for programs that do not stay connected.

use std::net::SocketAddr;

use pushline::log::Keeps;
use pushline::proto::name::Pattern;
use serde_json::{Value, json};

use crate::common::{Response, TestServer, bearer_token, fetch, publish};

const AUTH: &str = "hmac_secrets = [{ env = \"PUSHLINE_SECRET\" }]\nexpiry = \"optional\"\n";

fn get(addr: SocketAddr, target: &str) -> Response {
    fetch(addr, "GET", target, &[], None)
}

fn page(addr: SocketAddr, query: &str) -> Value {
    let response = get(addr, &format!("/channels/news/events{query}"));
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

fn datas(page: &Value) -> Vec<&str> {
    let events = page["events"].as_array().expect("events");
    events.iter().map(|event| event["data"].as_str().expect("text")).collect()
}

#[test]
fn history_is_read_page_by_page_and_goes_on_where_it_ended() {
    let server = TestServer::start();
    let names: Vec<String> = (0..250).map(|number| number.to_string()).collect();
    for name in &names {
        publish(server.addr, "news", name);
        publish(server.addr, "other", "not asked for");
    }
    let first = page(server.addr, "");
    assert_eq!(datas(&first), names[..100]);
    assert_eq!(first["more"], true);
    assert_eq!(first["events"][0]["id"], server.id(1));
    assert_eq!(first["events"][0]["channel"], "news");
    let after =
        |page: &Value| format!("?limit=120&after={}", page["next"].as_str().expect("an id"));
    let second = page(server.addr, &after(&first));
    assert_eq!(datas(&second), names[100..220]);
    let last = page(server.addr, &after(&second));
    assert_eq!(
        (datas(&last), &last["more"]),
        (names[220..].iter().map(|n| &**n).collect(), &json!(false))
    );
    let nothing = page(server.addr, &after(&last));
    assert_eq!((datas(&nothing).len(), &nothing["more"]), (0, &json!(false)));
    publish(server.addr, "news", "new");
    assert_eq!(datas(&page(server.addr, &after(&nothing))), ["new"]);
    assert_eq!(page(server.addr, "?after=earliest&limit=1")["events"][0]["data"], "0");
}

#[test]
fn a_loss_before_the_page_is_told_and_what_was_never_seen_is_none() {
    let server = TestServer::with(|settings| settings.channel_default.history_count = 3);
    let ids: Vec<String> =
        (0..6).map(|number| publish(server.addr, "news", &number.to_string())).collect();
    let all = page(server.addr, "");
    assert_eq!((datas(&all), &all["gap"]), (vec!["3", "4", "5"], &json!(null)));
    for (cursor, expected, gap) in [
        (&*ids[0], 3, json!("evicted")),
        (&*ids[2], 3, json!(null)),
        (&*ids[4], 1, json!(null)),
        ("elsewhere-7", 3, json!("epoch")),
        (&*server.id(1_000), 3, json!("epoch")),
    ] {
        let page = page(server.addr, &format!("?after={cursor}"));
        assert_eq!((datas(&page).len(), &page["gap"]), (expected, &gap), "{cursor}");
    }
    let unknown = get(server.addr, "/channels/never/events").json();
    assert_eq!((&unknown["events"], &unknown["more"]), (&json!([]), &json!(false)));
}

#[test]
fn a_page_is_bounded_in_bytes_and_holds_at_least_one_event() {
    let server = TestServer::start();
    let large = "x".repeat(40_000);
    for _ in 0..3 {
        publish(server.addr, "news", &large);
    }
    let first = page(server.addr, "?limit=1000");
    assert_eq!((datas(&first).len(), &first["more"]), (2, &json!(true)));
    let rest = page(server.addr, &format!("?after={}", first["next"].as_str().expect("an id")));
    assert_eq!((datas(&rest).len(), &rest["more"]), (1, &json!(false)));
}

#[test]
fn a_state_is_listed_as_it_is_without_a_gap() {
    let server = TestServer::with(|settings| {
        let mut of = settings.channel_default.clone();
        of.history = Keeps::Latest;
        settings.channels.push((Pattern::parse("news").expect("a pattern"), of));
    });
    for (key, data) in [("EUR", "1"), ("USD", "2"), ("EUR", "3")] {
        let headers = [("Event-Key", key)];
        fetch(server.addr, "POST", "/channels/news", &headers, Some(data.as_bytes()));
    }
    let state = page(server.addr, "");
    assert_eq!((datas(&state), &state["gap"]), (vec!["2", "3"], &json!(null)));
}

#[test]
fn only_who_may_read_the_channel_reads_its_history() {
    let server = TestServer::guarded(AUTH, |_| {});
    let of = |rights: Value| format!("Bearer {}", bearer_token(&json!({"pushline": rights})));
    let status = |rights: Value| {
        let headers = [("Authorization", &*of(rights))];
        fetch(server.addr, "GET", "/channels/news/events", &headers, None).status
    };
    assert_eq!(status(json!({"subscribe": ["news"]})), 200);
    assert_eq!(status(json!({"subscribe": ["other"], "publish": ["news"]})), 403);
    assert_eq!(get(server.addr, "/channels/news/events").status, 401);
}

#[test]
fn a_wrong_limit_is_refused() {
    let server = TestServer::start();
    for limit in ["0", "1001", "x", "-1", ""] {
        let response = get(server.addr, &format!("/channels/news/events?limit={limit}"));
        assert_eq!((response.status, &*response.error_code()), (400, "limit"), "{limit}");
    }
    let response = fetch(server.addr, "POST", "/channels/news/events", &[], Some(b""));
    assert_eq!(response.status, 405);
}
