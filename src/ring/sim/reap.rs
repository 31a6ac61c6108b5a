//! What completes: the looks of a turn.

use std::time::Duration;

use rustix::io::Errno;

use super::faults::Fault;
use super::link::{Link, ReadEnd, ServerEnd};
use super::worker::{Armed, Look};
use super::world::{Output, World};
use crate::ring::{Completion, RecvEnd, Token};

/// A repeated doorbell comes in a turn of its own.
const DOORBELL_AGAIN_AFTER: Duration = Duration::from_micros(1);

impl World {
    pub(super) fn reap(&mut self, worker: u16, out: &mut Output) {
        while let Some(look) = self.workers[usize::from(worker)].take_look(self.now) {
            match look {
                Look::Accept => self.look_accept(worker, out),
                Look::AcceptStopped => {
                    if self.workers[usize::from(worker)].accept == Armed::Stopping {
                        self.end_accept(worker, 0, out);
                    }
                }
                Look::Recv { slot, serial } => self.look_recv(worker, slot, serial, out),
                Look::RecvStopped { slot, serial } => {
                    let w = &mut self.workers[usize::from(worker)];
                    if let Some((token, life)) = w.life_at(slot, serial)
                        && life.recv == Armed::Stopping
                    {
                        self.end_recv(worker, token, RecvEnd::Disarmed, out);
                    }
                }
                Look::Poll { slot, serial } => self.look_poll(worker, slot, serial, out),
                Look::SpuriousPoll { slot, serial } => {
                    let w = &mut self.workers[usize::from(worker)];
                    if let Some((token, life)) = w.life_at(slot, serial)
                        && std::mem::take(&mut life.poll_armed)
                    {
                        out.completions.push(Completion::Writable { token });
                    }
                }
                Look::Doorbell => {
                    out.completions.push(Completion::Doorbell);
                    self.workers[usize::from(worker)].doorbell_on_agenda = false;
                    if self.dice.hits(Fault::DoubleDoorbell) {
                        let at = self.now + DOORBELL_AGAIN_AFTER;
                        self.plan_at(worker, at, Look::DoorbellAgain);
                    }
                }
                // Not repeated again: one ring must not keep a worker awake for ever.
                Look::DoorbellAgain => out.completions.push(Completion::Doorbell),
            }
        }
    }

    pub(super) fn look_accept(&mut self, worker: u16, out: &mut Output) {
        self.workers[usize::from(worker)].accept_on_agenda = false;
        while self.workers[usize::from(worker)].accept != Armed::No {
            let w = &mut self.workers[usize::from(worker)];
            let Some(&key) = w.backlog.front() else { return };
            if self.dice.hits(Fault::AcceptFailed) {
                let errno = self.accept_fault(worker);
                self.end_accept(worker, errno.raw_os_error(), out);
                return;
            }
            w.backlog.pop_front();
            let from = if self.dice.hits(Fault::SlotOrder) {
                self.dice.details(Fault::SlotOrder).u32(0..self.settings.slots_per_worker)
            } else {
                0
            };
            // As in the kernel, which accepts first and then finds no room for the socket.
            let Some(slot) = w.free_slot(from) else {
                self.drop_server_end(key);
                self.end_accept(worker, Errno::NFILE.raw_os_error(), out);
                return;
            };
            w.open(slot, key);
            self.links[key].server = ServerEnd::Slot { worker, slot };
            let Link { peer, layer, .. } = self.links[key];
            out.completions.push(Completion::Accepted { slot, peer, layer });
        }
    }

    /// Picks the error; an aborted connection leaves the backlog with it.
    fn accept_fault(&mut self, worker: u16) -> Errno {
        let errno = match self.dice.details(Fault::AcceptFailed).u8(0..3) {
            0 => Errno::MFILE,
            1 => Errno::NFILE,
            _ => Errno::CONNABORTED,
        };
        let w = &mut self.workers[usize::from(worker)];
        if errno != Errno::CONNABORTED && w.slots_used() > 0 {
            return errno;
        }
        if let Some(key) = w.backlog.pop_front() {
            self.links[key].client_reset = true;
            self.drop_server_end(key);
        }
        Errno::CONNABORTED
    }

