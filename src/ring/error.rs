//! Why a driver cannot be made, and what to tell the operator.

use std::fmt;
use std::io;

use super::kernel::{self, KernelVersion, URING_SINCE};

/// What keeps io_uring from us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidder {
    /// `kernel.io_uring_disabled` is 1: only root and one group may.
    SysctlForUnprivileged,
    /// `kernel.io_uring_disabled` is 2: no process may.
    SysctlForAll,
    /// A seccomp filter, usually a container runtime's, or a security module.
    SandboxOrSecurityModule,
}

/// Why a ring cannot be made. The operator can cure each of these; the message says how.
#[derive(Debug)]
pub enum StartError {
    /// Older than 6.1.
    KernelTooOld {
        /// `uname -r`.
        release: String,
    },
    /// `io_uring_setup` does not exist (`ENOSYS`): not compiled in, or hidden by a sandbox.
    NoIoUring {
        /// `uname -r`.
        release: String,
    },
    /// A call is not permitted (`EPERM`, `EACCES`).
    Forbidden {
        /// The system call.
        call: &'static str,
        /// What forbids it.
        by: Forbidder,
    },
    /// The kernel claims to be new enough but refuses the ring flags (`EINVAL`).
    NoRingFlags {
        /// `uname -r`.
        release: String,
    },
    /// Operations are missing.
    NoOperations {
        /// Their names, separated by spaces.
        names: String,
        /// `uname -r`.
        release: String,
    },
    /// Features of the ring are missing.
    NoFeatures {
        /// Their names, separated by spaces.
        names: String,
        /// `uname -r`.
        release: String,
    },
    /// The descriptor table is larger than `RLIMIT_NOFILE` allows for one ring.
    DescriptorLimit {
        /// Slots asked for.
        wanted: u32,
        /// Slots possible.
        limit: u32,
    },
    /// The kernel had no memory (`ENOMEM`).
    NoMemory {
        /// What needed the memory, as a message has it.
        doing: &'static str,
    },
    /// No more threads (`EAGAIN`).
    NoThreads,
    /// Too many open files in the process or the system (`EMFILE`, `ENFILE`).
    NoFiles {
        /// What needed a descriptor, as a message has it.
        doing: &'static str,
    },
    /// Any other error of the kernel.
    Kernel {
        /// What was being done.
        doing: &'static str,
        /// The kernel's error.
        error: io::Error,
    },
}

/// The value of `kernel.io_uring_disabled`; `None` if there is no such setting (before 6.6).
fn io_uring_disabled() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

impl StartError {
    /// The error of a call made after a ring existed.
    pub(super) fn of(doing: &'static str, error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied {
            // The ring itself was allowed, so this is not the sysctl: a filter lets only some of
            // the three calls pass.
            let by = Forbidder::SandboxOrSecurityModule;
            return StartError::Forbidden { call: "io_uring_enter or io_uring_register", by };
        }
        match error.raw_os_error() {
            Some(libc::ENOMEM) => StartError::NoMemory { doing },
            _ => StartError::of_call(doing, error),
        }
    }

    /// The error of a call that has nothing to do with rings.
    pub(super) fn of_call(doing: &'static str, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => StartError::NoFiles { doing },
            _ => StartError::Kernel { doing, error },
        }
    }

    /// The error of `io_uring_setup`.
    pub(super) fn of_setup(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => StartError::NoIoUring { release: kernel::release() },
            Some(libc::EPERM | libc::EACCES) => {
                let by = match io_uring_disabled() {
                    Some(1) => Forbidder::SysctlForUnprivileged,
                    Some(2) => Forbidder::SysctlForAll,
                    _ => Forbidder::SandboxOrSecurityModule,
                };
                StartError::Forbidden { call: "io_uring_setup", by }
            }
            Some(libc::EINVAL) => StartError::NoRingFlags { release: kernel::release() },
            _ => StartError::of("setting up io_uring", error),
        }
    }
}

const CURE_SANDBOX: &str = "allow io_uring_setup, io_uring_enter and io_uring_register in the \
     container's seccomp profile (docker run --security-opt seccomp=tuning/seccomp.json, or \
     seccomp=unconfined to try it out; podman takes the same)";

