//! The same pages through one restart after another.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::browser::{Browser, Kind};
use crate::common::identity::Identity;
use crate::common::program::{Program, free_ports};
use crate::common::proxies::{self, CADDY, ENVOY, HAPROXY, NGINX, Proxy};
use crate::common::publish;

const PAGES: usize = 12;
/// How many of those, counted from the first, are warm: they have published.
const WARM: usize = PAGES / 2;
/// A browser reconnects within 5 s; the rest is for a busy machine.
const COME_BACK: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
pub const OPTIONS: [&str; 10] = [
    "--workers",
    "2",
    "--cpus",
    "none",
    "--history-count",
    "1000",
    "--drain",
    "1s",
    "--retry",
    "500ms",
];
const DRAIN: Duration = Duration::from_secs(1);

#[test]
fn chromium_lives_through_restarts() {
    restarts(Kind::Chromium, Front::None, Origins::Both);
}

/// A Firefox page of another origin dies once it finds no server, whatever that server does.
#[test]
fn firefox_lives_through_restarts() {
    restarts(Kind::Firefox, Front::None, Origins::Own);
}

#[test]
fn chromium_lives_through_restarts_over_tls() {
    restarts(Kind::Chromium, Front::Tls, Origins::Both);
}

#[test]
fn firefox_lives_through_restarts_over_tls() {
    restarts(Kind::Firefox, Front::Tls, Origins::Own);
}

#[test]
fn firefox_behind_nginx_lives_through_restarts() {
    restarts(Kind::Firefox, Front::Proxy(&NGINX), Origins::Both);
}

#[test]
fn chromium_behind_nginx_lives_through_restarts() {
    restarts(Kind::Chromium, Front::Proxy(&NGINX), Origins::Both);
}

#[test]
fn chromium_behind_haproxy_lives_through_restarts() {
    restarts(Kind::Chromium, Front::Proxy(&HAPROXY), Origins::Both);
}

#[test]
fn chromium_behind_caddy_lives_through_restarts() {
    restarts(Kind::Chromium, Front::Proxy(&CADDY), Origins::Both);
}

#[test]
fn chromium_behind_envoy_lives_through_restarts() {
    restarts(Kind::Chromium, Front::Proxy(&ENVOY), Origins::Both);
}

/// Where the pages come from.
#[derive(Clone, Copy)]
enum Origins {
    /// From where their server is.
    Own,
    /// Half of them from elsewhere.
    Both,
}

/// What pages speak to.
#[derive(Clone, Copy)]
enum Front {
    /// The server, without TLS.
    None,
    /// The server, with TLS.
    Tls,
    Proxy(&'static proxies::Kind),
}

fn restarts(kind: Kind, front: Front, origins: Origins) {
    let Some(browser) = Browser::launch(kind) else { return };
    let port = free_ports(3);
    let identity = Identity::new(&["localhost"]);
    let tls = matches!(front, Front::Tls).then(|| identity.options(port + 2)).unwrap_or_default();
    let options: Vec<&str> = OPTIONS.into_iter().chain(tls.iter().map(String::as_str)).collect();
    let server = Program::start(port, &options);
    let (_proxy, base) = match front {
        Front::None => (None, format!("http://{}", server.addr)),
        Front::Tls => (None, format!("https://localhost:{}", port + 2)),
        Front::Proxy(kind) => {
            let Some(proxy) = Proxy::start(kind, server.addr) else { return };
            let base = format!("https://{}", proxy.host());
            (Some(proxy), base)
        }
    };
    let mut pages = Pages::open(browser, server, base, origins);
    pages.check_websocket();
    pages.restart("kill -9", |pages, old| {
        old.kill();
        pages.await_refusals();
        Program::start(port, &options)
    });
    pages.restart("SIGTERM", |_, old| {
        old.signal(Signal::TERM);
        await_drained(old);
        Program::start(port, &options)
    });
    pages.restart("--take-over", |_, old| {
        // The old server's ports answer all along; its exit shows that the new one has them.
        let new = Program::start(port, &[&options[..], &["--take-over"]].concat());
        await_drained(old);
        new
    });
    pages.check_websocket();
    if !matches!(front, Front::None) {
        assert_eq!(pages.browser.evaluate_in(0..1, "spoken()"), [json!("h2")]);
    }
}

pub fn await_drained(old: Program) {
    let (code, said) = old.wait(DRAIN);
    assert_eq!(code, Some(0), "{said:?}");
}

/// Pages that follow one channel of a server.
struct Pages {
    browser: Browser,
    server: Option<Program>,
    /// Where browsers find the server.
    base: String,
    /// What each of them should have seen.
    expected: Vec<String>,
}

impl Pages {
    fn open(mut browser: Browser, server: Program, base: String, origins: Origins) -> Self {
        let script = include_str!("follow.js");
        for _ in ["warm", "cold"] {
            match origins {
                Origins::Own => browser.open(Some(&base), script, WARM),
                Origins::Both => {
                    browser.open(Some(&base), script, WARM / 2);
                    browser.open(None, script, WARM / 2);
                }
            }
        }
        let open = browser.evaluate(&format!("follow('{base}/sse?channel=c')"));
        assert_eq!(open, vec![json!(true); PAGES]);
        let mut pages = Self { browser, server: Some(server), base, expected: Vec::new() };
        pages.publish("the first");
        pages.await_seen();
        pages
    }

