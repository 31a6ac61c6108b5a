//! The way out: operations of the worker become operations of the driver below, and what that reports of
//! sends is translated for the worker.

use super::slot::{Flags, Slot};
use super::{Batch, Completion, Driver, Op, Tls, Token};
use crate::bits::Change;

/// The error of a send to a peer whose handshake is not over (`ENOTCONN`).
const NOT_YET: i32 = rustix::io::Errno::NOTCONN.raw_os_error();
/// The error of a send with a key of TLS 1.2 that has sealed all it may (`EPIPE`).
const WORN_OUT: i32 = rustix::io::Errno::PIPE.raw_os_error();

/// The sends of a turn of the driver below.
#[derive(Default)]
pub(super) struct Output {
    sends: Vec<Sent>,
    /// Places of sends that have to be settled even if they were taken whole.
    special: Vec<usize>,
    /// Connections with something to do in the next turn.
    due: Vec<Token>,
    /// A send of this turn is the last before a shutdown.
    is_last: bool,
}

/// A send to a connection with TLS.
#[derive(Clone, Copy, Debug)]
struct Sent {
    token: Token,
    /// Where it begins in the arena: the pending bytes first.
    from: usize,
    pending: usize,
    /// Bytes of the worker's data that have left before, though it was told otherwise: one, or none.
    owed: usize,
    /// Bytes of the worker's data that were sealed.
    data: usize,
    /// Bytes of data that were to be sealed.
    wanted: usize,
    /// Bytes of the whole send.
    bytes: usize,
    /// The driver below has reported it.
    is_settled: bool,
}

impl Sent {
    /// Pending bytes only, of which the worker does not know.
    fn pending(token: Token, from: usize, pending: usize) -> Self {
        Self { token, from, pending, owed: 0, data: 0, wanted: 0, bytes: 0, is_settled: false }
    }

    /// Whether the worker has asked for it, and must hear what became of it.
    fn is_asked_for(&self) -> bool {
        self.owed + self.wanted > 0
    }
}

impl Output {
    pub fn do_soon(&mut self, token: Token) {
        self.due.push(token);
    }

    /// Where the connection's send of this turn is, if it has one.
    fn find(&self, token: Token, sent_at: u32) -> Option<usize> {
        let at = sent_at as usize;
        self.sends.get(at).filter(|sent| sent.token == token).map(|_| at)
    }

    /// Whether more has to be sent than this turn's batch, so that the turn must not sleep.
    pub fn has_more(&self) -> bool {
        self.is_last || !self.due.is_empty()
    }

    /// Queues a send of the arena from `sent.from` on.
    fn send(&mut self, batch: &mut Batch, slot: &mut Slot, sent: Sent) {
        let Some(common) = slot.common() else { return };
        common.sent_at = self.sends.len() as u32;
        if sent.pending > 0 || sent.data < sent.wanted {
            self.special.push(self.sends.len());
        }
        let sent = Sent { bytes: batch.arena.len() - sent.from, ..sent };
        self.sends.push(sent);
        let (token, from) = (sent.token, sent.from as u32);
        batch.ops.push(Op::Send { token, from, to: batch.end() });
    }
}

impl<D: Driver> Tls<D> {
    /// Puts the operation into the batch, as the driver below is to see it.
    pub(super) fn translate(&mut self, op: Op, batch: &mut Batch, out: &mut Vec<Completion>) {
        let token = match op {
            Op::Send { token, .. } | Op::PollOut(token) => token,
            Op::Shutdown(token) | Op::Close(token) => token,
            _ => return batch.ops.push(op),
        };
        let Some(common) = self.common(token.slot) else { return batch.ops.push(op) };
        match op {
            Op::Send { from, to, .. } => {
                let is_full = common.flags.contains(Flags::BLOCKED);
                let told = match self.slots[token.slot as usize] {
                    Slot::Handshake(_) => Some(Completion::SendFailed { token, errno: NOT_YET }),
                    _ if is_full => Some(Completion::SendShort { token, taken: 0 }),
                    _ => self.send(token, from as usize..to as usize, batch),
                };
                out.extend(told);
            }
            Op::PollOut(_) => {
                common.flags.insert(Flags::WANTS_ROOM);
                // For a blocked one, it is asked for anyway.
                if !common.flags.contains(Flags::BLOCKED) {
                    batch.ops.push(op);
                }
            }
            Op::Shutdown(_) => {
                common.flags.insert(Flags::SHUT);
                self.output.do_soon(token);
            }
            _ => self.close(token, batch),
        }
    }

