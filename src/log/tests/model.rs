//! The log against a naive one (a list of kept events, every answer recomputed), and against a
//! witness that knows neither: it has every event ever ordered, and every subscriber must have seen
//! exactly those of its channel after its cursor, except what a gap told of.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::log::history::runs::RUN_COST;

const NAMES: [&str; 10] = ["a", "b", "c", "d:1", "d:2", "d:3", "d:4", "e", "f", "g"];
const WORKERS: u16 = 3;
const TOMBSTONES: usize = 3;
const STEPS: usize = 6_000;

/// A kept event of the model.
#[derive(Clone)]
struct Kept {
    seq: u64,
    name: String,
    key: Option<String>,
    bytes: u64,
    ordered_at: Duration,
    /// Only the store has it, and it is lost together with those of the same run.
    run: Option<u64>,
}

#[derive(Clone, Default)]
struct ModelChannel {
    evicted_to: u64,
    last_seq: u64,
    subscribers: [u32; WORKERS as usize],
}

/// The naive log: no index, no linked list, nothing incremental.
struct Model {
    settings: LogSettings,
    now: Duration,
    head_seq: u64,
    kept: Vec<Kept>,
    channels: BTreeMap<String, ModelChannel>,
    tombstones: Vec<(String, u64)>,
    forgotten_to: u64,
}

