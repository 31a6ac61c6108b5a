//! State channels against a map: a reader of one, wherever it starts, has the map once it has read
//! to the end, and is told of no gap for what was replaced.

use std::collections::BTreeMap;

use super::*;
use crate::proto::attributes::Attributes;

const NAME: &str = "prices";
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
    fn new(seed: u64) -> Self {
        let bench = Bench::uniform(Policy { history_count: 5_000, ..STATE });
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
    for seed in 0..4 {
        let mut trial = Trial::new(seed);
        (0..STEPS).for_each(|_| trial.step());
        for place in 0..trial.readers.len() {
            while !trial.read(place, 1_000) {}
            assert_eq!(trial.readers[place].state, trial.state, "seed {seed}");
        }
    }
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
    assert_eq!(bench.join(1, NAME, Cursor::Now), (0, None, vec![4, 5]));
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