    fn send(
        &mut self,
        token: Token,
        data: std::ops::Range<usize>,
        batch: &mut Batch,
    ) -> Option<Completion> {
        self.update_if_worn(token);
        let (slot, from) = (&mut self.slots[token.slot as usize], batch.arena.len());
        let owed = slot.common().map_or(0, |common| {
            batch.arena.extend_from_slice(common.pending());
            usize::from(common.flags.take(Flags::OWES_REPORT))
        });
        let pending = batch.arena.len() - from;
        let data = data.start + owed..data.end;
        let wanted = data.len();
        let Some(data) = slot.seal(&mut batch.arena, data) else {
            batch.arena.truncate(from);
            return Some(Completion::SendFailed { token, errno: WORN_OUT });
        };
        if batch.arena.len() > from {
            let sent = Sent { owed, data, wanted, ..Sent::pending(token, from, pending) };
            self.output.send(batch, slot, sent);
        }
        None
    }

    fn update_if_worn(&mut self, token: Token) {
        let Some(mut sender) = self.slots[token.slot as usize].sender() else { return };
        if sender.is_worn() {
            let mut update = Vec::new();
            sender.seal_update(&mut update);
            self.add_pending(token, &update);
        }
    }

    /// Queues sealed bytes to leave soon, before anything that is sealed later. Nothing follows
    /// close_notify.
    pub(super) fn add_pending(&mut self, token: Token, sealed: &[u8]) {
        let Some(common) = self.common(token.slot) else { return };
        if common.flags.contains(Flags::CLOSED) {
            return;
        }
        if !sealed.is_empty() {
            common.more(token.generation).pending.extend_from_slice(sealed);
        }
        self.output.do_soon(token);
    }

    /// Says goodbye if there is room for it, and closes.
    fn close(&mut self, token: Token, batch: &mut Batch) {
        let Self { slots, output, .. } = self;
        let slot = &mut slots[token.slot as usize];
        let from = batch.arena.len();
        let may_send = slot.common().is_some_and(|common| {
            !common.flags.contains(Flags::BLOCKED) && output.find(token, common.sent_at).is_none()
        });
        if may_send {
            batch.arena.extend(slot.common().into_iter().flat_map(|common| common.pending()));
            slot.seal_close(&mut batch.arena);
        }
        if batch.arena.len() > from {
            batch.ops.push(Op::Send { token, from: from as u32, to: batch.end() });
        }
        batch.ops.push(Op::Close(token));
        self.forget(token.slot);
    }

    /// Adds what connections have to do of their own.
    pub(super) fn flush(&mut self, batch: &mut Batch) {
        for token in std::mem::take(&mut self.output.due) {
            self.flush_one(token, batch);
        }
    }

    fn flush_one(&mut self, token: Token, batch: &mut Batch) {
        let Self { slots, output, .. } = self;
        let slot = &mut slots[token.slot as usize];
        let Some(common) = slot.common() else { return };
        if common.flags.take(Flags::STOP) {
            batch.ops.push(Op::RecvStop(token));
        }
        if output.find(token, common.sent_at).is_some() {
            // One send a turn; the rest of it is looked at when it is settled.
            return output.do_soon(token);
        }
        if common.flags.contains(Flags::BLOCKED) {
            return batch.ops.push(Op::PollOut(token));
        }
        let shuts = common.flags.contains(Flags::SHUT);
        if shuts {
            slot.add_close(token.generation);
        }
        let Some(common) = slot.common() else { return };
        let pending = common.pending().len();
        if pending > 0 {
            output.is_last |= shuts;
            let from = batch.arena.len();
            batch.arena.extend_from_slice(common.pending());
            output.send(batch, slot, Sent::pending(token, from, pending));
        } else if common.flags.take(Flags::SHUT) {
            batch.ops.push(Op::Shutdown(token));
        }
    }

