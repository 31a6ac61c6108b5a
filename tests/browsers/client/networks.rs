//! Networks that buffer, refuse, go dark or go away.

use serde_json::json;

use super::{BOTH, Pages, streams};
use crate::cable::Cable;
use crate::common::browser::Kind;
use crate::common::identity::Identity;
use crate::common::proxies::{self, HAPROXY, NGINX, Proxy};
use crate::common::relay::Relay;
use crate::common::{TestServer, await_that, describe, metric, publish};

/// Many configurations of nginx do this: an answer is passed on only when it is complete.
const BUFFERING: proxies::Kind = NGINX.with(&[
    ("listen 443", "listen 127.0.0.1:PORT"),
    ("proxy_buffering off;", "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"),
]);

/// Many know nothing of WebSockets.
const WITHOUT_UPGRADES: proxies::Kind = NGINX.with(&[
    ("listen 443", "listen 127.0.0.1:PORT"),
    ("proxy_set_header Upgrade $http_upgrade;", ""),
]);

#[test]
fn over_tls_the_client_follows_and_publishes() {
    let identity = Identity::new(&["localhost"]);
    let server = TestServer::with(|settings| identity.serve(settings));
    let at = server.server().listen_tls().expect("a TLS listener");
    let base = format!("https://localhost:{}", at.port());
    for (kind, transport) in [Kind::Chromium, Kind::Firefox].into_iter().zip(BOTH) {
        let Some(mut pages) = Pages::tabs(kind, &base, server.addr, 1) else { return };
        assert_eq!(pages.follow(&format!("transport: '{transport}'")), [transport]);
        pages.publish("to the page");
        pages.await_seen();
        pages.first("client.publish('c', 'by the page').then(() => true)");
        pages.expected.push(json!("by the page"));
        pages.await_seen();
    }
}

#[test]
fn behind_an_nginx_that_buffers_the_client_delivers_over_a_websocket_and_says_so() {
    let server =
        TestServer::with(|settings| settings.heartbeat = std::time::Duration::from_secs(1));
    let Some(proxy) = Proxy::start(&BUFFERING, server.addr) else { return };
    let base = format!("https://{}", proxy.host());
    let Some(mut pages) = Pages::tabs(Kind::Chromium, &base, server.addr, 1) else { return };
    assert_eq!(pages.follow(""), ["ws"]);
    let states = pages.first("states");
    assert!(states.as_array().expect("a list").contains(&json!("buffered: ws")), "{states}");
    pages.publish("through");
    pages.await_seen();
    let counted = "pushline_client_fallbacks_total{reason=\"buffered\"}";
    assert_eq!(metric(server.admin, counted), 1);
    // The network is known now.
    let again = format!("client.close(); follow('{base}', {{ channels: ['c'] }})");
    assert_eq!(pages.first(&again), "ws");
    assert_eq!(metric(server.admin, counted), 1);
}

#[test]
fn behind_an_nginx_that_refuses_upgrades_the_client_delivers_over_an_event_stream() {
    let server = TestServer::start();
    let Some(proxy) = Proxy::start(&WITHOUT_UPGRADES, server.addr) else { return };
    let base = format!("https://{}", proxy.host());
    let Some(mut pages) = Pages::tabs(Kind::Firefox, &base, server.addr, 1) else { return };
    pages.first("void (localStorage[`pushline ${location.origin}/ undefined`] = 'ws')");
    assert_eq!(pages.follow(""), ["sse"]);
    pages.publish("through");
    pages.await_seen();
    assert_eq!(metric(server.admin, "pushline_client_fallbacks_total{reason=\"refused\"}"), 1);
}

#[test]
fn behind_haproxy_the_client_delivers_over_either_transport() {
    let server = TestServer::start();
    let Some(proxy) = Proxy::start(&HAPROXY, server.addr) else { return };
    let base = format!("https://{}", proxy.host());
    for (kind, transport) in [(Kind::Chromium, "ws"), (Kind::Firefox, "sse")] {
        let Some(mut pages) = Pages::tabs(kind, &base, server.addr, 2) else { return };
        assert_eq!(pages.follow(&format!("transport: '{transport}'")), [transport; 2]);
        let sent = pages.first("client.publish('c', 'through').then(({ channel }) => channel)");
        assert_eq!(sent, "c");
        pages.expected.push(json!("through"));
        pages.await_seen();
    }
}

/// Not a relay of ours that swallows bytes, but the cable: what is sent is lost, and no end is seen.
#[test]
fn when_the_link_goes_dark_the_client_knows_and_resumes_when_it_is_back() {
    let Some(cable) = Cable::plug_in() else { return };
    let server = cable.serve(&["--heartbeat", "1s", "--dead-time", "10m", "--open"]);
    let base = format!("http://{}", server.addr);
    for (kind, transport) in [(Kind::Chromium, "sse"), (Kind::Firefox, "ws")] {
        let Some(mut pages) = Pages::tabs(kind, &base, server.addr, 1) else { return };
        pages.follow(&format!("transport: '{transport}'"));
        pages.publish("before");
        pages.await_seen();
        cable.set("down");
        pages.await_in(0..1, "states.some((state) => state.startsWith('waiting'))");
        pages.first("void (sent = client.publish('c', 'written in the dark'))");
        cable.set("up");
        assert_eq!(pages.first("sent.then(({ channel }) => channel)"), "c");
        pages.expected.push(json!("written in the dark"));
        pages.publish("after");
        pages.await_seen();
    }
}

