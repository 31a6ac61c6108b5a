//! What has arrived, by the kernel's own table of sockets. On a busy machine it leaves what comes
//! over the loopback to another thread: what was sent a moment ago need not be there yet.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Only a failure takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// States of `include/net/tcp_states.h`.
const SYN_RECV: u32 = 3;
const LISTEN: u32 = 10;

/// A TCP socket over IPv4.
struct Row {
    local_port: u32,
    remote_port: u32,
    state: u32,
    unread_bytes: u32,
    /// None: no process has it.
    inode: Option<u32>,
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        let mut behind_colon = |place| fields.nth(place)?.split(':').next_back().and_then(number);
        let (local_port, remote_port) = (behind_colon(1)?, behind_colon(0)?);
        let (state, unread_bytes) = (behind_colon(0)?, behind_colon(0)?);
        let inode = fields.nth(4)?.parse().ok().filter(|inode| *inode != 0);
        Some(Self { local_port, remote_port, state, unread_bytes, inode })
    }
}

/// Those of this port.
fn of_port(port: u16) -> Vec<Row> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("proc is mounted");
    let rows = table.lines().skip(1).filter_map(Row::parse);
    rows.filter(|row| row.local_port == u32::from(port) && row.state != LISTEN).collect()
}

/// The server's end of a client's connection.
fn end_of(server: SocketAddr, client: SocketAddr) -> Option<Row> {
    let mut rows = of_port(server.port()).into_iter();
    rows.find(|row| row.remote_port == u32::from(client.port()))
}

fn await_that(what: &str, fact: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !fact() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

/// Waits until the server can accept the client that has connected.
pub fn await_established(server: SocketAddr, client: SocketAddr) {
    await_that("it may be accepted", || {
        end_of(server, client).is_none_or(|end| end.state != SYN_RECV)
    });
}

/// Waits until the client's reset has ended the connection.
pub fn await_reset(server: SocketAddr, client: SocketAddr) {
    await_that("it is reset", || end_of(server, client).is_none());
}

/// Waits until the server's ends of all connections have this many bytes that nothing has received.
pub fn await_unread(server: SocketAddr, bytes: usize) {
    await_that("they have arrived", || {
        let unread =
            of_port(server.port()).iter().map(|row| row.unread_bytes as usize).sum::<usize>();
        unread >= bytes
    });
}

/// Connections of this port whose socket a process still has.
pub fn held(port: u16) -> usize {
    of_port(port).iter().filter(|row| row.inode.is_some()).count()
}
