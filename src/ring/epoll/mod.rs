//! The driver on epoll, for hosts that refuse io_uring: the seccomp profiles of container runtimes,
//! sandboxes, kernels before 6.1.
//!
//! Nothing is ever in flight here: each operation is one system call, made while the batch is
//! applied, and the kernel answers at once. Connections are registered once, edge-triggered; the
//! driver remembers which of them have unread bytes.

mod accept;
mod buffers;
mod receive;
mod slots;
mod subject;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};

use self::accept::Acceptor;
use self::buffers::Buffers;
use self::slots::Slots;
use self::subject::Subject;
use super::bell::ring_event;
use super::clock::monotonic_now;
use super::{
    Batch, BellTarget, BufferId, Completion, Driver, DriverSettings, DriverStats, Listener, Op,
    StartError, Token, Wait,
};

/// Events taken in one turn (6 KiB of them); the kernel keeps the rest for the next.
const EVENTS_PER_TURN: usize = 512;

/// Longest sleep asked of the kernel, which counts milliseconds in 32 bits; a longer one takes
/// several.
const SLEEP_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const SENDING: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// What every connection is watched for.
const READS: EventFlags =
    EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::PRI).union(EventFlags::ET);

/// A worker's epoll instance and its sockets.
pub struct EpollDriver {
    epoll: OwnedFd,
    events: Vec<Event>,
    acceptor: Acceptor,
    /// Watched but never read: each write to it is an edge.
    _bell: Arc<OwnedFd>,
    /// Where each worker is rung.
    bells: Arc<[BellTarget]>,
    slots: Slots,
    buffers: Buffers,
    /// Slots that receive and may have something to read, in order.
    line: VecDeque<u32>,
    stats: DriverStats,
}

impl Driver for EpollDriver {
    fn turn(
        &mut self,
        batch: &mut Batch,
        wait: Wait,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let heard_before = completions.len();
        for worker in batch.rings.drain(..) {
            self.ring(worker);
        }
        for op in batch.ops.drain(..) {
            self.apply(op, &batch.arena, completions)?;
        }
        let is_news = completions.len() > heard_before || !self.line.is_empty();
        self.sleep(if is_news { Wait::No } else { wait })?;
        self.take_events(completions);
        self.receive(completions);
        self.accept(completions)
    }

    fn received(&self, buffer: BufferId) -> &[u8] {
        self.buffers.received(buffer)
    }

    fn recycle(&mut self, buffer: BufferId) {
        self.buffers.recycle(buffer);
    }

    fn capacity(&self) -> u32 {
        self.slots.count()
    }

    fn now(&self) -> Duration {
        monotonic_now()
    }

    fn stats(&self) -> DriverStats {
        self.stats
    }
}

impl EpollDriver {
    /// Makes a driver for `listeners`, of which there must be at least one.
    ///
    /// # Errors
    /// What is missing and what to do about it, as one message.
    pub fn new(
        settings: &DriverSettings,
        listeners: impl IntoIterator<Item: Into<Listener>>,
    ) -> Result<(Self, BellTarget), StartError> {
        let failed = |error| StartError::of_call("making an epoll instance", error);
        Self::open(settings, listeners.into_iter().map(Into::into).collect()).map_err(failed)
    }

