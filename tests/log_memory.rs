//! What a private channel costs the log, measured: resident memory before and after.

use std::time::Duration;

use pushline::log::message::{Ask, FromLog, Share, Ticket, ToLog};
use pushline::log::stream::StreamTimes;
use pushline::log::{Keeps, LogSettings, Outlet, Policies, Policy, Sequencer, SharedHasher};
use pushline::proto::cursor::{Cursor, Epoch};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// At the first the table has just doubled, at the second it is nearly full.
const CHANNELS: [usize; 2] = [235_000, 455_000];
const CHANNEL_BYTES_MAX: usize = 176;

struct Nowhere;

impl Outlet for Nowhere {
    fn has_room(&self, _worker: u16, _share: Share, _reserved: usize) -> bool {
        true
    }

    fn send(&mut self, _worker: u16, _told: FromLog) {}
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a VmRSS line");
    let kib = line.split_whitespace().nth(1).and_then(|text| text.parse::<usize>().ok());
    kib.expect("a number") * 1024
}

fn join_private(log: &mut Sequencer, connection: usize) {
    let name = format!("private:{connection:08}").into_boxed_str();
    let body =
        Ask::Join { ticket: Ticket(0), channels: vec![name], cursor: Cursor::Now, identity: None };
    log.handle(ToLog::Worker { worker: 0, body }, Duration::ZERO, &mut Nowhere);
}

/// One subscriber, no history, a name of 16 bytes: at most 176 bytes, including the name, the table
/// and the count that workers keep (so 336 of 512 bytes are left for the worker).
#[test]
fn a_private_channel_costs_the_log_no_more_than_its_share() {
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
        history_bytes_max: 1 << 20,
        history_memory_bytes_max: u64::MAX,
        presence_grace: Duration::ZERO,
        channels_max: 1_000_000,
        policies: Policies::uniform(policy),
        streams: StreamTimes::default(),
    };
    let hasher = SharedHasher::from_seed(7);
    let mut log = Sequencer::new(settings, Epoch::from_random(1), 1, hasher);
    let before = resident_bytes();
    let mut joined = 0;
    for count in CHANNELS {
        for connection in joined..count {
            join_private(&mut log, connection);
        }
        joined = count;
        assert_eq!(log.stats().channels, count as u64);
        let each = (resident_bytes() - before) / count;
        println!("{count} private channels: {each} bytes each");
        assert!(each <= CHANNEL_BYTES_MAX, "{each} bytes per private channel");
    }
}
