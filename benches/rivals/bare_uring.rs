//! A bare io_uring loop: direct descriptors, multishot accept and receive, fire-and-forget sends,
//! and no server around them. It is the floor ours is measured against.
//!
//! It keeps only a connection's place in the list of subscribers, takes each receive for one
//! complete request, and runs on the same kind of ring with the same sizes as ours.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use io_uring::types::{BufRingEntry, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};
use pushline::ring::uring::slots_max;

use crate::job::{PUBLISHED, Post, Request, Seat, request, stream_head};

const ENTRIES: u32 = 1024;
const CQ_ENTRIES: u32 = 8192;
const BUFFERS: u16 = 256;
const BUFFER_BYTES: usize = 4096;
const GROUP: u16 = 0;
const BELL_BYTES: u32 = 64;

/// See `ring::uring`: such a send is decided when the kernel has consumed it.
const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// Not in the list of subscribers.
const NOWHERE: u32 = u32::MAX;

/// What a completion is about: the upper half of its user data, the slot being the lower.
#[derive(Clone, Copy)]
enum Kind {
    Accept,
    Recv,
    Send,
    Close,
    Bell,
}

struct Worker {
    ring: IoUring,
    buffers: Buffers,
    /// By slot: its place among the subscribers.
    places: Vec<u32>,
    /// Slots.
    subscribers: Vec<u32>,
    head: Vec<u8>,
    post: Post,
    /// Events whose sends may not have been consumed yet.
    in_queue: Vec<Bytes>,
    bell: [u8; BELL_BYTES as usize],
}

pub fn serve(seat: Seat) -> io::Result<()> {
    let Seat { listener, bell, post } = seat;
    let ring = IoUring::builder()
        .setup_cqsize(CQ_ENTRIES)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_submit_all()
        .setup_no_sqarray()
        .build(ENTRIES)?;
    let slots = slots_max().map_err(io::Error::other)?;
    ring.submitter().register_files_sparse(slots)?;
    let buffers = Buffers::register(&ring)?;
    let mut worker = Worker {
        ring,
        buffers,
        places: vec![NOWHERE; slots as usize],
        subscribers: Vec::new(),
        head: stream_head(),
        post,
        in_queue: Vec::new(),
        bell: [0; BELL_BYTES as usize],
    };
    let (listener, bell) = (Fd(listener.as_raw_fd()), Fd(bell.as_raw_fd()));
    worker.accept(listener)?;
    worker.await_bell(bell)?;
    let mut completions = Vec::new();
    loop {
        worker.ring.submit_and_wait(1)?;
        worker.in_queue.clear();
        completions.extend(worker.ring.completion());
        for entry in completions.drain(..) {
            worker.completed(&entry, listener, bell)?;
        }
    }
}

impl Worker {
    fn completed(&mut self, entry: &cqueue::Entry, listener: Fd, bell: Fd) -> io::Result<()> {
        let slot = entry.user_data() as u32;
        let (result, more) = (entry.result(), cqueue::more(entry.flags()));
        match entry.user_data() >> 32 {
            kind if kind == Kind::Accept as u64 => {
                if result >= 0 {
                    self.receive(result as u32)?;
                }
                if more { Ok(()) } else { self.accept(listener) }
            }
            kind if kind == Kind::Recv as u64 => {
                if let Some(buffer) = cqueue::buffer_select(entry.flags()) {
                    let length = result.max(0) as usize;
                    self.received(slot, buffer, length)?;
                    self.buffers.offer(buffer);
                }
                match result {
                    _ if more => Ok(()),
                    error if error == -libc::ENOBUFS => self.receive(slot),
                    _ => self.close(slot),
                }
            }
            kind if kind == Kind::Bell as u64 => {
                for event in self.post.collect() {
                    self.fan_out(event)?;
                }
                self.await_bell(bell)
            }
            // A send fell short or failed; the connection's receive will report it if it is gone.
            _ => Ok(()),
        }
    }

    fn received(&mut self, slot: u32, buffer: u16, length: usize) -> io::Result<()> {
        let event = match request(&self.buffers.memory(buffer)[..length]) {
            Request::Partial => return Ok(()),
            Request::Subscribe => None,
            Request::Publish { body, .. } => Some(self.post.publish(body)?),
        };
        let Some(event) = event else {
            self.places[slot as usize] = self.subscribers.len() as u32;
            self.subscribers.push(slot);
            let entry = send(slot, &self.head);
            return self.push(&entry);
        };
        self.push(&send(slot, PUBLISHED))?;
        self.fan_out(event)
    }

