//! State channels against a map: a reader of one, wherever it starts, has the map once it has read
//! to the end, and is told of no gap for what was replaced.

use std::collections::BTreeMap;

use std::sync::Arc;

use super::store::bench_over;
use super::*;
use crate::log::event::Event;
use crate::log::older::OlderRead;
use crate::log::store::{Shortage, Store, Stored, Taken};
use crate::proto::attributes::Attributes;

const NAME: &str = "prices";
/// A channel that is no state, whose events need room.
const NOISE: &str = "noise";
const STATE: Policy = Policy { keeps: Keeps::Latest, ..PLENTY };
const STEPS: usize = 3_000;

/// A change of the state: a key and its new value; `None`: removed.
type Change = (String, Option<u64>);

fn change(key: Option<&str>, attributes: Attributes) -> Publication {
    let attributes = Attributes { event_key: key.map(Into::into), ..attributes };
    Publication { attributes: attributes.boxed(), ..text(NAME) }
}

/// A reader that keeps the state, and how far it has read.
#[derive(Default)]
struct Reader {
    after: u64,
    place: Option<u32>,
    state: BTreeMap<String, u64>,
}

struct Trial {
    bench: Bench,
    random: fastrand::Rng,
    /// Every change there was, by its place.
    changes: BTreeMap<u64, Change>,
    state: BTreeMap<String, u64>,
    /// Events without a key.
    others: u32,
    readers: Vec<Reader>,
}

impl Trial {
    fn new(seed: u64, history_memory_bytes_max: u64) -> Self {
        let policy = Policy { history_count: 5_000, ..STATE };
        let policies = rules(&[(NAME, policy), (NOISE, Policy { history_count: 400, ..PLENTY })]);
        let all = settings(1 << 20, policies);
        let bench = Bench::new(LogSettings { history_memory_bytes_max, ..all });
        let random = fastrand::Rng::with_seed(seed);
        let (changes, state) = (BTreeMap::new(), BTreeMap::new());
        Self { bench, random, changes, state, others: 0, readers: Vec::new() }
    }

    fn publish(&mut self) {
        let key = format!("k{}", self.random.u8(..12));
        let publication = match self.random.u8(..8) {
            0 => change(None, Attributes::default()),
            1 => change(Some(&key), Attributes { ephemeral: true, ..Attributes::default() }),
            2 => change(Some(&key), Attributes { tombstone: true, ..Attributes::default() }),
            _ => change(Some(&key), Attributes::default()),
        };
        let of = publication.attributes.clone().unwrap_or_default();
        let seq = self.bench.publish_all(0, vec![publication]).last_seq;
        if of.event_key.is_none() {
            self.others += 1;
        } else if !of.ephemeral {
            let change = (key, (!of.tombstone).then_some(seq));
            apply(&mut self.state, &change);
            self.changes.insert(seq, change);
        }
    }

    /// A reader starts, or comes back; returns whether it is new.
    fn join(&mut self) {
        let known = self.random.usize(..=self.readers.len());
        let cursor = match self.readers.get(known) {
            Some(reader) => Cursor::After(reader.after),
            None => {
                self.readers.push(Reader::default());
                Cursor::Now
            }
        };
        let (_, joined) = self.bench.join_all(1, &[NAME], cursor).expect("room");
        assert_eq!((joined[0].after, joined[0].gap), (self.readers[known].after, None));
        self.bench.leave(1, NAME);
    }

    /// A reader reads one page on.
    fn read(&mut self, place: usize, bytes_max: u64) -> bool {
        let reader = &self.readers[place];
        let name = ChannelName::new(NAME);
        let hash = self.bench.log.hasher.channel(&name);
        let (after, place_before) = (reader.after, reader.place.unwrap_or(NO_PLACE));
        let wanted = ReadChannel { name: name.into(), hash, after, place: place_before };
        let page = self.bench.read(1, vec![wanted], bytes_max);
        assert_eq!(page.channels[0].after, after, "nothing is lost");
        let reader = &mut self.readers[place];
        for (_, event) in &page.events {
            if let Some(change) = self.changes.get(&event.seq) {
                apply(&mut reader.state, change);
            }
        }
        (reader.after, reader.place) = (page.through, Some(page.channels[0].place));
        page.is_last
    }

    fn step(&mut self) {
        match self.random.u8(..10) {
            0 => self.join(),
            1..4 if !self.readers.is_empty() => {
                let place = self.random.usize(..self.readers.len());
                let bytes_max = self.random.u64(1..3_000);
                if self.read(place, bytes_max) {
                    assert_eq!(self.readers[place].state, self.state);
                }
            }
            4..6 => self.bench.make_noise(1),
            _ => self.publish(),
        }
        let kept = self.bench.describe(NAME).events;
        assert!(kept - self.others <= 12, "of each key the newest: {kept} events");
    }
}

