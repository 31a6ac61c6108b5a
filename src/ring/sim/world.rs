//! The simulated kernel: applies a worker's ops, and finds out what completes. Nothing happens by
//! itself; every change schedules a look at what it may have made ready, and a turn takes the looks
//! whose time has come. So a step costs what is ready, not what is connected.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use slab::Slab;

use super::SimSettings;
use super::faults::{Dice, Fault, Faults, LATE_MICROS_MAX, STALL_MICROS_MAX};
use super::link::{ClientEnd, Link, ServerEnd};
use super::worker::{Armed, Look, Worker};
use crate::ring::{Batch, Completion, Layer, Op, Token, Wait};

/// Connections that wait to be accepted, per listener; more are refused (as `listen(2)` does).
const BACKLOG_MAX: usize = 4096;
/// How late a doorbell is when the sleeper set no timeout.
const DOORBELL_LATE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct World {
    pub(super) settings: SimSettings,
    pub(super) now: Duration,
    pub(super) workers: Vec<Worker>,
    pub(super) links: Slab<Link>,
    pub(super) rings: Arc<[AtomicBool]>,
    pub(super) dice: Dice,
    trace: DefaultHasher,
}

/// Where a turn puts what it finds.
pub(super) struct Output<'a> {
    pub(super) completions: &'a mut Vec<Completion>,
    /// The provided buffers' memory, by buffer id.
    pub(super) buffers: &'a mut [Vec<u8>],
}

impl World {
    pub(super) fn new(settings: SimSettings, faults: Faults, seed: u64) -> Self {
        let slots = settings.slots_per_worker;
        let workers = || (0..settings.workers).map(|_| Worker::new(slots, settings.recv_buffers));
        Self {
            settings,
            now: Duration::ZERO,
            workers: workers().collect(),
            links: Slab::new(),
            rings: workers().map(|_| AtomicBool::new(false)).collect(),
            dice: Dice::new(faults, seed),
            trace: DefaultHasher::new(),
        }
    }

    pub(super) fn turn(&mut self, worker: u16, batch: &mut Batch, wait: Wait, out: &mut Output) {
        let first = out.completions.len();
        self.hear_rings(worker);
        let w = &mut self.workers[usize::from(worker)];
        w.turns += 1;
        w.stats.enters += 1;
        if self.dice.hits(Fault::Crossing) {
            self.reap(worker, out);
        }
        for rung in batch.rings.drain(..) {
            self.rings[usize::from(rung)].store(true, Ordering::Release);
        }
        for op in batch.ops.drain(..) {
            self.apply(worker, op, &batch.arena, out);
        }
        self.reap(worker, out);
        self.drop_stale(worker, first, out);
        self.sleep(worker, wait, out.completions.len() > first);
        self.record(worker, first, out);
    }

    fn apply(&mut self, worker: u16, op: Op, arena: &[u8], out: &mut Output) {
        match op {
            Op::AcceptStart => self.accept_start(worker),
            Op::AcceptStop => self.accept_stop(worker),
            Op::ListenStop => {
                self.look_accept(worker, out);
                self.stop_listening(worker);
            }
            Op::RecvStart(token) => self.recv_start(worker, token),
            Op::RecvStop(token) => self.recv_stop(worker, token),
            Op::Send { token, from, to } => {
                let (from, to) = (from as usize, to as usize);
                assert!(from <= to && to <= arena.len(), "{op:?}: arena has {}", arena.len());
                out.completions.extend(self.send(worker, token, &arena[from..to]));
            }
            Op::PollOut(token) => self.poll_out(worker, token),
            Op::Shutdown(token) => {
                let life = self.workers[usize::from(worker)].life_of(token);
                assert!(!life.shut_down, "{op:?}: a second time");
                life.shut_down = true;
                self.links[life.link].to_client.finished = true;
            }
            Op::Close(token) => {
                self.workers[usize::from(worker)].life_of(token);
                self.close(worker, token.slot);
            }
        }
    }

    fn accept_start(&mut self, worker: u16) {
        let w = &mut self.workers[usize::from(worker)];
        let known_ended = w.accept == Armed::No && w.accept_ended_turn != w.turns;
        assert!(known_ended, "AcceptStart while accepting is armed");
        assert!(w.listening, "AcceptStart after the listener was closed");
        w.accept = Armed::Yes;
        self.plan_accept(worker);
    }

    fn accept_stop(&mut self, worker: u16) {
        if self.workers[usize::from(worker)].accept == Armed::Yes {
            self.workers[usize::from(worker)].accept = Armed::Stopping;
            self.plan(worker, Fault::LateStop, Look::AcceptStopped);
        }
    }

    fn recv_start(&mut self, worker: u16, token: Token) {
        let w = &mut self.workers[usize::from(worker)];
        let turn = w.turns;
        let life = w.life_of(token);
        let known_ended = life.recv == Armed::No && life.recv_ended_turn != turn;
        assert!(known_ended, "RecvStart({token:?}) while receiving is armed");
        life.recv = Armed::Yes;
        self.plan_recv(worker, token.slot);
    }

