//! Tests that cannot do their work on this machine. They pass, say so at once, and are listed at
//! the end of `cargo test` (tests/zz_skipped.rs); with `PUSHLINE_NO_SKIP=1` they fail.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};

/// The beginning of a list's name; its end is cargo's process id.
const LIST: &str = "pushline-skipped-";

/// Notes that this thread's test needs something that is missing.
pub fn skip(what: &str, cure: &str) {
    let thread = std::thread::current();
    skip_named(thread.name().unwrap_or("a test"), what, cure);
}

/// The same for what a machine of CI's may lack: it never fails the test.
pub fn skip_anywhere(what: &str, cure: &str) {
    let thread = std::thread::current();
    tell(thread.name().unwrap_or("a test"), what, cure);
}

/// The same for tests whose names begin like this.
pub fn skip_named(test: &str, what: &str, cure: &str) {
    let line = tell(test, what, cure);
    assert!(env::var_os("PUSHLINE_NO_SKIP").is_none_or(|value| value != "1"), "{line}");
}

fn tell(test: &str, what: &str, cure: &str) -> String {
    let line = format!("{}::{test} needs {what} ({cure})", env!("CARGO_CRATE_NAME"));
    // Not captured by the test harness: a skip should be seen.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {line}\n").as_bytes());
    note(parent_id(), &line);
    line
}

/// Adds to the skips of the run that is this cargo process.
pub fn note(cargo: u32, line: &str) {
    let list = OpenOptions::new().create(true).append(true).open(list_of(cargo));
    // In one call, so that tests on several threads do not mix their lines.
    list.and_then(|mut list| list.write_all(format!("{line}\n").as_bytes()))
        .expect("it is written");
}

/// Takes out the skips of this run, in order, and deletes lists whose cargo ended without reading
/// them.
pub fn take(cargo: u32) -> Vec<String> {
    let text = fs::read_to_string(list_of(cargo)).unwrap_or_default();
    for entry in fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
        if entry.path() == list_of(cargo) || is_left_over(&entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

/// One list for each run, so that those of other runs, earlier or concurrent, are not mistaken for
/// ours. In a place where an unprivileged user may write, too: `scripts/sandboxed` runs tests as
/// one.
fn list_of(cargo: u32) -> PathBuf {
    env::temp_dir().join(format!("{LIST}{cargo}"))
}

fn is_left_over(list: &Path) -> bool {
    let name = list.file_name().and_then(|name| name.to_str());
    let cargo = name.and_then(|name| name.strip_prefix(LIST));
    cargo.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
}
