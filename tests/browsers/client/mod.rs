//! Our own client in real browsers: `/pushline.js` as pages load it from the server.

mod access;
mod contract;
mod networks;
mod presence;
mod restarts;
mod streams;
mod tabs;

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::browser::{Browser, Kind};
use crate::common::{fetch, publish};

/// A page that was away comes back within seconds; the rest is for a busy machine.
const COME_BACK: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const SCRIPT: &str = include_str!("../client.js");
const BOTH: [&str; 2] = ["sse", "ws"];

/// Pages of a browser that use the client, and what all of them must see.
struct Pages {
    browser: Browser,
    /// Where pages find the server.
    base: String,
    /// The server itself.
    server: SocketAddr,
    expected: Vec<Value>,
    count: usize,
}

impl Pages {
    /// Tabs of one profile; `None` after a skip.
    fn tabs(kind: Kind, base: &str, server: SocketAddr, count: usize) -> Option<Self> {
        let mut browser = Browser::launch(kind)?;
        browser.open_tabs(base, SCRIPT, count);
        let (base, expected) = (base.to_owned(), Vec::new());
        Some(Self { browser, base, server, expected, count })
    }

    /// One page of a server in this process.
    fn one(kind: Kind, server: SocketAddr) -> Option<Self> {
        Self::tabs(kind, &format!("http://{server}"), server, 1)
    }

    /// All of them follow channel `c` with these further options (in JavaScript); and the
    /// transports.
    fn follow(&mut self, options: &str) -> Vec<Value> {
        self.follow_in(0..self.count, options)
    }

    fn follow_in(&mut self, pages: Range<usize>, options: &str) -> Vec<Value> {
        let follow = format!("follow('{}', {{ channels: ['c'], {options} }})", self.base);
        self.browser.evaluate_in(pages, &follow)
    }

    /// The value of an expression in the first page.
    fn first(&mut self, expression: &str) -> Value {
        self.browser.evaluate_in(0..1, expression).remove(0)
    }

    /// Waits until an expression is true in these pages.
    fn await_in(&mut self, pages: Range<usize>, expression: &str) {
        let deadline = Instant::now() + COME_BACK;
        while self.browser.evaluate_in(pages.clone(), expression).iter().any(|is| is != true) {
            let told = self.browser.evaluate_in(pages.clone(), "({ seen, states, errors })");
            assert!(Instant::now() < deadline, "never: {expression}; {told:?}");
            std::thread::sleep(POLL);
        }
    }

    fn close(&mut self, page: usize) {
        self.browser.close(page);
        self.count -= 1;
    }

    fn crash(&mut self, page: usize) {
        self.browser.crash(page);
        self.count -= 1;
    }

    /// Publishes to channel `c`: all pages that follow it must see it.
    fn publish(&mut self, data: &str) {
        publish(self.server, "c", data);
        self.expected.push(json!(data));
    }

    /// Waits until every page has seen what it must see, once and in order.
    fn await_seen(&mut self) {
        self.await_seen_in(0..self.count);
    }

    fn await_seen_in(&mut self, pages: Range<usize>) {
        let deadline = Instant::now() + COME_BACK;
        loop {
            let told = self.browser.evaluate_in(pages.clone(), "seen");
            for (page, seen) in told.iter().enumerate() {
                let seen = seen.as_array().expect("a list");
                let expected = &self.expected;
                assert!(expected.starts_with(seen), "page {page}: {seen:?} of {expected:?}");
            }
            if told.iter().all(|seen| *seen == json!(self.expected)) {
                return;
            }
            assert!(Instant::now() < deadline, "{told:?} are late for {:?}", self.expected);
            std::thread::sleep(POLL);
        }
    }
}

/// Streams of either kind that are open at a server.
fn streams(admin: SocketAddr) -> u64 {
    let text = fetch(admin, "GET", "/metrics", &[], None).text();
    let of_stream = |line: &&str| {
        BOTH.iter()
            .any(|kind| line.starts_with(&format!("pushline_connections{{transport=\"{kind}\"")))
    };
    let counts = text.lines().filter(of_stream).filter_map(|line| line.rsplit(' ').next());
    counts.map(|count| count.parse::<u64>().expect("a count")).sum()
}
