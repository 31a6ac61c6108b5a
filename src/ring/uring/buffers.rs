//! The provided-buffer ring: memory the kernel receives into. An idle connection owns none of it.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::ring::BufferId;

/// The buffer group every receive names; one group per ring is all we use.
pub(super) const GROUP: u16 = 0;

/// Most buffers a ring can hold (the kernel's limit, `IORING_REGISTER_PBUF_RING`).
pub(super) const BUFFERS_MAX: u16 = 1 << 15;

/// Buffers and the ring through which they are offered to the kernel.
///
/// A buffer is either with the kernel (`lent_bytes == 0`) or lent to the worker.
pub(super) struct Buffers {
    offers: Mapping,
    memory: Mapping,
    /// Bytes received into a lent buffer; 0 while the kernel has it.
    lent_bytes: Vec<u32>,
    buffer_bytes: u32,
    tail: u16,
}

impl Buffers {
    /// Maps memory for `count` (a power of two) buffers of `buffer_bytes` each, registers the
    /// ring and offers them all. Pages are touched by the kernel only when data arrives.
    ///
    /// # Errors
    /// As for `mmap` and `io_uring_register`.
    pub(super) fn register(ring: &IoUring, count: u16, buffer_bytes: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two() && count <= BUFFERS_MAX, "{count} buffers");
        assert!(buffer_bytes > 0);
        let offers = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * buffer_bytes as usize)?;
        // SAFETY: the mapping is page aligned, zeroed and as long as `count` entries; whoever owns
        // the driver drops the ring before the buffers (field order of `UringDriver`).
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                offers.start.as_ptr() as u64,
                count,
                GROUP,
                0,
            )?;
        }
        let lent_bytes = vec![0; usize::from(count)];
        let mut buffers = Buffers { offers, memory, lent_bytes, buffer_bytes, tail: 0 };
        for id in 0..count {
            buffers.offer(id);
        }
        Ok(buffers)
    }

    /// Lends `buffer`, into which the kernel received `bytes`, to the worker until it is recycled.
    pub(super) fn lend(&mut self, buffer: BufferId, bytes: u32) {
        let lent = &mut self.lent_bytes[usize::from(buffer.0)];
        assert_eq!(*lent, 0, "the kernel used {buffer:?}, which is lent");
        assert!(0 < bytes && bytes <= self.buffer_bytes);
        *lent = bytes;
    }

    /// The bytes in a lent buffer.
    pub(super) fn received(&self, buffer: BufferId) -> &[u8] {
        let bytes = self.lent_bytes[usize::from(buffer.0)];
        assert_ne!(bytes, 0, "{buffer:?} is not lent");
        let offset = usize::from(buffer.0) * self.buffer_bytes as usize;
        // SAFETY: inside the mapping (`buffer` indexed `lent_bytes`, and `lend` checked the
        // length). The kernel wrote these bytes and does not write again until `recycle`, which
        // takes `&mut self` and so ends this borrow.
        unsafe {
            std::slice::from_raw_parts(self.memory.start.as_ptr().add(offset), bytes as usize)
        }
    }

    /// Takes a lent buffer back.
    pub(super) fn recycle(&mut self, buffer: BufferId) {
        let lent = &mut self.lent_bytes[usize::from(buffer.0)];
        assert_ne!(*lent, 0, "{buffer:?} is recycled, but was not lent");
        *lent = 0;
        self.offer(buffer.0);
    }

    /// Returns a buffer whose completion nothing waits for straight to the kernel.
    pub(super) fn put_back(&mut self, buffer: BufferId) {
        assert_eq!(self.lent_bytes[usize::from(buffer.0)], 0, "{buffer:?} is lent");
        self.offer(buffer.0);
    }

    fn offer(&mut self, id: u16) {
        let entries = self.offers.start.as_ptr().cast::<BufRingEntry>();
        let index = usize::from(self.tail) & (self.lent_bytes.len() - 1);
        let offset = usize::from(id) * self.buffer_bytes as usize;
        // SAFETY: `index` is below the number of entries mapped. The kernel reads an entry only
        // after the tail passed it, and there is room: it never holds more than all buffers.
        unsafe {
            let entry = &mut *entries.add(index);
            entry.set_addr(self.memory.start.as_ptr().add(offset) as u64);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the reserved field of the first entry, which the setters above
        // leave alone; it is aligned and lives as long as the mapping.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Anonymous private memory, zeroed, page aligned, without pages until touched.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap does not map the zero page");
        Ok(Mapping { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; borrows of it ended with the owner.
        let unmapped = unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert_eq!(unmapped, 0);
    }
}
