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

/// A connection to a listener that workers share wakes one of them, instead of all for one to get it.
const WAKES_ONE: EventFlags = EventFlags::IN.union(EventFlags::EXCLUSIVE);

/// An accepted socket, with its peer's address if that is wanted.
pub(super) type Accepted = (OwnedFd, Option<IpAddr>);

pub(super) struct Acceptor {
    listeners: Vec<Listener>,
    /// Listeners that have connections waiting.
    ready: Vec<u32>,
    peers: PeerAddresses,
    is_armed: bool,
    /// Connections a listener may bring in this turn. An accept that finds nothing costs as much as
    /// one that succeeds (the kernel makes the socket first), so this follows what came before: it
    /// doubles as long as it is used up.
    budget: u32,
}

impl Acceptor {
    /// Nothing is accepted before [`Acceptor::arm`].
    pub fn new(listeners: Vec<Listener>, peers: PeerAddresses) -> Self {
        Self { listeners, ready: Vec::new(), peers, is_armed: false, budget: 1 }
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

    /// Leaves the port: connections are refused from here on. Accepting must not be armed.
    pub fn leave(&mut self) -> io::Result<()> {
        assert!(!self.is_armed, "a socket that is shut down would be an event for ever");
        let mut left = self.listeners.drain(..);
        left.try_for_each(|it| Ok(rustix::net::shutdown(&it.socket, Shutdown::Both)?))
    }

    pub fn arm(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        assert!(!self.is_armed, "accepting is armed already");
        self.is_armed = true;
        for listener in 0..self.listeners() {
            // Not earlier: a process that this one takes over may have been accepting from it until
            // now.
            rustix::io::ioctl_fionbio(&self.listeners[listener as usize].socket, true)?;
            self.watch(epoll, listener)?;
        }
        Ok(())
    }

    /// Level-triggered: what the budget leaves waiting becomes an event again.
    fn watch(&self, epoll: &OwnedFd, listener: u32) -> io::Result<()> {
        let Listener { socket, is_shared, .. } = &self.listeners[listener as usize];
        let events = if *is_shared { WAKES_ONE } else { EventFlags::IN };
        Ok(epoll::add(epoll, socket, Subject::Listener(listener).pack(), events)?)
    }

    pub fn disarm(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        self.is_armed = false;
        self.ready.clear();
        self.listeners.iter().try_for_each(|it| Ok(epoll::delete(epoll, &it.socket)?))
    }

    /// Lets the other workers that share a listener go first: the kernel wakes the one that has
    /// watched it longest.
    pub fn let_others_first(&self, epoll: &OwnedFd, listener: u32) -> io::Result<()> {
        let Listener { socket, is_shared, .. } = &self.listeners[listener as usize];
        if !self.is_armed || !is_shared {
            return Ok(());
        }
        epoll::delete(epoll, socket)?;
        self.watch(epoll, listener)
    }

    pub fn note_ready(&mut self, listener: u32) {
        if self.is_armed {
            self.ready.push(listener);
        }
    }

    /// How many connections each listener may bring in this turn.
    pub fn budget(&self) -> u32 {
        self.budget
    }

    /// Sets the next turn's budget by what the listener that brought most has brought in this one.
    pub fn note_came(&mut self, most: u32) {
        self.budget = match most == self.budget {
            true => (most * 2).min(ACCEPTS_PER_TURN_MAX),
            false => most.max(1),
        };
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
