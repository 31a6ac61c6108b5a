//! The way in: handshakes are processed, within a budget each turn, and records are opened.

use std::time::Duration;

use rustix::io::Errno;

use super::carriers::Carriers;
use super::handshake::{Outcome, Rustls, Step};
use super::keys::OpeningKeys;
use super::record::{End, Opened, record_bytes};
use super::slot::{Flags, Handshake, Slot};
use super::{BufferId, Completion, Driver, RecvEnd, Tls, Token};
use crate::bits::Change;

/// Time for handshakes in one turn, by the prices below; the last one may exceed it. A storm of
/// handshakes delays the delivery of an event by as much, so it is the price of the shortest step there
/// is: turns cost little beside one.
const HANDSHAKE_TIME_PER_TURN: Duration = FIRST_RECORD_TIME;
/// What the first record of a handshake costs: a key exchange, and a signature unless it resumes.
const FIRST_RECORD_TIME: Duration = Duration::from_micros(250);
/// What each further record costs.
const FURTHER_RECORD_TIME: Duration = Duration::from_micros(50);

/// Most handshakes of a worker that hold memory of rustls, some 10 KB each. Beyond that the oldest one
/// is ended: an honest one is over after a round trip.
const HOLDERS_MAX: usize = 4096;

/// Most bytes of a handshake: the client's chain of certificates fits.
const HANDSHAKE_BYTES_MAX: usize = 64 << 10;

/// Marks buffers of this layer: the driver below has at most 32,767.
const OWN: u16 = 1 << 15;

/// Capacity above which a buffer is freed instead of reused.
const SPARE_BYTES_MAX: usize = 4 << 10;
/// Most buffers kept for reuse.
const SPARES_MAX: usize = 16;

/// Opened bytes, and bytes that cannot be opened yet.
#[derive(Default)]
pub(super) struct Input {
    /// By the number of the buffer.
    lent: Vec<Vec<u8>>,
    free: Vec<u16>,
    spares: Vec<Vec<u8>>,
    pub carriers: Carriers,
    pub opening: OpeningKeys,
}

impl Input {
    pub fn opened(&self, buffer: BufferId) -> Option<&[u8]> {
        let at = buffer.0 & !OWN;
        (buffer.0 & OWN != 0).then(|| self.lent[usize::from(at)].as_slice())
    }

    /// Takes back a buffer, if it is one of this layer's.
    pub fn recycle(&mut self, buffer: BufferId) -> bool {
        let is_own = buffer.0 & OWN != 0;
        if is_own {
            let at = buffer.0 & !OWN;
            let bytes = std::mem::take(&mut self.lent[usize::from(at)]);
            self.spare(bytes);
            self.free.push(at);
        }
        is_own
    }

    fn lend(&mut self, bytes: Vec<u8>) -> BufferId {
        let at = self.free.pop().unwrap_or_else(|| {
            self.lent.push(Vec::new());
            u16::try_from(self.lent.len() - 1).expect("a turn brings fewer buffers")
        });
        assert!(at < OWN, "a turn brings fewer buffers");
        self.lent[usize::from(at)] = bytes;
        BufferId(at | OWN)
    }

    fn take_spare(&mut self) -> Vec<u8> {
        self.spares.pop().unwrap_or_default()
    }

    fn spare(&mut self, mut bytes: Vec<u8>) {
        if bytes.capacity() <= SPARE_BYTES_MAX && self.spares.len() < SPARES_MAX {
            bytes.clear();
            self.spares.push(bytes);
        }
    }
}

impl<D: Driver> Tls<D> {
    /// Takes what the driver below received.
    pub(super) fn received_from(
        &mut self,
        token: Token,
        buffer: BufferId,
        out: &mut Vec<Completion>,
    ) {
        let Some(mut bytes) = self.join_carry(token) else {
            return self.below.recycle(buffer);
        };
        bytes.extend_from_slice(self.below.received(buffer));
        self.below.recycle(buffer);
        if let Slot::Handshake(of) = &mut self.slots[token.slot as usize] {
            of.generation = token.generation;
            if !std::mem::replace(&mut of.is_queued, true) {
                let line = if of.rustls.is_some() { &mut self.begun } else { &mut self.queue };
                line.push_back(token);
            }
            return self.carry(token, bytes, out);
        }
        self.open(token, bytes, out);
    }

