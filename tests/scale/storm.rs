//! The reconnect storm: the server is killed with 100,000 clients and started again, and all of
//! them come back at once, with the cursors of a log that is gone. Each must be served, be told of
//! the gap and see the next event, while memory stays in bounds.
//!
//! A process holds as many sockets as it has descriptors, so the clients are processes of their
//! own: this same program, turned into one by `PUSHLINE_HERD`.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::program::Program;
use crate::herd::{Herd, Return};
use crate::member::{Kind, Member};
use crate::publisher::{Pace, Truth, publish};
use crate::{number, percentile_ms};

const PORT: u16 = 21_180;
const HERD_MEMBERS: usize = 17_000;
const ROOM_PER_WORKER: usize = 18_000;
const EVENT_BYTES: usize = 100;
/// How long each step may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// How soon a refused client tries again.
const RETURN_PAUSE: Duration = Duration::from_millis(100);
/// How much memory the server may take beyond its idle memory for each client: 512 bytes while it
/// is joined and told of its gap.
const STORM_BYTES_PER_CLIENT: u64 = 1024;

#[test]
#[ignore = "takes minutes: scripts/storm"]
fn storm() {
    let clients = number("PUSHLINE_STORM_CLIENTS", 100_000) as usize;
    let workers = clients.div_ceil(ROOM_PER_WORKER).max(2).to_string();
    let options = ["--workers", workers.as_str()];
    let truth = Truth::new(1);
    let server = Program::start(PORT, &options);
    let mut herds: Vec<HerdProcess> = (0..clients.div_ceil(HERD_MEMBERS))
        .map(|n| HerdProcess::start(server.addr, HERD_MEMBERS.min(clients - n * HERD_MEMBERS)))
        .collect();
    ask_all(&mut herds, "gather");
    let event = Pace { events: 1, per_s: 1.0, bytes: EVENT_BYTES };
    publish(server.addr, &truth, event, |_| 0).join().expect("it publishes");
    ask_all(&mut herds, "event");
    let idle = server.memory_bytes("VmRSS");

    server.signal(Signal::KILL);
    drop(server);
    let server = Program::start(PORT, &options);
    let began = Instant::now();
    let came_back: Vec<Vec<u64>> = ask_all(&mut herds, "return");
    let all_back = began.elapsed();
    truth.clear();
    publish(server.addr, &truth, event, |_| 0).join().expect("it publishes");
    let seen: usize = ask_all(&mut herds, "event").iter().map(|facts| facts[0] as usize).sum();
    let sum = |place: usize| came_back.iter().map(|facts| facts[place]).sum::<u64>();
    let worst = |place: usize| came_back.iter().map(|facts| facts[place]).max().unwrap_or(0);
    let (gaps, retries) = (sum(0), sum(1));
    let (peak, after) = (server.memory_bytes("VmHWM"), server.memory_bytes("VmRSS"));
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "| clients | workers | back in s | one's connect ms, p50 and p99 of the slowest process | \
         tries refused | told of the gap | saw the next event | RSS MB: idle before, peak, after \
         | CPU s |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n| {clients} | {workers} | {:.1} | \
         {:.0}, {:.0} | {retries} | {gaps} | {seen} | {:.1}, {:.1}, {:.1} | {:.1} |",
        all_back.as_secs_f64(),
        worst(2) as f64 / 1000.0,
        worst(3) as f64 / 1000.0,
        mb(idle),
        mb(peak),
        mb(after),
        server.cpu_s(),
    );
    assert_eq!((gaps, seen), (clients as u64, clients));
    assert!(peak <= idle + STORM_BYTES_PER_CLIENT * clients as u64, "memory");
}

/// A herd in a process of its own, which answers questions in lines.
struct HerdProcess {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl HerdProcess {
    fn start(addr: SocketAddr, members: usize) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["--ignored", "--exact", "storm::be_a_herd", "--nocapture"])
            .env("PUSHLINE_HERD", format!("{addr} {members}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program again");
        let orders = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, orders, answers }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").expect("the herd lives");
    }

    fn answer(&mut self) -> Vec<u64> {
        loop {
            let mut line = String::new();
            let read = self.answers.read_line(&mut line).expect("the herd lives");
            assert!(read > 0, "a herd has failed");
            if let Some(facts) = line.trim_end().strip_prefix("facts ") {
                return facts.split(' ').map(|fact| fact.parse().expect("a number")).collect();
            }
        }
    }
}

impl Drop for HerdProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask_all(herds: &mut [HerdProcess], order: &str) -> Vec<Vec<u64>> {
    herds.iter_mut().for_each(|herd| herd.order(order));
    herds.iter_mut().map(HerdProcess::answer).collect()
}

#[test]
#[ignore = "a part of storm"]
fn be_a_herd() {
    let Ok(task) = std::env::var("PUSHLINE_HERD") else { return };
    let mut words = task.split(' ');
    let mut word = || words.next().expect("an address and a number");
    let addr: SocketAddr = word().parse().expect("an address");
    let count: usize = word().parse().expect("a number");
    let members = (0..count).map(|n| Member::new(Kind::ALL[[0, 2][n % 2]], 0)).collect();
    let mut herd = Herd::new(addr, members, Truth::new(1));
    herd.back = Return::After(RETURN_PAUSE);
    let orders = orders();
    loop {
        let mut order = None;
        herd.live(PATIENCE, |_| {
            order = orders.try_recv().ok();
            order.is_some()
        });
        match order.as_deref() {
            Some("gather") => {
                herd.gather(1000, PATIENCE);
                herd.openings_us.clear();
                println!("\nfacts {count}");
            }
            Some("event") => {
                let seen = |herd: &Herd| herd.members.iter().filter(|one| one.received > 0).count();
                herd.live(PATIENCE, |herd| seen(herd) == count);
                println!("\nfacts {}", seen(&herd));
                herd.members.iter_mut().for_each(|one| one.received = 0);
            }
            Some("return") => println!("\nfacts {}", come_back(&mut herd)),
            other => {
                assert!(other.is_none(), "{other:?}");
                return;
            }
        }
    }
}

/// Gaps told, refused attempts, and how long the successful ones took, p50 and p99.
fn come_back(herd: &mut Herd) -> String {
    let told = |herd: &Herd| herd.members.iter().filter(|one| one.told.gaps == 1).count();
    let count = herd.members.len();
    herd.live(PATIENCE, |herd| told(herd) == count && herd.open() == count);
    herd.openings_us.sort_unstable();
    let us = |share| (percentile_ms(&herd.openings_us, share) * 1000.0) as u64;
    format!("{} {} {} {}", told(herd), herd.failed_connects, us(0.5), us(0.99))
}

/// Lines from standard input; the channel closes when it ends.
fn orders() -> std::sync::mpsc::Receiver<String> {
    let (tell, orders) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
        // The asker is gone.
        std::process::exit(0);
    });
    orders
}
