//! Words for the user beside the output.

use std::fmt;
use std::io::{self, Write};

/// A line on standard error. Nobody may be there to read it (`2>&1 | head`), which is no reason to
/// end: `eprintln!` would.
pub fn tell(what: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "pushline: {what}");
}
