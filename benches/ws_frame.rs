//! Unmasking beside a plain copy of the same bytes, and the whole receive path beside
//! tungstenite's. Bars: unmask within 1.2x of the copy in cache, the path faster.

use std::hint::black_box;
use std::io::{self, Read, Write};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pushline::proto::ws::frame::{self, Fin, Opcode};
use pushline::proto::ws::mask;
use pushline::proto::ws::message::{MessageLimits, Received, Receiver};
use tungstenite::protocol::{Message, Role, WebSocket};

/// As in production, for both sides.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [usize; 7] = [16, 64, 256, 1_024, 4_096, 16_384, 65_536];
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// As a worker's provided buffers.
const READ_BYTES: usize = 16 * 1_024;
const LIMITS: MessageLimits = MessageLimits { message_bytes_max: 1 << 20, fragments_max: 16 };

/// Payloads of one size that take turns, since no payload is unmasked twice: right after its own
/// stores, what would be measured is how fast the processor forwards those. Together they fit the
/// first cache, but there is always at least one.
struct Turns {
    payloads: Vec<Vec<u8>>,
    next: usize,
}

impl Turns {
    fn new(size: usize) -> Self {
        let count = (16 * 1_024 / size).clamp(1, 16);
        Self { payloads: vec![vec![b'x'; size]; count], next: 0 }
    }

    fn take(&mut self) -> &mut [u8] {
        self.next = (self.next + 1) % self.payloads.len();
        &mut self.payloads[self.next]
    }
}

fn unmask(c: &mut Criterion) {
    let mut group = c.benchmark_group("unmask");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let source = vec![b'x'; size];
        let mut targets = Turns::new(size);
        group.bench_function(BenchmarkId::new("copy_from_slice", size), |b| {
            b.iter(|| black_box(targets.take()).copy_from_slice(black_box(&source)));
        });
        group.bench_function(BenchmarkId::new("in_place", size), |b| {
            b.iter(|| mask::unmask(black_box(targets.take()), black_box(KEY)));
        });
        let mut out = Vec::with_capacity(size);
        group.bench_function(BenchmarkId::new("into", size), |b| {
            b.iter(|| {
                out.clear();
                mask::unmask_into(black_box(&mut out), black_box(&source), black_box(KEY));
            });
        });
    }
    group.finish();
}

/// A socket that delivers the same frames for ever, one copy per read, as a kernel does.
struct Endless {
    wire: Vec<u8>,
    at: usize,
}

impl Endless {
    fn new(opcode: Opcode, payload_bytes: usize) -> Self {
        let mut wire = Vec::new();
        let payload = vec![b'x'; payload_bytes];
        while wire.len() < READ_BYTES {
            frame::write_masked(&mut wire, opcode, Fin::Last, KEY, &payload);
        }
        Self { wire, at: 0 }
    }
}

impl Read for Endless {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let rest = &self.wire[self.at..];
        let size = rest.len().min(buf.len()).min(READ_BYTES);
        buf[..size].copy_from_slice(&rest[..size]);
        self.at = (self.at + size) % self.wire.len();
        Ok(size)
    }
}

impl Write for Endless {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection as a worker holds it.
struct Ours {
    socket: Endless,
    buffer: Vec<u8>,
    at: usize,
    len: usize,
    receiver: Receiver,
}

impl Ours {
    fn read(&mut self) -> Received {
        loop {
            if self.at == self.len {
                self.len = self.socket.read(&mut self.buffer).unwrap_or(0);
                self.at = 0;
            }
            let bytes = &self.buffer[self.at..self.len];
            let (taken, received) = self.receiver.receive(bytes, &LIMITS).expect("valid frames");
            self.at += taken;
            if let Some(received) = received {
                return received;
            }
        }
    }
}

fn receive(c: &mut Criterion) {
    for (name, opcode) in [("text", Opcode::Text), ("binary", Opcode::Binary)] {
        let mut group = c.benchmark_group(format!("receive_{name}"));
        for size in SIZES {
            group.throughput(Throughput::Bytes(size as u64));
            let mut ours = Ours {
                socket: Endless::new(opcode, size),
                buffer: vec![0; READ_BYTES],
                at: 0,
                len: 0,
                receiver: Receiver::default(),
            };
            group.bench_function(BenchmarkId::new("pushline", size), |b| b.iter(|| ours.read()));
            let mut theirs =
                WebSocket::from_raw_socket(Endless::new(opcode, size), Role::Server, None);
            group.bench_function(BenchmarkId::new("tungstenite", size), |b| {
                b.iter(|| -> Message { theirs.read().expect("valid frames") });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, unmask, receive);
criterion_main!(benches);