impl fmt::Display for Forbidder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Forbidder::SysctlForUnprivileged => f.write_str(
                "the sysctl kernel.io_uring_disabled is 1 (root and one group only): set it to 0 \
                 (sysctl -w kernel.io_uring_disabled=0) or run as a member of the group in \
                 kernel.io_uring_group",
            ),
            Forbidder::SysctlForAll => f.write_str(
                "the sysctl kernel.io_uring_disabled is 2 (nobody): set it to 0 \
                 (sysctl -w kernel.io_uring_disabled=0)",
            ),
            Forbidder::SandboxOrSecurityModule => {
                write!(f, "a seccomp filter or a security module refuses it: {CURE_SANDBOX}")
            }
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KernelVersion { major, minor } = URING_SINCE;
        match self {
            StartError::KernelTooOld { release } => write!(
                f,
                "io_uring needs Linux {major}.{minor} or newer here; this is {release}: upgrade the \
                 kernel"
            ),
            StartError::NoIoUring { release } => write!(
                f,
                "this kernel ({release}) has no io_uring (io_uring_setup answers ENOSYS): use a \
                 kernel built with CONFIG_IO_URING, or, in a container, {CURE_SANDBOX}"
            ),
            StartError::Forbidden { call, by } => {
                write!(f, "io_uring is refused ({call} is not permitted): {by}")
            }
            StartError::NoRingFlags { release } => write!(
                f,
                "the io_uring driver needs rings with SINGLE_ISSUER and DEFER_TASKRUN; this kernel \
                 ({release}) refuses them (EINVAL): use an unmodified Linux \
                 {major}.{minor} or newer"
            ),
            StartError::NoOperations { names, release } => write!(
                f,
                "the driver needs the io_uring operations {names}; this kernel ({release}) lacks \
                 them: use an unmodified Linux {major}.{minor} or newer"
            ),
            StartError::NoFeatures { names, release } => write!(
                f,
                "the driver needs the io_uring features {names}; this kernel ({release}) lacks \
                 them: use an unmodified Linux {major}.{minor} or newer"
            ),
            StartError::DescriptorLimit { wanted, limit } => write!(
                f,
                "a worker needs a table of {wanted} descriptors; {limit} is the limit for one \
                 worker: raise the hard limit of open files (ulimit -Hn, LimitNOFILE= in a systemd \
                 unit, docker run --ulimit nofile=), use more workers, or allow fewer connections"
            ),
            StartError::NoMemory { doing } => write!(
                f,
                "the kernel had no memory for {doing}: raise the limit of locked memory (ulimit \
                 -l, LimitMEMLOCK= in a systemd unit; a worker needs 1 MiB) or the memory limit \
                 of the container or unit, or use fewer workers"
            ),
            StartError::NoThreads => f.write_str(
                "no thread can be started: raise the limit of threads (ulimit -u, TasksMax= in a \
                 systemd unit, docker run --pids-limit=), or use fewer workers",
            ),
            StartError::NoFiles { doing } => write!(
                f,
                "too many open files when {doing}: raise the limit (ulimit -n, LimitNOFILE= in a \
                 systemd unit, sysctl fs.file-max)"
            ),
            StartError::Kernel { doing, error } => write!(
                f,
                "{doing} failed: {error}; pushline is tested on unmodified Linux \
                 {major}.{minor} and newer"
            ),
        }
    }
}

impl std::error::Error for StartError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_setup_become_a_cause_and_a_cure() {
        let message = |errno| StartError::of_setup(io::Error::from_raw_os_error(errno)).to_string();
        assert!(message(libc::ENOSYS).contains("CONFIG_IO_URING"));
        assert!(message(libc::EPERM).contains("not permitted"));
        assert!(message(libc::EINVAL).contains("DEFER_TASKRUN"));
        assert!(message(libc::ENOMEM).contains("LimitMEMLOCK"));
        assert!(message(libc::EMFILE).contains("LimitNOFILE"));
        assert!(Forbidder::SysctlForAll.to_string().contains("kernel.io_uring_disabled=0"));
        assert!(Forbidder::SysctlForUnprivileged.to_string().contains("io_uring_group"));
        assert!(Forbidder::SandboxOrSecurityModule.to_string().contains("seccomp"));
    }

    #[test]
    fn messages_are_one_line_each() {
        let release = || "5.10.0".to_owned();
        let names = || "SEND".to_owned();
        let errors = [
            StartError::KernelTooOld { release: release() },
            StartError::NoIoUring { release: release() },
            StartError::of("trying", io::Error::from_raw_os_error(libc::EPERM)),
            StartError::NoThreads,
            StartError::NoRingFlags { release: release() },
            StartError::NoOperations { names: names(), release: release() },
            StartError::NoFeatures { names: names(), release: release() },
            StartError::DescriptorLimit { wanted: 2, limit: 1 },
            StartError::NoMemory { doing: "trying" },
            StartError::NoFiles { doing: "trying" },
            StartError::Kernel { doing: "trying", error: io::Error::other("no") },
        ];
        for error in errors {
            let message = error.to_string();
            assert!(!message.contains('\n') && !message.contains("  "), "{message}");
        }
    }
}
