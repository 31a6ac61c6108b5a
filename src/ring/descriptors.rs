//! The descriptors of this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::StartError;

/// How many open files this process may have: the hard limit, to which this raises the soft one.
///
/// # Errors
/// When the limit cannot be raised.
pub fn descriptors_max() -> Result<u64, StartError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).map_err(|error| {
            StartError::Kernel { doing: "raising RLIMIT_NOFILE", error: error.into() }
        })?;
    }
    Ok(maximum.unwrap_or(u64::MAX))
}

/// Most descriptors for which the table of a process is grown at once, a mebibyte of it. Beyond
/// that few doublings are left.
const TABLE_GROWN_MAX: u64 = 1 << 17;

/// Makes room for this many descriptors in advance. The kernel doubles a process's table when it is
/// full, and with more than one thread waits each time until all cores have noticed: up to 20 ms in
/// which no worker can accept.
pub fn grow_descriptor_table(files: u64) {
    let last = i32::try_from(files.clamp(1, TABLE_GROWN_MAX) - 1).unwrap_or(i32::MAX);
    // If it fails, the table grows bit by bit.
    drop(rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), last));
}
