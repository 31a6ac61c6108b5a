//! What must hold between two turns, checked by the simulation and the tests. Walks everything.

use super::core::Core;
use super::pending::Pending;
use super::replica::Replica;
use super::slot::{Flags, NONE, Phase, Slot};
use super::work::Work;
use crate::limits::CARRY_BYTES_MAX;
use crate::ring::Token;

impl Core {
    /// Whether nothing is left to do: nothing to send, nothing on its way to the log or back.
    /// Timers may go on.
    pub fn is_quiet(&self) -> bool {
        let waits = |slot: &Slot| slot.flags.has(Flags::BLOCKED) || slot.flags.has(Flags::SENT);
        self.dirty.is_empty()
            && self.replaying.is_empty()
            && self.unread.is_empty()
            && self.checks.is_idle()
            && self.scheduled.is_empty()
            && self.pending.is_empty()
            && self.leaves.is_empty()
            && !self.slots.iter().any(waits)
    }

    /// Subscriptions at present, live and explicit.
    pub fn subscriptions(&self) -> usize {
        self.channels.iter().map(|of| of.live_len() + of.followers().len()).sum()
    }

    /// Panics if the worker contradicts itself. To be called between two turns.
    pub fn check_invariants(&self) {
        assert_eq!(self.slots.len(), self.generations.len());
        let open = self.slots.iter().filter(|slot| slot.phase != Phase::Free).count();
        assert_eq!(self.open as usize, open, "open connections");
        assert_eq!(self.metrics.subscriptions.value(), self.subscriptions() as u64);
        let works = self.slots.iter().filter_map(|slot| slot.work.as_ref());
        let unfinished: usize = works.map(|work| work.unfinished).sum();
        assert_eq!(self.unfinished_bytes, unfinished, "bytes of unfinished input");
        let live: usize = self.channels.iter().map(|of| of.live_len()).sum();
        assert_eq!(self.metrics.live.value(), live as u64);
        for kind in 0..self.metrics.open.len() {
            let of_kind = |slot: &&Slot| slot.phase != Phase::Free && slot.phase.kind() == kind;
            let count = self.slots.iter().filter(of_kind).count() as u64;
            assert_eq!(self.metrics.open[kind].value(), count, "open connections of kind {kind}");
        }
        for index in 0..self.slots.len() as u32 {
            self.check_slot(index);
        }
        assert!(!self.expiries.are_crowded(self.slots.len() as u32), "stale expiries pile up");
        self.check_replicas();
        self.check_pending();
    }

    fn check_slot(&self, index: u32) {
        let slot = &self.slots[index as usize];
        let flags = slot.flags;
        if slot.phase == Phase::Free {
            let empty = slot.work.is_none() && slot.grant.is_none() && slot.replica == NONE;
            assert!(empty && flags == Flags::default(), "slot {index} is free: {slot:?}");
            return;
        }
        assert_eq!(flags.has(Flags::LIVE), slot.replica != NONE, "slot {index}: {slot:?}");
        if flags.has(Flags::LIVE) {
            assert!(slot.is_subscriber(), "slot {index} is live: {slot:?}");
            let own = self.channels[slot.replica].live_slot(slot.live_index);
            assert_eq!(own, Some((index, slot.variant as usize)), "slot {index}: {slot:?}");
        }
        for (flag, queue) in [(Flags::DIRTY, &self.dirty), (Flags::REPLAYING, &self.replaying)] {
            let in_queue = queue.contains(&index);
            assert!(in_queue || !flags.has(flag), "slot {index}: nobody will look: {slot:?}");
        }
        let token = self.token(index);
        let unread = self.unread.contains(&token) || self.checks.has(token);
        assert_eq!(unread, flags.has(Flags::UNREAD), "slot {index} is unread: {slot:?}");
        let sent = self.outgoing.has_send_to(self.token(index));
        assert_eq!(sent, flags.has(Flags::SENT), "slot {index} has a send: {slot:?}");
        assert!(!sent || !flags.has(Flags::BLOCKED), "slot {index} sends although blocked");
        let (armed, ended) = (flags.has(Flags::RECV_ARMED), flags.has(Flags::EOF));
        assert!(!(armed && ended), "slot {index} receives behind a FIN: {slot:?}");
        let heard = armed || ended || flags.has(Flags::PAUSED);
        assert!(heard, "slot {index}: who listens? {slot:?}");
        let carried = slot.work.as_ref().map_or(0, |work| work.carry.len());
        let ends = carried > 0 || slot.work.as_ref().is_some_and(|work| work.farewell.is_some());
        assert!(!slot.is_subscriber() || !ended || ends, "slot {index}: {slot:?}");
        let may_pause = matches!(slot.phase, Phase::Http | Phase::Ws) && carried > CARRY_BYTES_MAX;
        assert!(may_pause || !flags.has(Flags::PAUSED), "slot {index} is paused: {slot:?}");
        if let Some(work) = &slot.work {
            self.check_work(index, work);
        }
    }

