//! What needs a machine for minutes: tens of thousands of real clients against the real program,
//! which runs as a process of its own so that its memory can be measured. Each test prints a row of
//! a table and fails if anything was lost silently. They are ignored in an ordinary run,
//! but for a small one of nodes and brokers; `scripts/stalls`, `scripts/storm`, `scripts/drain` and
//! `scripts/cluster` run them.

// Only a part of each module is used here.
mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod drain;
mod herd;
mod member;
#[allow(dead_code)]
#[path = "../simulation/parse.rs"]
mod parse;
mod publisher;
mod stalls;
mod storm;

/// A number from the environment, by which the scripts pass on their arguments.
fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: a number")))
}

/// The duration, in milliseconds, that this share of sorted durations does not exceed.
fn percentile_ms(sorted_us: &[u64], share: f64) -> f64 {
    let last = sorted_us.len().saturating_sub(1);
    let place = (last as f64 * share).round() as usize;
    sorted_us.get(place).map_or(f64::NAN, |us| *us as f64 / 1000.0)
}