    fn open(settings: &DriverSettings, listeners: Vec<Listener>) -> io::Result<(Self, BellTarget)> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&epoll, &bell, Subject::Bell.pack(), EventFlags::IN | EventFlags::ET)?;
        let target = BellTarget::Event(Arc::clone(&bell));
        let driver = Self {
            acceptor: Acceptor::new(listeners, settings.peers),
            epoll,
            events: Vec::with_capacity(EVENTS_PER_TURN),
            _bell: bell,
            bells: Arc::new([]),
            slots: Slots::new(settings.slots),
            buffers: Buffers::new(settings.recv_buffers, settings.recv_buffer_bytes),
            line: VecDeque::new(),
            stats: DriverStats::default(),
        };
        Ok((driver, target))
    }

    /// Sets where each worker is rung. Until then a batch must not have rings.
    pub fn set_bells(&mut self, bells: Arc<[BellTarget]>) {
        self.bells = bells;
    }

    fn ring(&self, worker: u16) {
        match &self.bells[usize::from(worker)] {
            BellTarget::Event(event) => ring_event(event),
            BellTarget::Ring(_) => unreachable!("all workers of a server have one kind of driver"),
        }
    }

    fn apply(&mut self, op: Op, arena: &[u8], out: &mut Vec<Completion>) -> io::Result<()> {
        match op {
            Op::AcceptStart => self.acceptor.arm(&self.epoll)?,
            Op::AcceptStop => self.end_accepting(0, out)?,
            Op::ListenStop => self.leave_port(out)?,
            Op::RecvStart(token) => self.start_receiving(token),
            Op::RecvStop(token) => self.stop_receiving(token, out),
            Op::Send { token, from, to } => {
                self.stats.sends += 1;
                let socket = self.slots.adopt(token).socket();
                out.extend(send(token, socket, &arena[from as usize..to as usize]));
            }
            Op::PollOut(token) => self.watch_for_room(token)?,
            Op::Shutdown(token) => {
                // An error means that the peer has ended the connection, which is reported
                // elsewhere.
                let _ = rustix::net::shutdown(self.slots.adopt(token).socket(), Shutdown::Write);
            }
            // Its only descriptor: closing it takes it out of the interest list.
            Op::Close(token) => drop(self.slots.vacate(token)),
        }
        Ok(())
    }

    fn watch_for_room(&mut self, token: Token) -> io::Result<()> {
        let slot = self.slots.adopt(token);
        slot.is_blocked = true;
        // Modifying the registration looks at the socket again: if there is room already (because
        // it came meanwhile, or the kernel had only lacked memory), that is an event, too.
        let data = Subject::Slot { index: token.slot, life: slot.life() }.pack();
        Ok(epoll::modify(&self.epoll, slot.socket(), data, READS | EventFlags::OUT)?)
    }

    fn sleep(&mut self, wait: Wait) -> io::Result<()> {
        let time = match wait {
            Wait::No => Some(Duration::ZERO),
            Wait::AtMost(time) => Some(time.min(SLEEP_MAX)),
            Wait::Forever => None,
            Wait::Gather(time) => {
                std::thread::sleep(time);
                Some(Duration::ZERO)
            }
        };
        let timeout = time.map(|time| Timespec {
            tv_sec: time.as_secs() as i64,
            tv_nsec: time.subsec_nanos().into(),
        });
        self.stats.enters += 1;
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            // A signal: the worker looks around and sleeps again.
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_events(&mut self, out: &mut Vec<Completion>) {
        for at in 0..self.events.len() {
            let Event { data, flags } = self.events[at];
            match Subject::unpack(data) {
                Subject::Bell => out.push(Completion::Doorbell),
                Subject::Listener(index) => self.acceptor.note_ready(index),
                Subject::Slot { index, life } => self.note_ready(index, life, flags, out),
            }
        }
    }

    fn accept(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        let mut most = 0;
        while let Some(listener) = self.acceptor.next_ready() {
            most = most.max(self.accept_from(listener, out)?);
            self.acceptor.let_others_first(&self.epoll, listener)?;
        }
        self.acceptor.note_came(most);
        Ok(())
    }

    /// Returns how many connections came, those included that were gone already.
    fn accept_from(&mut self, listener: u32, out: &mut Vec<Completion>) -> io::Result<u32> {
        for came in 0..self.acceptor.budget() {
            match self.accept_one(listener) {
                Ok(accepted) => out.push(accepted),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return Ok(came),
                Err(error) => {
                    self.end_accepting(error.raw_os_error(), out)?;
                    return Ok(came);
                }
            }
        }
        Ok(self.acceptor.budget())
    }

    /// Accepts a connection and gives it a slot. If there is none, or it cannot be watched
    /// (`ENOSPC`: fs.epoll.max_user_watches), it is closed without an answer, as io_uring does if
    /// the descriptor table is full.
    fn accept_one(&mut self, listener: u32) -> Result<Completion, Errno> {
        let (socket, peer) = self.acceptor.accept(listener)?;
        let (index, life) = self.slots.vacant().ok_or(Errno::NFILE)?;
        epoll::add(&self.epoll, &socket, Subject::Slot { index, life }.pack(), READS)?;
        self.slots.occupy((index, life), socket);
        let layer = self.acceptor.layer(listener);
        Ok(Completion::Accepted { slot: index, peer, layer })
    }

    /// Accepts all waiting connections, as far as there are slots, and leaves the port.
    fn leave_port(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        for listener in 0..self.acceptor.listeners() {
            while self.acceptor.is_armed()
                && let Ok(accepted) = self.accept_one(listener)
            {
                out.push(accepted);
            }
        }
        self.end_accepting(0, out)?;
        self.acceptor.leave()
    }

    fn end_accepting(&mut self, errno: i32, out: &mut Vec<Completion>) -> io::Result<()> {
        if self.acceptor.is_armed() {
            self.acceptor.disarm(&self.epoll)?;
            out.push(Completion::AcceptEnded { errno });
        }
        Ok(())
    }
}

/// `None` if all was taken.
fn send(token: Token, socket: &OwnedFd, bytes: &[u8]) -> Option<Completion> {
    assert!(!bytes.is_empty(), "an empty send to {token:?}");
    loop {
        return match rustix::net::send(socket, bytes, SENDING) {
            Ok(taken) if taken == bytes.len() => None,
            Ok(taken) => Some(Completion::SendShort { token, taken: taken as u32 }),
            Err(Errno::INTR) => continue,
            // NOBUFS and NOMEM: the kernel is short of memory for this packet, which passes like a
            // full socket does.
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => {
                Some(Completion::SendShort { token, taken: 0 })
            }
            Err(error) => Some(Completion::SendFailed { token, errno: error.raw_os_error() }),
        };
    }
}
