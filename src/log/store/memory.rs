//! No store but the history itself: events live as long as the process.

use std::sync::Arc;

use super::{Store, Taken};
use crate::log::event::Event;
use crate::log::older::OlderRead;

/// Keeps nothing of its own.
#[derive(Clone, Copy, Debug)]
pub struct Memory;

impl Store for Memory {
    fn append(&mut self, _event: &Arc<Event>) -> Taken {
        Taken::Seen
    }

    fn give_up(&mut self) {}

    fn read_older(&mut self, _read: OlderRead) {
        unreachable!("all of history is in memory");
    }
}
