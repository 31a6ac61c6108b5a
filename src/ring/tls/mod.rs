//! TLS: a driver over a driver. Connections of TLS listeners are encrypted and decrypted here, and the
//! worker sees plain bytes. Connections of other listeners pass through untouched.
//!
//! rustls makes the handshake (`handshake`). After one of TLS 1.3 its secrets are taken and rustls is
//! dropped: 128 bytes stay (`keys`), and the records are ours (`record`). The worker hears of a connection
//! when its handshake is near (`newcomers`) and nothing from it before that is over; a send to it before
//! that fails.
//!
//! Nonce reuse would be fatal, so record numbers have one owner (`record::Part`). After a short send,
//! the rest of a record that has begun to leave is kept (`pending`), and only the numbers of records
//! of which nothing has left are used again. Until that rest has left, the worker is not told that all of
//! its data has: it may close then.

mod carriers;
mod handshake;
mod input;
mod keys;
mod newcomers;
mod output;
mod record;
pub mod records;
mod schedule;
pub mod secrets;
mod slot;
#[cfg(test)]
mod tests;

pub use handshake::{HandshakeConfig, PROTOCOLS};

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Batch, BufferId, Completion, Driver, DriverStats, Layer, Op, RecvEnd, TlsStats, Token, Wait,
};
use handshake::ConfigView;
use input::Input;
use output::Output;
use slot::{Common, Slot};

/// Most sealed bytes handed to the driver below at once: this many stay in the processor's cache.
const SEALED_BYTES_AT_ONCE: usize = 256 * 1024;

/// A driver whose TLS listeners speak TLS.
pub struct Tls<D> {
    below: D,
    config: ConfigView,
    /// Grows as needed: empty if no TLS connection has come.
    slots: Vec<Slot>,
    output: Output,
    input: Input,
    /// Accepted connections that the worker has not heard of.
    newcomers: VecDeque<Completion>,
    /// Handshakes whose first record waits to be processed.
    queue: VecDeque<Token>,
    /// Handshakes of which a further record waits to be processed.
    begun: VecDeque<Token>,
    /// Handshakes that hold memory of rustls, oldest first. Some may have ended since.
    holders: VecDeque<Token>,
    /// How many handshakes hold memory of rustls.
    holding: usize,
    /// In the last turn, handshakes were left to this one because the worker had something to do.
    gave_way: bool,
    stats: TlsStats,
    /// Empty between two turns.
    ops: Vec<Op>,
    heard: Vec<Completion>,
}

impl<D: Driver> Driver for Tls<D> {
    fn turn(
        &mut self,
        batch: &mut Batch,
        wait: Wait,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let (arena_bytes, heard_before) = (batch.arena.len(), completions.len());
        if self.stats.open > 0 {
            std::mem::swap(&mut self.ops, &mut batch.ops);
            for at in 0..self.ops.len() {
                self.translate(self.ops[at], batch, completions);
                if batch.arena.len() - arena_bytes > SEALED_BYTES_AT_ONCE {
                    self.submit(batch, arena_bytes, Wait::No, completions)?;
                }
            }
            self.ops.clear();
            self.flush(batch);
        }
        let has_more = self.stats.open > 0 && self.output.has_more();
        let is_news = completions.len() > heard_before || has_more || self.has_waiting();
        self.submit(batch, arena_bytes, if is_news { Wait::No } else { wait }, completions)?;
        let is_worker_busy = wait == Wait::No || completions.len() > heard_before;
        self.let_in(completions);
        self.shake_hands_in_turn(is_worker_busy, completions);
        Ok(())
    }

    fn received(&self, buffer: BufferId) -> &[u8] {
        self.input.opened(buffer).unwrap_or_else(|| self.below.received(buffer))
    }

    fn recycle(&mut self, buffer: BufferId) {
        if !self.input.recycle(buffer) {
            self.below.recycle(buffer);
        }
    }

    fn capacity(&self) -> u32 {
        self.below.capacity()
    }