    fn end_accept(&mut self, worker: u16, errno: i32, out: &mut Output) {
        let w = &mut self.workers[usize::from(worker)];
        w.accept = Armed::No;
        w.accept_ended_turn = w.turns;
        out.completions.push(Completion::AcceptEnded { errno });
    }

    fn look_recv(&mut self, worker: u16, slot: u32, serial: u64, out: &mut Output) {
        let Some((token, life)) = self.workers[usize::from(worker)].life_at(slot, serial) else {
            return;
        };
        life.recv_on_agenda = false;
        if life.recv == Armed::No {
            return;
        }
        let key = life.link;
        if self.dice.hits(Fault::Reset) {
            self.reset(key);
        }
        while self.links[key].to_server.len() > 0 {
            if let Err(why) = self.receive(worker, token, key, out) {
                self.end_recv(worker, token, why, out);
                return;
            }
            // Not all of it need have arrived yet.
            if self.dice.hits(Fault::TinyRecv) && self.dice.details(Fault::TinyRecv).bool() {
                self.plan_recv(worker, token.slot);
                return;
            }
        }
        match self.links[key].read_end() {
            ReadEnd::Pending => {}
            ReadEnd::Eof => self.end_recv(worker, token, RecvEnd::Eof, out),
            ReadEnd::Failed(errno) => self.end_recv(worker, token, RecvEnd::Failed(errno), out),
        }
    }

    /// Delivers one buffer of bytes, or says why not.
    fn receive(
        &mut self,
        worker: u16,
        token: Token,
        key: usize,
        out: &mut Output,
    ) -> Result<(), RecvEnd> {
        if self.dice.hits(Fault::RecvDisarmed) {
            return Err(RecvEnd::Disarmed);
        }
        let w = &mut self.workers[usize::from(worker)];
        let buffer = if self.dice.hits(Fault::NoBuffers) { None } else { w.lend() };
        let Some(buffer) = buffer else {
            w.stats.no_buffers += 1;
            return Err(RecvEnd::NoBuffers);
        };
        let count_max = if self.dice.hits(Fault::TinyRecv) {
            self.dice.details(Fault::TinyRecv).usize(1..=16)
        } else {
            self.settings.recv_buffer_bytes
        };
        let memory = &mut out.buffers[usize::from(buffer.0)];
        memory.clear();
        let count_max = count_max.min(self.settings.recv_buffer_bytes);
        self.links[key].to_server.pull(count_max, memory);
        out.completions.push(Completion::Received { token, buffer });
        Ok(())
    }

    fn end_recv(&mut self, worker: u16, token: Token, why: RecvEnd, out: &mut Output) {
        let w = &mut self.workers[usize::from(worker)];
        let turn = w.turns;
        let life = w.life_of(token);
        life.recv = Armed::No;
        life.recv_ended_turn = turn;
        out.completions.push(Completion::RecvEnded { token, why });
    }

    fn look_poll(&mut self, worker: u16, slot: u32, serial: u64, out: &mut Output) {
        let Some((token, life)) = self.workers[usize::from(worker)].life_at(slot, serial) else {
            return;
        };
        life.poll_on_agenda = false;
        if life.poll_armed && self.links[life.link].writable() {
            life.poll_armed = false;
            out.completions.push(Completion::Writable { token });
        }
    }

    /// Nothing is reported for closed tokens, even if it was posted before the close.
    pub(super) fn drop_stale(&mut self, worker: u16, first: usize, out: &mut Output) {
        let w = &mut self.workers[usize::from(worker)];
        let mut kept = first;
        for index in first..out.completions.len() {
            let completion = out.completions[index];
            if token_of(&completion).is_none_or(|token| w.lives(token)) {
                out.completions[kept] = completion;
                kept += 1;
                continue;
            }
            w.stats.stale += 1;
            if let Completion::Received { buffer, .. } = completion {
                w.recycle(buffer);
            }
        }
        out.completions.truncate(kept);
    }
}

fn token_of(completion: &Completion) -> Option<Token> {
    match *completion {
        Completion::Accepted { .. } | Completion::AcceptEnded { .. } | Completion::Doorbell => None,
        Completion::Received { token, .. }
        | Completion::RecvEnded { token, .. }
        | Completion::SendShort { token, .. }
        | Completion::SendFailed { token, .. }
        | Completion::Certified { token }
        | Completion::Writable { token } => Some(token),
    }
}
