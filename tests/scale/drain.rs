//! Draining under load: SIGTERM with 20,000 clients of all kinds while events are published.
//! Streams end spread over the drain time, no stream is cut, what was accepted is answered and
//! delivered, and the exit code is 0. A second SIGTERM cuts the rest, and says how many.

use std::time::Duration;

use rustix::process::Signal;

use crate::common::program::Program;
use crate::common::{Conn, request};
use crate::herd::Herd;
use crate::member::{Kind, Member, Stage};
use crate::publisher::{Truth, channel_name, now_us};
use crate::{number, percentile_ms};

const PORT: u16 = 21_280;
const CHANNELS: usize = 20;
const DRAIN: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(120);
/// The drain time is divided into this many slices, in each of which some streams must end.
const SLICES: usize = 10;

fn herd(server: &Program, clients: usize) -> Herd {
    let kind = |n: usize| Kind::ALL[n % Kind::ALL.len()];
    let members = (0..clients).map(|n| Member::new(kind(n), n % CHANNELS)).collect();
    let mut herd = Herd::new(server.addr, members, Truth::new(CHANNELS));
    herd.gather(500, PATIENCE);
    herd
}

#[test]
#[ignore = "takes minutes: scripts/drain"]
fn drain() {
    let clients = number("PUSHLINE_DRAIN_CLIENTS", 19_000) as usize;
    let server = Program::start(PORT, &["--drain", "20s"]);
    let mut herd = herd(&server, clients);
    let publisher = publish_until_refused(&server);
    herd.live(Duration::from_secs(2), |_| false);
    let began_us = now_us();
    server.signal(Signal::TERM);
    let is_out = |member: &Member| matches!(member.stage, Stage::Out);
    let all_out = herd.live(DRAIN + PATIENCE, |herd| herd.members.iter().all(is_out));
    assert!(all_out, "a stream is still there");
    let accepted = publisher.join().expect("it publishes");
    let (code, log) = server.wait(DRAIN);
    let ends_ms: Vec<u64> = herd.ended_us.iter().map(|at| (at - began_us) / 1000).collect();
    let slice_ms = ends_ms.iter().max().map_or(1, |last| last / SLICES as u64 + 1);
    let mut slices = [0; SLICES];
    ends_ms.iter().for_each(|ms| slices[(ms / slice_ms) as usize] += 1);
    let sse = |member: &&Member| member.kind == Kind::Sse;
    let mut retries: Vec<u64> = herd.members.iter().filter_map(|member| member.retry_ms).collect();
    retries.sort_unstable();
    let restarts: u32 = herd.members.iter().map(|member| member.told.restarts).sum();
    let ended = herd.members.iter().filter(sse).filter(|member| member.told.cuts == 1).count();
    let last_ms = ends_ms.iter().max().copied().unwrap_or(0);
    println!(
        "| clients | WebSockets told 1012 | SSE streams ended | ended in each tenth | last after s \
         | retry: ms, least, median, most | publishes answered 200 before the first 503 | exit |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|\n| {clients} | {restarts} | {ended} | {slices:?} | \
         {:.1} | {}, {}, {} | {accepted} | {code:?} |",
        last_ms as f64 / 1000.0,
        retries.first().expect("one"),
        percentile_ms(&retries, 0.5) * 1000.0,
        retries.last().expect("one"),
    );
    assert_eq!(code, Some(0), "{log:?}");
    assert!(log.iter().any(|line| line.contains("cut=0")), "{log:?}");
    let of_sse = herd.members.iter().filter(sse).count();
    assert_eq!((restarts as usize, ended), (clients - of_sse, of_sse));
    assert!(slices.iter().all(|n| *n > 0), "not spread: {slices:?}");
    assert!(last_ms <= DRAIN.as_millis() as u64, "later than the deadline: {last_ms} ms");
    // What was accepted reached every member that was still connected, in order (members check that
    // themselves).
    assert!(herd.members.iter().map(|member| member.received).sum::<u64>() > 0);
}

/// Publishes as fast as it is answered; returns how many were accepted before the first 503.
fn publish_until_refused(server: &Program) -> std::thread::JoinHandle<u64> {
    let addr = server.addr;
    std::thread::spawn(move || {
        let mut conn = Conn::open(addr);
        for n in 0u64.. {
            let channel = n as usize % CHANNELS;
            let data = format!("{:08} {:020} x", n as usize / CHANNELS, now_us());
            let target = format!("/channels/{}", channel_name(channel));
            conn.send(request("POST", &target, &[], Some(data.as_bytes())));
            let answer = conn.response();
            if answer.status == 503 {
                assert!(answer.header("retry-after").is_some());
                return n;
            }
            assert_eq!(answer.status, 200, "{}", answer.text());
            std::thread::sleep(Duration::from_millis(20));
        }
        unreachable!("it is refused in the end")
    })
}

#[test]
#[ignore = "takes minutes: scripts/drain"]
fn a_second_signal_cuts_the_rest_and_says_how_many() {
    let clients = number("PUSHLINE_DRAIN_CLIENTS", 19_000) as usize / 4;
    let server = Program::start(PORT + 2, &["--drain", "10m"]);
    let mut herd = herd(&server, clients);
    server.signal(Signal::TERM);
    herd.live(Duration::from_secs(2), |_| false);
    let open = herd.open();
    server.signal(Signal::TERM);
    herd.live(PATIENCE, |herd| herd.open() == 0);
    let (code, log) = server.wait(Duration::ZERO);
    println!("second signal: {clients} clients, {open} open a moment before it, {code:?}, {log:?}");
    let cut = log.iter().find_map(|line| line.split_once("cut=")).expect("it says how many").1;
    let cut: usize = cut.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number");
    assert!(code == Some(0) && cut > 0 && cut <= open, "{cut} of {open}, {code:?}");
}