    /// The driver below brings no more for now, or ever. What the peer said before its end is heard first.
    pub(super) fn receiving_ended(
        &mut self,
        token: Token,
        why: RecvEnd,
        out: &mut Vec<Completion>,
    ) {
        if let Slot::Handshake(of) = &mut self.slots[token.slot as usize]
            && of.is_queued
            && why == RecvEnd::Eof
        {
            of.is_at_end = true;
            return;
        }
        let Some(common) = self.common(token.slot) else { return };
        if common.flags.contains(Flags::ENDED) {
            return;
        }
        if matches!(why, RecvEnd::Eof | RecvEnd::Failed(_)) {
            common.flags.insert(Flags::ENDED);
        }
        out.push(Completion::RecvEnded { token, why });
    }

    /// The carried bytes, to which more is added; `None` if the peer is not listened to any more.
    fn join_carry(&mut self, token: Token) -> Option<Vec<u8>> {
        let common = self.common(token.slot)?;
        if common.flags.contains(Flags::ENDED) {
            return None;
        }
        let carry = common.take_carry();
        self.input.carriers.let_go(carry.len());
        let mut bytes = self.input.take_spare();
        bytes.extend_from_slice(&carry);
        Some(bytes)
    }

    /// Keeps bytes that cannot be opened yet, in no more memory than they are charged for.
    fn carry(&mut self, token: Token, bytes: Vec<u8>, out: &mut Vec<Completion>) {
        let carried: Box<[u8]> = bytes.as_slice().into();
        self.input.spare(bytes);
        let Some(common) = self.common(token.slot) else { return };
        if carried.is_empty() {
            return common.carry_nothing();
        }
        let place = common.place(token.generation);
        let Self { slots, input: Input { carriers, .. }, .. } = self;
        carriers.hold(carried.len());
        let place = place.unwrap_or_else(|| carriers.queue(token, slots));
        let Some(common) = self.common(token.slot) else { return };
        common.carry(token.generation, carried, place);
        self.bound_carriers(out);
    }

    /// While too many bytes are carried, the connection that has carried some the longest ends.
    fn bound_carriers(&mut self, out: &mut Vec<Completion>) {
        while self.input.carriers.are_too_many()
            && let Some(first) = self.input.carriers.pop(&mut self.slots)
        {
            let Some(common) = self.common(first.slot) else { continue };
            let carry = common.take_carry();
            common.carry_nothing();
            self.input.carriers.let_go(carry.len());
            self.fail(first, Errno::NOBUFS, out);
        }
    }

    /// Stops listening to the peer.
    fn fail(&mut self, token: Token, why: Errno, out: &mut Vec<Completion>) {
        let Some(common) = self.common(token.slot) else { return };
        if common.flags.raise(Flags::ENDED) {
            common.flags.insert(Flags::STOP);
            self.output.do_soon(token);
            out.push(Completion::RecvEnded { token, why: RecvEnd::Failed(why.raw_os_error()) });
        }
    }

    // --- records ---

    /// Opens whole records, and carries the rest.
    fn open(&mut self, token: Token, mut bytes: Vec<u8>, out: &mut Vec<Completion>) {
        let (bytes_before, opening) = (bytes.len(), self.input.opening.of(token.slot));
        let opened = match &mut self.slots[token.slot as usize] {
            Slot::Tls12(_) => self.open_tls12(token, &mut bytes),
            slot => slot
                .receiver(token.slot, opening)
                .map_or_else(Opened::default, |mut receiver| receiver.open(&mut bytes)),
        };
        let mut rest = self.input.take_spare();
        rest.extend_from_slice(&bytes[opened.used..]);
        bytes.truncate(opened.data);
        if bytes.is_empty() {
            self.input.spare(bytes);
        } else {
            out.push(Completion::Received { token, buffer: self.input.lend(bytes) });
        }
        if opened.wants_update {
            self.answer_update(token);
        }
        if rest.len() < bytes_before
            && let Some(common) = self.common(token.slot)
        {
            // It has ended the record it began: what it carries now is another one.
            common.carry_nothing();
        }
        match opened.end {
            None => self.carry(token, rest, out),
            Some(end) => self.end_of(token, end, out),
        }
        if let Some(common) = self.common(token.slot) {
            common.free_idle();
        }
    }

