//! The driver on real sockets: what its contract promises, one behaviour a test. Everything is
//! awaited through the driver itself or through blocking reads of the peer; nothing sleeps.

#[path = "../common/skip.rs"]
mod skip;
#[path = "../common/sockets.rs"]
#[allow(dead_code, reason = "each test binary uses its own part of this")]
mod sockets;

mod accept;
mod bell;
mod close;
mod recv;
mod send;

use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use pushline::ring::uring::{UringDriver, UringSettings, probe};
use pushline::ring::{
    Batch, BellTarget, BufferId, Completion, Driver, KernelVersion, ListenOptions, Op, RecvEnd,
    Token, Wait, listen,
};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

fn settings() -> UringSettings {
    end_without_io_uring();
    UringSettings {
        slots: 64,
        entries: 64,
        cq_entries: 128,
        recv_buffers: 16,
        ..Default::default()
    }
}

/// Where io_uring is refused, none of these tests can run: the program ends, and says so.
fn end_without_io_uring() {
    let Err(error) = probe() else { return };
    let cure = error.to_string();
    let skipped = std::panic::catch_unwind(|| skip::skip_named("*", "io_uring", &cure));
    std::process::exit(i32::from(skipped.is_err()));
}

/// A blocking read of one byte. The rings of this thread may interrupt it: when one ends (seen on
/// 6.1), or when an operation needs a kernel thread.
fn read_one(peer: &mut TcpStream) -> io::Result<usize> {
    loop {
        match peer.read(&mut [0; 1]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Before Linux 6.13 the driver shuts a socket down before it closes it.
fn closes_in_two_steps() -> bool {
    KernelVersion::running() < KernelVersion { major: 6, minor: 13 }
}

/// A driver, its address, and completions that no test has asked for yet.
struct Rig {
    driver: UringDriver,
    target: BellTarget,
    address: SocketAddr,
    batch: Batch,
    heard: Vec<Completion>,
    generation: u32,
}

impl Rig {
    fn new(settings: &UringSettings) -> Rig {
        Rig::with_listener(settings, &ListenOptions::default())
    }

    fn with_listener(settings: &UringSettings, options: &ListenOptions) -> Rig {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Rig::on(settings, listen(any, options).expect("loopback can be listened on"))
    }

    fn on(settings: &UringSettings, listener: socket2::Socket) -> Rig {
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let (driver, target) = UringDriver::new(settings, [listener]).expect("this kernel will do");
        let (batch, heard) = Default::default();
        let mut rig = Rig { driver, target, address, batch, heard, generation: 0 };
        rig.turn(&[Op::AcceptStart], Wait::No);
        rig
    }

    /// One turn; returns what this very turn returned (and keeps it in `heard`, too).
    fn turn(&mut self, ops: &[Op], wait: Wait) -> Vec<Completion> {
        self.batch.ops.extend_from_slice(ops);
        let mut completions = Vec::new();
        self.driver.turn(&mut self.batch, wait, &mut completions).expect("the ring is sound");
        assert!(self.batch.ops.is_empty());
        self.heard.extend_from_slice(&completions);
        completions
    }

    /// Turns until a completion satisfies `is`, which is then taken out and returned.
    fn await_one(&mut self, is: impl Fn(&Completion) -> bool) -> Completion {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.heard.iter().position(&is) {
                return self.heard.remove(at);
            }
            let left = end.checked_duration_since(Instant::now());
            let left = left.unwrap_or_else(|| panic!("not heard; only {:?}", self.heard));
            self.turn(&[], Wait::AtMost(left));
        }
    }

    fn next_token(&mut self, slot: u32) -> Token {
        self.generation += 1;
        Token { slot, generation: self.generation }
    }

    /// Connects and accepts one. If a close takes an extra turn, a table may seem full to the
    /// first; what is asked for after that waits for the slot.
    fn connect(&mut self) -> (TcpStream, Token) {
        const FULL: Completion = Completion::AcceptEnded { errno: libc::ENFILE };
        let address = self.address;
        let connect = || TcpStream::connect(address).unwrap();
        let mut peer = connect();
        let heard = self.await_one(|c| *c == FULL || matches!(c, Completion::Accepted { .. }));
        let token = match heard {
            Completion::Accepted { slot, .. } => self.next_token(slot),
            _ => {
                assert!(closes_in_two_steps(), "the table is full");
                self.turn(&[Op::AcceptStart], Wait::No);
                peer = connect();
                self.accept()
            }
        };
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        (peer, token)
    }

    fn accept(&mut self) -> Token {
        let accepted = self.await_one(|c| matches!(c, Completion::Accepted { .. }));
        let Completion::Accepted { slot, .. } = accepted else { unreachable!() };
        self.next_token(slot)
    }

    /// One turn that sends `bytes`; returns its completions.
    fn send(&mut self, token: Token, bytes: &[u8]) -> Vec<Completion> {
        self.batch.arena.clear();
        self.batch.arena.extend_from_slice(bytes);
        self.turn(&[Op::Send { token, from: 0, to: bytes.len() as u32 }], Wait::No)
    }

    /// Sends from `message` until the socket takes nothing more; returns how much it took.
    fn fill(&mut self, token: Token, message: &[u8]) -> usize {
        let mut all = 0;
        loop {
            let told = self.send(token, &message[all..]);
            let [Completion::SendShort { token: whose, taken }] = told[..] else {
                panic!("more room than expected, or the wrong news: {told:?}")
            };
            assert_eq!(whose, token);
            self.heard.clear();
            if taken == 0 {
                return all;
            }
            all += taken as usize;
        }
    }

    fn await_received(&mut self, token: Token) -> BufferId {
        match self.await_one(|c| matches!(c, Completion::Received { token: t, .. } if *t == token))
        {
            Completion::Received { buffer, .. } => buffer,
            _ => unreachable!(),
        }
    }

    fn await_recv_end(&mut self, token: Token) -> RecvEnd {
        match self.await_one(|c| matches!(c, Completion::RecvEnded { token: t, .. } if *t == token))
        {
            Completion::RecvEnded { why, .. } => why,
            _ => unreachable!(),
        }
    }
}
