//! The client lives through restarts of its server, over either transport.

use rustix::process::Signal;
use serde_json::json;

use super::Pages;
use crate::common::browser::Kind;
use crate::common::program::{Program, free_ports};
use crate::restarts::{OPTIONS, await_drained};

#[test]
fn the_client_in_chromium_lives_through_restarts_on_an_event_stream() {
    restarts(Kind::Chromium, "sse");
}

#[test]
fn the_client_in_chromium_lives_through_restarts_on_a_websocket() {
    restarts(Kind::Chromium, "ws");
}

#[test]
fn the_client_in_firefox_lives_through_restarts_on_an_event_stream() {
    restarts(Kind::Firefox, "sse");
}

#[test]
fn the_client_in_firefox_lives_through_restarts_on_a_websocket() {
    restarts(Kind::Firefox, "ws");
}

fn restarts(kind: Kind, transport: &str) {
    let port = free_ports(2);
    let server = Program::start(port, &OPTIONS);
    let base = format!("http://{}", server.addr);
    let Some(mut pages) = Pages::tabs(kind, &base, server.addr, 2) else { return };
    pages.follow(&format!("transport: '{transport}'"));
    let server = restart(&mut pages, server, "kill -9", |old| {
        old.kill();
        Program::start(port, &OPTIONS)
    });
    let server = restart(&mut pages, server, "SIGTERM", |old| {
        old.signal(Signal::TERM);
        await_drained(old);
        Program::start(port, &OPTIONS)
    });
    restart(&mut pages, server, "--take-over", |old| {
        let new = Program::start(port, &[&OPTIONS[..], &["--take-over"]].concat());
        await_drained(old);
        new
    });
}

fn restart(
    pages: &mut Pages,
    old: Program,
    how: &str,
    restart: impl FnOnce(Program) -> Program,
) -> Program {
    pages.publish(&format!("the last before {how}"));
    pages.await_seen();
    let new = restart(old);
    pages.expected.push(json!("gap epoch"));
    pages.publish(&format!("the first after {how}"));
    pages.await_seen();
    new
}
