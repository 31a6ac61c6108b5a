//! The driver of simulations: an in-memory network with a virtual clock and seeded faults.
//!
//! Everything runs on one thread. A scheduler steps workers (each a [`SimDriver`]) and clients
//! ([`SimClient`]) as it likes and moves the clock with [`SimNet::advance`]; no step blocks. The
//! same seed and the same steps give the same run, to the byte, as [`SimNet::trace`] shows.
//!
//! The other half of the contract is checked here too: a worker that breaks it (an op on a closed
//! token, two sends to one socket in a batch, a buffer recycled twice, ...) panics at once.

mod client;
mod faults;
mod link;
mod reap;
#[cfg(test)]
mod tests;
mod worker;
mod world;

pub use client::SimClient;
pub use faults::{CERTAIN_PPM, Fault, Faults, LATE_MICROS_MAX, STALL_MICROS_MAX};

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;

use super::{Batch, Bell, BufferId, Completion, Driver, DriverStats, Layer, Wait};
use world::{Output, World};

/// The size of the world.
#[derive(Clone, Copy, Debug)]
pub struct SimSettings {
    /// Workers, each with a listener and a descriptor table.
    pub workers: u16,
    /// Connections per worker.
    pub slots_per_worker: u32,
    /// Provided buffers per worker.
    pub recv_buffers: u16,
    /// Bytes each of them holds.
    pub recv_buffer_bytes: usize,
    /// Bytes under way in one direction of one connection.
    pub socket_buffer_bytes: usize,
}

impl Default for SimSettings {
    fn default() -> Self {
        Self {
            workers: 1,
            slots_per_worker: 64,
            recv_buffers: 16,
            recv_buffer_bytes: 2048,
            socket_buffer_bytes: 16 * 1024,
        }
    }
}

/// The world; clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct SimNet {
    world: Rc<RefCell<World>>,
    /// Picks the listener the kernel would have picked for a connection.
    balance: Rc<RefCell<Rng>>,
}

impl SimNet {
    /// A world at time zero, without connections.
    #[must_use]
    pub fn new(settings: SimSettings, faults: Faults, seed: u64) -> Self {
        assert!(settings.workers > 0 && settings.recv_buffer_bytes > 0);
        Self {
            world: Rc::new(RefCell::new(World::new(settings, faults, seed))),
            balance: Rc::new(RefCell::new(faults::stream(seed, u64::from(u32::MAX)))),
        }
    }

    /// The worker's driver; one at a time. Dropping it closes the listener and all connections of
    /// the worker; making another one opens the listener again.
    #[must_use]
    pub fn driver(&self, worker: u16) -> SimDriver {
        let mut world = self.world.borrow_mut();
        let buffers = vec![Vec::new(); usize::from(world.settings.recv_buffers)];
        let w = &mut world.workers[usize::from(worker)];
        assert!(!w.driven, "worker {worker} has a driver already");
        (w.driven, w.listening) = (true, true);
        SimDriver { world: Rc::clone(&self.world), worker, buffers }
    }

    /// How many faults have happened so far.
    #[must_use]
    pub fn faults_happened(&self) -> u64 {
        self.world.borrow().dice.happened
    }

    /// A bell for one ringing thread.
    #[must_use]
    pub fn bell(&self) -> SimBell {
        SimBell { rings: Arc::clone(&self.world.borrow().rings), gathered: Vec::new() }
    }

    /// Connects a client; which worker gets it is as good as random.
    #[must_use]
    pub fn connect(&self) -> SimClient {
        self.connect_to(self.any_worker())
    }

    /// The same to a TLS listener.
    #[must_use]
    pub fn connect_tls(&self) -> SimClient {
        self.connect_tls_to(self.any_worker())
    }

    fn any_worker(&self) -> u16 {
        self.balance.borrow_mut().u16(0..self.world.borrow().settings.workers)
    }

    /// Connects a client to the listener of this worker. If there is none, it is reset at once.
    #[must_use]
    pub fn connect_to(&self, worker: u16) -> SimClient {
        self.connect_with(worker, (None, Layer::Plain))
    }

    /// The same, and the worker is told this address.
    #[must_use]
    pub fn connect_from(&self, worker: u16, peer: IpAddr) -> SimClient {
        self.connect_with(worker, (Some(peer), Layer::Plain))
    }

    /// A client connects to the TLS listener of this worker.
    #[must_use]
    pub fn connect_tls_to(&self, worker: u16) -> SimClient {
        self.connect_with(worker, (None, Layer::Tls))
    }

    fn connect_with(&self, worker: u16, from: (Option<IpAddr>, Layer)) -> SimClient {
        let key = self.world.borrow_mut().connect(worker, from);
        SimClient::new(Rc::clone(&self.world), key)
    }