impl Model {
    fn kept_of<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a Kept> + 'a {
        self.kept.iter().filter(move |event| event.name == name)
    }

    fn subscribers(&self, name: &str) -> u32 {
        self.channels.get(name).map_or(0, |channel| channel.subscribers.iter().sum())
    }

    fn create(&mut self, name: &str) -> &mut ModelChannel {
        if !self.channels.contains_key(name) {
            let place = self.tombstones.iter().position(|(buried, _)| buried == name);
            let last_seq = place.map_or(0, |place| self.tombstones.remove(place).1);
            let evicted_to = if last_seq > 0 { last_seq } else { self.forgotten_to };
            let channel = ModelChannel { evicted_to, last_seq, ..ModelChannel::default() };
            self.channels.insert(name.into(), channel);
        }
        self.channels.get_mut(name).expect("just made sure")
    }

    fn free_if_idle(&mut self, name: &str) {
        if self.subscribers(name) > 0 || self.kept_of(name).next().is_some() {
            return;
        }
        let Some(channel) = self.channels.remove(name) else { return };
        if channel.last_seq > 0 {
            if self.tombstones.len() == TOMBSTONES {
                self.forgotten_to = self.forgotten_to.max(self.tombstones.remove(0).1);
            }
            self.tombstones.push((name.into(), channel.last_seq));
        }
    }

    fn lose(&mut self, place: usize) {
        let lost = self.piece(place);
        self.kept.retain(|event| lost.iter().all(|lost| lost.seq != event.seq));
        let last = lost.last().expect("one at least");
        self.create(&last.name).evicted_to = last.seq;
        self.free_if_idle(&last.name);
    }

    /// An event, or those of its run.
    fn piece(&self, place: usize) -> Vec<Kept> {
        match self.kept[place].run {
            None => vec![self.kept[place].clone()],
            run => self.kept.iter().filter(|event| event.run == run).cloned().collect(),
        }
    }

    fn runs(&self) -> BTreeSet<u64> {
        self.kept.iter().filter_map(|event| event.run).collect()
    }

    /// What memory has no room for is left to the store.
    fn leave_to_store(&mut self) {
        let in_memory = |model: &Self| {
            let bytes = model.kept.iter().filter(|event| event.run.is_none());
            let bytes: u64 = bytes.map(|event| event.bytes).sum();
            bytes + model.runs().len() as u64 * RUN_COST
        };
        while in_memory(self) > self.settings.history_memory_bytes_max {
            let place = self.kept.iter().position(|event| event.run.is_none());
            let Some(place) = place else { return };
            let Kept { seq, name, .. } = self.kept[place].clone();
            let last =
                self.kept.iter().rposition(|event| event.run.is_some() && event.name == name);
            let run = last.map(|last| self.piece(last)).filter(|run| {
                let bytes: u64 = run.iter().map(|event| event.bytes).sum();
                run.len() < 64 && bytes < 16 * 1024 && run[0].seq >> 16 == seq >> 16
            });
            self.kept[place].run = run.map_or(Some(seq), |run| run[0].run);
        }
    }

    /// When what is oldest under a policy has aged.
    fn due(&self, policy: u8) -> Option<(Duration, usize)> {
        let policies = &self.settings.policies;
        let oldest = self.kept.iter().position(|event| policies.index_of(&event.name) == policy)?;
        let newest = self.piece(oldest).pop().expect("one at least");
        Some((newest.ordered_at + policies.at(policy).history_age, oldest))
    }

    fn expire(&mut self) {
        for policy in 0..self.settings.policies.count() {
            while let Some((_, place)) = self.due(policy).filter(|(at, _)| *at <= self.now) {
                self.lose(place);
            }
        }
    }

    fn trim_to_count(&mut self, name: &str) {
        let events_max = self.settings.policies.of(name).events_max() as usize;
        while let Some(place) = self.kept.iter().position(|event| event.name == name)
            && self.kept_of(name).count() >= events_max + self.piece(place).len()
        {
            self.lose(place);
        }
        self.free_if_idle(name);
    }

    fn trim_to_bytes(&mut self) {
        self.leave_to_store();
        let bytes = |model: &Self| model.kept.iter().map(|event| event.bytes).sum::<u64>();
        let listed = |model: &Self| model.runs().len() as u64 * RUN_COST;
        while bytes(self) > self.settings.history_bytes_max
            || listed(self) > self.settings.history_memory_bytes_max / 2
        {
            let over = self.kept.iter().position(|event| self.is_over_its_share(&event.name));
            self.lose(over.unwrap_or(0));
        }
    }

    fn is_over_its_share(&self, name: &str) -> bool {
        let policies = &self.settings.policies;
        let index = policies.index_of(name);
        let of_policy = self.kept.iter().filter(|event| policies.index_of(&event.name) == index);
        of_policy.map(|event| event.bytes).sum::<u64>() > policies.at(index).history_share
    }

    fn publish(&mut self, publication: &Publication, full: &[u16]) -> Result<(u64, u32), Refusal> {
        let Publication { channel: name, data, key, .. } = publication;
        let key = key.as_deref();
        let repeated = self
            .kept_of(name)
            .find(|of| key.is_some() && of.run.is_none() && of.key.as_deref() == key);
        if let Some(event) = repeated {
            return Ok((event.seq, self.subscribers(name)));
        }
        let deaf = |&worker: &u16| {
            let channel = self.channels.get(&**name);
            channel.is_some_and(|channel| channel.subscribers[usize::from(worker)] > 0)
        };
        if full.iter().any(deaf) {
            return Err(Refusal::Busy);
        }
        let bytes = event_bytes(name, data, None, key);
        let events_max = self.settings.policies.of(name).events_max();
        if events_max > 0 && bytes > self.settings.history_bytes_max {
            return Err(Refusal::Memory);
        }
        if !self.has_room(&[name]) {
            return Err(Refusal::Channels);
        }
        self.head_seq += 1;
        let (seq, ordered_at) = (self.head_seq, self.now);
        self.create(name).last_seq = seq;
        let subscribers = self.subscribers(name);
        let (name, key) = (name.to_string(), key.map(str::to_string));
        self.kept.push(Kept { seq, name: name.clone(), key, bytes, ordered_at, run: None });
        self.trim_to_count(&name);
        self.trim_to_bytes();
        Ok((seq, subscribers))
    }

    /// Whether these names fit, possibly after overdue events have left.
    fn has_room(&mut self, names: &[&str]) -> bool {
        let fits = |model: &Self| {
            let fresh = names.iter().filter(|name| !model.channels.contains_key(**name)).count();
            fresh == 0 || model.channels.len() + fresh <= model.settings.channels_max
        };
        if !fits(self) {
            self.expire();
        }
        fits(self)
    }

    fn join(&mut self, worker: u16, name: &str, cursor: Cursor) -> Stand {
        let head_seq = self.head_seq;
        let channel = self.create(name);
        channel.subscribers[usize::from(worker)] += 1;
        let lost = channel.evicted_to;
        let (after, gap) = match cursor {
            Cursor::Now => (head_seq, None),
            Cursor::Earliest => (lost, (lost > 0).then_some(GapReason::Evicted)),
            Cursor::Foreign => (lost, Some(GapReason::Epoch)),
            Cursor::After(seq) if seq > head_seq => (lost, Some(GapReason::Epoch)),
            Cursor::After(seq) if seq < lost => (lost, Some(GapReason::Evicted)),
            Cursor::After(seq) => (seq, None),
            Cursor::Stream(_) => unreachable!("the model has no streams"),
        };
        let backlog = self.kept_of(name).map(|event| event.seq).filter(|&seq| seq > after);
        (after, gap, backlog.collect())
    }

    fn leave(&mut self, worker: u16, name: &str) {
        self.create(name).subscribers[usize::from(worker)] -= 1;
        self.free_if_idle(name);
    }

    fn describe(&self, name: &str) -> Description {
        let buried = self.tombstones.iter().find(|(buried, _)| buried == name);
        let known = self.channels.get(name).map(|channel| channel.last_seq);
        Description {
            last_seq: known.or(buried.map(|stone| stone.1)).filter(|&seq| seq > 0),
            first_seq: self.kept_of(name).next().map(|event| event.seq),
            events: self.kept_of(name).count() as u32,
            subscribers: self.subscribers(name),
            ..Description::default()
        }
    }
}

