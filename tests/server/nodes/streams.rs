//! Token streams of several nodes: a producer on one, its readers and who stops it on others.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::common::await_subscribers;
use crate::common::program::{Program, free_ports};
use crate::common::ws::Ws;
use crate::streams::{Producer, View, await_tokens, datas, read_view, stream_of};

const LONG: Duration = Duration::from_secs(600);

fn await_state(addr: SocketAddr, state: &str) {
    await_that("the stream is so", || stream_of(addr, "c")["state"] == state);
}

/// A stream of one node, as those of another see it.
fn is_read_and_ended_everywhere(here: &TestServer, there: &TestServer) {
    let mut producer = Producer::events(here.addr, "c", &[("Stream-Id", "msg")]);
    ["a", "b"].iter().for_each(|token| producer.token(token));
    await_tokens(there.addr, "c", 2);
    let mut late = Sse::open(there.addr, "channel=c&last_event_id=stream");
    let view = View::open(there.addr, "/channels/c/stream");
    await_subscribers(there.addr, "c", 2);
    // Others publish between its tokens.
    publish(there.addr, "other", "between");
    producer.token("c");
    let answer = producer.end();
    assert_eq!((&answer["state"], &answer["events"]), (&json!("done"), &json!(3)));
    assert_eq!(datas(&view.read().text()), ["a", "b", "c", "[DONE]"]);
    let opened = late.event();
    assert_eq!(opened.data, "{\"stream\":\"msg\",\"state\":\"open\",\"events\":0}");
    let tokens = late.events(3);
    assert_eq!(tokens.iter().map(|of| &*of.data).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(
        (&answer["first_id"], &answer["last_id"]),
        (&json!(tokens[0].id), &json!(tokens[2].id))
    );
    let ended = late.event();
    assert_eq!(
        ended.data,
        "{\"stream\":\"msg\",\"state\":\"done\",\"events\":3,\"reason\":\"done\"}"
    );
    await_state(here.addr, "done");
    assert_eq!(stream_of(here.addr, "c"), stream_of(there.addr, "c"));
    let again = [("Content-Type", "text/event-stream"), ("Stream-Id", "msg")];
    let refused = fetch(there.addr, "POST", "/channels/c/stream", &again, Some(b"data: x\n\n"));
    assert_eq!((refused.status, &*refused.error_code()), (409, "stream_ended"));
}

#[test]
fn a_stream_of_one_node_is_read_live_and_late_on_every_other() {
    let Some(nats) = Nats::start() else { return };
    let (here, there) = (node(&nats), node(&nats));
    is_read_and_ended_everywhere(&here, &there);
    // A node that starts now has it, too.
    let late = node(&nats);
    assert_eq!(
        datas(&read_view(late.addr, "/channels/c/stream").text()),
        ["a", "b", "c", "[DONE]"]
    );
}

#[test]
fn a_stream_over_redis_is_the_same() {
    let Some(redis) = Redis::start() else { return };
    let node = || TestServer::with(|settings| settings.cluster.redis = vec![redis.url()]);
    is_read_and_ended_everywhere(&node(), &node());
}

#[test]
fn a_cancel_on_any_node_reaches_the_producer_on_its_own() {
    let Some(nats) = Nats::start() else { return };
    let (here, there) = (node(&nats), node(&nats));
    let cancel = || fetch(there.addr, "POST", "/channels/c/stream/cancel", &[], Some(b""));
    assert_eq!(cancel().status, 404);
    let mut producer = Producer::events(here.addr, "c", &[("Stream-Id", "one")]);
    producer.token("a");
    await_tokens(there.addr, "c", 1);
    let other = [("Content-Type", "text/event-stream"), ("Stream-Id", "two")];
    let refused = fetch(there.addr, "POST", "/channels/c/stream", &other, Some(b"data: x\n\n"));
    assert_eq!((refused.status, &*refused.error_code()), (409, "stream_open"));
    let cancelled = cancel();
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    assert_eq!(
        (&cancelled.json()["id"], &cancelled.json()["state"]),
        (&json!("one"), &json!("cancelled"))
    );
    let answer = producer.answer();
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("cancelled")));

    let mut ws = Ws::envelope(here.addr, "");
    ws.op(&json!({"op": "open", "channel": "c", "stream": "three", "ref": 1}));
    assert_eq!(ws.json()["ok"], true);
    ws.op(&json!({"op": "append", "channel": "c", "data": "b", "ref": 2}));
    assert_eq!((ws.json()["ok"].clone(), cancel().status), (true.into(), 200));
    let told = ws.json();
    assert_eq!((&told["stream"], &told["state"]), (&json!("three"), &json!("cancelled")));
}

