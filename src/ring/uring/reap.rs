//! What completions mean, and what they call for.

use io_uring::cqueue;

use super::accept::{Acceptor, Next};
use super::bell::{BellEnd, is_gone};
use super::buffers::Buffers;
use super::receive::Multishots;
use super::slots::{InFlight, Slots};
use super::user_data::{Kind, unpack};
use crate::ring::{Completion, DriverStats, Token};

/// Everything of the driver but the ring itself, so that completions can be translated while the
/// completion queue is borrowed.
pub(super) struct State {
    pub(super) slots: Slots,
    pub(super) buffers: Buffers,
    pub(super) acceptor: Acceptor,
    pub(super) bell: BellEnd,
    pub(super) multishots: Multishots,
    pub(super) stats: DriverStats,
    /// What completions called for; the driver queues it when it has reaped.
    pub(super) rearms: Vec<Rearm>,
    /// A doorbell was already reported in this turn.
    rang: bool,
}

/// Follow-up work of the driver itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rearm {
    /// Arm this accept cell again.
    Accept(u32),
    /// Accepting must end: cancel what is in flight.
    CancelAccepts,
    /// Read the doorbell's eventfd again.
    Bell,
    /// Ring this worker again: the kernel had no memory for it.
    Ring(u16),
    /// The shutdown for which this close was held back has run.
    Close(Token),
    /// There may be bytes.
    Recv(Token),
    /// Report when there are bytes.
    PollIn(Token),
}

impl State {
    pub(super) fn new(
        slots: Slots,
        buffers: Buffers,
        acceptor: Acceptor,
        bell: BellEnd,
        multishots: Multishots,
    ) -> Self {
        let rearms = Vec::with_capacity(super::ACCEPTS_IN_FLIGHT as usize * 2);
        let stats = DriverStats::default();
        State { slots, buffers, acceptor, bell, multishots, stats, rearms, rang: false }
    }

    pub(super) fn begin_turn(&mut self) {
        self.rang = false;
    }

    pub(super) fn completed(&mut self, entry: &cqueue::Entry, out: &mut Vec<Completion>) {
        let (result, flags) = (entry.result(), entry.flags());
        let Some((kind, token)) = unpack(entry.user_data()) else {
            self.stats.stale += 1;
            return;
        };
        match kind {
            Kind::Accept => self.accept_completed(token.slot, result, flags, out),
            Kind::Recv => self.recv_completed(token, result, flags, out),
            Kind::PollIn => self.poll_in_completed(token, result),
            Kind::Send => self.send_completed(token, result, out),
            Kind::PollOut => self.poll_out_completed(token, out),
            Kind::Shutdown => {
                if self.slots.shutdown_ran(token.slot) {
                    self.rearms.push(Rearm::Close(token));
                }
            }
            // It found nothing: its target has completed, and that completion is in the queue. A
            // close cannot fail on a slot that is in use.
            Kind::Cancel => self.stats.stale += 1,
            Kind::Close => assert!(result >= 0, "closing {token:?} failed: {}", -result),
            // Only a failed ring is reported.
            Kind::Ring if is_gone(-result) => {}
            Kind::Ring => self.rearms.push(Rearm::Ring(token.slot as u16)),
            Kind::Bell => {
                if self.bell.must_read_again() {
                    self.rearms.push(Rearm::Bell);
                }
                if !self.rang {
                    self.rang = true;
                    out.push(Completion::Doorbell);
                }
            }
        }
    }

    fn accept_completed(&mut self, shot: u32, result: i32, flags: u32, out: &mut Vec<Completion>) {
        if result >= 0 {
            let slot = result as u32;
            self.slots.accepted(slot);
            let (peer, layer) = (self.acceptor.peer(shot), self.acceptor.layer(shot));
            out.push(Completion::Accepted { slot, peer, layer });
        }
        match self.acceptor.completed(shot, result, flags, out) {
            Next::Nothing => {}
            Next::Rearm(shot) => self.rearms.push(Rearm::Accept(shot)),
            Next::CancelRest => self.rearms.push(Rearm::CancelAccepts),
        }
    }

    fn send_completed(&mut self, token: Token, result: i32, out: &mut Vec<Completion>) {
        if !self.slots.is_current(token) {
            self.stats.stale += 1;
            return;
        }
        out.push(match result {
            taken if taken >= 0 => Completion::SendShort { token, taken: taken as u32 },
            // Linux has one number for EAGAIN and EWOULDBLOCK. ENOBUFS and ENOMEM: the kernel is
            // short of memory for this packet, which passes like a full socket does.
            error if matches!(-error, libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => {
                Completion::SendShort { token, taken: 0 }
            }
            error => Completion::SendFailed { token, errno: -error },
        });
    }

    fn poll_out_completed(&mut self, token: Token, out: &mut Vec<Completion>) {
        if !self.slots.is_current(token) {
            self.stats.stale += 1;
            return;
        }
        self.slots.finish(token.slot, InFlight::PollOut);
        out.push(Completion::Writable { token });
    }
}