    /// Warms half of them, restarts the server, and checks what all of them have seen: the end of
    /// the old log, a gap, and the whole new log.
    fn restart(&mut self, how: &str, restart: impl FnOnce(&mut Self, Program) -> Program) {
        let target = format!("{}/channels/other", self.base);
        let warm = self.browser.evaluate_in(0..WARM, &format!("publish('{target}', 'warm')"));
        assert_eq!(warm, vec![json!(200); WARM]);
        self.publish(&format!("the last before {how}"));
        self.await_seen();
        let old = self.server.take().expect("one runs");
        let new = restart(self, old);
        self.server = Some(new);
        self.expected.push("gap epoch".into());
        self.publish(&format!("the first after {how}"));
        self.await_seen();
        self.publish(&format!("the second after {how}"));
        self.await_seen();
    }

    /// The last page of those that have published talks both ways. It is one of another origin, if
    /// there are any: Chromium lets no page faked by a test open a WebSocket to loopback.
    fn check_websocket(&mut self) {
        let talk = format!("echo('{}/ws?channel=talk')", self.base);
        assert_eq!(self.browser.evaluate_in(WARM - 1..WARM, &talk), [json!("there and back")]);
    }

    fn addr(&self) -> std::net::SocketAddr {
        self.server.as_ref().expect("one runs").addr
    }

    fn publish(&mut self, data: &str) {
        publish(self.addr(), "c", data);
        self.expected.push(data.into());
    }

    /// Waits until every page was cut and has looked for the server in vain.
    fn await_refusals(&mut self) {
        self.browser.evaluate("errors = 0");
        let deadline = Instant::now() + COME_BACK;
        while self.browser.evaluate("errors").iter().any(|errors| errors.as_u64() < Some(2)) {
            assert!(Instant::now() < deadline, "they do not come back");
            std::thread::sleep(POLL);
        }
    }

    /// Waits until every page has seen what it must see; fails at once if one has died or has seen
    /// anything else.
    fn await_seen(&mut self) {
        let deadline = Instant::now() + COME_BACK;
        let expected: Vec<Value> = self.expected.iter().map(|data| json!(data)).collect();
        loop {
            let pages = self.browser.evaluate("[source.readyState, seen]");
            for (page, told) in pages.iter().enumerate() {
                let seen = told[1].as_array().expect("a list");
                assert!(expected.starts_with(seen), "page {page}: {seen:?} of {expected:?}");
                assert_ne!(told[0], 2, "page {page} is dead, it has seen {seen:?}");
            }
            if pages.iter().all(|told| told[1] == json!(expected)) {
                return;
            }
            assert!(Instant::now() < deadline, "{pages:?} are late for {expected:?}");
            std::thread::sleep(POLL);
        }
    }
}
