#![allow(unsafe_code)]
//! The driver on real io_uring: the only place in the crate that may say `unsafe`.
//!
//! One ring per worker, created on the worker's thread and used by it alone. Connections are direct
//! descriptors (the slot is the descriptor), receives take buffers of one provided-buffer ring
//! (`receive` tells how they wait), and sends are fire and forget: `MSG_DONTWAIT | MSG_WAITALL`
//! never goes asynchronous, so the kernel has read the bytes when it has consumed the entry, and
//! `CQE_SKIP_SUCCESS` keeps quiet unless something was left over.

mod accept;
mod bell;
mod buffers;
mod options;
mod probe;
mod reap;
mod receive;
mod release;
mod setup;
mod slots;
mod submit;
mod user_data;

pub use accept::ACCEPTS_IN_FLIGHT;
pub(super) use bell::RingMessenger;
pub(super) use options::set_defer_accept;
pub use options::{steer_by_cpu, stop_steering};
pub use probe::{KernelReport, probe, try_io_uring};
pub use setup::{TABLE_SLOTS_MAX, UringSettings, slots_max};

use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fixed};
use io_uring::{opcode, squeue};

use super::bell::{BellTarget, ring_event};
use super::clock::monotonic_now;
use super::{Batch, BufferId, Completion, Driver, DriverStats, Op, Token, Wait};
use accept::Acceptor;
use reap::{Rearm, State};
use release::{Release, shutdown};
use slots::InFlight;
use submit::Ring;
use user_data::{Kind, pack};

/// How often a turn asks the kernel again to take the rest of a batch before it gives up. Each time
/// the kernel was out of memory for requests; this many in a row is no passing shortage.
const SUBMITS_MAX: u32 = 10_000;

/// Calls beyond the first that a turn spends on work the kernel deferred. A piece of work is a
/// completion, and a call runs about 20: enough to gather a burst into one turn, so that its events
/// share their sends, and few enough that a turn ends while packets keep coming.
const DEFERRED_ROUNDS_MAX: u32 = 64;

/// Turns in which waiting connections are still accepted before the port is left. Each takes all
/// that are waiting; a flood must not keep the port open for ever.
const LEAVE_TURNS_MAX: u32 = 64;

/// Flags of every send. Without `DONTWAIT` it could go asynchronous (and the arena would be read
/// too late); without `WAITALL` a short send would look like success and be skipped.
const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// A worker's ring. It belongs to the thread that made it.
///
/// Fields are dropped in this order: the ring before the memory (buffers, accept cells, the
/// doorbell's word) that operations in flight refer to.
pub struct UringDriver {
    ring: Ring,
    state: State,
    /// How the kernel releases closed descriptors.
    release: Release,
    /// Accepting was asked for while the last slots were about to be freed.
    accept_deferred: bool,
    /// The port must be left after this many turns at the latest.
    leave_within: Option<u32>,
    /// Set while entries that refer to a batch's arena may be queued. It stays set if a turn fails
    /// half-way; then no later turn may submit them, as the arena could be gone.
    arena_in_queue: bool,
    /// This turn had to submit before all of its batch was queued.
    submitted_early: bool,
    /// Receives are queued that must be made in this turn.
    has_receives: bool,
    /// Where each worker is rung.
    bells: Arc<[BellTarget]>,
    /// `IORING_SETUP_SINGLE_ISSUER`: the kernel refuses other threads, and so does the compiler.
    not_send: PhantomData<*const ()>,
}

impl Driver for UringDriver {
    fn turn(
        &mut self,
        batch: &mut Batch,
        wait: Wait,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        if self.arena_in_queue {
            return Err(io::Error::other("the ring failed in an earlier turn"));
        }
        self.state.begin_turn();
        self.submitted_early = false;
        self.has_receives = false;
        let reaped_before = completions.len();
        self.arena_in_queue = true;
        for worker in batch.rings.drain(..) {
            self.queue_ring(worker, completions)?;
        }
        for op in batch.ops.drain(..) {
            self.queue(op, &batch.arena, completions)?;
        }
        for submits in 0.. {
            let wait = if completions.len() > reaped_before { Wait::No } else { wait };
            self.ring.enter(wait)?;
            if self.ring.pending() == 0 {
                break;
            }
            give_up_after(submits)?;
            self.reap(completions)?;
        }
        self.arena_in_queue = false;
        self.reap(completions)?;
        self.reap_deferred(completions)?;
        self.refresh(completions)?;
        self.rearm(completions)?;
        self.receive_now(completions)?;
        self.leave_if_empty()
    }

