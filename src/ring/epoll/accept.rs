//! The listeners, and how many connections a turn takes from them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags};

use super::subject::Subject;
use crate::ring::{Layer, Listener, PeerAddresses};

/// Connections a listener may bring in one turn.
const ACCEPTS_PER_TURN_MAX: u32 = 64;

/// An accepted socket, with its peer's address if that is wanted.
pub(super) type Accepted = (OwnedFd, Option<IpAddr>);

pub(super) struct Acceptor {
    listeners: Vec<Listener>,
    /// Listeners that have connections waiting.
    ready: Vec<u32>,
    peers: PeerAddresses,
    is_armed: bool,
    /// Connections a listener may bring in this turn. An accept that finds nothing costs as much as
    /// one that succeeds (the kernel makes the socket first), so a burst begins with one, and the
    /// budget doubles as long as every turn finds more.
    budget: u32,
}

impl Acceptor {
    /// Nothing is accepted before [`Acceptor::arm`].
    pub fn new(
        epoll: &OwnedFd,
        listeners: Vec<Listener>,
        peers: PeerAddresses,
    ) -> io::Result<Self> {
        for (index, listener) in listeners.iter().enumerate() {
            let data = Subject::Listener(index as u32).pack();
            epoll::add(epoll, &listener.socket, data, EventFlags::empty())?;
        }
        Ok(Self { listeners, ready: Vec::new(), peers, is_armed: false, budget: 1 })
    }

    pub fn is_armed(&self) -> bool {
        self.is_armed
    }

    /// What is spoken on a listener's connections.
    pub fn layer(&self, listener: u32) -> Layer {
        self.listeners[listener as usize].layer
    }

    pub fn listeners(&self) -> u32 {
        self.listeners.len() as u32
    }

    /// Leaves the port: connections are refused from here on.
    pub fn leave(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        for listener in self.listeners.drain(..) {
            // A socket that is shut down would be an event for ever.
            epoll::delete(epoll, &listener.socket)?;
            rustix::net::shutdown(&listener.socket, Shutdown::Both)?;
        }
        Ok(())
    }

    pub fn arm(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        assert!(!self.is_armed, "accepting is armed already");
        for listener in &self.listeners {
            // Not earlier: a process that this one takes over may have been accepting from it until
            // now.
            rustix::io::ioctl_fionbio(&listener.socket, true)?;
        }
        // Level-triggered: what the budget leaves waiting becomes an event again.
        self.watch(epoll, EventFlags::IN)
    }

    pub fn disarm(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        self.ready.clear();
        self.watch(epoll, EventFlags::empty())
    }

    fn watch(&mut self, epoll: &OwnedFd, events: EventFlags) -> io::Result<()> {
        self.is_armed = !events.is_empty();
        for (index, listener) in self.listeners.iter().enumerate() {
            epoll::modify(epoll, &listener.socket, Subject::Listener(index as u32).pack(), events)?;
        }
        Ok(())
    }

    pub fn note_ready(&mut self, listener: u32) {
        if self.is_armed {
            self.ready.push(listener);
        }
    }

    /// Begins a turn's accepts; returns how many each listener may bring.
    pub fn begin(&mut self) -> u32 {
        let budget = self.budget;
        self.budget = match self.ready.is_empty() {
            true => 1,
            false => (budget * 2).min(ACCEPTS_PER_TURN_MAX),
        };
        budget
    }

    /// A listener that has connections waiting.
    pub fn next_ready(&mut self) -> Option<u32> {
        self.ready.pop()
    }

    pub fn accept(&self, listener: u32) -> Result<Accepted, Errno> {
        let listener = &self.listeners[listener as usize].socket;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        if self.peers == PeerAddresses::Unknown {
            return Ok((rustix::net::accept_with(listener, flags)?, None));
        }
        let (socket, peer) = rustix::net::acceptfrom_with(listener, flags)?;
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        Ok((socket, peer.map(|peer| peer.ip().to_canonical())))
    }
}
