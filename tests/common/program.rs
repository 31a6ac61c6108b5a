//! The server as a process of its own: started, observed from outside, sent signals.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

use super::await_that;

/// How long it may take to exit once nothing holds it up.
const END_TIME_MAX: Duration = Duration::from_secs(60);

/// Where [`free_ports`] looks: ports of the kernel's choice begin at 32,768.
const PORTS: Range<u16> = 26_000..32_000;
const PORTS_LEN: u16 = PORTS.end - PORTS.start - 64;

/// A running server.
pub struct Program {
    child: Child,
    pub addr: SocketAddr,
    log: Receiver<String>,
}

impl Program {
    /// Starts it on this port and the next and waits until it is ready.
    pub fn start(port: u16, options: &[&str]) -> Self {
        let addresses = [port, port + 1].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        Self::run(Command::new(env!("CARGO_BIN_EXE_pushline")), addresses, options)
    }

    /// The same by this command, at these addresses for clients and the operator.
    pub fn run(mut command: Command, [addr, admin]: [SocketAddr; 2], options: &[&str]) -> Self {
        let mut child = command
            .args(["--listen", &addr.to_string(), "--admin", &admin.to_string()])
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let output = BufReader::new(child.stderr.take().expect("it is piped"));
        let (tell, log) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The receiver is gone: keep reading, so that the program never waits for us.
                let _ = tell.send(line);
            }
        });
        let mut program = Self { child, addr, log };
        await_that("the server listens", || {
            let ended = program.child.try_wait().expect("a child");
            assert!(ended.is_none(), "it ended at once: {ended:?} {:?}", program.log_lines());
            std::net::TcpStream::connect(admin).is_ok()
        });
        program
    }

    /// A line of `/proc/PID/status` in bytes: `VmRSS`, `VmHWM`.
    pub fn memory_bytes(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a known key");
        let kib: u64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number");
        kib * 1024
    }

    /// Seconds of CPU it has used.
    pub fn cpu_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        let ticks = |place: usize| fields.split(' ').nth(place).and_then(|n| n.parse::<u64>().ok());
        (ticks(12).expect("utime") + ticks(13).expect("stime")) as f64 / 100.0
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process");
        kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its exit; returns the exit code, and all that it has written.
    pub fn wait(mut self, time_max: Duration) -> (Option<i32>, Vec<String>) {
        let deadline = Instant::now() + time_max + END_TIME_MAX;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                // To the end of the pipe, which is read by another thread.
                return (status.code(), self.log.iter().collect());
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it, as a crash would.
    pub fn kill(self) {
        drop(self);
    }

    fn log_lines(&self) -> Vec<String> {
        self.log.try_iter().collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first of `count` free ports, below those the kernel gives to clients: a port left for a
/// moment is then still free when its server comes back.
pub fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let mut firsts = std::iter::repeat_with(|| {
        let step = NEXT.fetch_add(count, Ordering::Relaxed);
        PORTS.start + (std::process::id() as u16).wrapping_mul(64).wrapping_add(step) % PORTS_LEN
    });
    firsts.find(|first| (*first..first + count).all(is_free)).expect("it goes on for ever")
}

/// Bound, but never listening: for a moment, a process that another test starts has a copy of all
/// our sockets, and with one that listens the port would stay taken.
fn is_free(port: u16) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).is_ok()
}

/// Bytes the kernel holds for all TCP sockets of the machine, both ends included.
pub fn tcp_memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/net/sockstat").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:")).expect("a line for TCP");
    let pages = line.split_whitespace().skip_while(|word| *word != "mem").nth(1);
    pages.and_then(|pages| pages.parse::<u64>().ok()).expect("a number of pages") * 4096
}
