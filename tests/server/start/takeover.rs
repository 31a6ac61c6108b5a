//! A restart by `--take-over` under load: no connection is refused, and none is reset before its
//! answer, whatever the number of workers; streams resume on the new process. `scripts/restarts`
//! runs it on a larger scale.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::geteuid;

use super::program::Program;
use super::pushline;
use crate::common::{PATIENCE, Sse, await_that, fetch, publish, skip};

/// Threads that connect.
const CLIENTS: u32 = 4;

/// What the script sets; otherwise enough for a quick check.
fn number(variable: &str, default: u32) -> u32 {
    let value = std::env::var(variable).ok();
    value.map_or(default, |value| value.parse().expect("a number"))
}

/// Clients that connect, ask once, and read to the end.
struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(addr: SocketAddr, per_second: u32) -> Self {
        let (over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let pause = Duration::from_secs(1) * CLIENTS / per_second;
        let clients = (0..CLIENTS).map(|_| {
            let (over, answered) = (over.clone(), answered.clone());
            std::thread::spawn(move || connect_on(addr, pause, &over, &answered))
        });
        Self { clients: clients.collect(), over, answered }
    }

    /// Waits until this many more are answered.
    fn await_more(&self, count: u32) {
        let wanted = self.answered.load(Ordering::Relaxed) + count;
        await_that("connections are answered", || self.answered.load(Ordering::Relaxed) >= wanted);
    }

    /// How many were answered, and what happened to the others.
    fn end(self) -> (u32, Vec<String>) {
        self.over.store(true, Ordering::Relaxed);
        let failures = self.clients.into_iter().flat_map(|client| client.join().expect("it ends"));
        let failures = failures.collect();
        (self.answered.load(Ordering::Relaxed), failures)
    }
}

fn connect_on(
    addr: SocketAddr,
    pause: Duration,
    over: &AtomicBool,
    answered: &AtomicU32,
) -> Vec<String> {
    let mut failures = Vec::new();
    let mut next_at = Instant::now();
    while !over.load(Ordering::Relaxed) {
        match ask(addr) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => failures.push(answer),
            Err(error) => failures.push(error.to_string()),
        }
        next_at += pause;
        std::thread::sleep(next_at.saturating_duration_since(Instant::now()));
    }
    failures
}

fn ask(addr: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = "POST /channels/load HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    stream.write_all(format!("{head}Content-Length: 1\r\n\r\nx").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn restarts_under_load_refuse_and_reset_no_connection() {
    let restarts = number("PUSHLINE_RESTARTS", 4);
    let per_second = number("PUSHLINE_RESTART_RATE", 500);
    let mut server = Program::start(&["--drain", "60s"]);
    let load = Load::start(server.addr, per_second);
    for restart in 0..restarts {
        let id = publish(server.addr, "pages", "before");
        let mut page = Sse::open(server.addr, "channel=pages");
        // More workers than listeners, and fewer.
        let workers = (restart % 3 + 1).to_string();
        let next = server.followed_by(&["--drain", "60s", "--workers", &workers]);
        assert_eq!(fetch(next.admin, "GET", "/readyz", &[], None).status, 200);
        assert_eq!(page.next_event(), None, "the old one lets it go");
        let mut page = Sse::resume(next.addr, "channel=pages", &id);
        assert_eq!(page.event().json()["reason"], "epoch", "what the log cannot hold is told");
        assert!(server.ended().success(), "the old one drains and ends");
        server = next;
        load.await_more(per_second / 2);
    }
    let (answered, failures) = load.end();
    println!("{restarts} restarts, {answered} connections answered, {} failed", failures.len());
    assert_eq!(failures, Vec::<String>::new());
}

#[test]
fn without_a_predecessor_a_server_starts_as_usual() {
    let server = Program::start(&["--take-over"]);
    assert_eq!(fetch(server.addr, "GET", "/", &[], None).status, 200);
    server.await_line("there is no server to take over from");
}

#[test]
fn a_successor_that_cannot_start_leaves_the_server_as_it_is() {
    let server = Program::start(&[]);
    let listen = server.addr.to_string();
    let told = super::refusal_among(pushline().args([
        "--take-over",
        "--listen",
        &listen,
        "--cpus",
        "1023",
    ]));
    assert!(told.contains("core 1023"), "{told}");
    server.await_line("did not get ready");
    assert_eq!(fetch(server.addr, "GET", "/", &[], None).status, 200);
    assert_eq!(fetch(server.admin, "GET", "/readyz", &[], None).status, 200);
}

#[test]
fn another_user_cannot_take_a_server_over() {
    const NOBODY: u32 = 65_534;
    if !geteuid().is_root() {
        return skip("root, to start a server as another user", "run as root");
    }
    let server = Program::start(&[]);
    let listen = server.addr.to_string();
    let mut foreign = pushline();
    foreign.uid(NOBODY).args(["--take-over", "--listen", &listen]);
    let told = super::refusal_among(&mut foreign);
    assert!(told.contains("runs as user 0") && told.contains("65534"), "{told}");
    server.await_line("another user was refused");
    assert_eq!(fetch(server.addr, "GET", "/", &[], None).status, 200);
}