/// A subscriber as its client sees it.
struct Subscriber {
    worker: u16,
    name: String,
    after: u64,
    seen: Vec<u64>,
}

#[derive(Default)]
struct Witness {
    ever: Vec<(u64, String)>,
    subscribers: Vec<Subscriber>,
}

impl Witness {
    /// Hands what a worker was sent to its subscribers.
    fn deliver(&mut self, worker: u16, sent: Vec<FromLog>) {
        for told in sent {
            let FromLog::Event(event) = told else { panic!("not an event: {told:?}") };
            let mut heard = false;
            for subscriber in &mut self.subscribers {
                if subscriber.worker == worker && subscriber.name == event.channel[..] {
                    subscriber.seen.push(event.seq);
                    heard = true;
                }
            }
            assert!(heard, "only what was joined is heard of");
        }
    }

    fn join(&mut self, worker: u16, name: &str, stand: &Stand) {
        let (name, (after, _, seen)) = (name.to_owned(), stand.clone());
        self.subscribers.push(Subscriber { worker, name, after, seen });
        self.check(self.subscribers.len() - 1);
    }

    fn leave(&mut self, place: usize) -> (u16, String) {
        self.check(place);
        let Subscriber { worker, name, .. } = self.subscribers.swap_remove(place);
        (worker, name)
    }

    fn check(&self, place: usize) {
        let Subscriber { name, after, seen, .. } = &self.subscribers[place];
        let due = self.ever.iter().filter(|(seq, channel)| seq > after && channel == name);
        assert_eq!(*seen, due.map(|(seq, _)| *seq).collect::<Vec<_>>(), "{name} after {after}");
    }
}

struct Trial {
    random: fastrand::Rng,
    bench: Bench,
    model: Model,
    witness: Witness,
    older_pages: u64,
}

