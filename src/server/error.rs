//! Why the server did not start: what failed, and the cure.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::io::Errno;

use super::driver::Bound;
use super::takeover::TakeOverError;
use super::tls::TlsError;
use crate::cluster::broker::BrokerError;
use crate::journal::recover::JournalError;
use crate::limits::SLOTS_RESERVED;
use crate::ring::StartError;

/// All of these are for the operator to cure.
#[derive(Debug)]
pub enum ServerError {
    /// The kernel, or what a container lets through of it, lacks something.
    Kernel(StartError),
    /// The operator demands io_uring, and it is not available.
    NoIoUring(StartError),
    /// The address can't be listened on.
    Bind {
        /// As the settings have it.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// TLS is wanted, and cannot be had.
    Tls(TlsError),
    /// The server there can't be taken over.
    TakeOver {
        /// The address both of them listen on.
        address: SocketAddr,
        /// What went wrong.
        error: TakeOverError,
    },
    /// There are no keys, and others can reach the address.
    OpenToTheWorld {
        /// The one for clients.
        listen: SocketAddr,
    },
    /// The operator's listener has no key, and others can reach its address.
    AdminOpenToTheWorld {
        /// The one for operators.
        admin: SocketAddr,
    },
    /// The operator's key cannot be used.
    AdminKey {
        /// The file of `admin_key_file`.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A core that does not exist, or that this process may not use.
    NoSuchCpu {
        /// The core's number.
        cpu: usize,
    },
    /// Not even one connection could be held.
    NoRoom {
        /// What leaves none.
        bound: Bound,
        /// The workers that share it.
        workers: u16,
    },
    /// The journal can't be used.
    Journal(JournalError),
    /// The broker of the cluster can't be used.
    Cluster(BrokerError),
    /// Anything else the kernel refused.
    Io {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

impl ServerError {
    pub(crate) fn io(what: &'static str, error: io::Error) -> Self {
        Self::Io { what, error }
    }
}

impl From<TlsError> for ServerError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

impl From<StartError> for ServerError {
    fn from(error: StartError) -> Self {
        Self::Kernel(error)
    }
}

impl From<BrokerError> for ServerError {
    fn from(error: BrokerError) -> Self {
        Self::Cluster(error)
    }
}

impl From<JournalError> for ServerError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) => write!(f, "{error}"),
            Self::NoIoUring(error) => {
                write!(f, "{error}; or run on epoll instead (--driver auto)")
            }
            Self::Bind { address, error } => {
                let cure = match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        "another program listens there: choose another port, or end it \
                         (`ss -ltnp` names it); if it is pushline, --take-over goes on in its place"
                    }
                    io::ErrorKind::PermissionDenied => {
                        "ports below 1024 need CAP_NET_BIND_SERVICE, or \
                         `sysctl net.ipv4.ip_unprivileged_port_start`"
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        "this machine does not have that address (`ip address` lists them)"
                    }
                    _ => "choose another address",
                };
                write!(f, "cannot listen on {address}: {error}; {cure}")
            }
            Self::TakeOver { address, error } => {
                write!(f, "cannot take over from the server on {address}: {error}")
            }
            Self::OpenToTheWorld { listen } => write!(
                f,
                "refusing to listen on {listen} without keys: anyone could publish and read; \
                 configure [auth], listen on 127.0.0.1, or say --open"
            ),
            Self::AdminOpenToTheWorld { admin } => write!(
                f,
                "refusing to listen for the operator on {admin} without a key: anyone could see and \
                 cut every connection; set admin_key_file, listen on 127.0.0.1, or say --open"
            ),
            Self::AdminKey { path, why } => write!(
                f,
                "the operator's key in {}: {why}; make one with `openssl rand -hex 32`",
                path.display()
            ),
            Self::NoSuchCpu { cpu } => write!(
                f,
                "cannot pin a worker to core {cpu}: it is not among the cores this process may \
                 use (`taskset -p $$` shows them); change --cpus, or say --cpus none"
            ),
            Self::NoRoom { bound, workers } => write!(
                f,
                "no room for a connection: there is {bound}, and each of {workers} workers \
                 keeps {SLOTS_RESERVED} of it for refusals; {}, or use fewer workers",
                bound.cure()
            ),
            Self::Journal(error) => write!(f, "{error}"),
            Self::Tls(error) => write!(f, "{error}"),
            Self::Cluster(error) => write!(f, "{error}"),
            Self::Io { what, error } => {
                write!(f, "{what}: {error}")?;
                match error.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::MFILE | Errno::NFILE) => write!(f, "; {MORE_FILES}"),
                    Some(Errno::AGAIN) => write!(f, "; {MORE_THREADS}"),
                    _ => Ok(()),
                }
            }
        }
    }
}

pub(super) const MORE_FILES: &str = "raise it (ulimit -Hn, LimitNOFILE= in a systemd unit, docker run \
                          --ulimit nofile=)";

/// The cure if a thread cannot be started.
const MORE_THREADS: &str = "raise the limit of threads (ulimit -u, TasksMax= in a systemd unit, \
                            docker run --pids-limit=), or use fewer workers";

impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_limit_refuses_comes_with_the_limit_to_raise() {
        let told = |errno: Errno| ServerError::io("doorbells", errno.into()).to_string();
        assert!(told(Errno::MFILE).contains("LimitNOFILE"));
        assert!(told(Errno::AGAIN).contains("TasksMax"));
        let none = |bound| ServerError::NoRoom { bound, workers: 2 }.to_string();
        assert!(none(Bound::Files(32)).contains("RLIMIT_NOFILE 32 for all workers"));
        assert!(none(Bound::Files(32)).contains("LimitNOFILE"));
        assert!(none(Bound::Watches(32)).contains("fs.epoll.max_user_watches 32"));
    }
}
