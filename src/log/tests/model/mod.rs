//! The log against a naive one (a list of kept events, every answer recomputed), and against a
//! witness that knows neither: it has every event ever ordered, and every subscriber must have seen
//! exactly those of its channel after its cursor, except what a gap told of.

mod naive;

use std::collections::BTreeMap;

use self::naive::Model;
use super::*;

const NAMES: [&str; 10] = ["a", "b", "c", "d:1", "d:2", "d:3", "d:4", "e", "f", "g"];
const WORKERS: u16 = 3;
const TOMBSTONES: usize = 3;
const STEPS: usize = 6_000;

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