    fn fan_out(&mut self, event: Bytes) -> io::Result<()> {
        for at in 0..self.subscribers.len() {
            let entry = send(self.subscribers[at], &event);
            self.push(&entry)?;
        }
        self.in_queue.push(event);
        Ok(())
    }

    fn close(&mut self, slot: u32) -> io::Result<()> {
        let place = std::mem::replace(&mut self.places[slot as usize], NOWHERE);
        if place != NOWHERE {
            self.subscribers.swap_remove(place as usize);
            if let Some(&moved) = self.subscribers.get(place as usize) {
                self.places[moved as usize] = place;
            }
        }
        let entry = opcode::Close::new(Fixed(slot)).build().flags(squeue::Flags::SKIP_SUCCESS);
        self.push(&entry.user_data(user_data(Kind::Close, slot)))
    }

    fn accept(&mut self, listener: Fd) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(listener).allocate_file_index(true).build();
        self.push(&entry.user_data(user_data(Kind::Accept, 0)))
    }

    fn receive(&mut self, slot: u32) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(Fixed(slot), GROUP).build();
        self.push(&entry.user_data(user_data(Kind::Recv, slot)))
    }

    fn await_bell(&mut self, bell: Fd) -> io::Result<()> {
        let entry = opcode::Recv::new(bell, self.bell.as_mut_ptr(), BELL_BYTES).build();
        self.push(&entry.user_data(user_data(Kind::Bell, 0)))
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        if self.ring.submission().is_full() {
            self.ring.submit()?;
        }
        // SAFETY: what entries refer to outlives them: buffers, head and bell live as long as the
        // worker, `PUBLISHED` forever, and an event until the queue was submitted after its last
        // send, which is decided then.
        unsafe { self.ring.submission().push(entry) }.map_err(io::Error::other)
    }
}

fn user_data(kind: Kind, slot: u32) -> u64 {
    (kind as u64) << 32 | u64::from(slot)
}

fn send(slot: u32, bytes: &[u8]) -> squeue::Entry {
    opcode::Send::new(Fixed(slot), bytes.as_ptr(), bytes.len() as u32)
        .flags(SEND_FLAGS)
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(user_data(Kind::Send, slot))
}

/// Buffers the kernel receives into. They are never freed: a worker ends with its process.
struct Buffers {
    offers: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
}

impl Buffers {
    fn register(ring: &IoUring) -> io::Result<Self> {
        let offers: *mut BufRingEntry =
            pages(usize::from(BUFFERS) * size_of::<BufRingEntry>()).cast();
        let memory = pages(usize::from(BUFFERS) * BUFFER_BYTES);
        // SAFETY: page aligned, zeroed, as long as the entries, and never freed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(offers as u64, BUFFERS, GROUP, 0)?;
        }
        let mut buffers = Self { offers, memory, tail: 0 };
        (0..BUFFERS).for_each(|buffer| buffers.offer(buffer));
        Ok(buffers)
    }

    fn memory(&self, buffer: u16) -> &[u8] {
        assert!(buffer < BUFFERS);
        // SAFETY: inside the allocation; the kernel leaves it alone until it is offered again,
        // which takes `&mut self`.
        unsafe {
            let start = self.memory.add(usize::from(buffer) * BUFFER_BYTES);
            std::slice::from_raw_parts(start, BUFFER_BYTES)
        }
    }

    fn offer(&mut self, buffer: u16) {
        let at = usize::from(self.tail & (BUFFERS - 1));
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `at` is below the number of entries, and the kernel does not look at an entry
        // before the tail has passed it. The tail lies in a reserved field of the first entry.
        unsafe {
            let entry = &mut *self.offers.add(at);
            entry.set_addr(self.memory.add(usize::from(buffer) * BUFFER_BYTES) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer);
            let tail = BufRingEntry::tail(self.offers).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

fn pages(bytes: usize) -> *mut u8 {
    let layout = Layout::from_size_align(bytes, BUFFER_BYTES).expect("a page is a power of two");
    // SAFETY: `bytes` is not zero.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        handle_alloc_error(layout);
    }
    start
}
