//! The log's ceiling on one core: order, keep, route to one worker. Goal: a million events a
//! second and more. Counted in CPU time, so that a busy machine does not lower the ceiling.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pushline::log::event::{Kind, Publication};
use pushline::log::message::{Ask, Counts, FromLog, Share, Ticket, ToLog};
use pushline::log::stream::StreamTimes;
use pushline::log::{Keeps, LogSettings, Outlet, Policies, Policy, Sequencer, SharedHasher};
use pushline::proto::cursor::{Cursor, Epoch};
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 256;
/// Batches made ahead of each timing: together they fit a cache, as what a lane holds does.
const BATCHES_AHEAD: BatchSize = BatchSize::NumIterations(16);

/// CPU time of this thread.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// A lane that a reader empties at once.
#[derive(Default)]
struct Lane(VecDeque<FromLog>);

impl Outlet for Lane {
    fn has_room(&self, _worker: u16, _share: Share, _reserved: usize) -> bool {
        self.0.len() < 2 * BATCH
    }

    fn send(&mut self, _worker: u16, told: FromLog) {
        self.0.push_back(told);
    }
}

fn log_with(channels: usize, lane: &mut Lane) -> Sequencer {
    let policy = Policy {
        history_count: 100,
        history_age: Duration::from_secs(300),
        publish_rate: None,
        history_share: 0,
        keeps: Keeps::All,
        stream_bytes: 0,
        stream_compact: 0,
        presence: false,
    };
    let settings = LogSettings {
        presence_grace: Duration::ZERO,
        history_bytes_max: 256 << 20,
        history_memory_bytes_max: u64::MAX,
        channels_max: 1 << 20,
        policies: Policies::uniform(policy),
        streams: StreamTimes::default(),
    };
    let hasher = SharedHasher::from_seed(7);
    let mut log = Sequencer::new(settings, Epoch::from_random(1), 1, hasher);
    for channel in 0..channels {
        let name = name_of(channel);
        let channels = vec![name];
        let body = Ask::Join { ticket: Ticket(0), channels, cursor: Cursor::Now, identity: None };
        log.handle(ToLog::Worker { worker: 0, body }, Duration::ZERO, lane);
    }
    lane.0.clear();
    log
}

fn name_of(channel: usize) -> Box<str> {
    format!("channel:{channel:08}").into()
}

#[derive(Clone, Copy)]
enum Keys {
    Without,
    With,
}

fn batch_of(channels: usize, round: &mut u64, keys: Keys, data: &Bytes) -> Vec<Publication> {
    let mut random = fastrand::Rng::with_seed(*round);
    *round += 1;
    let publication = |_| Publication {
        channel: name_of(random.usize(..channels)),
        kind: Kind::Text,
        data: data.clone(),
        event_type: None,
        key: match keys {
            Keys::Without => None,
            Keys::With => Some(format!("{:016x}", random.u64(..)).into()),
        },
        attributes: None,
    };
    (0..BATCH).map(publication).collect()
}

fn publish(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("log/publish");
    group.throughput(Throughput::Elements(BATCH as u64));
    let data = Bytes::from(vec![b'x'; 64]);
    let cases = [
        ("1 channel", 1, Keys::Without),
        ("1,000 channels", 1_000, Keys::Without),
        ("100,000 channels", 100_000, Keys::Without),
        ("1,000 channels, keys", 1_000, Keys::With),
    ];
    for (name, channels, keys) in cases {
        let (mut lane, mut round) = (Lane::default(), 0);
        let mut log = log_with(channels, &mut lane);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || batch_of(channels, &mut round, keys, &data),
                |publications| {
                    let body = Ask::Publish {
                        ticket: Ticket(0),
                        share: Share::Half,
                        counts: Counts::Here,
                        publications,
                    };
                    log.handle(ToLog::Worker { worker: 0, body }, Duration::ZERO, &mut lane);
                    assert_eq!(black_box(&lane.0).len(), BATCH + 1, "all ordered, and the answer");
                    lane.0.clear();
                },
                BATCHES_AHEAD,
            );
        });
    }
    group.finish();
}

fn join(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("log/join");
    let (mut lane, mut round) = (Lane::default(), 0);
    let mut log = log_with(1, &mut lane);
    let publications = batch_of(1, &mut round, Keys::Without, &Bytes::from_static(b"x"));
    let body =
        Ask::Publish { ticket: Ticket(0), share: Share::Half, counts: Counts::Here, publications };
    log.handle(ToLog::Worker { worker: 0, body }, Duration::ZERO, &mut lane);
    let head_seq = log.stats().head_seq;
    for (name, behind) in [("no backlog", 0), ("10 events behind", 10), ("100 events behind", 100)]
    {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let channels = vec![name_of(0)];
                let cursor = Cursor::After(head_seq - behind);
                let body = Ask::Join { ticket: Ticket(0), channels, cursor, identity: None };
                log.handle(ToLog::Worker { worker: 0, body }, Duration::ZERO, &mut lane);
                lane.0.clear();
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = publish, join
}
criterion_main!(benches);
