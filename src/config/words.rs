//! The words of keys that take one of a few.

use super::{ClientAddress, DriverWanted, LogFormat, LogLevel, PublisherShown, SlowPolicy, Steer};
use crate::journal::writer::Durability;
use crate::log::policy::Keeps;

pub(super) const CLIENT_ADDRESS: &[(&str, ClientAddress)] = &[
    ("x-forwarded-for", ClientAddress::XForwardedFor),
    ("forwarded", ClientAddress::Forwarded),
    ("proxy-protocol", ClientAddress::ProxyProtocol),
];
pub(super) const DURABILITIES: &[(&str, Durability)] =
    &[("sync", Durability::Sync), ("os", Durability::Os)];

pub(super) const DRIVERS: &[(&str, DriverWanted)] = &[
    ("auto", DriverWanted::Auto),
    ("io_uring", DriverWanted::IoUring),
    ("epoll", DriverWanted::Epoll),
];
pub(super) const STEER: &[(&str, Steer)] = &[("hash", Steer::Hash), ("cpu", Steer::Cpu)];
pub(super) const SLOW: &[(&str, SlowPolicy)] =
    &[("skip", SlowPolicy::Skip), ("disconnect", SlowPolicy::Disconnect)];
pub(super) const HISTORIES: &[(&str, Keeps)] = &[("all", Keeps::All), ("latest", Keeps::Latest)];
pub(super) const PUBLISHERS: &[(&str, PublisherShown)] =
    &[("none", PublisherShown::None), ("subject", PublisherShown::Subject)];
pub(super) const FORMATS: &[(&str, LogFormat)] =
    &[("text", LogFormat::Text), ("json", LogFormat::Json)];
pub(super) const LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];
