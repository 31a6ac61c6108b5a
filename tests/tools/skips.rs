//! Skipped tests are listed once, by the run they belong to.

use crate::skip::{note, take};

/// More than the kernel assigns (at most 4,194,304): there is no such process, so its list is left
/// over.
const RUN: u32 = 1 << 23;

#[test]
fn skips_are_told_once_each_and_to_their_own_run() {
    for line in ["b::two needs a tool", "a::one needs a tool", "b::two needs a tool"] {
        note(RUN, line);
    }
    note(RUN + 1, "c::three needs a tool");
    assert_eq!(take(RUN), ["a::one needs a tool", "b::two needs a tool"]);
    assert!(take(RUN).is_empty(), "they were told");
    assert!(take(RUN + 1).is_empty(), "it will not be asked for: it went with the first");
}
