//! What the driver on epoll alone has: events and accepts by turns, listeners that wake one of
//! several workers, descriptors and watches that run out.

use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Instant;

use pushline::host::Host;
use pushline::ring::epoll::EpollDriver;
use pushline::ring::{
    Batch, Bell, Completion, Driver, DriverSettings, Layer, Listener, Op, PeerAddresses, RecvEnd,
    Ringer, Wait, descriptors_max,
};
use rustix::net::{SendFlags, send};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::rig::{PATIENCE, Rig};
use crate::skip::skip;
use crate::sleeper::Sleeper;
use crate::worlds::{Client, End, EpollWorld, Sizes, World, listener};
use crate::{RECV_BUFFER_BYTES, RECV_BUFFERS};

fn rig(slots: u32) -> Rig<EpollWorld> {
    Rig::of(EpollWorld::of(Sizes { slots, ..Sizes::default() }))
}

/// TCP ends a receive at the urgent mark, so that it brings less than there is.
#[test]
fn bytes_behind_urgent_data_are_received_without_another_event() {
    let (mut rig, mut client, token) = Rig::<EpollWorld>::with_client();
    client.write(b"before");
    send(&client, b"!", SendFlags::OOB).expect("an urgent byte");
    client.write(b"behind");
    rig.submit(&[Op::RecvStart(token)]);
    assert_eq!(rig.receive(token, 12), b"beforebehind");
    rig.expect_silence();
}

/// The kernel makes a socket before it looks whether a connection waits: an accept too many costs
/// as much as one that succeeds.
#[test]
fn a_trickle_is_accepted_one_by_one_and_a_burst_in_more_and_more_at_a_time() {
    const TRICKLE: u32 = 10;
    const BURST: usize = 12;
    let mut rig = rig(TRICKLE + BURST as u32);
    let mut held: Vec<_> = (0..TRICKLE).map(|_| rig.connect().0).collect();
    held.extend((0..BURST).map(|_| rig.world.connect()));
    let mut by_turns = Vec::new();
    while by_turns.iter().sum::<usize>() < BURST {
        by_turns.push(rig.turn(&[]).len());
    }
    assert!(by_turns[0] <= 2, "{by_turns:?}");
    assert!(by_turns.len() <= 4, "{by_turns:?}");
}

#[test]
fn more_events_than_a_turn_takes_are_all_heard() {
    const CONNECTIONS: u32 = 700;
    if descriptors_max().expect("a limit") < 2 * u64::from(CONNECTIONS) + 200 {
        return skip("1,600 descriptors", "ulimit -Hn 1600");
    }
    let mut rig = rig(CONNECTIONS);
    let mut held: Vec<_> = (0..CONNECTIONS).map(|_| rig.connect()).collect();
    for (client, token) in &mut held {
        client.write(b"all at once");
        rig.batch.ops.push(Op::RecvStart(*token));
    }
    let mut heard = vec![0; held.len()];
    while heard.contains(&0) {
        match rig.next() {
            Completion::Received { token, buffer } => {
                rig.take(buffer);
                heard[token.slot as usize] += 1;
            }
            Completion::RecvEnded { token, why: RecvEnd::NoBuffers } => {
                rig.batch.ops.push(Op::RecvStart(token));
            }
            other => panic!("wrong news: {other:?}"),
        }
    }
    assert!(heard.iter().all(|&times| times == 1));
    rig.expect_silence();
}

const SHARED_BY: usize = 2;
const SHARED_CONNECTIONS: usize = 40;

/// A worker that sleeps until connections come, tells how many each turn brought, and ends when it
/// is rung.
struct Acceptor {
    sleeper: Sleeper,
    bell: Ringer,
    came: Receiver<usize>,
    thread: JoinHandle<()>,
}

impl Acceptor {
    fn of(listener: Listener) -> Self {
        let (tell, came) = mpsc::channel();
        let (begin, begun) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let settings = settings(SHARED_CONNECTIONS as u32);
            let (mut driver, target) = EpollDriver::new(&settings, [listener]).expect("a driver");
            begin.send((Sleeper::this_thread(), target)).expect("it is awaited");
            let mut batch = Batch { ops: vec![Op::AcceptStart], ..Batch::default() };
            loop {
                let mut heard = Vec::new();
                driver.turn(&mut batch, Wait::Forever, &mut heard).expect("the driver is sound");
                if heard.contains(&Completion::Doorbell) {
                    return;
                }
                tell.send(heard.len()).expect("it is awaited");
            }
        });
        let (sleeper, target) = begun.recv().expect("it begins");
        let bell = Ringer::new(vec![target]).expect("no ring is needed");
        Self { sleeper, bell, came, thread }
    }

    fn end(mut self) {
        self.bell.ring(0);
        self.bell.flush();
        self.thread.join().expect("it ends well");
    }
}

