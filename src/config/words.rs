//! Keys that take one of a few words: what they choose between, and the words.

use crate::journal::writer::Durability;
use crate::log::policy::Keeps;

/// The kernel interface the workers use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum DriverWanted {
    /// io_uring if the host allows all we use of it, otherwise epoll.
    #[default]
    Auto,
    /// io_uring, or the server does not start.
    IoUring,
    /// epoll, even where io_uring is available.
    Epoll,
}

pub(super) const DRIVERS: &[(&str, DriverWanted)] = &[
    ("auto", DriverWanted::Auto),
    ("io_uring", DriverWanted::IoUring),
    ("epoll", DriverWanted::Epoll),
];

/// How the kernel spreads new connections over the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Steer {
    /// Evenly, by a hash of both addresses.
    #[default]
    Hash,
    /// To the worker on the core that received the packet.
    Cpu,
}

pub(super) const STEER: &[(&str, Steer)] = &[("hash", Steer::Hash), ("cpu", Steer::Cpu)];

/// How a trusted proxy names the client of a connection or request. Only one way is believed: a
/// proxy passes on what it does not write itself, and that may be a client's lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddress {
    /// The last address of `X-Forwarded-For` that is no trusted proxy's.
    XForwardedFor,
    /// The same of `Forwarded` (RFC 7239).
    Forwarded,
    /// The PROXY protocol, before anything else on the connection.
    ProxyProtocol,
}

pub(super) const CLIENT_ADDRESS: &[(&str, ClientAddress)] = &[
    ("x-forwarded-for", ClientAddress::XForwardedFor),
    ("forwarded", ClientAddress::Forwarded),
    ("proxy-protocol", ClientAddress::ProxyProtocol),
];

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246, as safe as its ciphers, of which only good ones are left.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

pub(super) const TLS_VERSIONS: &[(&str, TlsVersion)] =
    &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];

/// What happens to a reader that is slower than its channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowPolicy {
    /// It is told of the gap and continues with the oldest event kept.
    #[default]
    Skip,
    /// It is disconnected, to reconnect and resume.
    Disconnect,
}

pub(super) const SLOW: &[(&str, SlowPolicy)] =
    &[("skip", SlowPolicy::Skip), ("disconnect", SlowPolicy::Disconnect)];

/// What events say about their publishers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublisherShown {
    /// Events are anonymous.
    #[default]
    None,
    /// The subject of the token an event was published with.
    Subject,
}

pub(super) const PUBLISHERS: &[(&str, PublisherShown)] =
    &[("none", PublisherShown::None), ("subject", PublisherShown::Subject)];

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line of text for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

pub(super) const FORMATS: &[(&str, LogFormat)] =
    &[("text", LogFormat::Text), ("json", LogFormat::Json)];

/// How serious a line must be to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What the operator should act on.
    Error,
    /// Also what the operator may have to act on.
    Warn,
    /// Also what happens seldom: start, reload, drain.
    #[default]
    Info,
    /// Also each stream that begins, and each connection that ends.
    Debug,
    /// Also what libraries log.
    Trace,
}

pub(super) const LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

pub(super) const HISTORIES: &[(&str, Keeps)] = &[("all", Keeps::All), ("latest", Keeps::Latest)];

pub(super) const DURABILITIES: &[(&str, Durability)] =
    &[("sync", Durability::Sync), ("os", Durability::Os)];