    /// A peer with a new key wants us to take one, too. If it asks again before our answer has left,
    /// once is enough.
    fn answer_update(&mut self, token: Token) {
        let slot = &mut self.slots[token.slot as usize];
        if !slot.common().is_some_and(|common| common.flags.raise(Flags::UPDATING)) {
            return;
        }
        let mut update = Vec::new();
        if let Some(mut sender) = slot.sender() {
            sender.seal_update(&mut update);
        }
        self.add_pending(token, &update);
    }

    fn end_of(&mut self, token: Token, end: End, out: &mut Vec<Completion>) {
        match end {
            End::Closed => {
                let Some(common) = self.common(token.slot) else { return };
                common.flags.insert(Flags::ENDED);
                common.flags.insert(Flags::STOP);
                self.output.do_soon(token);
                out.push(Completion::RecvEnded { token, why: RecvEnd::Eof });
            }
            End::Alert => self.fail(token, Errno::CONNRESET, out),
            End::Mistake(mistake) => {
                let mut alert = Vec::new();
                if let Some(mut sender) = self.slots[token.slot as usize].sender() {
                    sender.seal_mistake(&mut alert, mistake);
                }
                self.add_pending(token, &alert);
                // The alert is the last record: no close_notify follows.
                if let Some(common) = self.common(token.slot) {
                    common.flags.insert(Flags::CLOSED);
                }
                self.fail(token, Errno::PROTO, out);
            }
        }
    }

    fn open_tls12(&mut self, token: Token, bytes: &mut Vec<u8>) -> Opened {
        let (mut opened, mut data, mut answer) = (Opened::default(), Vec::new(), Vec::new());
        let Slot::Tls12(of) = &mut self.slots[token.slot as usize] else { return opened };
        while opened.end.is_none() {
            match record_bytes(&bytes[opened.used..]) {
                Ok(None) => break,
                Ok(Some(length)) => {
                    let record = &mut bytes[opened.used..opened.used + length];
                    opened.end = of.rustls.open(record, &mut data, &mut answer);
                    opened.used += length;
                }
                Err(_) => opened.end = Some(End::Alert),
            }
        }
        bytes.splice(..opened.used, data.iter().copied());
        (opened.data, opened.used) = (data.len(), data.len());
        self.add_pending(token, &answer);
        opened
    }

    // --- handshakes ---

    /// Whether a handshake has a record that waits to be processed.
    pub(super) fn has_to_shake_hands(&self) -> bool {
        !self.queue.is_empty() || !self.begun.is_empty()
    }

    /// What the worker has to do goes first, but not twice in a row.
    pub(super) fn shake_hands_in_turn(&mut self, is_worker_busy: bool, out: &mut Vec<Completion>) {
        self.gave_way = is_worker_busy && !self.gave_way;
        if !self.gave_way {
            self.shake_hands(out);
        }
    }

    /// Processes handshakes for a turn's time: one that has begun and a new one, alternately. With a
    /// single queue, a whole storm would begin, and hold memory of rustls, before the first is over.
    fn shake_hands(&mut self, out: &mut Vec<Completion>) {
        let mut left = HANDSHAKE_TIME_PER_TURN;
        while !left.is_zero() && self.has_to_shake_hands() {
            let next = [self.begun.pop_front(), self.queue.pop_front()];
            for token in next.into_iter().flatten() {
                let took = self.shake_hand(token, out);
                left = left.saturating_sub(took);
            }
        }
    }

