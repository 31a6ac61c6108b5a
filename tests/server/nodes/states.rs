//! State channels of several nodes: a value that was set at one of them is the state at every other.

use pushline::config::Settings;
use pushline::log::Keeps;

use super::*;
use crate::common::describe;

/// A value as a reader sees it; `None`: it is gone.
type Value = (String, Option<String>);

fn node(broker: impl Fn(&mut Settings)) -> TestServer {
    TestServer::with(|settings| {
        settings.channel_default.history = Keeps::Latest;
        broker(settings);
    })
}

fn set(server: &TestServer, key: &str, data: &str) -> String {
    let headers = [("Event-Key", key)];
    let answer = fetch(server.addr, "POST", "/channels/rates", &headers, Some(data.as_bytes()));
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn remove(server: &TestServer, key: &str) {
    let headers = [("Event-Key", key), ("Event-Tombstone", "true")];
    let answer = fetch(server.addr, "POST", "/channels/rates", &headers, Some(b""));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn reader(server: &TestServer, after: &str) -> Sse {
    Sse::resume(server.addr, "channel=rates&envelope=json", after)
}

fn value(stream: &mut Sse) -> Value {
    let event = stream.event();
    assert_eq!(event.event, "message", "no gap: {}", event.data);
    let event = event.json();
    let text = |of: &str| event[of].as_str().map(str::to_owned);
    let data = text("data").filter(|_| event["tombstone"] != true);
    (text("event_key").expect("a key"), data)
}

fn is_one_state_at_every_node(node: impl Fn() -> TestServer) {
    let is = |key: &str, data: Option<&str>| (key.to_owned(), data.map(str::to_owned));
    let (here, there) = (node(), node());
    let mut live = reader(&there, "");
    let first = set(&here, "EUR", "1.0");
    set(&there, "USD", "2.0");
    set(&there, "EUR", "1.1");
    remove(&here, "USD");
    let changes = [is("EUR", Some("1.0")), is("USD", Some("2.0"))];
    let state = [is("EUR", Some("1.1")), is("USD", None)];
    for expected in changes.iter().chain(&state) {
        assert_eq!(value(&mut live), *expected, "live at one, set at both");
    }
    // A node that starts now has it, too.
    let late = node();
    for server in [&here, &there, &late] {
        await_that("the state is there", || {
            describe(server.addr, "rates")["last_id"] == live.last_id.as_str()
        });
        // A newcomer, and one that saw what was replaced, at whichever node.
        for mut stream in [reader(server, ""), reader(server, &first)] {
            state.iter().for_each(|expected| assert_eq!(value(&mut stream), *expected));
        }
    }
    set(&late, "EUR", "1.2");
    assert_eq!(value(&mut live), is("EUR", Some("1.2")));
    await_that("the first node has it", || {
        describe(here.addr, "rates")["last_id"] == live.last_id.as_str()
    });
    let mut newcomer = reader(&here, "");
    assert_eq!(value(&mut newcomer), is("USD", None));
    assert_eq!(value(&mut newcomer), is("EUR", Some("1.2")));
}

#[test]
fn a_state_is_one_at_every_node() {
    let Some(nats) = Nats::start() else { return };
    is_one_state_at_every_node(|| node(|settings| settings.cluster.nats = vec![nats.url()]));
}

#[test]
fn a_state_over_redis_is_the_same() {
    let Some(redis) = Redis::start() else { return };
    is_one_state_at_every_node(|| node(|settings| settings.cluster.redis = vec![redis.url()]));
}
