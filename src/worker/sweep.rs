//! The sweep hand: it walks the slots so that each is looked at once per period. Heartbeats, idle
//! connections and dead peers are all found by it, and none of them needs a timer.

use std::time::Duration;

use super::core::{Accept, Core};
use super::slot::{Flags, Phase, Slot};
use crate::limits::TICK;
use crate::proto::sse;
use crate::proto::ws::frame::{self, Opcode};
use crate::reason::CloseReason;

/// Where the hand is.
#[derive(Debug)]
pub(super) struct Sweep {
    period: Duration,
    /// When the hand last moved.
    moved_at: Duration,
    /// The next slot to be looked at.
    hand: usize,
    /// Part of a slot the hand is owed, in nanoseconds of the period times slots.
    owed_ns: u128,
}

/// A heartbeat, by its form.
#[derive(Clone, Copy, Debug)]
enum Beat {
    Comment,
    Event,
    Ping,
}

/// Where the heartbeats stand in the turn's arena, once one was needed; by form.
type Beats = [Option<(u32, u32)>; 3];

impl Sweep {
    pub fn new(period: Duration) -> Self {
        Self { period, moved_at: Duration::ZERO, hand: 0, owed_ns: 0 }
    }

    /// From now on the hand goes round once in this time.
    pub fn set_period(&mut self, period: Duration) {
        self.period = period;
        self.owed_ns = 0;
    }

    /// When the hand wants to move.
    fn next(&self) -> Duration {
        self.moved_at + TICK.min(self.period / 4).max(Duration::from_millis(1))
    }

    /// How many slots to look at now.
    fn advance(&mut self, now: Duration, slots: usize) -> usize {
        let elapsed = (now - self.moved_at).min(self.period);
        self.moved_at = now;
        self.owed_ns += elapsed.as_nanos() * slots as u128;
        let due = self.owed_ns / self.period.as_nanos().max(1);
        self.owed_ns -= due * self.period.as_nanos().max(1);
        (due as usize).min(slots)
    }
}

impl Core {
    /// When a sweep is due: not at all where no connection is open and none waits for a descriptor.
    pub(super) fn next_sweep(&self) -> Option<Duration> {
        (self.open > 0 || self.accept == Accept::Full).then(|| self.sweep.next())
    }

    /// Moves the hand to where it should be by now.
    pub(super) fn sweep(&mut self) {
        if self.next_sweep().is_none_or(|at| at > self.now) {
            return;
        }
        // A table that was full may have room by now for reasons of the kernel's own.
        self.accept_again();
        let slots = self.slots.len();
        let mut beats = Beats::default();
        for _ in 0..self.sweep.advance(self.now, slots) {
            let index = self.sweep.hand % slots;
            self.sweep.hand = index + 1;
            self.look_at(index as u32, &mut beats);
        }
    }

    fn look_at(&mut self, index: u32, beats: &mut Beats) {
        let slot = &self.slots[index as usize];
        let (phase, late) = (slot.phase, slot.flags.has(Flags::PING_LATE));
        let blocked = slot.flags.has(Flags::BLOCKED);
        match phase {
            Phase::Free | Phase::WsClosing | Phase::Lingering => {}
            Phase::Http => self.close_if_idle(index),
            Phase::Sse => self.beat(index, beats),
            // A ping would stand behind all that has not reached the peer yet, so its silence says
            // nothing. TCP_USER_TIMEOUT cuts it if it takes no byte at all.
            Phase::Ws if blocked => self.forget_pings(index),
            // One late answer may be our own fault, when the machine is overloaded; cutting those
            // would only bring them all back at once.
            Phase::Ws if late => self.close(index, CloseReason::PeerDead),
            Phase::Ws => {
                let flags = &mut self.slots[index as usize].flags;
                if !flags.raise(Flags::PING_OUT) {
                    flags.set(Flags::PING_LATE);
                }
                self.beat(index, beats);
            }
        }
    }

    /// A connection that waits for its next request does not wait for ever.
    fn close_if_idle(&mut self, index: u32) {
        let slot = &self.slots[index as usize];
        if slot.is_idle() && self.is_silent(index) {
            self.close(index, CloseReason::IdleTimeout);
        }
    }

    /// Whether nothing was heard of the connection for as long as one may be idle.
    pub(super) fn is_silent(&self, index: u32) -> bool {
        let heard_s = self.slots[index as usize].heard_s;
        let idle_s = (self.now.as_secs() as u32).saturating_sub(heard_s);
        u64::from(idle_s) >= self.setup.settings.idle_time.as_secs()
    }

    fn forget_pings(&mut self, index: u32) {
        self.slots[index as usize].flags.clear(Flags::PING_OUT | Flags::PING_LATE);
    }

    /// A few bytes, so that proxies and peers know we are here.
    fn beat(&mut self, index: u32, beats: &mut Beats) {
        let slot = &self.slots[index as usize];
        // The last thing is said.
        if slot.flags.has(Flags::CLOSE_AFTER_OUT) {
            return;
        }
        let beat = beat_of(slot);
        self.metrics.heartbeats.add(1);
        if slot.flags.has(Flags::LIVE) {
            // Fan-out comes before the sweep: what has an event in this batch needs no heartbeat,
            // and may not have a second send.
            if self.channels[slot.replica].sent_in_turn == self.turn {
                self.forget_pings(index);
                return;
            }
            let batch = &mut self.batch;
            let (from, to) = *beats[beat as usize].get_or_insert_with(|| {
                let from = batch.end();
                write_beat(&mut batch.arena, beat);
                (from, batch.end())
            });
            self.handed.bytes += u64::from(to - from);
            self.send_direct(index, from, to);
        } else if !slot.flags.has(Flags::BLOCKED) {
            write_beat(&mut self.work(index).out, beat);
            self.mark_dirty(index);
        }
    }

    /// A live subscriber's socket took only a part of its heartbeat.
    pub(super) fn settle_heartbeat_short(&mut self, index: u32, taken: usize) {
        let beat = beat_of(&self.slots[index as usize]);
        let cursor = self.live_cursor(index);
        let work = self.make_explicit(index, cursor);
        write_beat(&mut work.out, beat);
        work.out.drain(..taken);
        let untaken = work.out.len() as u64;
        self.handed.bytes -= untaken;
    }
}

fn beat_of(slot: &Slot) -> Beat {
    match slot.phase {
        Phase::Ws => Beat::Ping,
        _ if slot.flags.has(Flags::BEAT_EVENT) => Beat::Event,
        _ => Beat::Comment,
    }
}

fn write_beat(out: &mut Vec<u8>, beat: Beat) {
    match beat {
        Beat::Comment => out.extend_from_slice(sse::HEARTBEAT),
        Beat::Event => out.extend_from_slice(sse::HEARTBEAT_EVENT),
        Beat::Ping => frame::write_header(out, Opcode::Ping, 0),
    }
}
