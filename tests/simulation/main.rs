//! The whole system, simulated: the log, several workers and their clients on one thread, with a
//! virtual clock and seeded faults. A seed is a world; what a seed found once is a test by name.
//!
//! `scripts/sim SEED` runs one, `scripts/sim --seeds N [--from SEED]` many.

mod canary;
mod client;
mod log;
mod oracle;
mod parse;
mod plan;
mod store;
mod truth;
mod world;

use std::ops::Range;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use canary::Tamper;
use plan::Plan;
use store::Home;

/// Seeds of an ordinary test run.
const SEEDS: u64 = 300;
/// Seeds in which a canary must die.
const CANARY_SEEDS: u64 = 60;

#[test]
fn every_seed_holds() {
    hold(Home::Memory);
}

#[test]
fn every_seed_holds_with_a_journal_whose_server_and_disk_fail() {
    hold(Home::Journal);
}

fn hold(home: Home) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match (number("PUSHLINE_SIM_SEED"), number("PUSHLINE_SIM_SEEDS")) {
        (Some(seed), seeds) => seed..seed + seeds.unwrap_or(1),
        (None, seeds) => 0..seeds.unwrap_or(SEEDS),
    };
    let failed = run_all(seeds, home);
    assert!(failed.is_empty(), "these seeds fail: {failed:?}; see scripts/sim SEED");
}

#[test]
fn a_broken_rule_is_seen() {
    for tamper in Tamper::ALL {
        let run = |seed: u64| world::run(seed, tamper.home(), Some(tamper));
        let caught = |seed: &u64| catch_unwind(|| run(*seed)).is_err();
        assert!((0..CANARY_SEEDS).any(|seed| caught(&seed)), "{tamper:?} is not seen");
    }
}

// Seeds that found something. Each failed without the fix, and fails again if the fix is removed;
// after a change of `plan` another seed may be needed for that.

/// The only subscriber of a channel was shed as slow, and the event that did it had no replica.
#[test]
fn seed_22_the_last_reader_is_shed() {
    world::run(22, Home::Memory, None);
}

/// A stream was opened by a request whose sender had already sent FIN, and stayed open.
#[test]
fn seed_6_a_stream_is_opened_behind_a_fin() {
    world::run(6, Home::Memory, None);
}

/// Cut off before one channel's gap but after another channel's events, a client came back with an
/// id that hid the loss.
#[test]
fn seed_20_a_gap_goes_before_other_channels_events() {
    world::run(20, Home::Memory, None);
}

/// A live WebSocket subscribed to a second channel and had two cursors for the first.
#[test]
fn seed_1_a_live_websocket_subscribes_again() {
    world::run(1, Home::Memory, None);
}

/// A heartbeat went between the two pieces of a gap.
#[test]
fn seed_887_a_gap_is_sent_in_two_pieces() {
    world::run(887, Home::Memory, None);
}

/// Two messages of a bare WebSocket were refused, and each brought a close frame.
#[test]
fn seed_1345_one_close_frame_is_enough() {
    world::run(1345, Home::Memory, None);
}

/// The replay of one subscriber brought back what another had lost, and the loss was told anyway,
/// with an id from before.
#[test]
fn seed_7535_ids_never_go_back() {
    world::run(7535, Home::Memory, None);
}

/// A refused join had kept the replica of a channel that the worker had left at the log, and the
/// next join trusted its content.
#[test]
fn seed_11610_a_refused_join_leaves_no_hole() {
    world::run(11610, Home::Memory, None);
}

/// A WebSocket began to close while the log was asked to join a channel: it became a reader all the
/// same, and events followed its close frame.
#[test]
fn seed_1980_a_join_behind_our_close_frame_is_none() {
    world::run(1980, Home::Memory, None);
}

#[test]
fn seed_1234_a_gap_promises_no_first_event_that_a_page_may_precede() {
    world::run(1234, Home::Memory, None);
}

/// A stream of two channels with `earliest` began where the younger history begins, and a gap told
/// there was followed by older events of the other channel.
#[test]
fn seed_2000512_earliest_is_another_place_in_each_channel() {
    world::run(2_000_512, Home::Memory, None);
}

/// The journal had removed segments with events of a channel that had newer ones. After a restart the
/// channel began with these, and a client that had missed the others was not told.
#[test]
fn seed_17_a_channel_has_lost_what_was_removed_with_a_segment() {
    world::run(17, Home::Journal, None);
}

/// Runs all seeds on all cores; reports which fail.
fn run_all(seeds: Range<u64>, home: Home) -> Vec<u64> {
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let [steps, events, faults, over_tls] = [0; 4].map(AtomicU64::new);
    let work = || {
        let mut failed = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return failed;
            }
            match catch_unwind(|| world::run(seed, home, None)) {
                Ok(summary) => {
                    steps.fetch_add(summary.steps, Ordering::Relaxed);
                    events.fetch_add(summary.events, Ordering::Relaxed);
                    faults.fetch_add(summary.faults, Ordering::Relaxed);
                    over_tls.fetch_add(summary.over_tls, Ordering::Relaxed);
                }
                Err(_) => {
                    eprintln!("seed {seed} failed in {:#?}", Plan::from_seed(seed));
                    failed.push(seed);
                }
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut failed = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("it catches panics"));
        joined.flatten().collect::<Vec<u64>>()
    });
    failed.sort_unstable();
    let counts = [steps, events, faults, over_tls].map(AtomicU64::into_inner);
    let [steps, events, faults, over_tls] = counts;
    let count = seeds.end - seeds.start;
    let took = began.elapsed();
    println!(
        "{count} seeds in {home:?}, {steps} steps, {events} events, {faults} faults, {over_tls} \
         subscribers over TLS in {took:?}"
    );
    assert!(count < SEEDS || over_tls > 0, "no handshake of TLS has come to its end");
    failed
}