    // --- what became of it ---

    /// Takes account of a send that was not taken whole.
    pub(super) fn settle(
        &mut self,
        completion: Completion,
        arena: &[u8],
        out: &mut Vec<Completion>,
    ) {
        let (token, taken) = match completion {
            Completion::SendShort { token, taken } => (token, Some(taken as usize)),
            Completion::SendFailed { token, .. } => (token, None),
            _ => return,
        };
        let Self { slots, output, .. } = self;
        let Some(slot) = slots.get_mut(token.slot as usize) else { return };
        let sent = slot.common().and_then(|common| output.find(token, common.sent_at));
        let Some(sent) = sent.map(|at| &mut output.sends[at]) else { return };
        sent.is_settled = true;
        let sent = *sent;
        match taken {
            Some(taken) => self.settle_short(sent, taken, arena, out),
            None if sent.is_asked_for() => out.push(completion),
            None => self.peer_is_gone(token, out),
        }
    }

    fn settle_short(&mut self, sent: Sent, taken: usize, arena: &[u8], out: &mut Vec<Completion>) {
        let Sent { token, pending, owed, wanted, .. } = sent;
        let slot = &mut self.slots[token.slot as usize];
        let taken_of_data = taken.saturating_sub(pending);
        let (data, records_end) = match slot.sender() {
            Some(mut sender) => sender.unseal(sent.data, taken_of_data),
            // rustls can't take back what it has sealed.
            None => (sent.data, sent.bytes - pending),
        };
        let Some(common) = slot.common() else { return };
        common.flags.insert(Flags::BLOCKED);
        common.drop_pending(taken.min(pending));
        if records_end > taken_of_data {
            let begun = sent.from + pending;
            let rest = &arena[begun + taken_of_data..begun + records_end];
            common.more(token.generation).pending.extend_from_slice(rest);
        }
        if sent.is_asked_for() {
            // With all of its data sealed, the worker must not close before the last record has left.
            let is_owed = data == wanted && common.flags.raise(Flags::OWES_REPORT);
            let taken = owed + data - usize::from(is_owed);
            out.push(Completion::SendShort { token, taken: taken as u32 });
        }
        self.output.do_soon(token);
    }

    /// Pending bytes can't leave. The worker learns it by receiving, or by the next send, which they go
    /// before.
    fn peer_is_gone(&mut self, token: Token, out: &mut Vec<Completion>) {
        let Some(common) = self.common(token.slot) else { return };
        if common.flags.take(Flags::WANTS_ROOM) {
            out.push(Completion::Writable { token });
        }
    }

    /// All other sends of the turn were taken whole.
    pub(super) fn settle_whole(&mut self, out: &mut Vec<Completion>) {
        for at in std::mem::take(&mut self.output.special) {
            let sent = self.output.sends[at];
            if !sent.is_settled {
                self.settle_special(sent, out);
            }
        }
        self.output.sends.clear();
        self.output.is_last = false;
    }

    fn settle_special(&mut self, sent: Sent, out: &mut Vec<Completion>) {
        let Sent { token, owed, data, wanted, pending, .. } = sent;
        let Some(common) = self.common(token.slot) else { return };
        common.drop_pending(pending);
        let shuts = common.flags.contains(Flags::SHUT);
        if data < wanted {
            out.push(Completion::SendShort { token, taken: (owed + data) as u32 });
        } else if !sent.is_asked_for() && common.flags.take(Flags::WANTS_ROOM) {
            out.push(Completion::Writable { token });
        }
        if shuts {
            self.output.do_soon(token);
        }
    }

    /// The socket has room again. Pending bytes go first.
    pub(super) fn writable(&mut self, token: Token, out: &mut Vec<Completion>) {
        let Some(common) = self.common(token.slot) else { return };
        common.flags.remove(Flags::BLOCKED);
        if !common.pending().is_empty() || common.flags.contains(Flags::SHUT) {
            self.output.do_soon(token);
        } else if common.flags.take(Flags::WANTS_ROOM) {
            out.push(Completion::Writable { token });
        }
    }
}