/// No server has to be there for that: what is waited for is written down, and not waited for.
#[test]
fn attempts_back_off_at_random_and_as_a_server_says() {
    const REFUSED: &str =
        "fetch = async () => new Response('{}', { status: 503, headers: HEADERS })";
    let server = TestServer::start();
    // Its other timers watch over a request, or wait for ever.
    let note = "waits = [], timer = setTimeout, Math.random = () => 0.5,
        setTimeout = (then, ms) => {
            const isPause = 0 < ms && ms <= 30000 && ms !== 10000 && ms !== 5000;
            if (isPause) waits.push(ms);
            return timer(then, isPause ? 0 : ms);
        }";
    let doubled = json!([500, 1000, 2000, 4000, 8000, 15000, 15000]);
    for (headers, expected) in [("{}", doubled), ("{ 'Retry-After': '7' }", json!(vec![7000; 7]))] {
        let Some(mut pages) = Pages::one(Kind::Chromium, server.addr) else { return };
        let refused = REFUSED.replace("HEADERS", headers);
        pages.first("import('/pushline.js').then((module) => { ({ Pushline } = module); })");
        pages.first(&format!("void ({refused}, {note}, seen.length = 0)"));
        pages.first("void (client = new Pushline('/', { channels: ['c'], share: false }))");
        pages.await_in(0..1, "waits.length >= 7");
        assert_eq!(pages.first("waits.slice(0, 7)"), expected);
        pages.first("client.close()");
    }
}

/// The path takes bytes and brings none: no end, no error.
#[test]
fn a_path_that_went_dark_is_left_within_one_and_a_half_beats() {
    let server =
        TestServer::with(|settings| settings.heartbeat = std::time::Duration::from_secs(1));
    for (kind, transport) in [(Kind::Chromium, "sse"), (Kind::Firefox, "ws")] {
        let relay = Relay::start(server.addr);
        let base = format!("http://{}", relay.addr);
        let Some(mut pages) = Pages::tabs(kind, &base, server.addr, 1) else { return };
        pages.follow(&format!("transport: '{transport}'"));
        pages.publish("first");
        pages.await_seen();
        relay.silence();
        let began = pages.first("performance.now()").as_f64().expect("a time");
        pages.publish("in the dark");
        let left = pages.first("until(() => states.some((s) => s.startsWith('waiting'))).then(() => performance.now())");
        // One and a half beats of a second, and time for a busy machine.
        assert!(left.as_f64().expect("a time") - began < 10_000.0, "{began} {left}");
        pages.await_seen();
    }
}

/// Whichever is cut: the answer to a publish, or the connection it waits for.
#[test]
fn what_is_published_without_a_network_is_published_once_when_it_is_back() {
    let server = TestServer::start();
    let relay = Relay::start(server.addr);
    let base = format!("http://{}", relay.addr);
    for transport in BOTH {
        let Some(mut pages) = Pages::tabs(Kind::Chromium, &base, server.addr, 1) else { return };
        pages.follow(&format!("transport: '{transport}'"));
        relay.silence();
        let channel = format!("sent-over-{transport}");
        pages.first(&format!("void (sent = client.publish('{channel}', 'once'))"));
        await_that("it arrived", || describe(server.addr, &channel)["events"] == 1);
        relay.cut();
        let id = pages.first("sent.then(({ id }) => id)");
        assert_eq!(id, describe(server.addr, &channel)["last_id"]);
        assert_eq!(describe(server.addr, &channel)["events"], 1);
    }
}

#[test]
fn what_is_published_offline_waits_and_goes_in_order() {
    let server = TestServer::start();
    let Some(mut pages) = Pages::one(Kind::Chromium, server.addr) else { return };
    pages.follow("transport: 'sse'");
    let offline = |is: bool| json!({ "offline": is, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
    pages.browser.protocol(0, "Network.enable", &json!({}));
    pages.browser.protocol(0, "Network.emulateNetworkConditions", &offline(true));
    pages.first(
        "void (sent = Promise.all(['a', 'b', 'c'].map((data) => client.publish('c', data))))",
    );
    assert_eq!(describe(server.addr, "c")["events"], 0);
    pages.browser.protocol(0, "Network.emulateNetworkConditions", &offline(false));
    assert_eq!(pages.first("sent.then((all) => all.length)"), 3);
    pages.expected.extend(["a", "b", "c"].map(|data| json!(data)));
    pages.await_seen();
    publish(server.addr, "c", "later");
    pages.expected.push(json!("later"));
    pages.await_seen();
    assert_eq!(streams(server.admin), 1);
}
