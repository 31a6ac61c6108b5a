//! Rules broken on purpose: if the oracles do not notice these, they notice nothing.

use std::time::Duration;

use pushline::journal::sim::DiskTamper;
use pushline::ring::sim::SimBell;
use pushline::ring::{Batch, Bell, BufferId, Completion, Driver, DriverStats, Op, Wait};

use crate::store::Home;

/// What is broken, once in a run (or always, where once may not matter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tamper {
    /// An event does not reach a worker.
    DropEvent,
    /// Two events reach a worker in the wrong order.
    SwapEvents,
    /// A bit of a payload is wrong.
    ChangeByte,
    /// An event is ordered twice.
    PublishTwice,
    /// Bytes reach a client twice.
    SendTwice,
    /// A record of TLS reaches a client twice.
    SendRecordTwice,
    /// A short send looks like a whole one.
    HideShort,
    /// No worker is told when a socket is writable again.
    ForgetPoll,
    /// A connection is never closed.
    ForgetClose,
    /// No doorbell is rung for the log's messages.
    ForgetDoorbell,
    /// A page of history is lost on its way, and its reader continues after it.
    SkipPage,
    /// A request is put into the log's lane, and no thread is running the log or comes back for it.
    StrandRequest,
    /// The log does not hear that members leave.
    KeepMembers,
    /// A value of a state is seen, and forgotten with the one it replaces.
    ForgetValue,
    /// What was written to the journal counts as safe before it is synced.
    AcknowledgeBeforeSync,
    /// The names of the journal's files are never made safe.
    ForgetNames,
}

impl Tamper {
    pub const ALL: [Self; 16] = [
        Self::DropEvent,
        Self::SwapEvents,
        Self::ChangeByte,
        Self::PublishTwice,
        Self::SendTwice,
        Self::SendRecordTwice,
        Self::HideShort,
        Self::ForgetPoll,
        Self::ForgetClose,
        Self::ForgetDoorbell,
        Self::SkipPage,
        Self::StrandRequest,
        Self::KeepMembers,
        Self::ForgetValue,
        Self::AcknowledgeBeforeSync,
        Self::ForgetNames,
    ];

    /// What is broken at the disk.
    pub fn of_disk(self) -> Option<DiskTamper> {
        match self {
            Self::AcknowledgeBeforeSync => Some(DiskTamper::AcknowledgeBeforeSync),
            Self::ForgetNames => Some(DiskTamper::ForgetNames),
            _ => None,
        }
    }

    /// Whether it is broken below TLS.
    pub fn is_below_tls(&self) -> bool {
        *self == Self::SendRecordTwice
    }

    /// The worlds in which it is seen.
    pub fn home(self) -> Home {
        if self.of_disk().is_some() { Home::Journal } else { Home::Memory }
    }
}

/// The driver, or a canary's version of it.
#[derive(Debug)]
pub struct CanaryDriver<D> {
    pub inner: D,
    pub tamper: Option<Tamper>,
    pub seen: u32,
}

/// The occasion that goes wrong.
const OCCASION: u32 = 5;

/// How a record begins once a handshake has keys: its type, and the version that all records name.
const DATA_RECORD: [u8; 3] = [23, 3, 3];

impl<D> CanaryDriver<D> {
    pub fn over(inner: D, tamper: Option<Tamper>) -> Self {
        Self { inner, tamper, seen: 0 }
    }

    fn is_now(&mut self) -> bool {
        self.seen += 1;
        self.seen == OCCASION
    }

    fn tamper_with(&mut self, batch: &mut Batch) {
        for at in 0..batch.ops.len() {
            match (self.tamper, batch.ops[at]) {
                (Some(Tamper::SendTwice), Op::Send { .. }) if self.is_now() => {
                    send_twice(batch, at);
                }
                (Some(Tamper::SendRecordTwice), Op::Send { from, .. })
                    if batch.arena[from as usize..].starts_with(&DATA_RECORD) && self.is_now() =>
                {
                    send_twice(batch, at);
                }
                (Some(Tamper::ForgetPoll), Op::PollOut(_))
                | (Some(Tamper::ForgetClose), Op::Close(_))
                    if self.is_now() =>
                {
                    batch.ops.remove(at);
                    return;
                }
                _ => {}
            }
        }
    }
}

/// The send at this place of the batch becomes one of the same bytes twice.
fn send_twice(batch: &mut Batch, at: usize) {
    let Op::Send { token, from, to } = batch.ops[at] else { return };
    let start = batch.arena.len() as u32;
    let bytes = from as usize..to as usize;
    batch.arena.extend_from_within(bytes.clone());
    batch.arena.extend_from_within(bytes);
    batch.ops[at] = Op::Send { token, from: start, to: batch.arena.len() as u32 };
}

impl<D: Driver> Driver for CanaryDriver<D> {
    fn turn(
        &mut self,
        batch: &mut Batch,
        wait: Wait,
        completions: &mut Vec<Completion>,
    ) -> std::io::Result<()> {
        if self.tamper == Some(Tamper::ForgetDoorbell) {
            batch.rings.clear();
        }
        self.tamper_with(batch);
        self.inner.turn(batch, wait, completions)?;
        if self.tamper == Some(Tamper::HideShort) {
            let short = |of: &Completion| matches!(of, Completion::SendShort { taken: 1.., .. });
            if let Some(at) = completions.iter().position(short)
                && self.is_now()
            {
                completions.remove(at);
            }
        }
        Ok(())
    }

    fn received(&self, buffer: BufferId) -> &[u8] {
        self.inner.received(buffer)
    }

    fn recycle(&mut self, buffer: BufferId) {
        self.inner.recycle(buffer);
    }

    fn capacity(&self) -> u32 {
        self.inner.capacity()
    }

    fn now(&self) -> Duration {
        self.inner.now()
    }

    fn stats(&self) -> DriverStats {
        self.inner.stats()
    }
}

/// The clerk's simulated doorbell, or a canary's version of it.
#[derive(Debug)]
pub struct CanaryBell {
    pub inner: SimBell,
    pub tamper: Option<Tamper>,
}

impl Bell for CanaryBell {
    fn ring(&mut self, worker: u16) {
        if self.tamper != Some(Tamper::ForgetDoorbell) {
            self.inner.ring(worker);
        }
    }

    fn flush(&mut self) {
        self.inner.flush();
    }
}
