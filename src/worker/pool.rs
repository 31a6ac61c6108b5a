//! Boxes for what only a busy connection has. They come from a pool and go back to it when the
//! connection is idle again, so that a request costs no allocation.

use crate::limits::{SPARE_BUFFER_BYTES_MAX, SPARE_WORK_MAX};

/// What can be emptied and reused by the next connection.
pub trait Reuse: Default {
    /// Makes it as new. Small buffers may keep their capacity.
    fn clear(&mut self);
}

/// Boxes that no connection uses at present.
#[derive(Debug, Default)]
pub struct Pool<T> {
    spare: Vec<Box<T>>,
}

impl<T: Reuse> Pool<T> {
    pub fn take(&mut self) -> Box<T> {
        self.spare.pop().unwrap_or_default()
    }

    pub fn give(&mut self, mut used: Box<T>) {
        if self.spare.len() < SPARE_WORK_MAX {
            used.clear();
            self.spare.push(used);
        }
    }
}

/// Empties a buffer; a large one is freed.
pub fn clear_buffer(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > SPARE_BUFFER_BYTES_MAX {
        *buffer = Vec::new();
    }
}
