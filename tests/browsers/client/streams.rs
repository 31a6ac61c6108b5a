//! Token streams as a page reads and produces them, and what is published to others.

use std::time::Duration;

use serde_json::{Value, json};

use super::{BOTH, Pages};
use crate::common::browser::Kind;
use crate::common::relay::Relay;
use crate::common::{TestServer, await_that, describe, publish};

#[test]
fn chromium_produces_a_stream_that_a_broken_connection_does_not_harm() {
    produce(Kind::Chromium);
}

#[test]
fn firefox_produces_a_stream_that_a_broken_connection_does_not_harm() {
    produce(Kind::Firefox);
}

fn produce(kind: Kind) {
    let server = TestServer::with(|settings| settings.stream_grace = Duration::from_secs(600));
    let relay = Relay::start(server.addr);
    let base = format!("http://{}", relay.addr);
    let Some(mut pages) = Pages::tabs(kind, &base, server.addr, 1) else { return };
    pages.follow("");
    pages.first("client.produce('s', { stream: 'msg' }).then((it) => void (made = it))");
    let first = pages.first("Promise.all([made.append('one'), made.append({ n: 2 })])");
    assert_eq!((&first[0]["offset"], &first[1]["offset"]), (&json!(0), &json!(1)));
    pages.first(
        "void (tokens = [], read = (async () => {
            for await (const token of client.stream('s')) tokens.push(token);
            return tokens;
        })())",
    );
    pages.await_in(0..1, "tokens.length === 2");
    relay.cut();
    // Some may be on their way when it is cut again.
    pages.first("void Array.from({ length: 100 }, (_, n) => made.append(`${n}`))");
    relay.cut();
    let ended = pages.first("made.append('last').then(() => made.end())");
    assert_eq!((&ended["state"], &ended["events"]), (&json!("done"), &json!(103)));
    assert_eq!(ended["stream"], "msg");
    let numbers = (0..100).map(|number| json!(number.to_string()));
    let all = [json!("one"), json!({"n": 2})].into_iter().chain(numbers).chain([json!("last")]);
    assert_eq!(pages.first("read"), Value::from_iter(all));
    assert_eq!(pages.first("made.append('x').then(() => '', ({ code }) => code)"), "stream_ended");
}

#[test]
fn a_page_pipes_into_a_stream_is_told_who_stops_it_and_may_not_go_on() {
    let server = TestServer::start();
    let Some(mut pages) = Pages::one(Kind::Firefox, server.addr) else { return };
    pages.follow("");
    let piped = pages.first(
        "client.produce('s').then((made) => new Blob(['piped']).stream()
            .pipeThrough(new TextDecoderStream()).pipeTo(made.writable).then(() => made.ended))",
    );
    assert_eq!((&piped["state"], &piped["events"]), (&json!("done"), &json!(1)));
    pages.first("client.produce('s').then((it) => (made = it).append('a'))");
    let cancelled =
        pages.first("client.cancel('s').then(({ id, state }) => [id === made.stream, state])");
    assert_eq!(cancelled, json!([true, "cancelled"]));
    assert_eq!(pages.first("made.ended.then(({ state }) => state)"), "cancelled");
    let refused =
        pages.first("client.produce('s s').then((it) => it.ended).catch(({ code }) => code)");
    assert_eq!(refused, "channel_name_invalid");
}

#[test]
fn what_a_page_publishes_to_others_does_not_come_back_over_either_transport() {
    let server = TestServer::start();
    for (kind, transport) in [(Kind::Chromium, "sse"), (Kind::Firefox, "ws")] {
        let base = format!("http://{}", server.addr);
        let Some(mut pages) = Pages::tabs(kind, &base, server.addr, 2) else { return };
        assert!(BOTH.contains(&transport));
        // Of two tabs one has the connection of both.
        pages.follow(&format!("transport: '{transport}'"));
        for page in 0..2 {
            let sent = pages.browser.evaluate_in(
                page..page + 1,
                "client.publish('c', 'mine', { others: true }).then(({ id }) => typeof id)",
            );
            assert_eq!(sent, ["string"]);
        }
        pages.publish("after");
        pages.await_seen();
        // Nor when it is replayed.
        pages.first("client.publish('c', 'again', { others: true }).then(() => true)");
        pages.browser.evaluate_in(0..2, "client.subscribe('other')");
        await_that("it is read", || describe(server.addr, "other")["subscribers"] == 1);
        publish(server.addr, "other", "elsewhere");
        pages.expected.push(json!("elsewhere"));
        pages.await_seen_in(0..1);
    }
}
