//! Who the client is: the peer, or whom a trusted proxy says it speaks for. Limits by address, the
//! operator's list and the access log go by this. Addresses are known only where something asks for
//! them; elsewhere a connection has none, and no memory for one.

use std::net::{IpAddr, Ipv6Addr};

use super::admission::Refused;
use super::core::Core;
use super::http::Step;
use super::slot::{Flags, NONE};
use crate::config::ClientAddress;
use crate::proto::http::head::Request;
use crate::proto::{forwarded, proxy};
use crate::reason::CloseReason;

impl Core {
    /// An accepted connection's peer, if addresses are known. A trusted proxy is not counted as the
    /// client that it is not.
    pub(super) fn note_peer(&mut self, index: u32, peer: Option<IpAddr>) -> Result<(), Refused> {
        let Some(peer) = peer.map(|peer| peer.to_canonical()) else { return Ok(()) };
        if self.is_trusted(peer) {
            self.slots[index as usize].flags.set(Flags::PROXIED);
            self.set_client(index, peer);
            return Ok(());
        }
        self.note_client(index, peer)
    }

    fn is_trusted(&self, peer: IpAddr) -> bool {
        self.setup.settings.trusted_proxies.iter().any(|network| network.contains(&peer))
    }

    /// The connection is this client's from now on, and counts as such.
    fn note_client(&mut self, index: u32, client: IpAddr) -> Result<(), Refused> {
        self.set_client(index, client);
        let (place, count) = self.setup.census.enter_from(counted_as(client), &self.setup.hasher);
        let before = std::mem::replace(&mut self.slots[index as usize].address, place);
        if before != NONE {
            self.setup.census.leave_from(before);
        }
        match self.setup.settings.address_connections_max {
            Some(max) if count > max && before != place => Err(Refused::Address),
            _ => Ok(()),
        }
    }

    fn set_client(&mut self, index: u32, client: IpAddr) {
        let needed = index as usize + 1;
        if self.clients.len() < needed {
            self.clients.resize(needed, None);
        }
        self.clients[index as usize] = Some(client);
    }

    /// Whose connection it is, if addresses are known.
    pub(super) fn client(&self, index: u32) -> Option<IpAddr> {
        self.clients.get(index as usize).copied().flatten()
    }

    /// Nobody's any more.
    pub(super) fn forget_client(&mut self, index: u32) {
        if let Some(client) = self.clients.get_mut(index as usize) {
            *client = None;
        }
    }

    /// Whether the connection has still to begin with the PROXY protocol.
    pub(super) fn awaits_proxy_header(&self, index: u32) -> bool {
        let by_header = self.setup.settings.client_address == ClientAddress::ProxyProtocol;
        by_header && self.slots[index as usize].flags.has(Flags::PROXIED)
    }

    /// What a trusted proxy says before its client says anything. Without it, or with anything else,
    /// there is nobody to answer.
    pub(super) fn proxy_input(&mut self, index: u32, bytes: &[u8]) -> Step {
        let (source, length) = match proxy::parse(bytes) {
            Ok(proxy::Parsed::Complete { source, length }) => (source, length),
            Ok(proxy::Parsed::Partial) => return Step::Wait(0),
            Err(proxy::Malformed) => {
                self.close(index, CloseReason::BadRequest);
                return Step::Used(bytes.len());
            }
        };
        self.slots[index as usize].flags.clear(Flags::PROXIED);
        if let Some(source) = source
            && let Err(refused) = self.note_client(index, source.to_canonical())
        {
            self.refuse_later(index, refused);
        }
        Step::Used(length)
    }

    /// Of which client a trusted proxy brings this request; the nearest that is no proxy itself.
    pub(super) fn note_forwarded(
        &mut self,
        index: u32,
        request: &Request<'_>,
    ) -> Result<(), Refused> {
        if !self.slots[index as usize].flags.has(Flags::PROXIED) {
            return Ok(());
        }
        let by_header = self.setup.settings.client_address == ClientAddress::Forwarded;
        let name = if by_header { "forwarded" } else { "x-forwarded-for" };
        let mut values: Vec<&str> =
            request.headers_named(name).filter_map(|value| str::from_utf8(value).ok()).collect();
        values.reverse();
        let client = match by_header {
            true => self.nearest(values.into_iter().flat_map(forwarded::forwarded)),
            false => self.nearest(values.into_iter().flat_map(forwarded::x_forwarded_for)),
        };
        client.map_or(Ok(()), |client| self.note_client(index, client))
    }

    fn nearest(&self, mut addresses: impl Iterator<Item = Option<IpAddr>>) -> Option<IpAddr> {
        addresses.find_map(|address| match address.map(|address| address.to_canonical()) {
            Some(address) if self.is_trusted(address) => None,
            other => Some(other),
        })?
    }
}

/// What an address counts as: of IPv6, the /64 that one subscriber line has whole.
fn counted_as(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_counts_as_one_client() {
        let counted = |text: &str| counted_as(text.parse().expect("an address")).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("192.0.2.7"), "192.0.2.7");
    }
}
