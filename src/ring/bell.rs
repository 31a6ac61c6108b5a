//! Doorbells: how another thread wakes a worker that sleeps in its turn.
//!
//! `MSG_RING` puts a completion directly into a ring's queue, for many workers with one system
//! call. If the kernel lacks it, or workers have no ring, the bell writes to an eventfd.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Bell;
use super::uring::RingMessenger;

/// How workers are woken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Doorbells {
    /// `IORING_OP_MSG_RING` from the ringer's own ring.
    #[default]
    MsgRing,
    /// A write to an eventfd the worker waits for.
    EventFd,
}

/// Where one worker is rung. Keeps that file open, but none of the worker's connections.
#[derive(Clone, Debug)]
pub enum BellTarget {
    /// Its io_uring, by `MSG_RING`.
    Ring(Arc<OwnedFd>),
    /// Its eventfd.
    Event(Arc<OwnedFd>),
}

/// Rings workers from a thread that has no driver. Each such thread has a ringer of its own.
pub struct Ringer {
    targets: Vec<BellTarget>,
    /// Workers to ring at the next flush, each once.
    gathered: Vec<u16>,
    is_gathered: Vec<bool>,
    /// Only set if a target is rung by `MSG_RING`.
    messenger: Option<RingMessenger>,
}

impl Ringer {
    /// Rings workers `0..targets.len()`.
    ///
    /// # Errors
    /// As for `io_uring_setup`.
    pub fn new(targets: Vec<BellTarget>) -> io::Result<Self> {
        assert!(targets.len() <= usize::from(u16::MAX));
        let workers = targets.len();
        let by_ring = targets.iter().any(|target| matches!(target, BellTarget::Ring(_)));
        Ok(Self {
            messenger: by_ring.then(|| RingMessenger::new(workers)).transpose()?,
            targets,
            gathered: Vec::with_capacity(workers),
            is_gathered: vec![false; workers],
        })
    }
}

impl Bell for Ringer {
    fn ring(&mut self, worker: u16) {
        let is_gathered = &mut self.is_gathered[usize::from(worker)];
        if !*is_gathered {
            *is_gathered = true;
            self.gathered.push(worker);
        }
    }

    fn flush(&mut self) {
        for worker in self.gathered.drain(..) {
            self.is_gathered[usize::from(worker)] = false;
            match (&self.targets[usize::from(worker)], &mut self.messenger) {
                (BellTarget::Event(event), _) => ring_event(event),
                (BellTarget::Ring(ring), Some(messenger)) => messenger.ring(ring),
                (BellTarget::Ring(_), None) => unreachable!("made for targets of this kind"),
            }
        }
        if let Some(messenger) = &mut self.messenger {
            messenger.flush();
        }
    }
}

/// Rings a worker by its eventfd.
pub(super) fn ring_event(event: &OwnedFd) {
    // It can only fail if the counter is full, and then the bell is ringing already.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}