    fn now(&self) -> Duration {
        self.below.now()
    }

    fn stats(&self) -> DriverStats {
        let waiting = (self.newcomers.len() + self.queue.len()) as u64;
        DriverStats { tls: TlsStats { waiting, ..self.stats }, ..self.below.stats() }
    }
}

impl<D: Driver> Tls<D> {
    /// Over this driver. Each handshake is made with what `config` holds when it begins.
    #[must_use]
    pub fn over(below: D, config: Arc<HandshakeConfig>) -> Self {
        Self {
            below,
            config: ConfigView::new(config),
            slots: Vec::new(),
            output: Output::default(),
            input: Input::default(),
            newcomers: VecDeque::new(),
            queue: VecDeque::new(),
            begun: VecDeque::new(),
            holders: VecDeque::new(),
            holding: 0,
            gave_way: false,
            stats: TlsStats::default(),
            ops: Vec::new(),
            heard: Vec::new(),
        }
    }

    /// The part that all connections with TLS have.
    fn common(&mut self, slot: u32) -> Option<&mut Common> {
        self.slots.get_mut(slot as usize)?.common()
    }

    /// Hands the batch down and handles the completions, those of sends first: others may change keys.
    fn submit(
        &mut self,
        batch: &mut Batch,
        arena_bytes: usize,
        wait: Wait,
        out: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let mut heard = std::mem::take(&mut self.heard);
        self.below.turn(batch, wait, &mut heard)?;
        for completion in &heard {
            self.settle(*completion, &batch.arena, out);
        }
        self.settle_whole(out);
        batch.arena.truncate(arena_bytes);
        for completion in heard.drain(..) {
            self.complete(completion, out);
        }
        self.heard = heard;
        Ok(())
    }

    fn complete(&mut self, completion: Completion, out: &mut Vec<Completion>) {
        match completion {
            Completion::Accepted { layer: Layer::Tls, .. } => {
                return self.newcomers.push_back(completion);
            }
            Completion::AcceptEnded { .. } => self.let_all_in(out),
            Completion::Received { token, buffer } if self.common(token.slot).is_some() => {
                return self.received_from(token, buffer, out);
            }
            Completion::RecvEnded { token, why } if self.common(token.slot).is_some() => {
                return self.receiving_ended(token, why, out);
            }
            Completion::Writable { token } if self.common(token.slot).is_some() => {
                return self.writable(token, out);
            }
            // `settle` has handled it.
            Completion::SendShort { token, .. } | Completion::SendFailed { token, .. }
                if self.common(token.slot).is_some() =>
            {
                return;
            }
            _ => {}
        }
        out.push(completion);
    }

    /// Whether a connection waits for something that the next turn does.
    fn has_waiting(&self) -> bool {
        self.has_to_shake_hands() || !self.newcomers.is_empty()
    }

    /// The worker hears of this connection.
    fn begin(&mut self, slot: u32) {
        if self.slots.is_empty() {
            // Memory that is not touched costs nothing; growing leaves the smaller tables behind.
            self.slots.reserve_exact(self.below.capacity() as usize);
        }
        let needed = slot as usize + 1;
        if self.slots.len() < needed {
            self.slots.resize_with(needed, || Slot::Plain);
        }
        self.slots[slot as usize] = Slot::Handshake(Box::default());
        self.stats.open += 1;
    }

    /// The connection has ended, and its slot is free.
    fn forget(&mut self, at: u32) {
        let mut slot = std::mem::replace(&mut self.slots[at as usize], Slot::Plain);
        let carried = slot.common().map_or(0, |common| common.carried());
        self.input.carriers.let_go(carried);
        self.input.opening.forget(at);
        self.stats.open -= 1;
        match slot {
            Slot::Handshake(of) => self.holding -= usize::from(of.rustls.is_some()),
            Slot::Tls12(_) => self.stats.open_tls12 -= 1,
            _ => {}
        }
    }
}