fn apply(state: &mut BTreeMap<String, u64>, (key, value): &Change) {
    match value {
        Some(value) => state.insert(key.clone(), *value),
        None => state.remove(key),
    };
}

#[test]
fn who_reads_a_state_to_its_end_has_the_map() {
    check_against_the_map(u64::MAX);
}

#[test]
fn it_is_the_map_too_where_memory_has_room_for_a_part_of_it() {
    let pages = check_against_the_map(100_000);
    assert!(pages > 100, "{pages} pages were read from the store");
}

/// Returns how many pages the store has read.
fn check_against_the_map(history_memory_bytes_max: u64) -> u64 {
    let mut pages = 0;
    for seed in 0..4 {
        let mut trial = Trial::new(seed, history_memory_bytes_max);
        (0..STEPS).for_each(|_| trial.step());
        for place in 0..trial.readers.len() {
            while !trial.read(place, 1_000) {}
            assert_eq!(trial.readers[place].state, trial.state, "seed {seed}");
        }
        pages += trial.bench.shelf.pages();
    }
    pages
}

impl Bench {
    fn put(&mut self, key: &str) -> u64 {
        self.publish_all(0, vec![change(Some(key), Attributes::default())]).last_seq
    }

    fn make_noise(&mut self, events: usize) {
        for _ in 0..events {
            self.publish(NOISE);
        }
    }

    /// The log makes room in its store.
    fn make_room(&mut self) {
        self.tend();
        self.shelf_works();
        self.log.check_invariants();
    }
}

/// The values of a state and those of others; memory has room for a few of them.
fn of_state(history_count: u32, history_memory_bytes_max: u64) -> Bench {
    let policies = rules(&[(NAME, Policy { history_count, ..STATE })]);
    let all = settings(1 << 20, policies);
    Bench::new(LogSettings { history_memory_bytes_max, ..all })
}

#[test]
fn a_value_that_changes_often_leaves_the_others_their_place_in_the_store() {
    let mut bench = of_state(5, 5_000);
    let (quiet, mut busy) = (bench.put("quiet"), 0);
    for _ in 0..200 {
        busy = bench.put("busy");
        bench.make_noise(20);
    }
    assert_eq!(bench.describe(NAME).events, 2);
    assert_eq!(bench.join(1, NAME, Cursor::Now), (0, None, vec![quiet, busy]));
    assert!(bench.shelf.pages() > 0, "memory has neither");
}

#[test]
fn a_key_that_is_lost_by_count_is_a_gap_and_one_that_is_replaced_is_none() {
    let mut bench = Bench::uniform(Policy { history_count: 2, ..STATE });
    let publish = |bench: &mut Bench, key: &str| {
        bench.publish_all(0, vec![change(Some(key), Attributes::default())]);
    };
    for key in ["a", "b", "a", "a"] {
        publish(&mut bench, key);
    }
    assert_eq!(bench.join(1, NAME, Cursor::After(1)), (1, None, vec![2, 4]));
    bench.publish_all(0, vec![change(Some("c"), Attributes::default())]);
    let lost = Some(GapReason::Evicted);
    assert_eq!(bench.join(1, NAME, Cursor::After(1)), (2, lost, vec![4, 5]));
    assert_eq!(bench.join(1, NAME, Cursor::Now), (2, None, vec![4, 5]));
}

#[test]
fn an_ephemeral_event_is_seen_and_leaves_nothing_behind() {
    let mut bench = Bench::uniform(PLENTY);
    bench.join(1, NAME, Cursor::Now);
    let typing = || change(None, Attributes { ephemeral: true, ..Attributes::default() });
    bench.publish_all(0, vec![typing(), text(NAME), typing()]);
    assert_eq!(event_seqs(&bench.lanes.take(1)), [1, 2, 3]);
    assert_eq!(bench.join(2, NAME, Cursor::After(0)), (0, None, vec![2]));
    bench.publish_all(0, vec![Publication { channel: "nobody".into(), ..typing() }]);
    assert_eq!(bench.log.stats().channels, 1);
}

