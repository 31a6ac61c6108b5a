//! Words for the user beside the output.

use std::fmt;
use std::io::{self, Write};

/// A text on standard error as it is.
pub fn tell_plainly(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A line on standard error. `eprintln!` would end the program where it is closed (`2>&1 | head`).
pub fn tell(what: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "pushline: {what}");
}
