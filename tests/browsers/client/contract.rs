//! What a page may rely on, whatever the network does: gaps are reported, types and bytes arrive as
//! they were sent, and the client has the shape of an `EventSource`.

use serde_json::json;

use super::{BOTH, Pages};
use crate::common::browser::Kind;
use crate::common::{TestServer, fetch, publish};

#[test]
fn a_gap_is_told_and_may_load_the_page_again() {
    let server = TestServer::with(|settings| settings.channel_default.history_count = 3);
    let first = publish(server.addr, "c", "1");
    for data in ["2", "3", "4", "5"] {
        publish(server.addr, "c", data);
    }
    for transport in BOTH {
        let Some(mut pages) = Pages::one(Kind::Chromium, server.addr) else { return };
        pages.first(
            "void (reloads = 0, navigation.onnavigate = (event) => {
                reloads += event.navigationType === 'reload';
                event.preventDefault();
            })",
        );
        pages.follow(&format!("after: '{first}', transport: '{transport}', onGap: 'reload'"));
        pages.expected = ["gap evicted", "3", "4", "5"].map(|data| json!(data)).to_vec();
        pages.await_seen();
        assert_eq!(pages.first("reloads"), 1);
    }
}

#[test]
fn chromium_hands_over_what_was_published() {
    round_trip(Kind::Chromium, "ws");
}

#[test]
fn firefox_hands_over_what_was_published() {
    round_trip(Kind::Firefox, "sse");
}

/// Text, JSON, bytes and types, in both directions; and each event in a loop that awaits it.
fn round_trip(kind: Kind, transport: &str) {
    let server = TestServer::start();
    let Some(mut pages) = Pages::one(kind, server.addr) else { return };
    pages.follow(&format!("transport: '{transport}'"));
    let told = pages.first(
        "(async () => {
            const told = [];
            const loop = (async () => { for await (const { event } of client) told.push(event); })();
            client.on('goal', (data, { id, channel }) => told.push([data, typeof id, channel]));
            client.on('state', (data) => told.push(data));
            await client.publish('c', { n: 1, text: 'ü' }, { event: 'goal' });
            await client.publish('c', 'two\\nlines', { event: 'state' });
            await client.publish('c', new Uint8Array([0, 255]), { key: 'k' });
            await client.publish('c', new Uint8Array([0, 255]), { key: 'k' });
            await until(() => told.length === 4 && seen.length === 1);
            client.close();
            await loop;
            return [told, [...seen[0]], client.state];
        })()",
    );
    let told_first = json!([{ "n": 1, "text": "ü" }, "string", "c"]);
    assert_eq!(
        told,
        json!([[told_first, "goal", "state", "message", "closed"], [0, 255], "closed"])
    );
}

/// A page that uses an `EventSource` need only change its name.
#[test]
fn an_event_source_may_be_ours() {
    let server = TestServer::start();
    let Some(mut pages) = Pages::one(Kind::Firefox, server.addr) else { return };
    pages.first(
        "import('/pushline.js').then(({ Pushline }) => {
            source = new Pushline.EventSource('/sse?channel=c');
            source.onmessage = ({ data, lastEventId }) => seen.push(data + typeof lastEventId);
            source.addEventListener('goal', ({ data }) => seen.push('goal ' + data));
            return new Promise((opened) => source.onopen = () => opened(source.readyState));
        })",
    );
    publish(server.addr, "c", "text");
    let typed = [("Event-Type", "goal"), ("Content-Type", "application/json")];
    assert_eq!(fetch(server.addr, "POST", "/channels/c", &typed, Some(b"{\"n\":1}")).status, 200);
    pages.expected = ["textstring", "goal {\"n\":1}"].map(|data| json!(data)).to_vec();
    pages.await_seen();
    assert_eq!(pages.first("source.close(); source.readyState"), 2);
}