    fn received(&self, buffer: BufferId) -> &[u8] {
        self.state.buffers.received(buffer)
    }

    fn recycle(&mut self, buffer: BufferId) {
        self.state.buffers.recycle(buffer);
    }

    fn capacity(&self) -> u32 {
        self.state.slots.count()
    }

    fn now(&self) -> Duration {
        monotonic_now()
    }

    fn stats(&self) -> DriverStats {
        DriverStats {
            enters: self.ring.enters,
            cq_overflows: self.ring.cq_overflows,
            ..self.state.stats
        }
    }
}

impl UringDriver {
    /// Sets where each worker is rung. Until then a batch must not have rings.
    pub fn set_bells(&mut self, bells: Arc<[BellTarget]>) {
        self.bells = bells;
    }

    fn queue_ring(&mut self, worker: u16, out: &mut Vec<Completion>) -> io::Result<()> {
        match &self.bells[usize::from(worker)] {
            BellTarget::Event(event) => {
                ring_event(event);
                Ok(())
            }
            BellTarget::Ring(ring) => {
                let token = Token { slot: u32::from(worker), generation: 0 };
                let entry = bell::message(ring.as_raw_fd(), pack(Kind::Ring, token));
                self.push(&entry, out)
            }
        }
    }

    /// Turns one operation into entries.
    fn queue(&mut self, op: Op, arena: &[u8], out: &mut Vec<Completion>) -> io::Result<()> {
        match op {
            Op::AcceptStart => self.queue_accept_start(out),
            Op::AcceptStop => self.queue_accept_stop(out),
            Op::ListenStop => self.begin_to_leave(out),
            Op::RecvStart(token) => self.start_receiving(token, out),
            Op::RecvStop(token) => self.stop_receiving(token, out),
            Op::Send { token, from, to } => {
                self.state.slots.adopt(token);
                self.queue_send(token, &arena[from as usize..to as usize], out)
            }
            Op::PollOut(token) => {
                self.state.slots.adopt(token);
                if self.state.slots.is_in_flight(token.slot, InFlight::PollOut) {
                    return Ok(());
                }
                self.state.slots.begin(token.slot, InFlight::PollOut);
                let entry = opcode::PollAdd::new(Fixed(token.slot), libc::POLLOUT as u32).build();
                self.push(&entry.user_data(pack(Kind::PollOut, token)), out)
            }
            Op::Shutdown(token) => {
                self.state.slots.adopt(token);
                assert!(!self.state.slots.is_in_flight(token.slot, InFlight::Shutdown));
                self.state.slots.begin(token.slot, InFlight::Shutdown);
                self.push(&shutdown(token, libc::SHUT_WR), out)
            }
            Op::Close(token) => {
                self.state.slots.adopt(token);
                self.queue_close(token, out)
            }
        }
    }

    fn queue_accept_start(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        // An accept that finds no slot closes its connection, and one is about to be free.
        self.accept_deferred = self.state.slots.has_room_soon();
        if self.accept_deferred {
            return Ok(());
        }
        self.state.acceptor.start()?;
        for shot in 0..self.state.acceptor.shots() {
            let entry = self.state.acceptor.entry(shot);
            self.push(&entry, out)?;
        }
        Ok(())
    }

    fn queue_accept_stop(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        if std::mem::take(&mut self.accept_deferred) {
            out.push(Completion::AcceptEnded { errno: 0 });
            return Ok(());
        }
        if self.state.acceptor.stop() {
            self.queue_accept_cancel(out)?;
        }
        Ok(())
    }

    /// Leaves the port once no connection waits to be accepted, now or after one of the next turns.
    fn begin_to_leave(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        if std::mem::take(&mut self.accept_deferred) {
            out.push(Completion::AcceptEnded { errno: 0 });
        }
        self.leave_within = Some(LEAVE_TURNS_MAX);
        self.leave_if_empty()
    }

