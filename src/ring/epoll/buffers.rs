//! Memory to receive into. An idle connection owns none of it.

use crate::ring::BufferId;

/// Buffers, each either free or lent to the worker.
#[derive(Debug)]
pub(super) struct Buffers {
    memory: Vec<u8>,
    /// Bytes received into a lent buffer; 0 while it is free.
    lent_bytes: Vec<u32>,
    free: Vec<u16>,
    buffer_bytes: usize,
}

impl Buffers {
    pub fn new(count: u16, buffer_bytes: u32) -> Self {
        assert!(count > 0 && buffer_bytes > 0);
        let buffer_bytes = buffer_bytes as usize;
        Self {
            // Zeroed by the kernel: pages are touched only when data arrives.
            memory: vec![0; usize::from(count) * buffer_bytes],
            lent_bytes: vec![0; usize::from(count)],
            // The last one freed is the next one used, so that few of them are ever touched.
            free: (0..count).rev().collect(),
            buffer_bytes,
        }
    }

    /// The buffer that [`Buffers::lend`] will lend next.
    pub fn next(&mut self) -> Option<&mut [u8]> {
        let from = usize::from(*self.free.last()?) * self.buffer_bytes;
        Some(&mut self.memory[from..from + self.buffer_bytes])
    }

    /// Lends [`Buffers::next`], into which bytes were received, to the worker until it is recycled.
    pub fn lend(&mut self, bytes: usize) -> BufferId {
        assert!(0 < bytes && bytes <= self.buffer_bytes);
        let id = self.free.pop().expect("`next` has just given one out");
        self.lent_bytes[usize::from(id)] = bytes as u32;
        BufferId(id)
    }

    /// The bytes in a lent buffer.
    pub fn received(&self, buffer: BufferId) -> &[u8] {
        let bytes = self.lent_bytes[usize::from(buffer.0)];
        assert_ne!(bytes, 0, "{buffer:?} is not lent");
        let from = usize::from(buffer.0) * self.buffer_bytes;
        &self.memory[from..from + bytes as usize]
    }

    /// Takes a lent buffer back.
    pub fn recycle(&mut self, buffer: BufferId) {
        let lent = std::mem::take(&mut self.lent_bytes[usize::from(buffer.0)]);
        assert_ne!(lent, 0, "{buffer:?} is recycled, but was not lent");
        self.free.push(buffer.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_recycled_last_is_lent_next() {
        let mut buffers = Buffers::new(2, 4);
        buffers.next().unwrap()[..2].copy_from_slice(b"ab");
        let first = buffers.lend(2);
        buffers.next().unwrap().copy_from_slice(b"cdef");
        let second = buffers.lend(4);
        assert!(buffers.next().is_none());
        assert_eq!((buffers.received(first), buffers.received(second)), (&b"ab"[..], &b"cdef"[..]));
        buffers.recycle(first);
        assert_eq!(buffers.lend(1), first);
    }

    #[test]
    #[should_panic(expected = "was not lent")]
    fn recycling_twice_is_a_bug_of_ours() {
        let mut buffers = Buffers::new(2, 4);
        let lent = buffers.lend(1);
        buffers.recycle(lent);
        buffers.recycle(lent);
    }
}