/// A rule that changes while the server runs applies to events that are already there.
#[test]
fn a_channel_becomes_a_state_with_what_it_had() {
    let mut bench = Bench::uniform(PLENTY);
    let published = |key: &str| change(Some(key), Attributes::default());
    bench.publish_all(0, vec![published("a"), published("a"), published("b")]);
    bench.log.apply(settings(1 << 20, Policies::uniform(STATE)));
    bench.publish_all(0, vec![published("a")]);
    assert_eq!(bench.join(1, NAME, Cursor::Now), (0, None, vec![1, 3, 4]));
    bench.log.apply(settings(1 << 20, Policies::uniform(PLENTY)));
    bench.publish_all(0, vec![published("a")]);
    assert_eq!(bench.join(1, NAME, Cursor::After(0)), (0, None, vec![1, 3, 4, 5]));
}

#[test]
fn a_value_outlives_the_place_where_it_is_and_subscribers_are_not_told() {
    for history_memory_bytes_max in [5_000, u64::MAX] {
        let mut bench = of_state(100, history_memory_bytes_max);
        bench.join(1, NAME, Cursor::Now);
        let (quiet, _) = (bench.put("quiet"), bench.publish(NOISE));
        bench.make_noise(200);
        let busy = bench.put("busy");
        assert_eq!(event_seqs(&bench.lanes.take(1)), [quiet, busy]);
        bench.shelf.runs_short(Shortage { lost_before: 0, scarce_before: busy });
        bench.make_room();
        bench.shelf.runs_short(Shortage { lost_before: busy, scarce_before: busy });
        bench.make_room();
        let again = busy + 1;
        assert_eq!(bench.log.stats().head_seq, again);
        assert_eq!(bench.join(2, NAME, Cursor::After(0)), (0, None, vec![busy, again]));
        assert!(bench.lanes.take(1).is_empty());
    }
}

#[test]
fn a_value_is_ordered_again_before_it_is_lost_however_fast_the_store_fills_up() {
    for history_memory_bytes_max in [5_000, u64::MAX] {
        let mut bench = of_state(100, history_memory_bytes_max);
        bench.put("quiet");
        bench.make_noise(200);
        let busy = bench.put("busy");
        bench.shelf.runs_short(Shortage { lost_before: busy, scarce_before: busy });
        // Where memory does not have it, it is read meanwhile.
        bench.log.tend(bench.now, &mut bench.lanes);
        bench.make_room();
        bench.make_room();
        assert_eq!(bench.join(1, NAME, Cursor::Now), (0, None, vec![busy, busy + 1]));
        assert_eq!(bench.describe(NOISE).events, 0, "all else is lost");
    }
}

#[test]
fn a_value_that_was_replaced_while_its_channel_was_no_state_holds_nothing_up() {
    let mut bench = of_state(100, 5_000);
    let state = bench.log.settings.clone();
    bench.put("a");
    bench.make_noise(200);
    let all = LogSettings { policies: Policies::uniform(PLENTY), ..state.clone() };
    bench.log.apply(all);
    let newer = bench.put("a");
    bench.log.apply(state);
    bench.shelf.runs_short(Shortage { lost_before: newer, scarce_before: newer });
    (0..3).for_each(|_| bench.make_room());
    assert_eq!(bench.join(1, NAME, Cursor::Now).2, [newer]);
    assert_eq!(bench.describe(NOISE).events, 0, "all else is lost");
}

/// A store that commits when told to, and has no room for the first event.
#[derive(Debug)]
struct Short;

impl Store for Short {
    fn append(&mut self, _event: &Arc<Event>) -> Taken {
        Taken::Later
    }

    fn give_up(&mut self) {}

    fn read_older(&mut self, _read: OlderRead) {
        panic!("all of history is in memory");
    }

    fn keeps_from(&mut self, _seq: u64) -> Shortage {
        Shortage { lost_before: 2, scarce_before: 2 }
    }
}

#[test]
fn a_value_is_not_ordered_again_behind_the_one_that_replaces_it() {
    let [carried_first, replaced_first, lost] = [0, 1, 2];
    for case in [carried_first, replaced_first, lost] {
        let mut bench = bench_over(Box::new(Short));
        bench.log.apply(settings(1 << 20, Policies::uniform(STATE)));
        let put = |bench: &mut Bench| {
            bench.ask_publish(0, vec![change(Some("a"), Attributes::default())]);
        };
        put(&mut bench);
        bench.commit(1);
        if case == replaced_first {
            put(&mut bench);
        }
        bench.make_room();
        if case == carried_first {
            put(&mut bench);
        }
        let newest = match case == lost {
            true => {
                bench.store_says(Stored::Down);
                1
            }
            false => {
                bench.commit(3);
                3 - case
            }
        };
        assert_eq!(bench.join(1, NAME, Cursor::Now), (0, None, vec![newest]), "{case}");
    }
}