    fn recv_stop(&mut self, worker: u16, token: Token) {
        let life = self.workers[usize::from(worker)].life_of(token);
        if life.recv == Armed::Yes {
            life.recv = Armed::Stopping;
            let look = Look::RecvStopped { slot: token.slot, serial: life.serial };
            self.plan(worker, Fault::LateStop, look);
        }
    }

    fn poll_out(&mut self, worker: u16, token: Token) {
        let life = self.workers[usize::from(worker)].life_of(token);
        if std::mem::replace(&mut life.poll_armed, true) {
            return;
        }
        let look = Look::SpuriousPoll { slot: token.slot, serial: life.serial };
        if self.dice.hits(Fault::SpuriousWritable) {
            self.plan(worker, Fault::LateRecv, look);
        }
        self.plan_poll(worker, token.slot);
    }

    fn send(&mut self, worker: u16, token: Token, bytes: &[u8]) -> Option<Completion> {
        assert!(!bytes.is_empty(), "an empty send to {token:?}");
        let w = &mut self.workers[usize::from(worker)];
        w.stats.sends += 1;
        let turn = w.turns;
        let life = w.life_of(token);
        assert!(life.sent_turn != turn, "two sends to {token:?} in one batch tear the stream");
        assert!(!life.shut_down, "send to {token:?} after its Shutdown");
        life.sent_turn = turn;
        let key = life.link;
        if self.dice.hits(Fault::Reset) {
            self.reset(key);
        }
        let link = &mut self.links[key];
        if let Some(errno) = link.send_error() {
            return Some(Completion::SendFailed { token, errno });
        }
        let allowed = if self.dice.hits(Fault::RefusedSend) {
            0
        } else if self.dice.hits(Fault::ShortSend) {
            self.dice.details(Fault::ShortSend).usize(0..bytes.len())
        } else {
            bytes.len()
        };
        let taken = link.send(&bytes[..allowed]);
        bytes[..taken].hash(&mut self.trace);
        self.server_end_changed(key);
        let short = taken < bytes.len();
        short.then_some(Completion::SendShort { token, taken: taken as u32 })
    }

    /// Closes the slot from the server's side and releases its link.
    fn close(&mut self, worker: u16, slot: u32) {
        let key = self.workers[usize::from(worker)].close(slot);
        self.drop_server_end(key);
    }

    pub(super) fn drop_server_end(&mut self, key: usize) {
        let link = &mut self.links[key];
        link.server_close();
        if link.client_reset && self.dice.hits(Fault::ResetLosesBytes) {
            link.to_client.lose_all();
        }
        self.forget(key);
    }

    pub(super) fn forget(&mut self, key: usize) {
        if self.links[key].forgotten() {
            self.links[key].check_conservation();
            self.links.remove(key);
        }
    }

    /// Both ends learn that the connection is broken.
    pub(super) fn reset(&mut self, key: usize) {
        let link = &mut self.links[key];
        if link.client != ClientEnd::Dead {
            link.client_reset = true;
        }
        link.break_server(Errno::CONNRESET);
        if self.dice.hits(Fault::ResetLosesBytes) {
            link.to_client.lose_all();
            link.to_server.lose_all();
        }
        self.server_end_changed(key);
    }

    pub(super) fn close_client(&mut self, key: usize) {
        let link = &mut self.links[key];
        if link.client_close() && self.dice.hits(Fault::ResetLosesBytes) {
            link.to_server.lose_all();
        }
        self.server_end_changed(key);
    }

    pub(super) fn abort_client(&mut self, key: usize) {
        let link = &mut self.links[key];
        link.client_abort();
        if self.dice.hits(Fault::ResetLosesBytes) {
            link.to_server.lose_all();
        }
        self.server_end_changed(key);
    }

    /// Schedules the looks that a change of the link's state calls for.
    pub(super) fn server_end_changed(&mut self, key: usize) {
        match self.links[key].server {
            ServerEnd::Gone | ServerEnd::Waiting { .. } => {}
            ServerEnd::Slot { worker, slot } => {
                self.plan_recv(worker, slot);
                self.plan_poll(worker, slot);
            }
        }
    }

    fn plan_accept(&mut self, worker: u16) {
        let w = &mut self.workers[usize::from(worker)];
        if w.accept != Armed::No && !w.accept_on_agenda && !w.backlog.is_empty() {
            w.accept_on_agenda = true;
            self.plan(worker, Fault::LateAccept, Look::Accept);
        }
    }

    pub(super) fn plan_recv(&mut self, worker: u16, slot: u32) {
        let life = self.workers[usize::from(worker)].current(slot);
        if life.recv != Armed::No && !life.recv_on_agenda && self.links[life.link].readable() {
            life.recv_on_agenda = true;
            let look = Look::Recv { slot, serial: life.serial };
            self.plan(worker, Fault::LateRecv, look);
        }
    }

    fn plan_poll(&mut self, worker: u16, slot: u32) {
        let life = self.workers[usize::from(worker)].current(slot);
        if life.poll_armed && !life.poll_on_agenda && self.links[life.link].writable() {
            life.poll_on_agenda = true;
            let look = Look::Poll { slot, serial: life.serial };
            self.plan_at(worker, self.now, look);
        }
    }