    fn check_work(&self, index: u32, work: &Work) {
        let slot = &self.slots[index as usize];
        assert!(!slot.is_live() || work.subs.is_empty(), "slot {index} is live and explicit");
        for (place, sub) in work.subs.iter().enumerate() {
            let followers = self.channels[sub.replica].followers();
            assert_eq!(followers.get(sub.index as usize), Some(&index), "slot {index}: {sub:?}");
            let others = &work.subs[..place];
            assert!(others.iter().all(|other| other.replica != sub.replica), "joined twice");
        }
        let flags = slot.flags;
        let awaiting = [Flags::DIRTY, Flags::REPLAYING, Flags::SENT, Flags::BLOCKED];
        let awaited = awaiting.iter().any(|bit| flags.has(*bit));
        let to_send = work.has_output() || slot.is_subscriber() && self.is_behind(work);
        assert!(awaited || !to_send, "slot {index} has something to send for ever: {slot:?}");
        let is_own =
            |of: &Pending| of.token() == self.token(index) && !matches!(of, Pending::Read { .. });
        let asked = self.pending.iter().filter(|(_, of)| is_own(of)).count();
        assert_eq!(usize::from(work.outstanding), asked, "slot {index} waits: {slot:?}");
    }

    fn check_replicas(&self) {
        let mut joins = 0;
        let held: usize = self.channels.iter().map(Replica::ring_bytes).sum();
        assert_eq!(self.channels.held_bytes(), held, "what replicas hold");
        for (index, replica) in self.channels.entries() {
            replica.check_invariants();
            assert_eq!(self.channels.find(&replica.name, replica.hash), Some(index));
            assert!(!replica.is_unused(), "{} is kept for nobody", &replica.name[..]);
            let in_queue = self.scheduled.contains(&index);
            assert!(in_queue || !replica.scheduled, "{}: nobody will look", &replica.name[..]);
            assert!(replica.scheduled || !replica.has_work(), "{}: not fanned", &replica.name[..]);
            for at in 0..replica.live_len() as u32 {
                let (slot, _) = replica.live_slot(at).expect("there are so many");
                let slot = &self.slots[slot as usize];
                assert!(slot.is_live() && slot.replica == index && slot.live_index == at);
            }
            for slot in replica.followers() {
                let work = self.slots[*slot as usize].work.as_ref().expect("a follower's");
                assert!(work.subs.iter().any(|sub| sub.replica == index));
            }
            let here = replica.live_len() + replica.followers().len();
            let counted = replica.log_joined + replica.locally_joined;
            assert_eq!(counted as usize, here, "{}: subscribers", &replica.name[..]);
            assert!(replica.locally_joined == 0 || replica.log_joined > 0);
            joins += replica.pending_joins;
        }
        let of_join = |pending: &Pending| match pending {
            Pending::Join(join) => join.replicas.len(),
            Pending::Publish { .. } | Pending::Read { .. } | Pending::Describe { .. } => 0,
        };
        let asked: usize = self.pending.iter().map(|(_, pending)| of_join(pending)).sum();
        assert_eq!(joins as usize, asked, "joins on their way");
    }

    fn check_pending(&self) {
        let asked = self.at_log + self.waiting.len();
        assert_eq!(self.pending.len(), asked, "every ticket is at the log or waits for it");
        for (_, pending) in &self.pending {
            let Token { slot, .. } = pending.token();
            assert!((slot as usize) < self.slots.len());
        }
    }
}