    /// The virtual time since the world began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.world.borrow().now
    }

    /// Uses these faults from now on (what was delayed stays delayed). With [`Faults::none`] a
    /// simulation can check that everything becomes quiet.
    pub fn set_faults(&self, faults: Faults) {
        self.world.borrow_mut().dice.set_faults(faults);
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.world.borrow_mut().now += by;
    }

    /// Lets time pass until some worker has a reason to run ([`Self::next_wakeup`]), if any has.
    pub fn advance_to_next_wakeup(&self) {
        if let Some(at) = self.next_wakeup() {
            let mut world = self.world.borrow_mut();
            world.now = world.now.max(at);
        }
    }

    /// Whether a turn of the worker would return completions, or at least look for them.
    #[must_use]
    pub fn has_ready(&self, worker: u16) -> bool {
        let mut world = self.world.borrow_mut();
        world.hear_rings(worker);
        let now = world.now;
        let w = &world.workers[usize::from(worker)];
        w.stalled_until <= now && w.next_look_at().is_some_and(|at| at <= now)
    }

    /// Whether the worker's thread would run now: something is ready, or its sleep is over. Never
    /// while [`Fault::WorkerStall`] keeps it off its core.
    #[must_use]
    pub fn is_due(&self, worker: u16) -> bool {
        self.due_at(worker).is_some_and(|at| at <= self.now())
    }

    /// When the worker's thread will run next if nothing new happens; `None`: never.
    #[must_use]
    pub fn due_at(&self, worker: u16) -> Option<Duration> {
        let mut world = self.world.borrow_mut();
        world.hear_rings(worker);
        world.workers[usize::from(worker)].due_at()
    }

    /// The earliest [`Self::due_at`] of all workers that have a driver.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Duration> {
        let workers = self.world.borrow().settings.workers;
        let driven = |worker: &u16| self.world.borrow().workers[usize::from(*worker)].driven;
        (0..workers).filter(driven).filter_map(|worker| self.due_at(worker)).min()
    }

    /// The end of the sleep the worker's last turn asked for: now or past if it does not sleep,
    /// `None` if only a completion wakes it.
    #[must_use]
    pub fn asleep_until(&self, worker: u16) -> Option<Duration> {
        self.world.borrow().workers[usize::from(worker)].asleep_until
    }

    /// Stalls the worker's thread for this long, at the scheduler's wish.
    pub fn stall(&self, worker: u16, time: Duration) {
        let mut world = self.world.borrow_mut();
        let until = world.now + time;
        let w = &mut world.workers[usize::from(worker)];
        w.stalled_until = w.stalled_until.max(until);
    }

    /// Descriptor slots of the worker that are in use.
    #[must_use]
    pub fn slots_used(&self, worker: u16) -> usize {
        self.world.borrow().workers[usize::from(worker)].slots_used()
    }

    /// Provided buffers the worker has received and not recycled.
    #[must_use]
    pub fn buffers_lent(&self, worker: u16) -> usize {
        self.world.borrow().workers[usize::from(worker)].buffers_lent()
    }

    /// A hash of all that happened: every turn's time and completions, all bytes both ways.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.world.borrow().trace()
    }

    /// Checks that nothing was lost or appeared from nowhere: buffers, slots, connections, bytes.
    ///
    /// # Panics
    /// If something was lost or appeared.
    pub fn check_conservation(&self) {
        self.world.borrow().check_conservation();
    }
}

/// A worker's driver. Never blocks: where the real one would sleep, [`SimNet::asleep_until`] says
/// for how long.
#[derive(Debug)]
pub struct SimDriver {
    world: Rc<RefCell<World>>,
    worker: u16,
    /// The provided buffers, kept here and not in the world so that they can be borrowed.
    buffers: Vec<Vec<u8>>,
}

impl Driver for SimDriver {
    fn turn(
        &mut self,
        batch: &mut Batch,
        wait: Wait,
        completions: &mut Vec<Completion>,
    ) -> std::io::Result<()> {
        let mut output = Output { completions, buffers: &mut self.buffers };
        self.world.borrow_mut().turn(self.worker, batch, wait, &mut output);
        Ok(())
    }

    fn received(&self, buffer: BufferId) -> &[u8] {
        let lent = self.world.borrow().workers[usize::from(self.worker)].is_lent(buffer);
        assert!(lent, "{buffer:?}: read, but not lent");
        &self.buffers[usize::from(buffer.0)]
    }

    fn recycle(&mut self, buffer: BufferId) {
        self.world.borrow_mut().workers[usize::from(self.worker)].recycle(buffer);
    }

    fn capacity(&self) -> u32 {
        self.world.borrow().settings.slots_per_worker
    }

    fn now(&self) -> Duration {
        self.world.borrow().now
    }

    fn stats(&self) -> DriverStats {
        self.world.borrow().workers[usize::from(self.worker)].stats
    }
}

impl Drop for SimDriver {
    fn drop(&mut self) {
        // A failed assertion may unwind through here while the world is borrowed.
        if let Ok(mut world) = self.world.try_borrow_mut() {
            world.drop_driver(self.worker);
        }
    }
}

/// Rings workers of a [`SimNet`]. It may be sent to other threads, but then the run is no longer
/// the same every time.
#[derive(Debug)]
pub struct SimBell {
    rings: Arc<[AtomicBool]>,
    gathered: Vec<u16>,
}

impl Bell for SimBell {
    fn ring(&mut self, worker: u16) {
        assert!(usize::from(worker) < self.rings.len(), "no worker {worker}");
        self.gathered.push(worker);
    }

    fn flush(&mut self) {
        for worker in self.gathered.drain(..) {
            self.rings[usize::from(worker)].store(true, Ordering::Release);
        }
    }
}