    fn plan(&mut self, worker: u16, late: Fault, look: Look) {
        let mut at = self.now;
        if self.dice.hits(late) {
            at += Duration::from_micros(self.dice.details(late).u64(1..=LATE_MICROS_MAX));
        }
        self.plan_at(worker, at, look);
    }

    pub(super) fn plan_at(&mut self, worker: u16, at: Duration, look: Look) {
        let reorder = self.dice.hits(Fault::Reorder);
        let shuffle = if reorder { self.dice.details(Fault::Reorder).u32(..) } else { 0 };
        self.workers[usize::from(worker)].plan(at, shuffle, look);
    }

    fn sleep(&mut self, worker: u16, wait: Wait, anything: bool) {
        let w = &mut self.workers[usize::from(worker)];
        w.asleep_until = match wait {
            Wait::Forever if !anything => None,
            Wait::AtMost(time) | Wait::Gather(time) if !anything => Some(self.now + time),
            Wait::No | Wait::AtMost(_) | Wait::Gather(_) | Wait::Forever => Some(self.now),
        };
        if self.dice.hits(Fault::WorkerStall) {
            let micros = self.dice.details(Fault::WorkerStall).u64(1..=STALL_MICROS_MAX);
            w.stalled_until = self.now + Duration::from_micros(micros);
        }
    }

    fn record(&mut self, worker: u16, first: usize, out: &mut Output) {
        (worker, self.now).hash(&mut self.trace);
        for completion in &out.completions[first..] {
            completion.hash(&mut self.trace);
            if let Completion::Received { buffer, .. } = completion {
                out.buffers[usize::from(buffer.0)].hash(&mut self.trace);
            }
        }
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// Bells may be rung from anywhere, so they only leave a mark, which becomes a look here.
    pub(super) fn hear_rings(&mut self, worker: u16) {
        let rung = self.rings[usize::from(worker)].swap(false, Ordering::AcqRel);
        let w = &mut self.workers[usize::from(worker)];
        if !rung || w.doorbell_on_agenda {
            return;
        }
        w.doorbell_on_agenda = true;
        let timeout = w.asleep_until.filter(|at| *at > self.now);
        let late_at = self.now + DOORBELL_LATE_MAX;
        let late = self.dice.hits(Fault::LateDoorbell);
        let at = if late { timeout.map_or(late_at, |at| at.min(late_at)) } else { self.now };
        self.plan_at(worker, at, Look::Doorbell);
    }

    /// Connects a client to the worker's listener. A refusal looks like an immediate reset.
    pub(super) fn connect(&mut self, worker: u16, from: (Option<IpAddr>, Layer)) -> usize {
        let link = Link::new(worker, from, self.settings.socket_buffer_bytes);
        let key = self.links.insert(link);
        let w = &mut self.workers[usize::from(worker)];
        if w.listening && w.backlog.len() < BACKLOG_MAX {
            w.backlog.push_back(key);
            self.plan_accept(worker);
        } else {
            self.links[key].client_reset = true;
            self.links[key].server_close();
        }
        key
    }

    /// The worker's part of the process is gone: its listener and all its sockets are closed.
    pub(super) fn drop_driver(&mut self, worker: u16) {
        let w = &mut self.workers[usize::from(worker)];
        let open: Vec<u32> = w.links().map(|(slot, _)| slot).collect();
        for slot in open {
            self.close(worker, slot);
        }
        self.stop_listening(worker);
        let SimSettings { slots_per_worker, recv_buffers, .. } = self.settings;
        let w = &mut self.workers[usize::from(worker)];
        *w = Worker::new(slots_per_worker, recv_buffers);
        w.listening = false;
    }

    /// Refuses waiting and new connections; an armed accept ends.
    pub(super) fn stop_listening(&mut self, worker: u16) {
        self.accept_stop(worker);
        let w = &mut self.workers[usize::from(worker)];
        w.listening = false;
        for key in std::mem::take(&mut w.backlog) {
            self.links[key].client_reset = true;
            self.drop_server_end(key);
        }
    }

    pub(super) fn check_conservation(&self) {
        for (_, link) in &self.links {
            link.check_conservation();
        }
        let mut served = 0;
        for (w, worker) in self.workers.iter().zip(0..) {
            w.check_conservation();
            for (slot, key) in w.links() {
                let link = &self.links[key];
                assert_eq!(link.server, ServerEnd::Slot { worker, slot });
                w.check_agenda(slot, link.readable(), link.writable());
            }
            let accepting = w.accept != Armed::No && !w.backlog.is_empty();
            assert!(!accepting || w.accept_on_agenda, "an accept that will not be looked at");
            for &key in &w.backlog {
                assert_eq!(self.links[key].server, ServerEnd::Waiting { worker });
            }
            served += w.slots_used() + w.backlog.len();
        }
        let reachable = self.links.iter().filter(|(_, link)| link.server != ServerEnd::Gone);
        assert_eq!(served, reachable.count(), "every served link is in one slot or backlog");
    }
}
