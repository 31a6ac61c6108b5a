//! All tabs of an origin share one connection, whichever of them opens, closes or freezes.

use serde_json::json;

use super::{BOTH, Pages, streams};
use crate::common::browser::Kind;
use crate::common::{TestServer, await_that, publish_answer};

const TABS: usize = 8;

#[test]
fn chromium_has_one_connection_for_eight_tabs_and_loses_nothing_when_its_tab_goes() {
    one_connection(Kind::Chromium, "sse");
}

#[test]
fn firefox_has_one_connection_for_eight_tabs_and_loses_nothing_when_its_tab_goes() {
    one_connection(Kind::Firefox, "ws");
}

fn one_connection(kind: Kind, transport: &str) {
    let server = TestServer::start();
    let base = format!("http://{}", server.addr);
    let Some(mut pages) = Pages::tabs(kind, &base, server.addr, TABS) else { return };
    pages.follow(&format!("transport: '{transport}'"));
    await_that("they have one", || streams(server.admin) == 1);
    pages.publish("to all");
    pages.await_seen();
    // The first tab leads, and the others follow it in turn.
    pages.close(0);
    pages.publish("while none leads");
    pages.await_seen();
    if matches!(kind, Kind::Chromium) {
        pages.crash(0);
        pages.publish("after a crash");
        pages.await_seen();
    }
    await_that("they have one again", || streams(server.admin) == 1);
    let asked =
        "client.publish('c', 'from a tab that does not lead').then(({ channel }) => channel)";
    let last = pages.count - 1;
    assert_eq!(pages.browser.evaluate_in(last..last + 1, asked), [json!("c")]);
    pages.expected.push(json!("from a tab that does not lead"));
    pages.await_seen();
}

/// A tab wants the past of a channel that another has read, and a channel of its own.
#[test]
fn a_tab_gets_what_it_asks_for_whatever_the_others_have_read() {
    let server = TestServer::start();
    let base = format!("http://{}", server.addr);
    for transport in BOTH {
        let channel = format!("past-{transport}");
        publish_answer(server.addr, "c", "before");
        publish_answer(server.addr, &channel, "one");
        let Some(mut pages) = Pages::tabs(Kind::Chromium, &base, server.addr, 2) else { return };
        pages.follow(&format!("transport: '{transport}'"));
        pages.publish("now");
        pages.await_seen();
        let past = format!("client.subscribe('{channel}', {{ after: 'earliest' }})");
        pages.browser.evaluate_in(1..2, &past);
        pages.await_in(1..2, "seen.includes('one')");
        publish_answer(server.addr, &channel, "two");
        pages.publish("still");
        pages.await_in(1..2, "seen.join() === 'now,one,two,still'");
        pages.await_seen_in(0..1);
        pages.browser.evaluate_in(1..2, &format!("client.unsubscribe('{channel}')"));
        publish_answer(server.addr, &channel, "three");
        pages.publish("the end");
        pages.await_in(1..2, "seen.join() === 'now,one,two,still,the end'");
        pages.await_seen_in(0..1);
    }
}

/// A browser stops the scripts of a tab in the background; the others carry on without it.
#[test]
fn a_frozen_tab_that_leads_is_replaced_and_catches_up_when_it_wakes() {
    let server = TestServer::start();
    let base = format!("http://{}", server.addr);
    let Some(mut pages) = Pages::tabs(Kind::Chromium, &base, server.addr, 2) else { return };
    pages.follow_in(0..1, "");
    pages.follow_in(1..2, "");
    pages.publish("first");
    pages.await_seen();
    pages.browser.protocol(0, "Page.setWebLifecycleState", &json!({ "state": "frozen" }));
    pages.publish("while it sleeps");
    pages.browser.evaluate_in(1..2, "dispatchEvent(new Event('focus'))");
    pages.await_seen_in(1..2);
    pages.browser.protocol(0, "Page.setWebLifecycleState", &json!({ "state": "active" }));
    pages.publish("awake");
    pages.await_seen();
    await_that("there is one connection again", || streams(server.admin) == 1);
}
