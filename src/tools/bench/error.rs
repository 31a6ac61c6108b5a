//! Why a benchmark could not be run or reported.

use std::{fmt, io, path::PathBuf};

use crate::tools::wire::url::BadUrl;

/// What stopped a run. None of these is a finding about the server: those are in the report.
#[derive(Debug)]
pub enum BenchError {
    /// The operator's URL cannot be used.
    Url(BadUrl),
    /// The operator's options contradict each other; says which and what to do.
    Options(&'static str),
    /// The host of the URL has no address.
    Resolve(String, io::Error),
    /// A client process could not be started, or its pipes broke.
    Client(io::Error),
    /// A client process ended before it gave its result.
    ClientGone(usize),
    /// No connection could be made; the counts per kind of failure.
    NothingConnected(String),
    /// Nothing could be published; the last refusal or IO error.
    NothingPublished(String),
    /// A process given with `--server-pid` cannot be read.
    Server(u32, io::Error),
    /// The readers did not stop or go on when told to.
    Signal(io::Error),
    /// A result file could not be written.
    Write(PathBuf, io::Error),
    /// The plot could not be drawn.
    Plot(PathBuf, String),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(bad) => bad.fmt(f),
            Self::Options(what) => f.write_str(what),
            Self::Resolve(host, error) => write!(f, "cannot resolve {host}: {error}"),
            Self::Client(error) => write!(f, "cannot run a client process: {error}"),
            Self::ClientGone(index) => write!(f, "client process {index} ended before its result"),
            Self::NothingConnected(kinds) => {
                write!(f, "no subscription was accepted: {kinds}; is this the right URL and path?")
            }
            Self::NothingPublished(last) => write!(f, "not one event was published: {last}"),
            Self::Server(pid, error) => write!(f, "cannot read server process {pid}: {error}"),
            Self::Signal(error) => write!(f, "cannot stop or continue the readers: {error}"),
            Self::Write(path, error) => write!(f, "cannot write {}: {error}", path.display()),
            Self::Plot(path, error) => write!(f, "cannot draw {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for BenchError {}
