//! Values of keys that are more than a number, a time or a word.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::Settings;
use super::units::{self, Unfit, count};
use crate::proto::path_map::PathMap;

/// The value that leaves the decision to the server or the kernel.
pub(super) const AUTO: &str = "auto";

/// The value for "nothing".
pub(super) const NONE: &str = "none";

/// An address and port, with the two shorthands other servers accept. Names are not looked up: what
/// they mean can change while the server runs.
pub(super) fn address(text: &str) -> Result<SocketAddr, Unfit> {
    let host_and_port = text.rsplit_once(':');
    let short = host_and_port.and_then(|(host, port)| match host {
        "" => Some((Ipv4Addr::UNSPECIFIED, port)),
        "localhost" => Some((Ipv4Addr::LOCALHOST, port)),
        _ => None,
    });
    let address = match short {
        Some((host, port)) => count(port, 0..=65_535).ok().map(|port: u16| (host, port).into()),
        None => text.parse().ok(),
    };
    address.ok_or_else(|| {
        Unfit::wants("an address and port, as 127.0.0.1:8080, localhost:8080, [::]:8080 or :8080")
    })
}

pub(super) fn set<T>(field: &mut T, read: Result<T, Unfit>) -> Result<(), Unfit> {
    read.map(|value| *field = value)
}

pub(super) fn show_or(word: &str, value: Option<impl ToString>) -> String {
    value.map_or(word.to_owned(), |value| value.to_string())
}

pub(super) fn show_rate(rate: Option<u32>) -> String {
    rate.unwrap_or(0).to_string()
}

/// The parts of a list that is separated by commas.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    let listed = if text == NONE { "" } else { text };
    listed.split(',').map(str::trim).filter(|part| !part.is_empty())
}

pub(super) fn show_list(parts: impl IntoIterator<Item = impl ToString>) -> String {
    let parts: Vec<String> = parts.into_iter().map(|part| part.to_string()).collect();
    if parts.is_empty() { NONE.to_owned() } else { parts.join(",") }
}

pub(super) fn put_stream_paths(settings: &mut Settings, text: &str) -> Result<(), Unfit> {
    let maps: Option<_> = listed(text).map(PathMap::parse).collect();
    let wants = Unfit::wants("paths, as /api/chat/{id}/stream=chat:{id}, or none");
    set(&mut settings.stream_paths, maps.ok_or(wants))
}

pub(super) fn put_networks(settings: &mut Settings, text: &str) -> Result<(), Unfit> {
    let networks = listed(text).map(|part| {
        let address = part.parse::<IpAddr>().map(IpNet::from);
        address.or_else(|_| part.parse::<IpNet>()).ok()
    });
    let networks: Option<Vec<IpNet>> = networks.collect();
    let wants = Unfit::wants("addresses or networks as 127.0.0.1,10.0.0.0/8");
    set(&mut settings.trusted_proxies, networks.ok_or(wants))
}

/// The path of a file or folder, if there is to be one.
pub(super) fn optional_path(text: &str) -> Result<Option<PathBuf>, Unfit> {
    Ok((text != NONE).then(|| text.into()))
}

pub(super) fn show_path(path: Option<&Path>) -> String {
    path.map_or(NONE.into(), |path| path.display().to_string())
}

pub(super) fn put_files(files: &mut Vec<PathBuf>, text: &str) -> Result<(), Unfit> {
    *files = listed(text).map(PathBuf::from).collect();
    Ok(())
}

pub(super) fn show_files(files: &[PathBuf]) -> String {
    show_list(files.iter().map(|path| path.display()))
}

pub(super) fn put_nats(settings: &mut Settings, text: &str) -> Result<(), Unfit> {
    let wants = Unfit::wants("addresses as nats://10.0.0.1:4222,tls://nats.internal");
    set(&mut settings.cluster.nats, addresses(text, ["nats://", "tls://"]).ok_or(wants))
}

pub(super) fn put_redis(settings: &mut Settings, text: &str) -> Result<(), Unfit> {
    let wants = Unfit::wants("addresses as redis://10.0.0.1:6379,rediss://redis.internal");
    set(&mut settings.cluster.redis, addresses(text, ["redis://", "rediss://"]).ok_or(wants))
}

/// `None` if one of the addresses has another scheme.
fn addresses(text: &str, schemes: [&str; 2]) -> Option<Vec<String>> {
    let is_known = |url: &&str| schemes.iter().any(|scheme| url.starts_with(scheme));
    listed(text).map(|url| is_known(&url).then(|| url.to_owned())).collect()
}

/// A stream's name is also what its subjects begin with.
pub(super) fn stream_name(text: &str) -> Result<String, Unfit> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_name = (1..=64).contains(&text.len()) && text.bytes().all(is_plain);
    if is_name { Ok(text.to_owned()) } else { Err(Unfit::wants("A-Z a-z 0-9 - _, 64 at most")) }
}

pub(super) fn put_cpus(settings: &mut Settings, text: &str) -> Result<(), Unfit> {
    settings.cpus = match text {
        AUTO => Some(Vec::new()),
        NONE => None,
        _ => Some(
            units::cores(text)
                .map_err(|_| Unfit::wants("cores below 1024 as 0,2,4-7, or auto, or none"))?,
        ),
    };
    Ok(())
}

pub(super) fn show_cpus(settings: &Settings) -> String {
    match settings.cpus.as_deref() {
        None => NONE.to_owned(),
        Some([]) => AUTO.to_owned(),
        Some(cores) => show_list(cores),
    }
}
