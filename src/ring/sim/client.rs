//! The far end of a simulated connection, controlled by a test.

use std::cell::RefCell;
use std::rc::Rc;

use rustix::io::Errno;

use super::link::{ClientEnd, Link, ServerEnd};
use super::world::World;

/// A client. Dropping it closes its socket.
#[derive(Debug)]
pub struct SimClient {
    world: Rc<RefCell<World>>,
    key: usize,
}

impl SimClient {
    pub(super) fn new(world: Rc<RefCell<World>>, key: usize) -> Self {
        Self { world, key }
    }

    /// Sends bytes and returns how many the pipe took: none if it is full or the connection broken.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.change(|link| link.client_write(bytes))
    }

    /// Appends all bytes that have arrived to `to` and returns how many.
    pub fn read(&mut self, to: &mut Vec<u8>) -> usize {
        self.read_at_most(usize::MAX, to)
    }

    /// Like [`Self::read`], but slowly: at most `count_max` bytes.
    pub fn read_at_most(&mut self, count_max: usize, to: &mut Vec<u8>) -> usize {
        self.change(|link| match link.client {
            ClientEnd::Open => link.to_client.pull(count_max, to),
            ClientEnd::Stalled | ClientEnd::Closed | ClientEnd::Dead => 0,
        })
    }

    /// Sends FIN, but keeps reading.
    pub fn finish(&mut self) {
        self.change(|link| {
            if link.client != ClientEnd::Dead {
                link.to_server.finished = true;
            }
        });
    }

    /// Closes the socket: FIN, or a reset if bytes are left unread. What the server sends
    /// afterwards is answered with a reset.
    pub fn close(&mut self) {
        self.world.borrow_mut().close_client(self.key);
    }

    /// Closes the socket with a reset.
    pub fn reset(&mut self) {
        self.world.borrow_mut().abort_client(self.key);
    }

    /// Reads nothing until [`Self::resume`].
    pub fn stall(&mut self) {
        self.change(|link| {
            if link.client == ClientEnd::Open {
                link.client = ClientEnd::Stalled;
            }
        });
    }

    /// Reads again.
    pub fn resume(&mut self) {
        self.change(|link| {
            if link.client == ClientEnd::Stalled {
                link.client = ClientEnd::Open;
            }
        });
    }

    /// The machine is gone: from now on nothing arrives in either direction, not even a FIN.
    pub fn drop_packets(&mut self) {
        self.change(|link| link.client = ClientEnd::Dead);
    }

    /// The server's kernel gives up on a peer that does not answer (`ETIMEDOUT`).
    pub fn time_out(&mut self) {
        self.change(|link| {
            link.client = ClientEnd::Dead;
            link.break_server(Errno::TIMEDOUT);
        });
    }

    /// All bytes were read and the server sends no more.
    #[must_use]
    pub fn eof_seen(&self) -> bool {
        self.look(|link| {
            link.client == ClientEnd::Open
                && link.to_client.finished
                && link.to_client.len() == 0
                && !link.client_reset
        })
    }

    /// The server (or a fault) reset or refused the connection.
    #[must_use]
    pub fn reset_seen(&self) -> bool {
        self.look(|link| link.client_reset && link.client != ClientEnd::Dead)
    }

    /// Bytes that [`Self::read`] would bring.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.look(|link| if link.client == ClientEnd::Open { link.to_client.len() } else { 0 })
    }

    /// Bytes that [`Self::write`] would take.
    #[must_use]
    pub fn room(&self) -> usize {
        self.look(|link| link.to_server.room())
    }

    /// The worker that has or will have the connection; `None` when the server closed it.
    #[must_use]
    pub fn worker(&self) -> Option<u16> {
        self.look(|link| match link.server {
            ServerEnd::Waiting { worker } | ServerEnd::Slot { worker, .. } => Some(worker),
            ServerEnd::Gone => None,
        })
    }

    fn look<T>(&self, look: impl FnOnce(&Link) -> T) -> T {
        look(&self.world.borrow().links[self.key])
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut Link) -> T) -> T {
        let mut world = self.world.borrow_mut();
        let result = change(&mut world.links[self.key]);
        world.server_end_changed(self.key);
        result
    }
}

impl Drop for SimClient {
    fn drop(&mut self) {
        // A failed assertion may unwind through here while the world is borrowed.
        let Ok(mut world) = self.world.try_borrow_mut() else { return };
        world.close_client(self.key);
        world.links[self.key].held = false;
        world.forget(self.key);
    }
}
