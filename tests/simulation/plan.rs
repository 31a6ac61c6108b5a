//! What a seed means: the size of the world, its settings, its faults, and its clients.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use pushline::config::{ChannelSettings, PublisherShown, Settings, SlowPolicy};
use pushline::limits::SLOTS_RESERVED;
use pushline::log::Keeps;
use pushline::proto::name::Pattern;
use pushline::ring::sim::{Faults, SimSettings};

use crate::truth::{MEMBERS, PRICES};

/// An independent stream of random numbers per concern, so that one more draw for one leaves the
/// others unchanged.
#[derive(Clone, Copy, Debug)]
pub enum Concern {
    Plan,
    Scheduler,
    Log,
    Clients,
    Memory,
    Hands,
    Stories,
    Members,
    Disk,
    Store,
    Outages,
    Prices,
}

pub fn stream(seed: u64, concern: Concern) -> Rng {
    let mut mixed = Rng::with_seed(seed ^ 0x7075_7368_6c69_6e65);
    for _ in 0..concern as u32 {
        mixed.u64(..);
    }
    Rng::with_seed(mixed.u64(..))
}

/// What a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads `/sse`.
    Sse,
    /// Reads and publishes on `/ws` without a subprotocol.
    WsBare,
    /// Reads and publishes on `/ws` with envelopes.
    WsEnvelope,
    /// Posts single events.
    Poster,
    /// Posts lines, for a long time.
    Streamer,
    /// Produces a token stream on a channel of its own, and reads it.
    Teller,
    /// Pipelines requests and reads the answers slowly.
    Pipeliner,
    /// Follows who is on a channel with presence, and is there itself.
    Member,
    /// Changes a state and follows it.
    Watcher,
    /// Sends nonsense, half requests, nothing at all.
    Prankster,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All clients leave.
    HangUp,
    /// The server drains.
    Drain,
}

/// What a seed means.
#[derive(Debug)]
pub struct Plan {
    pub seed: u64,
    pub sim: SimSettings,
    pub faults: Faults,
    pub settings: Arc<Settings>,
    pub channels: Vec<String>,
    pub roles: Vec<Role>,
    /// How long clients may do as they like.
    pub active: Duration,
    /// Whether a thread loses its core now and then while it has the log.
    pub log_stalls: bool,
    /// Lines a streamer sends at most.
    pub lines_max: usize,
    /// Data of an event at most.
    pub data_bytes_max: usize,
    /// Whether some subscribers come over TLS.
    pub has_tls: bool,
    pub ending: Ending,
}

impl Plan {
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = stream(seed, Concern::Plan);
        let flood = rng.u8(0..12) == 0;
        let large = rng.u8(0..4) == 0;
        let sim = SimSettings {
            workers: rng.u16(1..=4),
            slots_per_worker: SLOTS_RESERVED + rng.u32(4..=40),
            recv_buffers: rng.u16(1..=16),
            recv_buffer_bytes: pick(&mut rng, &[64, 512, 2048]),
            socket_buffer_bytes: pick(&mut rng, &[600, 2048, 16 * 1024, 64 * 1024]),
        };
        let faults =
            if rng.u8(0..6) == 0 { Faults::none() } else { Faults::from_seed(rng.u64(..)) };
        let channels = (0..rng.usize(1..=5)).map(|n| format!("c{n}")).collect();
        let roles: Vec<Role> = (0..rng.usize(4..=14)).map(|_| role(&mut rng)).collect();
        let data_bytes_max = if large { 60_000 } else { 300 };
        let settings = settings(&mut rng, large);
        // A stream of its own, so that the rest of the seed is unchanged.
        let worker_replica_bytes =
            pick(&mut stream(seed, Concern::Memory), &[1_000, 10_000, 64 << 20, 64 << 20]);
        let mut settings = Settings { worker_replica_bytes, ..settings };
        let mut stories = stream(seed, Concern::Stories);
        settings.channel_default.stream_compact = pick(&mut stories, &[0, 30, 64 << 10]);
        // One seed in five has some: none of those that found something else is changed by them.
        let tellers = if seed % 5 == 3 { stories.usize(1..=3) } else { 0 };
        let mut roles: Vec<Role> = [roles, vec![Role::Teller; tellers]].concat();
        let mut of_members = stream(seed, Concern::Members);
        if of_members.u8(0..3) == 0 {
            roles.extend((0..of_members.usize(2..=6)).map(|_| Role::Member));
            let rule = ChannelSettings {
                presence: true,
                publish_rate: None,
                ..settings.channel_default.clone()
            };
            settings.channels.push((Pattern::parse(MEMBERS).expect("a valid pattern"), rule));
            settings.presence_grace =
                Duration::from_millis(pick(&mut of_members, &[0, 700, 10_000]));
        }
        let watchers = watchers(seed, &mut settings);
        roles.extend((0..watchers).map(|_| Role::Watcher));
        Self {
            seed,
            sim,
            faults,
            settings: Arc::new(settings),
            channels,
            roles,
            active: Duration::from_millis(rng.u64(500..8000)),
            log_stalls: rng.u8(0..3) == 0,
            lines_max: if flood { 3000 } else { 60 },
            data_bytes_max,
            // Of no seed that found something else.
            has_tls: seed.is_multiple_of(7),
            ending: if rng.u8(0..4) == 0 { Ending::Drain } else { Ending::HangUp },
        }
    }
}

