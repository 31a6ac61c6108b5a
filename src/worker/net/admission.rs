//! Which connections are let in: how many in all, and how many of one client, which is the peer, or
//! the client a trusted proxy names. Addresses are known only if something asks for them; otherwise
//! a connection has none, and no memory for one.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::Net;
use super::connection_count::ConnectionCount;
use super::socket::Flags;
use crate::limits::SLOTS_RESERVED;
use crate::log::SharedHasher;
use crate::reason::Refused;
use crate::worker::table::Table;

/// Counts connections by client, with those of other workers.
#[derive(Debug)]
pub struct Clients {
    connection_count: Arc<ConnectionCount>,
    hasher: SharedHasher,
    /// By index; empty if nothing asks for addresses.
    of: Table<Option<Client>>,
}

#[derive(Clone, Copy, Debug)]
struct Client {
    address: IpAddr,
    /// Where the address is counted; `None` for a trusted proxy.
    place: Option<u32>,
}

impl Clients {
    pub fn new(slots: u32, connection_count: Arc<ConnectionCount>, hasher: SharedHasher) -> Self {
        Self { connection_count, hasher, of: Table::new(slots) }
    }

    fn get(&self, index: u32) -> Option<Client> {
        self.of.get(index).copied().flatten()
    }

    fn set(&mut self, index: u32, client: Client) {
        self.of.reach(index, || None);
        self.of[index] = Some(client);
    }

    /// Counts the connection as this client's from now on. Returns how many the client has, and
    /// whether this one is newly counted.
    fn enter(&mut self, index: u32, address: IpAddr) -> (u32, bool) {
        let (place, count) = self.connection_count.enter_from(counted_as(address), &self.hasher);
        let before = self.get(index).and_then(|client| client.place);
        if let Some(before) = before {
            self.connection_count.leave_from(before);
        }
        self.set(index, Client { address, place: Some(place) });
        (count, before != Some(place))
    }

    /// Takes a closed connection out of the counts.
    pub(super) fn leave(&mut self, index: u32, counted: bool) {
        if counted {
            self.connection_count.leave();
        }
        let client = self.of.get_mut(index).and_then(Option::take);
        if let Some(place) = client.and_then(|client| client.place) {
            self.connection_count.leave_from(place);
        }
    }
}

impl Net {
    /// Whether all open connections are within the limit.
    pub fn has_room(&self) -> bool {
        self.open <= self.slots_for_use() && !self.clients.connection_count.is_full()
    }

    fn slots_for_use(&self) -> u32 {
        self.slots.saturating_sub(SLOTS_RESERVED)
    }

    /// Counts an accepted connection, or says that it must be refused.
    ///
    /// # Errors
    /// Why there is no room for it.
    pub fn admit(&mut self, index: u32, peer: Option<IpAddr>) -> Result<(), Refused> {
        let counted = self.clients.connection_count.enter();
        if !counted {
            self.sockets[index].flags.insert(Flags::UNCOUNTED);
        }
        self.count_peer(index, peer)?;
        if self.open > self.slots_for_use() || !counted {
            return Err(Refused::Full);
        }
        let rate = self.settings.accept_rate;
        if rate.is_some_and(|rate| !self.arrivals.take(rate, self.now)) {
            return Err(Refused::Rate);
        }
        Ok(())
    }

    /// A trusted proxy is not counted: it is not the client.
    fn count_peer(&mut self, index: u32, peer: Option<IpAddr>) -> Result<(), Refused> {
        let Some(peer) = peer.map(|peer| peer.to_canonical()) else { return Ok(()) };
        if self.is_trusted(peer) {
            self.clients.set(index, Client { address: peer, place: None });
            return Ok(());
        }
        self.count_client(index, peer)
    }

    fn is_trusted(&self, peer: IpAddr) -> bool {
        self.settings.trusted_proxies.iter().any(|network| network.contains(&peer))
    }

    /// Counts the connection as this client's from now on.
    ///
    /// # Errors
    /// The client has too many already.
    pub fn count_client(&mut self, index: u32, client: IpAddr) -> Result<(), Refused> {
        let (count, is_new) = self.clients.enter(index, client);
        match self.settings.address_connections_max {
            Some(max) if count > max && is_new => Err(Refused::Address),
            _ => Ok(()),
        }
    }

    /// The nearest address in a proxy's list that is not itself a trusted proxy.
    pub fn nearest_client(
        &self,
        mut addresses: impl Iterator<Item = Option<IpAddr>>,
    ) -> Option<IpAddr> {
        addresses.find_map(|address| match address.map(|address| address.to_canonical()) {
            Some(address) if self.is_trusted(address) => None,
            other => Some(other),
        })?
    }

    /// The connection's client, if addresses are known.
    pub fn client(&self, index: u32) -> Option<IpAddr> {
        self.client_of(index).map(|client| client.address)
    }

    /// Where the client's address is counted, if it is.
    pub fn client_place(&self, index: u32) -> Option<u32> {
        self.client_of(index).and_then(|client| client.place)
    }

    /// A stream's is that of its connection, unless a proxy says otherwise.
    fn client_of(&self, index: u32) -> Option<Client> {
        self.clients.get(index).or_else(|| self.clients.get(self.carrier_of(index)))
    }

    /// Whether the connection's peer is a trusted proxy, and no client is known yet.
    pub fn is_proxy(&self, index: u32) -> bool {
        self.clients.get(index).is_some_and(|client| client.place.is_none())
    }
}

/// What an address counts as: for IPv6 its /64, all of which one subscriber line owns.
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
