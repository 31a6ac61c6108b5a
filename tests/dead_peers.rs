//! A peer that vanished silently (no FIN, no RST: a phone that left, a NAT entry that was dropped)
//! is cut within a stated time: a WebSocket or a connection of HTTP/2 once two pings are unanswered, an
//! SSE stream by the kernel once a heartbeat has stayed unacknowledged for `--dead-time`.
//!
//! The peer lives in a network namespace of its own, at the far end of a virtual cable, and then
//! loses its way back. That needs `unshare`, `nsenter` and `ip`, and either root or user
//! namespaces; without them the test says SKIPPED (with `PUSHLINE_NO_SKIP=1` it fails).
//! `tests/simulation` has peers of both kinds, too.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use common::{TestServer, assert_ever, await_that, fetch, http2};
use pushline::proto::h2::PREFACE;

/// Set in the process that has a network of its own.
const INSIDE: &str = "PUSHLINE_DEAD_PEERS_INSIDE";
const SERVER: &str = "10.77.0.1";
const PEER: &str = "10.77.0.2";
const HEARTBEAT: Duration = Duration::from_secs(1);
const DEAD_TIME: Duration = Duration::from_secs(3);
/// The kernel checks when it retransmits, each time after twice as long: so it may check just
/// before the time is over, and then only after as long again.
const SSE_TIME_MAX: Duration = Duration::from_secs(1 + 2 * 3 + 1);
/// Two pings, a third look, and the sweep's own round.
const PINGED_TIME_MAX: Duration = Duration::from_secs(4 + 1);

#[test]
fn peers_that_vanish_are_cut_in_time_and_the_others_stay() {
    if std::env::var_os(INSIDE).is_some() {
        return in_a_network_of_our_own();
    }
    let ours = std::env::current_exe().expect("this program");
    let rights = if rustix::process::geteuid().is_root() { "-n" } else { "-rn" };
    let possible = Command::new("unshare")
        .args([rights, "sh", "-c", "unshare -n true && ip link add v0 type veth peer name v1"])
        .output();
    if !possible.as_ref().is_ok_and(|output| output.status.success()) {
        return common::skip("unshare, ip and a network namespace", &format!("{possible:?}"));
    }
    let name = "peers_that_vanish_are_cut_in_time_and_the_others_stay";
    let inside = Command::new("unshare")
        .arg(rights)
        .arg(ours)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .status();
    assert!(inside.expect("unshare was there a moment ago").success(), "see above");
}

fn in_a_network_of_our_own() {
    run("ip", &["link", "set", "lo", "up"]);
    let sse = b"GET /sse?channel=c HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let ws = b"GET /ws?channel=c HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
              Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: cHVzaGxpbmUgYmVuY2ghIQ==\r\n\r\n";
    vanishes_within(DEAD_TIME..=SSE_TIME_MAX, || vanish(sse, DEAD_TIME, "peer_gone"));
    // The kernel would take far longer than the pings.
    let seldom = Duration::from_secs(600);
    for request in [&ws[..], &http2_request()] {
        vanishes_within(HEARTBEAT..=PINGED_TIME_MAX, || vanish(request, seldom, "peer_dead"));
    }
}

/// In one of a few tries: a machine that stands still makes some last longer.
fn vanishes_within(times: RangeInclusive<Duration>, vanish: impl Fn() -> Duration) {
    assert_ever(&format!("it is cut within {times:?}"), || {
        let took = vanish();
        println!("cut after {took:?}");
        times.contains(&took)
    });
}

fn http2_request() -> Vec<u8> {
    let head = http2::head("GET", "/sse?channel=c", &[]);
    let request = http2::framed(http2::HEADERS, http2::END_HEADERS | http2::END_STREAM, 1, &head);
    [PREFACE, &http2::framed(http2::SETTINGS, 0, 0, b""), &request].concat()
}

/// A peer sends a request, is served, and vanishes: how long until it is cut, for this reason.
/// Another client that is still there is not cut.
fn vanish(request: &[u8], dead_time: Duration, reason: &str) -> Duration {
    let mut peer = Peer::plug_in();
    let server = TestServer::with(|settings| {
        settings.listen = SocketAddr::new(SERVER.parse().expect("an address"), 0);
        settings.open = true;
        settings.heartbeat = HEARTBEAT;
        settings.dead_time = dead_time;
    });
    let mut other = common::Sse::open(server.addr, "channel=c");
    peer.ask(server.addr, request);
    await_that("both are served", || common::describe(server.addr, "c")["subscribers"] == 2);
    peer.lose_the_way_back();
    let began = Instant::now();
    await_that("it is cut", || common::describe(server.addr, "c")["subscribers"] == 1);
    let took = began.elapsed();
    let metrics = fetch(server.admin, "GET", "/metrics", &[], None).text();
    let line = format!("pushline_closes_total{{reason=\"{reason}\"}} 1");
    assert!(metrics.contains(&line), "{metrics}");
    let id = common::publish(server.addr, "c", "for the living");
    assert_eq!(other.event().id, id);
    took
}

/// A shell in a network namespace of its own, at the other end of a cable.
struct Peer {
    shell: Child,
    orders: ChildStdin,
    answers: BufReader<std::process::ChildStdout>,
}

impl Peer {
    fn plug_in() -> Self {
        let mut shell = Command::new("unshare")
            .args(["-n", "bash", "-s"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare was there a moment ago");
        let orders = shell.stdin.take().expect("it is piped");
        let answers = BufReader::new(shell.stdout.take().expect("it is piped"));
        let mut peer = Self { shell, orders, answers };
        // Its answer shows that it has its namespace.
        peer.does("true");
        let pid = peer.shell.id().to_string();
        run("ip", &["link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", &pid]);
        run("ip", &["addr", "add", &format!("{SERVER}/24"), "dev", "v0"]);
        run("ip", &["link", "set", "v0", "up"]);
        peer.does(&format!("ip addr add {PEER}/24 dev v1 && ip link set v1 up"));
        peer
    }

    fn does(&mut self, what: &str) {
        writeln!(self.orders, "{what} && echo done").expect("the shell lives");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the shell lives");
        assert_eq!(line, "done\n", "{what}");
    }

    fn ask(&mut self, server: SocketAddr, request: &[u8]) {
        let request: String = request.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        self.does(&format!("exec 3<>/dev/tcp/{}/{}", server.ip(), server.port()));
        self.does(&format!("printf '{request}' >&3"));
        self.does("read -r -u 3");
    }

    /// From here on nothing reaches the server: no acknowledgement, no FIN, no RST.
    fn lose_the_way_back(&mut self) {
        self.does(&format!("ip route add blackhole {SERVER}/32"));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        // The cable goes with the namespace, though not at once.
        let _ = Command::new("ip").args(["link", "del", "v0"]).output();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().expect("it was there before");
    assert!(status.success(), "{program} {arguments:?}");
}