    /// Processes the records of one handshake. Returns what that cost.
    fn shake_hand(&mut self, token: Token, out: &mut Vec<Completion>) -> Duration {
        let slot = &mut self.slots[token.slot as usize];
        let Slot::Handshake(of) = slot else { return Duration::ZERO };
        if of.generation != token.generation || of.common.flags.contains(Flags::ENDED) {
            return Duration::ZERO;
        }
        of.is_queued = false;
        let mut bytes = of.common.take_carry().into_vec();
        self.input.carriers.let_go(bytes.len());
        let (mut used, mut took) = (0, Duration::ZERO);
        let step = loop {
            let record = match record_bytes(&bytes[used..]) {
                Ok(Some(length)) => used..used + length,
                Ok(None) => break Step::More,
                Err(_) => break Step::Failed,
            };
            used = record.end;
            took += self.price(token.slot);
            match self.take_record(token, &mut bytes[record]) {
                Step::More => {}
                step => break step,
            }
        };
        bytes.drain(..used);
        let is_at_end = self.is_at_end(token.slot);
        self.after_step(token, step, bytes, out);
        if is_at_end {
            self.receiving_ended(token, RecvEnd::Eof, out);
        }
        took
    }

    fn is_at_end(&self, slot: u32) -> bool {
        matches!(&self.slots[slot as usize], Slot::Handshake(of) if of.is_at_end)
    }

    fn price(&self, slot: u32) -> Duration {
        match &self.slots[slot as usize] {
            Slot::Handshake(of) if of.rustls.is_none() => FIRST_RECORD_TIME,
            _ => FURTHER_RECORD_TIME,
        }
    }

    fn take_record(&mut self, token: Token, record: &mut [u8]) -> Step {
        let Slot::Handshake(of) = &mut self.slots[token.slot as usize] else { return Step::More };
        of.taken += record.len();
        if of.taken > HANDSHAKE_BYTES_MAX {
            return Step::Failed;
        }
        if of.rustls.is_none() {
            let Ok(rustls) = Rustls::new(&mut self.config) else { return Step::Failed };
            of.rustls = Some(Box::new(rustls));
            self.holders.push_back(token);
            self.holding += 1;
        }
        let Some(rustls) = &mut of.rustls else { return Step::Failed };
        let mut answer = Vec::new();
        let step = rustls.handshake(record, &mut answer);
        self.add_pending(token, &answer);
        step
    }

    fn after_step(&mut self, token: Token, step: Step, rest: Vec<u8>, out: &mut Vec<Completion>) {
        match step {
            Step::More => {
                self.carry(token, rest, out);
                self.bound_holders(out);
            }
            Step::Failed => {
                self.stats.handshakes_failed += 1;
                self.fail(token, Errno::PROTO, out);
            }
            Step::Done(outcome) => {
                self.finish(token, outcome, out);
                self.open(token, rest, out);
            }
        }
    }

    /// The handshake is over: rustls is dropped, or stays for TLS 1.2.
    fn finish(&mut self, token: Token, outcome: Outcome, out: &mut Vec<Completion>) {
        let slot = &mut self.slots[token.slot as usize];
        let Slot::Handshake(of) = std::mem::replace(slot, Slot::Plain) else { return };
        let Handshake { common, rustls, .. } = *of;
        let Some(rustls) = rustls else { return };
        self.holding -= 1;
        match Slot::after_handshake(common, rustls, outcome) {
            Some(open) => *slot = open,
            None => {
                *slot = Slot::Handshake(Box::default());
                return self.fail(token, Errno::PROTO, out);
            }
        }
        self.stats.count(outcome.resumed);
        self.stats.open_tls12 += u64::from(outcome.is_tls12);
        if outcome.certified {
            out.push(Completion::Certified { token });
        }
    }

    /// Ends the oldest handshake if too many hold memory.
    fn bound_holders(&mut self, out: &mut Vec<Completion>) {
        while let Some(&first) = self.holders.front() {
            let holds = self.holds(first);
            if holds && self.holding <= HOLDERS_MAX {
                return;
            }
            self.holders.pop_front();
            if holds {
                self.stats.handshakes_failed += 1;
                self.fail(first, Errno::TIMEDOUT, out);
                return;
            }
        }
    }

    fn holds(&self, token: Token) -> bool {
        match self.slots.get(token.slot as usize) {
            Some(Slot::Handshake(of)) => of.rustls.is_some() && of.generation == token.generation,
            _ => false,
        }
    }
}
