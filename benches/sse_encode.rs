//! Encoding an event once per transport: what a worker pays per event, not per subscriber.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pushline::proto::cursor::{Epoch, EventId};
use pushline::proto::data::{Data, EventView};
use pushline::proto::dialect::Dialect;

const SIZES: [usize; 4] = [64, 1_024, 16_384, 65_536];

fn text(size: usize, line_bytes: usize) -> String {
    (1..=size).map(|at| if at % line_bytes == 0 { '\n' } else { 'x' }).collect()
}

fn encode(c: &mut Criterion) {
    let dialects = [
        ("sse_bare", Dialect::SseBare),
        ("sse_envelope", Dialect::SseEnvelope),
        ("ws_bare", Dialect::WsBare),
        ("ws_envelope", Dialect::WsEnvelope),
    ];
    for size in SIZES {
        let mut group = c.benchmark_group(format!("encode_{size}"));
        group.throughput(Throughput::Bytes(size as u64));
        let (one_line, lines) = (text(size, usize::MAX), text(size, 80));
        let bytes = vec![0xff; size];
        let kinds = [
            ("text", Data::Text(&one_line)),
            ("lines", Data::Text(&lines)),
            ("json", Data::Json(&one_line)),
            ("binary", Data::Binary(&bytes)),
        ];
        for (name, dialect) in dialects {
            for (kind, data) in kinds {
                let id = EventId { epoch: Epoch::from_random(1), seq: 123_456 };
                let event =
                    EventView { id, channel: "news", event_type: None, data, attributes: None };
                let mut out = Vec::with_capacity(3 * size + 256);
                group.bench_function(BenchmarkId::new(name, kind), |b| {
                    b.iter(|| {
                        out.clear();
                        dialect.write_event(&mut out, black_box(&event));
                        black_box(&out);
                    });
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, encode);
criterion_main!(benches);
