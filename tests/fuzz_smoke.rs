//! Every fuzzing target over its corpus, and over mutations of it: a few seconds of what
//! `scripts/fuzz` does for long. Seeded, so that a failure repeats; `PUSHLINE_FUZZ_ITERS` sets how
//! many mutations each target gets, `PUSHLINE_FUZZ_SEED` with which seed it begins.

#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use targets::{Check, TARGETS};

/// A few seconds in all, in a debug build.
const ITERATIONS: u64 = 4000;

/// Longest mutated input; what only longer ones show is left to libFuzzer.
const INPUT_BYTES_MAX: usize = 4096;

/// Bytes and words that mean something to one of the targets.
const SPICE: [&[u8]; 26] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\x80",
    b" ",
    b":",
    b",",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"%",
    b"0",
    b"f",
    b"-",
    b"\x81",
    b"\x88",
    b"\xfe",
    b"data:",
    b"id:",
    b"ffffffffffffffff",
    b"\\ud800",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
];

macro_rules! smoke {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                run(stringify!($target), targets::$target::check);
            }
        )*

        #[test]
        fn every_target_is_run() {
            let names = TARGETS.map(|(name, _)| name);
            assert_eq!(names, [$(stringify!($target)),*]);
        }
    };
}

smoke! {
    chunked_body config envelope http2_connection http2_head http_head last_event_id proxy_header
    request_stream sse_stream tls_records ws_stream
}

fn run(name: &str, check: Check) {
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    for input in &corpus {
        try_input(name, check, input, "corpus");
    }
    let first_seed = number("PUSHLINE_FUZZ_SEED").unwrap_or(0);
    for seed in first_seed..first_seed + number("PUSHLINE_FUZZ_ITERS").unwrap_or(ITERATIONS) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut input = corpus[rng.usize(..corpus.len())].clone();
        for _ in 0..rng.usize(1..6) {
            mutate(&mut input, &corpus, &mut rng);
        }
        input.truncate(INPUT_BYTES_MAX);
        try_input(name, check, &input, &format!("PUSHLINE_FUZZ_SEED={seed}"));
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fuzz/corpus", name].iter().collect();
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).expect("a readable file")).collect()
}

/// Reports which input it was, in a form that can be made a corpus file.
fn try_input(name: &str, check: Check, input: &[u8], from: &str) {
    let outcome = catch_unwind(AssertUnwindSafe(|| check(input)));
    if outcome.is_err() {
        panic!("{name} failed ({from}) on b\"{}\"", input.escape_ascii());
    }
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut fastrand::Rng) {
    let at = rng.usize(..=input.len());
    let end = (at + rng.usize(..16)).min(input.len());
    match rng.u8(..8) {
        0 => drop(input.splice(at..at, SPICE[rng.usize(..SPICE.len())].iter().copied())),
        1 => drop(input.splice(at..end, SPICE[rng.usize(..SPICE.len())].iter().copied())),
        2 => drop(input.drain(at..end)),
        3 => input.truncate(at),
        4 if at < input.len() => input[at] = rng.u8(..),
        5 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
        6 => {
            let copy = input[at..end].to_vec();
            let to = rng.usize(..=input.len());
            input.splice(to..to, copy);
        }
        _ => {
            let other = &corpus[rng.usize(..corpus.len())];
            let from = rng.usize(..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
}
