//! Where connections come from: distributed over processes, addresses and ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use super::error::BenchError;
use crate::tools::wire::url::Url;

/// Connections one client process takes: the usual hard limit on descriptors is 20,000 in
/// containers, and its pipes, epoll and standard streams need a few.
pub(super) const CONNECTIONS_PER_PROCESS_MAX: u32 = 18_000;

/// Descriptors of a client process that are not connections; a generous number.
const DESCRIPTORS_SPARE: u32 = 100;

/// Ports a client process uses on its own loopback address. It picks them itself: letting the
/// kernel search for a free one takes longer the fuller the range gets.
pub(super) const PORTS: std::ops::Range<u32> = 10_000..60_000;

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// `host[:port]` as in the URL, for the `Host` header.
    pub authority: String,
    /// The first address it resolves to.
    pub address: SocketAddr,
    /// The path of the URL, at least `/`; may still hold placeholders.
    pub path: String,
    /// For `https`: the name that the certificate is for.
    pub secure_host: Option<String>,
}

impl Target {
    /// Takes the URL apart and resolves its host.
    pub fn parse(url: &str) -> Result<Self, BenchError> {
        let url = Url::parse(url).map_err(BenchError::Url)?;
        let unresolved = |error| BenchError::Resolve(url.authority.clone(), error);
        let mut addresses = url.address().to_socket_addrs().map_err(unresolved)?;
        let none = || unresolved(std::io::Error::other("the host has no address"));
        let address = addresses.next().ok_or_else(none)?;
        let secure_host = url.is_secure.then(|| url.host().to_owned());
        let path = if url.path.is_empty() { "/".to_owned() } else { url.path };
        Ok(Self { authority: url.authority, address, path, secure_host })
    }
}

/// The subscribers of one client process: `count` of them from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// Index of its first subscriber in the whole run.
    pub first: u32,
    pub count: u32,
}

/// Distributes subscribers, several a connection, evenly over as few processes as the descriptor
/// limit allows.
pub(super) fn shares(subscribers: u32, per_connection: u32, descriptors_max: u32) -> Vec<Share> {
    let connections = u64::from(subscribers.div_ceil(per_connection));
    let room = descriptors_max.saturating_sub(DESCRIPTORS_SPARE).max(1);
    let processes = connections.div_ceil(room.min(CONNECTIONS_PER_PROCESS_MAX).into());
    let start = |index: u64| {
        let before = connections * index / processes * u64::from(per_connection);
        before.min(subscribers.into()) as u32
    };
    (0..processes)
        .map(|index| Share { first: start(index), count: start(index + 1) - start(index) })
        .collect()
}

/// The source address of a client process, or `None` to leave the choice to the kernel.
///
/// One address has some 64,000 ports towards one server port; a loopback target can be reached
/// from any of 127.0.0.0/8, so each process takes an address of its own.
pub(super) fn source(target: SocketAddr, process: usize) -> Option<Ipv4Addr> {
    match target.ip() {
        IpAddr::V4(address) if address.is_loopback() => {
            let (high, low) = (process / 250, process % 250);
            Some(Ipv4Addr::new(127, 0, u8::try_from(1 + high).ok()?, 1 + low as u8))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_connections_make_56_processes_none_too_full() {
        let shares = shares(1_000_000, 1, 20_000);
        assert_eq!(shares.len(), 56);
        assert!(shares.iter().all(|share| share.count <= CONNECTIONS_PER_PROCESS_MAX));
        let mut next = 0;
        for share in shares {
            assert_eq!(share.first, next);
            next += share.count;
        }
        assert_eq!(next, 1_000_000);
    }

    #[test]
    fn a_low_descriptor_limit_makes_more_processes() {
        assert_eq!(shares(1000, 1, 1_124).len(), 1);
        assert_eq!(shares(1000, 1, 600).len(), 2);
        assert_eq!(shares(1, 1, 20_000), [Share { first: 0, count: 1 }]);
    }

    #[test]
    fn a_connection_of_many_subscribers_is_not_divided() {
        let shares = shares(1_050, 100, 600);
        assert_eq!(shares, [Share { first: 0, count: 1_050 }]);
        let shares = super::shares(1_050, 100, 106);
        assert_eq!(
            shares,
            [Share { first: 0, count: 500 }, Share { first: 500, count: 550 }],
            "11 connections, of which the last one has fewer"
        );
    }

    #[test]
    fn each_process_has_its_own_loopback_address() {
        let target = "127.0.0.1:80".parse().unwrap();
        assert_eq!(source(target, 0), Some(Ipv4Addr::new(127, 0, 1, 1)));
        assert_eq!(source(target, 250), Some(Ipv4Addr::new(127, 0, 2, 1)));
        assert_eq!(source("192.0.2.1:80".parse().unwrap(), 0), None);
    }

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("http://127.0.0.1:8080/pub/{channel}").unwrap();
        assert_eq!(target.authority, "127.0.0.1:8080");
        assert_eq!(target.path, "/pub/{channel}");
        assert_eq!(Target::parse("http://127.0.0.1").unwrap().address.port(), 80);
        assert_eq!(Target::parse("http://[::1]").unwrap().address.port(), 80);
        assert_eq!(Target::parse("http://[::1]:81").unwrap().address.port(), 81);
    }
}