/// How many watch a state, and the rule for it: one seed in seven has some, and none of those that
/// found something else is changed by them. History has room for the state, whatever else needs
/// some, so that all of it is there at the end.
fn watchers(seed: u64, settings: &mut Settings) -> usize {
    if !seed.is_multiple_of(7) || settings.history_bytes < 10_000 {
        return 0;
    }
    settings.channel_default.history_share = 0;
    settings.channels.iter_mut().for_each(|(_, rule)| rule.history_share = 0);
    let rule = ChannelSettings {
        history: Keeps::Latest,
        history_count: 1000,
        history_age: Duration::from_secs(600),
        history_share: u64::MAX,
        publish_rate: None,
        ..settings.channel_default.clone()
    };
    settings.channels.push((Pattern::parse(PRICES).expect("a valid pattern"), rule));
    stream(seed, Concern::Prices).usize(1..=4)
}

impl Plan {
    /// Whether slow readers of any channel are treated this way.
    pub fn slow_is_always(&self, policy: SlowPolicy) -> bool {
        let policies = self.settings.channels.iter().map(|(_, channel)| channel.slow);
        policies.chain([self.settings.channel_default.slow]).all(|slow| slow == policy)
    }
}

fn role(rng: &mut Rng) -> Role {
    match rng.u8(0..20) {
        0..5 => Role::Sse,
        5..7 => Role::WsBare,
        7..11 => Role::WsEnvelope,
        11..15 => Role::Poster,
        15..17 => Role::Streamer,
        17 => Role::Pipeliner,
        _ => Role::Prankster,
    }
}

fn settings(rng: &mut Rng, large: bool) -> Settings {
    let channel = |rng: &mut Rng| ChannelSettings {
        history_count: pick(rng, &[0, 1, 5, 30, 1000]),
        history_age: Duration::from_millis(pick(rng, &[300, 3_000, 300_000])),
        slow: if rng.u8(0..3) == 0 { SlowPolicy::Disconnect } else { SlowPolicy::Skip },
        publish_rate: (rng.u8(0..6) == 0).then(|| rng.u32(1..50)),
        history_share: pick(rng, &[0, 0, 1000, 10_000]),
        history: Keeps::All,
        presence: false,
        publisher: PublisherShown::None,
        stream_bytes: pick(rng, &[2_000, 1 << 20]),
        stream_compact: 0,
    };
    let (default, special) = (channel(rng), channel(rng));
    let pattern = Pattern::parse("c0").expect("a valid pattern");
    let bytes_least = if large { 100_000 } else { 1000 };
    Settings {
        workers: None,
        channel_default: default,
        channels: if rng.bool() { vec![(pattern, special)] } else { Vec::new() },
        history_bytes: bytes_least * pick(rng, &[1, 10, 1000]),
        replica_bytes: pick(rng, &[500, 5_000, 8 << 20]),
        heartbeat: Duration::from_secs(rng.u64(1..=25)),
        connections_max: None,
        event_bytes_max: if large { 64 << 10 } else { pick(rng, &[300, 1000, 64 << 10]) },
        connection_channels_max: rng.usize(2..=8),
        channels_max: if rng.u8(0..8) == 0 { 3 } else { 1000 },
        ..Settings::default()
    }
}

pub fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(0..from.len())]
}

/// A time up to this long.
pub fn up_to(rng: &mut Rng, time: Duration) -> Duration {
    Duration::from_micros(rng.u64(0..=time.as_micros() as u64))
}