#[test]
fn a_producer_goes_on_at_any_node_and_the_one_before_has_no_say_any_more() {
    let Some(nats) = Nats::start() else { return };
    let patient = || {
        TestServer::with(|settings| {
            settings.cluster.nats = vec![nats.url()];
            settings.stream_grace = LONG;
        })
    };
    let (here, there) = (patient(), patient());
    let mut cut = Producer::events(here.addr, "c", &[("Stream-Id", "s")]);
    ["0", "1", "2"].iter().for_each(|token| cut.token(token));
    await_tokens(there.addr, "c", 3);
    drop(cut);
    let resumed = [("Stream-Id", "s"), ("Stream-Offset", "2")];
    let mut second = Producer::events(here.addr, "c", &resumed);
    ["2", "3"].iter().for_each(|token| second.token(token));
    await_tokens(there.addr, "c", 4);
    let mut third =
        Producer::events(there.addr, "c", &[("Stream-Id", "s"), ("Stream-Offset", "4")]);
    third.token("4");
    await_tokens(here.addr, "c", 5);
    second.token("late");
    let refused = second.answer();
    assert_eq!((refused.status, &*refused.error_code()), (409, "stream_taken"));
    assert_eq!(third.end()["events"], 5);
    for server in [&here, &there] {
        await_state(server.addr, "done");
        let view = read_view(server.addr, "/channels/c/stream");
        assert_eq!(datas(&view.text()), ["0", "1", "2", "3", "4", "[DONE]"]);
    }
}

#[test]
fn a_producer_that_does_not_come_back_ends_its_stream_on_every_node() {
    let Some(nats) = Nats::start() else { return };
    let hasty = || {
        TestServer::with(|settings| {
            settings.cluster.nats = vec![nats.url()];
            settings.stream_grace = Duration::from_millis(10);
        })
    };
    let (here, there) = (hasty(), hasty());
    let mut cut = Producer::events(here.addr, "c", &[]);
    cut.token("a");
    await_tokens(there.addr, "c", 1);
    let view = View::open(there.addr, "/channels/c/stream");
    drop(cut);
    assert_eq!(datas(&view.read().text()), ["a"], "without [DONE] it is not done");
    await_state(here.addr, "error");
    assert_eq!(metric(there.admin, "pushline_streams_ended_total{reason=\"lost\"}"), 1);
}

#[test]
fn a_node_that_is_killed_takes_its_producers_with_it_after_its_lease() {
    let Some(nats) = Nats::start() else { return };
    let url = nats.url();
    let start = || {
        let options = ["--cluster-nats", &url, "--cluster-lease", "1s", "--workers", "1"];
        Program::start(free_ports(2), &[&options[..], &["--cpus", "none"]].concat())
    };
    let (here, there, other) = (start(), start(), start());
    let mut producer = Producer::events(here.addr, "c", &[]);
    producer.token("a");
    let mut goes_on = Producer::events(there.addr, "d", &[]);
    for node in [&there, &other] {
        await_tokens(node.addr, "c", 1);
    }
    let view = View::open(other.addr, "/channels/c/stream");
    here.kill();
    assert_eq!(datas(&view.read().text()), ["a"]);
    await_state(there.addr, "error");
    goes_on.token("still here");
    assert_eq!(goes_on.end()["state"], "done");
}