    fn leave_if_empty(&mut self) -> io::Result<()> {
        let Some(turns_left) = self.leave_within else { return Ok(()) };
        if turns_left > 0 && self.state.acceptor.has_waiting()? {
            self.leave_within = Some(turns_left - 1);
            return Ok(());
        }
        self.leave_within = None;
        self.state.acceptor.leave()
    }

    fn queue_accept_cancel(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        for shot in 0..self.state.acceptor.shots() {
            self.push(&cancel(Acceptor::user_data(shot)), out)?;
        }
        Ok(())
    }

    fn queue_send(
        &mut self,
        token: Token,
        bytes: &[u8],
        out: &mut Vec<Completion>,
    ) -> io::Result<()> {
        assert!(!bytes.is_empty(), "an empty send to {token:?}");
        self.state.stats.sends += 1;
        let entry = opcode::Send::new(Fixed(token.slot), bytes.as_ptr(), bytes.len() as u32)
            .flags(SEND_FLAGS)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(pack(Kind::Send, token));
        self.push(&entry, out)
    }

    /// Queues an entry, making room first if there is none.
    fn push(&mut self, entry: &squeue::Entry, out: &mut Vec<Completion>) -> io::Result<()> {
        if self.ring.is_full() {
            self.make_room(out)?;
        }
        // SAFETY: entries refer to memory of three kinds. Arena bytes of a send: borrowed by
        // `turn`, which does not return before the entry is consumed (or sets `arena_in_queue` for
        // good), and the send is never asynchronous. Accept cells and the doorbell's word: boxed in
        // `self.state`, which outlives `self.ring`. Provided buffers: see `Buffers::register`.
        unsafe { self.ring.push(entry) };
        Ok(())
    }

    fn make_room(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        if !self.submitted_early {
            self.submitted_early = true;
            self.state.stats.sq_full += 1;
        }
        for submits in 0.. {
            self.ring.submit()?;
            // Sends that fell short are in the completion queue already: keep it from filling up.
            self.reap(out)?;
            if !self.ring.is_full() {
                break;
            }
            give_up_after(submits)?;
        }
        Ok(())
    }

    /// Translates every completion that is ready, including parked ones.
    fn reap(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        loop {
            for entry in self.ring.completions() {
                self.state.completed(&entry, out);
            }
            if !self.ring.fetch_overflow()? {
                return Ok(());
            }
        }
    }

    /// Lets the kernel run what it deferred, call by call, and translates the outcome.
    fn reap_deferred(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        for _ in 0..DEFERRED_ROUNDS_MAX {
            if !self.ring.has_deferred_work() {
                break;
            }
            self.ring.enter(Wait::No)?;
            self.reap(out)?;
        }
        Ok(())
    }

    /// Queues what completions called for; it is submitted before the next sleep at the latest.
    fn rearm(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        while let Some(rearm) = self.state.rearms.pop() {
            match rearm {
                Rearm::Accept(shot) => {
                    let entry = self.state.acceptor.entry(shot);
                    self.push(&entry, out)?;
                }
                Rearm::CancelAccepts => self.queue_accept_cancel(out)?,
                Rearm::Bell => {
                    if let Some(entry) = self.state.bell.entry() {
                        self.push(&entry, out)?;
                    }
                }
                Rearm::Ring(worker) => self.queue_ring(worker, out)?,
                Rearm::Close(token) => {
                    self.free(token, out)?;
                    if self.accept_deferred {
                        self.queue_accept_start(out)?;
                    }
                }
                Rearm::Recv(token) => self.receive(token, out)?,
                Rearm::PollIn(token) => self.watch(token, out)?,
            }
        }
        Ok(())
    }
}

/// Cancels all operations with this user data: a poll that was stopped may end after the next one
/// began.
fn cancel(user_data: u64) -> squeue::Entry {
    opcode::AsyncCancel2::new(CancelBuilder::user_data(user_data).all())
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(pack(Kind::Cancel, Token { slot: 0, generation: 0 }))
}

fn close(token: Token) -> squeue::Entry {
    opcode::Close::new(Fixed(token.slot))
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(pack(Kind::Close, token))
}

fn give_up_after(submits: u32) -> io::Result<()> {
    if submits >= SUBMITS_MAX {
        return Err(io::Error::other("the kernel has had no memory for requests for too long"));
    }
    std::thread::yield_now();
    Ok(())
}
