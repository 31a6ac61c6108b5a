//! Lists the tests that were skipped. Cargo runs test binaries in order of their names, so this one
//! is the last; it has no harness, which would capture its output.

#[path = "common/skip.rs"]
mod skip;

use std::os::unix::process::parent_id;

fn main() {
    // Asked which tests there are: none.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let skipped = skip::take(parent_id());
    if skipped.is_empty() {
        return;
    }
    println!("\nSKIPPED, and so not tested here: {}", skipped.len());
    for line in skipped {
        println!("    {line}");
    }
}