impl Trial {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let settings = random_settings(&mut random);
        let mut bench = Bench::new(settings.clone());
        bench.log.limit_tombstones(TOMBSTONES);
        let model = Model {
            settings,
            now: Duration::ZERO,
            head_seq: 0,
            kept: Vec::new(),
            channels: BTreeMap::new(),
            tombstones: Vec::new(),
            forgotten_to: 0,
        };
        Self { random, bench, model, witness: Witness::default(), older_pages: 0 }
    }

    fn step(&mut self) {
        match self.random.u8(..100) {
            0..45 => self.publish(),
            45..70 => self.join(),
            70..88 => self.leave(),
            88..98 => self.pass_time(),
            98 => self.reload(),
            _ => (0..self.witness.subscribers.len()).for_each(|place| self.witness.check(place)),
        }
        self.compare();
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.random.usize(..NAMES.len())]
    }

    fn publish(&mut self) {
        let worker = self.random.u16(..WORKERS);
        self.bench.lanes.full.clear();
        if self.random.u8(..10) == 0 {
            self.bench.lanes.full.push(self.random.u16(..WORKERS));
        }
        let count = self.random.usize(1..5);
        let publications: Vec<_> = (0..count).map(|_| self.publication()).collect();
        let mut expected = Published {
            accepted: 0,
            first_seq: 0,
            last_seq: 0,
            subscribers: 0,
            elsewhere: None,
            refusal: None,
            stream: None,
        };
        for publication in &publications {
            let head_seq = self.model.head_seq;
            match self.model.publish(publication, &self.bench.lanes.full) {
                Ok((seq, subscribers)) => {
                    let first_seq = if expected.accepted == 0 { seq } else { expected.first_seq };
                    let accepted = expected.accepted + 1;
                    expected = Published {
                        accepted,
                        first_seq,
                        last_seq: seq,
                        subscribers,
                        elsewhere: None,
                        refusal: None,
                        stream: None,
                    };
                }
                Err(refusal) => expected.refusal = Some(refusal),
            }
            if self.model.head_seq > head_seq {
                self.witness.ever.push((self.model.head_seq, publication.channel.to_string()));
            }
            if expected.refusal.is_some() {
                break;
            }
        }
        assert_eq!(self.bench.publish_all(worker, publications), expected);
        for worker in 0..WORKERS {
            self.witness.deliver(worker, self.bench.lanes.take(worker));
        }
    }

    fn publication(&mut self) -> Publication {
        let len = if self.random.u8(..50) == 0 { 10_000 } else { self.random.usize(..200) };
        let keys = ["k", "l", "m"];
        let key = (self.random.u8(..3) == 0).then(|| keys[self.random.usize(..keys.len())].into());
        Publication { data: vec![b'x'; len].into(), key, ..text(self.name()) }
    }

    fn join(&mut self) {
        let worker = self.random.u16(..WORKERS);
        let first = self.random.usize(..NAMES.len());
        let names = (0..self.random.usize(1..4)).map(|step| NAMES[(first + step) % NAMES.len()]);
        let names: Vec<_> = names.collect();
        let head_seq = self.model.head_seq;
        let cursor = match self.random.u8(..10) {
            0 => Cursor::Now,
            1 => Cursor::Earliest,
            2 => Cursor::Foreign,
            3 => Cursor::After(head_seq + self.random.u64(..3)),
            _ => Cursor::After(head_seq.saturating_sub(self.random.u64(..40))),
        };
        let answer = self.bench.join_all(worker, &names, cursor);
        if !self.model.has_room(&names) {
            assert_eq!(answer.err(), Some(Refusal::Channels));
            return;
        }
        let (head, joined) = answer.expect("the model has room");
        assert_eq!((head, joined.len()), (head_seq, names.len()));
        for (&name, joined) in names.iter().zip(joined) {
            let stand = self.model.join(worker, name, cursor);
            let bytes_max = self.random.u64(0..2000);
            let read = self.bench.read_all(worker, &[(name, joined.after)], bytes_max);
            assert_eq!((joined.after, joined.gap, read), stand, "{cursor:?}");
            if let (Cursor::After(seq), None) = (cursor, stand.1) {
                assert_eq!(stand.0, seq, "without a gap the cursor is honoured");
            }
            self.witness.join(worker, name, &stand);
        }
    }

    fn leave(&mut self) {
        if self.witness.subscribers.is_empty() {
            return;
        }
        // Now and then nearly all leave, so that channels are freed.
        let count = self.witness.subscribers.len();
        let leaving = if self.random.u8(..12) == 0 { count } else { 1 };
        for _ in 0..leaving {
            let place = self.random.usize(..self.witness.subscribers.len());
            let (worker, name) = self.witness.leave(place);
            self.bench.leave(worker, &name);
            self.model.leave(worker, &name);
        }
    }

    fn pass_time(&mut self) {
        self.bench.now += Duration::from_secs(self.random.u64(..20));
        self.model.now = self.bench.now;
        if self.random.bool() {
            self.model.expire();
            let policies = 0..self.model.settings.policies.count();
            let wake_at = policies.filter_map(|policy| Some(self.model.due(policy)?.0)).min();
            assert_eq!(self.bench.expire_at(self.bench.now), wake_at);
        }
    }

    fn reload(&mut self) {
        let settings = random_settings(&mut self.random);
        let listed = self.bench.log.channels(0, usize::MAX);
        self.bench.log.apply(settings.clone());
        self.model.settings = settings;
        for (name, _) in listed.channels {
            self.model.trim_to_count(&name);
        }
        self.model.trim_to_bytes();
    }

    fn compare(&mut self) {
        self.bench.log.check_invariants();
        let stats = self.bench.log.stats();
        assert_eq!(stats.head_seq, self.model.head_seq);
        assert_eq!(stats.events, self.model.kept.len() as u64);
        assert_eq!(stats.bytes, self.model.kept.iter().map(|event| event.bytes).sum::<u64>());
        self.older_pages = self.bench.shelf.pages();
        assert_eq!(stats.channels, self.model.channels.len() as u64);
        assert_eq!(stats.tombstones, self.model.tombstones.len() as u64);
        assert_eq!(stats.forgotten_to, self.model.forgotten_to);
        let name = self.name();
        assert_eq!(self.bench.describe(name), self.model.describe(name), "{name}");
    }
}