fn settings(slots: u32) -> DriverSettings {
    DriverSettings {
        slots,
        recv_buffers: RECV_BUFFERS,
        recv_buffer_bytes: RECV_BUFFER_BYTES as u32,
        peers: PeerAddresses::Unknown,
    }
}

#[test]
fn a_connection_to_a_shared_listener_wakes_one_worker_and_each_has_its_turn() {
    let (first, address) = listener(Sizes::default());
    let share = || first.try_clone().expect("a descriptor").into();
    let listener = || Listener { socket: share(), layer: Layer::Plain, is_shared: true };
    let acceptors = [(); SHARED_BY].map(|()| Acceptor::of(listener()));
    let mut held = Vec::new();
    let mut shares = [0; SHARED_BY];
    for _ in 0..SHARED_CONNECTIONS {
        acceptors.iter().for_each(|of| of.sleeper.await_sleep());
        held.push(TcpStream::connect(address).expect("the backlog has room"));
        let start = Instant::now();
        while shares.iter().sum::<usize>() < held.len() {
            assert!(start.elapsed() < PATIENCE, "it was not accepted");
            for (share, acceptor) in shares.iter_mut().zip(&acceptors) {
                for came in acceptor.came.try_iter() {
                    assert_eq!(came, 1, "woken for nothing, or for another's");
                    *share += came;
                }
            }
            std::thread::yield_now();
        }
    }
    assert!(shares.iter().all(|&share| share >= SHARED_CONNECTIONS / 4), "{shares:?}");
    acceptors.into_iter().for_each(Acceptor::end);
}

/// Set for a test that has a process of its own, whose limits it may change.
const ALONE: &str = "PUSHLINE_TEST_ALONE";

#[test]
fn without_a_descriptor_accepting_ends_and_goes_on_when_there_is_one() {
    let name = "epoll_alone::without_a_descriptor_accepting_ends_and_goes_on_when_there_is_one";
    if std::env::var_os(ALONE).is_none() {
        let program = std::env::current_exe().expect("this program");
        let alone = Command::new(program).args(["--exact", name]).env(ALONE, "1").output();
        let alone = alone.expect("it runs");
        assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stdout));
        return;
    }
    let mut rig = rig(2);
    let _waiting = rig.world.connect();
    let before = getrlimit(Resource::Nofile);
    let free = rustix::io::dup(std::io::stdin()).expect("a descriptor").as_raw_fd();
    let none_free = Rlimit { current: Some(free as u64), ..before };
    setrlimit(Resource::Nofile, none_free).expect("less is allowed");
    let ended = Completion::AcceptEnded { errno: libc::EMFILE };
    assert_eq!(rig.next(), ended);
    rig.expect_silence();
    rig.submit(&[Op::AcceptStart]);
    assert_eq!(rig.next(), ended);
    setrlimit(Resource::Nofile, before).expect("as much as before");
    rig.submit(&[Op::AcceptStart]);
    assert_eq!(rig.next(), Completion::Accepted { slot: 0, peer: None, layer: Layer::Plain });
}

const WATCHES: &str = "fs.epoll.max_user_watches";

#[test]
#[ignore = "changes a sysctl of the host: scripts/kernel-matrix has a kernel for it"]
fn a_connection_that_cannot_be_watched_is_closed_and_the_error_says_what_is_lacking() {
    let mut rig = rig(2);
    let host = Host::live();
    let before = host.sysctl_text(WATCHES).expect("a kernel with epoll");
    host.put_sysctl(WATCHES, "0").expect("this is root");
    let mut unwatched = rig.world.connect();
    assert_eq!(rig.next(), Completion::AcceptEnded { errno: libc::ENOSPC });
    assert_eq!(unwatched.read(), Err(End::Eof));
    host.put_sysctl(WATCHES, &before).expect("this is root");
    rig.submit(&[Op::AcceptStart]);
    let (_client, token) = rig.connect();
    assert_eq!(token.slot, 0);
}
