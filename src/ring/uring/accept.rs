//! Accepting straight into the descriptor table. Without peer addresses one multishot accept does
//! it; multishot accepts cannot report addresses, so with them several single accepts take turns.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use io_uring::types::{DestinationSlot, Fd};
use io_uring::{cqueue, opcode, squeue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, shutdown};

use super::user_data::{Kind, pack};
use crate::ring::{Completion, Layer, Listener, PeerAddresses, Token};

/// Single accepts in flight where addresses are wanted. A burst of this many connections is
/// taken without a turn in between; the rest waits in the listener's backlog.
pub const ACCEPTS_IN_FLIGHT: u32 = 16;

/// Room for the address of one accept; the kernel writes here while the accept is in flight.
#[derive(Clone, Copy)]
struct Cell {
    address: libc::sockaddr_in6,
    address_bytes: libc::socklen_t,
}

const CELL_EMPTY: Cell = Cell {
    address: libc::sockaddr_in6 {
        sin6_family: 0,
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
        sin6_scope_id: 0,
    },
    address_bytes: size_of::<libc::sockaddr_in6>() as libc::socklen_t,
};

/// The listeners, and the accepts in flight on them, distributed in turn.
pub(super) struct Acceptor {
    listeners: Box<[Listener]>,
    /// One per single accept; empty when a multishot accept does the work.
    cells: Box<[Cell]>,
    in_flight: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Off,
    Accepting,
    /// No accept is armed again; this reason is reported once the last one in flight has ended.
    Ending {
        errno: i32,
    },
}

/// What the driver must do after an accept has completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// Arm this cell again.
    Rearm(u32),
    /// Cancel the accepts still in flight.
    CancelRest,
}

impl Acceptor {
    pub(super) fn new(listeners: Box<[Listener]>, peers: PeerAddresses) -> Self {
        assert!(!listeners.is_empty(), "nothing to accept from");
        let cells: Box<[Cell]> = match peers {
            PeerAddresses::Unknown => Box::new([]),
            PeerAddresses::Wanted => {
                vec![CELL_EMPTY; (ACCEPTS_IN_FLIGHT as usize).max(listeners.len())].into()
            }
        };
        Acceptor { listeners, cells, in_flight: 0, state: State::Off }
    }

    /// Whether a connection is waiting that one of the accepts in flight will take.
    pub(super) fn has_waiting(&self) -> io::Result<bool> {
        let listeners = self.listeners.iter();
        let mut listeners: Vec<_> =
            listeners.map(|it| PollFd::new(&it.socket, PollFlags::IN)).collect();
        Ok(self.in_flight > 0 && poll(&mut listeners, Some(&Timespec::default()))? > 0)
    }

    /// Leaves the port: connections not yet accepted are refused, and what is in flight ends.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        self.stop();
        self.listeners.iter().try_for_each(|it| Ok(shutdown(&it.socket, Shutdown::Both)?))
    }

    /// How many accepts to arm (and to cancel) one by one.
    pub(super) fn shots(&self) -> u32 {
        self.cells.len().max(self.listeners.len()) as u32
    }

    /// Begins accepting; the driver pushes [`Acceptor::entry`] for each of [`Acceptor::shots`].
    pub(super) fn start(&mut self) -> io::Result<()> {
        assert_eq!(self.state, State::Off, "accepting is armed already");
        self.state = State::Accepting;
        // A listener taken over from a process on epoll is non-blocking, and its accepts would not
        // wait.
        self.listeners.iter().try_for_each(|it| Ok(rustix::io::ioctl_fionbio(&it.socket, false)?))
    }

    /// Begins to stop. Returns whether there is something to cancel.
    pub(super) fn stop(&mut self) -> bool {
        if self.state == State::Accepting {
            self.state = State::Ending { errno: 0 };
        }
        self.in_flight > 0
    }

    /// The user data of one shot, also for cancelling it.
    pub(super) fn user_data(shot: u32) -> u64 {
        pack(Kind::Accept, Token { slot: shot, generation: 0 })
    }

    /// The entry that arms one shot. Its memory is this acceptor's cell `shot`, which the driver
    /// keeps until after the ring is gone.
    pub(super) fn entry(&mut self, shot: u32) -> squeue::Entry {
        self.in_flight += 1;
        let listener = Fd(self.listener(shot).socket.as_raw_fd());
        let entry = match self.cells.get_mut(shot as usize) {
            None => {
                // Direct descriptors need no close-on-exec flag: they are in no table that is
                // inherited.
                opcode::AcceptMulti::new(listener).allocate_file_index(true).build()
            }
            Some(cell) => {
                *cell = CELL_EMPTY;
                let address = (&raw mut cell.address).cast();
                opcode::Accept::new(listener, address, &raw mut cell.address_bytes)
                    .file_index(Some(DestinationSlot::auto_target()))
                    .build()
            }
        };
        entry.user_data(Acceptor::user_data(shot))
    }

    fn listener(&self, shot: u32) -> &Listener {
        &self.listeners[shot as usize % self.listeners.len()]
    }

    /// What is spoken on the connections a shot accepts.
    pub(super) fn layer(&self, shot: u32) -> Layer {
        self.listener(shot).layer
    }

    /// The peer's address of the shot that just completed.
    pub(super) fn peer(&self, shot: u32) -> Option<IpAddr> {
        let address = &self.cells.get(shot as usize)?.address;
        match i32::from(address.sin6_family) {
            libc::AF_INET => {
                // A `sockaddr_in` has its address where `sockaddr_in6` has the flow label.
                Some(IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(address.sin6_flowinfo))))
            }
            libc::AF_INET6 => {
                Some(IpAddr::V6(Ipv6Addr::from(address.sin6_addr.s6_addr)).to_canonical())
            }
            _ => None,
        }
    }

    /// One accept completed (`result`: slot or negative errno). The caller has reported the
    /// connection; this decides how accepting goes on, and reports when it has ended.
    pub(super) fn completed(
        &mut self,
        shot: u32,
        result: i32,
        flags: u32,
        completions: &mut Vec<Completion>,
    ) -> Next {
        if cqueue::more(flags) {
            return Next::Nothing;
        }
        self.in_flight -= 1;
        let errno = if result < 0 && result != -libc::ECANCELED { -result } else { 0 };
        let mut next = Next::Nothing;
        match self.state {
            State::Off => unreachable!("an accept completed, but none was armed"),
            State::Accepting if result >= 0 && !self.cells.is_empty() => return Next::Rearm(shot),
            State::Accepting => {
                self.state = State::Ending { errno };
                next = Next::CancelRest;
            }
            State::Ending { .. } => {}
        }
        let State::Ending { errno } = self.state else { return next };
        if self.in_flight > 0 {
            return next;
        }
        self.state = State::Off;
        completions.push(Completion::AcceptEnded { errno });
        Next::Nothing
    }
}
