//! Pages over TLS, where browsers speak HTTP/2: as many streams as tabs want on one connection, and
//! WebSockets beside them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::browser::{Browser, Kind};
use crate::common::identity::Identity;
use crate::common::{TestServer, await_subscribers, metric, publish};

/// Seconds on a machine that is not busy.
const COME: Duration = Duration::from_secs(60);
/// More than HTTP/1.1's six, and what users open who have many tabs.
const STREAMS: usize = 100;

/// Many `EventSource`s and what they have seen.
const SCRIPT: &str = "
const sources = [], seen = [];
let talk;

function followMany(url, count) {
  for (let at = 0; at < count; at += 1) {
    const source = new EventSource(url);
    source.onmessage = (event) => seen.push(event.data);
    sources.push(source);
  }
}

/** The last message comes back on a socket that stays open. */
function echo(url) {
  const socket = new WebSocket(url);
  socket.onopen = () => socket.send('there and back');
  socket.onmessage = (event) => { talk = event.data; };
  socket.onclose = (event) => { talk = `closed with ${event.code}`; };
}";

struct Page {
    browser: Browser,
    base: String,
    server: TestServer,
}

impl Page {
    /// One page of a server that speaks TLS; `None` after a skip.
    fn open(kind: Kind) -> Option<Self> {
        let identity = Identity::new(&["localhost"]);
        let server = TestServer::with(|settings| {
            identity.serve(settings);
            // Other connections would find another worker, and could not be told apart.
            settings.workers = Some(1);
        });
        let port = server.server().listen_tls().expect("a TLS listener").port();
        let base = format!("https://localhost:{port}");
        let mut browser = Browser::launch(kind)?;
        browser.open_tabs(&base, SCRIPT, 1);
        Some(Self { browser, base, server })
    }

    fn value(&mut self, expression: &str) -> Value {
        self.browser.evaluate_in(0..1, expression).remove(0)
    }

    fn await_value(&mut self, expression: &str, wanted: &Value) {
        let deadline = Instant::now() + COME;
        loop {
            let value = self.value(expression);
            if value == *wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{expression} is {value}, not {wanted}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// All streams are live: each sees an event.
    fn follow_many(&mut self) {
        let follow = format!("followMany('{}/sse?channel=c', {STREAMS})", self.base);
        self.value(&follow);
        await_subscribers(self.server.addr, "c", STREAMS as u64);
        publish(self.server.addr, "c", "to all");
        self.await_value("seen.filter((data) => data === 'to all').length", &json!(STREAMS));
        let open = "sources.filter((source) => source.readyState === 1).length";
        assert_eq!(self.value(open), json!(STREAMS));
    }
}

#[test]
fn a_hundred_streams_of_a_chromium_page_are_live_and_a_websocket_shares_their_connection() {
    let Some(mut page) = Page::open(Kind::Chromium) else { return };
    page.follow_many();
    let open = page.server.open();
    let echo = format!("echo('{}/ws?channel=talk')", page.base.replace("https", "wss"));
    page.value(&echo);
    page.await_value("talk", &json!("there and back"));
    assert_eq!(page.server.open(), open, "no connection more");
    let of_http2 = "pushline_connections{transport=\"http2\",worker=\"0\"}";
    assert_eq!(metric(page.server.admin, of_http2), 1);
}

#[test]
fn a_hundred_streams_of_a_firefox_page_are_live() {
    let Some(mut page) = Page::open(Kind::Firefox) else { return };
    page.follow_many();
    let echo = format!("echo('{}/ws?channel=talk')", page.base.replace("https", "wss"));
    page.value(&echo);
    page.await_value("talk", &json!("there and back"));
}