fn random_settings(random: &mut fastrand::Rng) -> LogSettings {
    let mut policy = || Policy {
        history_count: [0, 1, 3, 8, 100][random.usize(..5)],
        history_age: Duration::from_secs([0, 5, 60, 300][random.usize(..4)]),
        publish_rate: None,
        history_share: [0, 1_000, 4_000][random.usize(..3)],
        keeps: Keeps::All,
        stream_bytes: 0,
        stream_compact: 0,
        presence: false,
    };
    let policies = rules(&[("a", policy()), ("d:*", policy()), ("e", policy())]);
    let channels_max = random.usize(4..=NAMES.len());
    // Half of the time memory has no room for all of it.
    let history_memory_bytes_max = [u64::MAX, random.u64(500..4_000)][random.usize(..2)];
    let settings = settings(random.u64(1_000..9_000), policies);
    LogSettings { channels_max, history_memory_bytes_max, ..settings }
}

/// Thousands of operations at each of several seeds; a failure names its seed and step.
#[test]
fn the_log_agrees_with_a_naive_one_and_no_subscriber_loses_or_repeats_an_event() {
    let mut sum = crate::log::LogCounters::default();
    let (mut forgotten, mut older_pages) = (false, 0);
    for seed in 0..6 {
        let mut trial = Trial::new(seed);
        for step in 0..STEPS {
            let run = std::panic::AssertUnwindSafe(|| trial.step());
            if let Err(panic) = std::panic::catch_unwind(run) {
                eprintln!("failed at seed {seed}, step {step}");
                std::panic::resume_unwind(panic);
            }
        }
        (0..trial.witness.subscribers.len()).for_each(|place| trial.witness.check(place));
        let stats = trial.bench.log.stats();
        forgotten |= stats.forgotten_to > 0;
        sum.repeated += stats.counters.repeated;
        sum.evicted_by_count += stats.counters.evicted_by_count;
        sum.evicted_by_age += stats.counters.evicted_by_age;
        sum.evicted_by_bytes += stats.counters.evicted_by_bytes;
        sum.refused.busy += stats.counters.refused.busy;
        sum.refused.memory += stats.counters.refused.memory;
        sum.refused.channels += stats.counters.refused.channels;
        sum.replays += stats.counters.replays;
        sum.gaps += stats.counters.gaps;
        older_pages += trial.older_pages;
    }
    // The trial means little unless every path was taken often.
    let least = [
        sum.repeated,
        sum.evicted_by_count,
        sum.evicted_by_age,
        sum.evicted_by_bytes,
        sum.refused.busy,
        sum.refused.memory,
        sum.refused.channels,
        sum.replays,
        sum.gaps,
        older_pages,
    ];
    assert!(forgotten && least.iter().all(|&count| count >= 100), "{sum:?}");
}
