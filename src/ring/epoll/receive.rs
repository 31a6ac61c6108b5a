//! Receiving: events are remembered, and sockets are read as far as buffers go.

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::EpollDriver;
use crate::ring::{Completion, RecvEnd, Token};

/// Buffers one connection may fill in a turn while others wait.
const RECVS_PER_TURN: u32 = 16;

/// The peer has ended its side, or the connection.
const ENDS: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

/// Events behind which a read may find less than there is.
const CUTS_READS: EventFlags = ENDS.union(EventFlags::PRI);

/// Events after which a blocked sender should try again, if only to hear of the end.
const UNBLOCKS: EventFlags = EventFlags::OUT.union(EventFlags::HUP).union(EventFlags::ERR);

/// Why a connection is not read any further for now.
enum Stop {
    /// All has been read.
    Dry,
    /// It is another connection's turn.
    Turn,
    /// Receiving has ended.
    Ended(RecvEnd),
}

impl EpollDriver {
    pub(super) fn start_receiving(&mut self, token: Token) {
        let slot = self.slots.adopt(token);
        assert!(!slot.is_receiving, "{token:?} is armed already");
        slot.is_receiving = true;
        self.stand_in_line(token.slot);
    }

    pub(super) fn stop_receiving(&mut self, token: Token, out: &mut Vec<Completion>) {
        if std::mem::take(&mut self.slots.adopt(token).is_receiving) {
            out.push(Completion::RecvEnded { token, why: RecvEnd::Disarmed });
        }
    }

    /// Notes an event of the connection that lived in this slot.
    pub(super) fn note_ready(
        &mut self,
        index: u32,
        life: u16,
        what: EventFlags,
        out: &mut Vec<Completion>,
    ) {
        let Some(slot) = self.slots.living(index, life) else {
            self.stats.stale += 1;
            return;
        };
        if what.intersects(UNBLOCKS) && std::mem::take(&mut slot.is_blocked) {
            out.push(Completion::Writable { token: slot.token(index) });
        }
        slot.is_read_to_the_end |= what.intersects(CUTS_READS);
        if what.intersects(EventFlags::IN.union(ENDS)) {
            slot.is_readable = true;
            self.stand_in_line(index);
        }
    }

    fn stand_in_line(&mut self, index: u32) {
        let slot = self.slots.at(index);
        if slot.is_readable && slot.is_receiving && !slot.is_in_line {
            slot.is_in_line = true;
            self.line.push_back(index);
        }
    }

    /// Reads from every connection in the line, as far as buffers go.
    pub(super) fn receive(&mut self, out: &mut Vec<Completion>) {
        for _ in 0..self.line.len() {
            let Some(index) = self.line.pop_front() else { return };
            let slot = self.slots.at(index);
            // It may have been closed or disarmed since it came here.
            if !std::mem::take(&mut slot.is_in_line) || !slot.is_receiving {
                continue;
            }
            if self.buffers.next().is_none() {
                // Its turn is still to come: behind those who took the buffers it might never.
                slot.is_in_line = true;
                self.line.push_front(index);
                return self.end_receiving(index, RecvEnd::NoBuffers, out);
            }
            match self.receive_from(index, out) {
                Stop::Dry => self.slots.at(index).is_readable = false,
                Stop::Turn => self.stand_in_line(index),
                Stop::Ended(why) => self.end_receiving(index, why, out),
            }
        }
    }

    fn end_receiving(&mut self, index: u32, why: RecvEnd, out: &mut Vec<Completion>) {
        self.stats.no_buffers += u64::from(why == RecvEnd::NoBuffers);
        let slot = self.slots.at(index);
        slot.is_receiving = false;
        out.push(Completion::RecvEnded { token: slot.token(index), why });
    }

    fn receive_from(&mut self, index: u32, out: &mut Vec<Completion>) -> Stop {
        let slot = self.slots.at(index);
        let token = slot.token(index);
        for _ in 0..RECVS_PER_TURN {
            let Some(memory) = self.buffers.next() else { return Stop::Ended(RecvEnd::NoBuffers) };
            let room = memory.len();
            match rustix::net::recv(slot.socket(), memory, RecvFlags::DONTWAIT) {
                // It stays readable: if receiving is armed again, the end is found again.
                Ok((_, 0)) => return Stop::Ended(RecvEnd::Eof),
                Ok((_, bytes)) => {
                    out.push(Completion::Received { token, buffer: self.buffers.lend(bytes) });
                    // Less than there was room for means that it was all there was, and what comes
                    // later is a new event: but not an end whose event was seen already, nor what
                    // lies behind urgent data, at which TCP ends a read.
                    if bytes < room && !slot.is_read_to_the_end {
                        return Stop::Dry;
                    }
                }
                Err(Errno::AGAIN) => return Stop::Dry,
                Err(Errno::INTR) => {}
                Err(error) => return Stop::Ended(RecvEnd::Failed(error.raw_os_error())),
            }
        }
        Stop::Turn
    }
}
