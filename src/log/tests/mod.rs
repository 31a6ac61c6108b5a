//! Behaviour of the log. `model` compares it with a naive one over thousands of random operations.

mod broker;
mod model;
mod nodes;
mod older;
mod presence;
mod state;
mod store;
mod streams;

use std::time::Duration;

use bytes::Bytes;

use self::older::Shelf;
use super::event::{Kind, Publication};
use super::history::event_bytes;
use super::message::{
    Ask, Counts, Description, FromLog, GapReason, JoinedChannel, LeaveChannel, NO_PLACE, Page,
    PageChannel, Published, ReadChannel, Refusal, Share, Ticket, ToLog,
};
use super::policy::{Keeps, LogSettings, Policies, Policy};
use super::stream::StreamTimes;
use super::{ChannelName, Outlet, Sequencer, SharedHasher};
use crate::proto::cursor::{Cursor, Epoch};
use crate::proto::name::Pattern;

const TICKET: Ticket = Ticket(7);
const AGE: Duration = Duration::from_secs(60);
const PLENTY: Policy = Policy {
    history_count: 100,
    history_age: AGE,
    publish_rate: None,
    history_share: 0,
    keeps: Keeps::All,
    stream_bytes: 0,
    stream_compact: 0,
    presence: false,
};

/// A queue per worker; `full` ones have no room for events.
struct Lanes {
    queues: Vec<Vec<FromLog>>,
    places: usize,
    full: Vec<u16>,
}

impl Lanes {
    fn new(workers: u16) -> Self {
        let queues = (0..workers).map(|_| Vec::new()).collect();
        Self { queues, places: usize::MAX, full: Vec::new() }
    }

    fn take(&mut self, worker: u16) -> Vec<FromLog> {
        std::mem::take(&mut self.queues[usize::from(worker)])
    }
}

impl Outlet for Lanes {
    fn has_room(&self, worker: u16, share: Share, reserved: usize) -> bool {
        let waiting = self.queues[usize::from(worker)].len();
        !self.full.contains(&worker) && waiting + reserved < share.of(self.places)
    }

    fn send(&mut self, worker: u16, told: FromLog) {
        self.queues[usize::from(worker)].push(told);
    }
}

/// A log with its lanes. Every step checks the log's invariants.
struct Bench {
    log: Sequencer,
    shelf: Shelf,
    lanes: Lanes,
    now: Duration,
}

impl Bench {
    fn new(settings: LogSettings) -> Self {
        let workers = 3;
        let hasher = SharedHasher::from_seed(1);
        let mut log = Sequencer::new(settings, Epoch::from_random(1), workers, hasher);
        let shelf = Shelf::default();
        log.move_to(Box::new(shelf.clone()), Epoch::from_random(1), 0, 0);
        Self { log, shelf, lanes: Lanes::new(workers), now: Duration::ZERO }
    }

    fn uniform(policy: Policy) -> Self {
        Self::new(settings(1 << 20, Policies::uniform(policy)))
    }

    fn handle(&mut self, worker: u16, body: Ask) {
        self.log.handle(ToLog::Worker { worker, body }, self.now, &mut self.lanes);
        self.log.check_invariants();
    }

    /// The last message in the lane, which is the answer; those before it stay.
    fn answer(&mut self, worker: u16) -> FromLog {
        self.lanes.queues[usize::from(worker)].pop().expect("an answer")
    }

    fn publish_all(&mut self, worker: u16, publications: Vec<Publication>) -> Published {
        self.publish_within(Share::Whole, worker, publications)
    }

    fn publish_within(
        &mut self,
        share: Share,
        worker: u16,
        publications: Vec<Publication>,
    ) -> Published {
        let ticket = TICKET;
        self.handle(worker, Ask::Publish { ticket, share, counts: Counts::Here, publications });
        match self.answer(worker) {
            FromLog::Published { ticket: TICKET, outcome, .. } => outcome,
            other => panic!("not the answer to a publish: {other:?}"),
        }
    }

    fn publish(&mut self, channel: &str) -> u64 {
        let outcome = self.publish_all(0, vec![text(channel)]);
        assert_eq!((outcome.accepted, outcome.refusal), (1, None));
        outcome.last_seq
    }

    fn join_all(
        &mut self,
        worker: u16,
        names: &[&str],
        cursor: Cursor,
    ) -> Result<(u64, Vec<JoinedChannel>), Refusal> {
        let channels = names.iter().map(|&name| name.into()).collect();
        self.handle(worker, Ask::Join { ticket: TICKET, channels, cursor, identity: None });
        match self.answer(worker) {
            FromLog::Joined { ticket: TICKET, head_seq, channels } => Ok((head_seq, channels)),
            FromLog::JoinRefused { ticket: TICKET, refusal } => Err(refusal),
            other => panic!("not the answer to a join: {other:?}"),
        }
    }

    /// Joins one channel: returns its start, the gap, and the backlog.
    fn join(&mut self, worker: u16, name: &str, cursor: Cursor) -> Stand {
        let (_, mut joined) = self.join_all(worker, &[name], cursor).expect("room");
        let channel = joined.pop().expect("one channel");
        assert_eq!(&channel.name[..], name);
        let after = channel.after;
        (after, channel.gap, self.read_all(worker, &[(name, after)], u64::MAX))
    }

    fn read(&mut self, worker: u16, channels: Vec<ReadChannel>, bytes_max: u64) -> Page {
        self.handle(worker, Ask::Read { ticket: TICKET, channels, bytes_max });
        self.shelf_works();
        match self.answer(worker) {
            FromLog::Page { ticket: TICKET, page } => page,
            other => panic!("not a page: {other:?}"),
        }
    }

    /// Everything kept after these cursors, page by page.
    fn read_all(&mut self, worker: u16, from: &[(&str, u64)], bytes_max: u64) -> Vec<u64> {
        let (mut read, mut places, mut through) = (Vec::new(), vec![NO_PLACE; from.len()], 0);
        while through < self.log.stats().head_seq {
            let wanted = from.iter().zip(&places).map(|(&(name, after), &place)| {
                let hash = self.log.hasher.channel(name);
                let name = ChannelName::new(name).into();
                ReadChannel { name, hash, after: after.max(through), place }
            });
            let page = self.read(worker, wanted.collect(), bytes_max);
            let seqs = page.events.iter().map(|(index, event)| {
                assert_eq!(&event.channel[..], from[usize::from(*index)].0);
                event.seq
            });
            read.extend(seqs);
            assert!(read.is_sorted() && read.last().is_none_or(|last| *last <= page.through));
            assert!(page.through > through, "a page goes on");
            assert_eq!(page.is_last, page.through == self.log.stats().head_seq);
            through = page.through;
            places = page.channels.iter().map(|of| of.place).collect();
        }
        read
    }

    fn leave(&mut self, worker: u16, name: &str) {
        let left =
            LeaveChannel { name: ChannelName::new(name).into(), subscribers: 1, member: None };
        self.handle(worker, Ask::Leave(vec![left]));
    }

    fn describe(&mut self, name: &str) -> Description {
        self.handle(2, Ask::Describe { ticket: TICKET, channel: name.into() });
        match self.answer(2) {
            FromLog::Described { ticket: TICKET, description } => description,
            other => panic!("not a description: {other:?}"),
        }
    }

    fn expire_at(&mut self, now: Duration) -> Option<Duration> {
        self.now = now;
        let wake_at = self.log.expire(now);
        self.log.check_invariants();
        wake_at
    }
}

type Stand = (u64, Option<GapReason>, Vec<u64>);

fn settings(history_bytes_max: u64, policies: Policies) -> LogSettings {
    LogSettings {
        history_bytes_max,
        history_memory_bytes_max: u64::MAX,
        channels_max: 100,
        presence_grace: Duration::ZERO,
        policies,
        streams: StreamTimes::default(),
    }
}

fn text(channel: &str) -> Publication {
    Publication {
        channel: channel.into(),
        kind: Kind::Text,
        data: Bytes::from_static(b"data"),
        event_type: None,
        key: None,
        attributes: None,
    }
}

fn keyed(channel: &str, key: &str) -> Publication {
    Publication { key: Some(key.into()), ..text(channel) }
}

fn event_seqs(sent: &[FromLog]) -> Vec<u64> {
    let seq = |told: &FromLog| match told {
        FromLog::Event(event) => event.seq,
        other => panic!("not an event: {other:?}"),
    };
    sent.iter().map(seq).collect()
}

fn rules(rules: &[(&str, Policy)]) -> Policies {
    let pattern = |text| Pattern::parse(text).expect("a valid pattern");
    let rules = rules.iter().map(|&(text, policy)| (pattern(text), policy)).collect();
    Policies::new(rules, PLENTY).expect("few enough")
}

#[test]
fn one_total_order_and_each_interested_worker_hears_of_an_event_once() {
    let mut bench = Bench::uniform(PLENTY);
    for (worker, name) in [(0, "a"), (0, "a"), (1, "a"), (1, "b")] {
        bench.join(worker, name, Cursor::Now);
    }
    assert_eq!([bench.publish("a"), bench.publish("b"), bench.publish("a")], [1, 2, 3]);
    assert_eq!(event_seqs(&bench.lanes.take(0)), [1, 3]);
    assert_eq!(event_seqs(&bench.lanes.take(1)), [1, 2, 3]);
    assert!(bench.lanes.take(2).is_empty());
    bench.leave(0, "a");
    assert_eq!(bench.publish("a"), 4);
    assert_eq!(event_seqs(&bench.lanes.take(0)), [4]);
    bench.leave(0, "a");
    bench.publish("a");
    assert!(bench.lanes.take(0).is_empty());
}

#[test]
fn a_publisher_gets_its_own_event_before_its_answer() {
    let mut bench = Bench::uniform(PLENTY);
    bench.join(0, "a", Cursor::Now);
    let publications = vec![text("a"), text("b"), text("a")];
    let (ticket, share) = (TICKET, Share::Whole);
    bench.handle(0, Ask::Publish { ticket, share, counts: Counts::Here, publications });
    let sent = bench.lanes.take(0);
    let outcome = match &sent[..] {
        [FromLog::Event(first), FromLog::Event(second), FromLog::Published { outcome, .. }] => {
            assert_eq!((first.seq, second.seq), (1, 3));
            *outcome
        }
        other => panic!("{other:?}"),
    };
    let expected = Published {
        accepted: 3,
        first_seq: 1,
        last_seq: 3,
        subscribers: 1,
        elsewhere: None,
        refusal: None,
        stream: None,
    };
    assert_eq!(outcome, expected);
}

#[test]
fn cursors_stand_where_the_architecture_says() {
    let mut bench = Bench::uniform(Policy { history_count: 2, ..PLENTY });
    for _ in 0..4 {
        bench.publish("a");
    }
    bench.publish("b");
    let evicted = Some(GapReason::Evicted);
    let epoch = Some(GapReason::Epoch);
    for (cursor, stand) in [
        (Cursor::Now, (5, None, vec![])),
        (Cursor::Earliest, (2, Some(GapReason::Evicted), vec![3, 4])),
        (Cursor::After(0), (2, evicted, vec![3, 4])),
        (Cursor::After(1), (2, evicted, vec![3, 4])),
        (Cursor::After(2), (2, None, vec![3, 4])),
        (Cursor::After(3), (3, None, vec![4])),
        (Cursor::After(5), (5, None, vec![])),
        (Cursor::After(6), (2, epoch, vec![3, 4])),
        (Cursor::After(u64::MAX), (2, epoch, vec![3, 4])),
        (Cursor::Foreign, (2, epoch, vec![3, 4])),
    ] {
        assert_eq!(bench.join(1, "a", cursor), stand, "{cursor:?}");
    }
    let counters = bench.log.stats().counters;
    assert_eq!((counters.replays, counters.gaps), (8, 6));
}

#[test]
fn pages_are_history_in_log_order_whatever_their_size() {
    let mut bench = Bench::uniform(Policy { history_count: 5, ..PLENTY });
    for n in 0..15 {
        bench.publish(["a", "b", "c"][n % 3]);
    }
    // Of each channel the newest five are kept, and each has its own cursor.
    let from = [("c", 3), ("a", 7), ("b", 100), ("unknown", 0)];
    for bytes_max in [0, 1, 500, 1000, u64::MAX] {
        assert_eq!(bench.read_all(0, &from, bytes_max), [6, 9, 10, 12, 13, 15], "{bytes_max}");
    }
}

/// A place in history is a hint: its entry may be gone, or belong to another channel by now.
#[test]
fn a_page_goes_on_where_it_should_although_history_has_moved_on() {
    let mut bench = Bench::uniform(Policy { history_count: 4, ..PLENTY });
    let mut seqs: Vec<u64> = (0..4).map(|_| bench.publish("a")).collect();
    let hash = bench.log.hasher.channel("a");
    for place in (0..10).chain([NO_PLACE]) {
        let kept = &seqs[seqs.len() - 4..];
        for after in 0..=bench.log.stats().head_seq {
            let channel = ReadChannel { name: ChannelName::new("a").into(), hash, after, place };
            let page = bench.read(0, vec![channel], u64::MAX);
            let read: Vec<u64> = page.events.iter().map(|(_, event)| event.seq).collect();
            let due: Vec<u64> = kept.iter().copied().filter(|seq| *seq > after).collect();
            assert_eq!(read, due, "{place} {after}");
            assert_eq!(page.channels[0].first, read.first().copied());
        }
        bench.publish("b");
        seqs.push(bench.publish("a"));
    }
}

#[test]
fn a_join_takes_all_channels_or_none() {
    let mut bench =
        Bench::new(LogSettings { channels_max: 2, ..settings(1 << 20, Policies::uniform(PLENTY)) });
    bench.join(0, "a", Cursor::Now);
    let three = ["b", "a", "c"];
    assert_eq!(bench.join_all(1, &three, Cursor::Now).err(), Some(Refusal::Channels));
    assert_eq!(bench.describe("a").subscribers, 1);
    assert_eq!(bench.join_all(1, &["b", "a"], Cursor::Now).expect("room").1.len(), 2);
    assert_eq!(bench.describe("a").subscribers, 2);
    assert_eq!(bench.publish_all(0, vec![text("c")]).refusal, Some(Refusal::Channels));
    assert_eq!(bench.log.stats().counters.refused.channels, 2);
}

#[test]
fn channels_whose_history_is_overdue_make_room_for_new_ones() {
    let mut bench =
        Bench::new(LogSettings { channels_max: 1, ..settings(1 << 20, Policies::uniform(PLENTY)) });
    bench.publish("a");
    assert_eq!(bench.publish_all(0, vec![text("b")]).refusal, Some(Refusal::Channels));
    bench.now = AGE;
    bench.publish("b");
    bench.now = 2 * AGE;
    bench.join(0, "c", Cursor::Now);
}

#[test]
fn a_full_lane_refuses_and_what_was_ordered_before_stays() {
    let mut bench = Bench::uniform(PLENTY);
    bench.join(1, "a", Cursor::Now);
    bench.join(2, "a", Cursor::Now);
    bench.lanes.full = vec![2];
    let outcome = bench.publish_all(0, vec![text("b"), text("a"), text("b")]);
    let refusal = Some(Refusal::Busy);
    assert_eq!(
        outcome,
        Published {
            accepted: 1,
            first_seq: 1,
            last_seq: 1,
            subscribers: 0,
            elsewhere: None,
            refusal,
            stream: None
        }
    );
    assert!(bench.lanes.take(1).is_empty(), "nothing is half published");
    assert_eq!(bench.describe("a").last_seq, None);
    bench.lanes.full.clear();
    assert_eq!(bench.publish("a"), 2);
}

#[test]
fn a_repeated_key_answers_the_first_seq_while_history_holds_it() {
    let mut bench = Bench::uniform(Policy { history_count: 2, ..PLENTY });
    bench.join(1, "a", Cursor::Now);
    let outcome = bench.publish_all(0, vec![keyed("a", "k"), keyed("b", "k"), keyed("a", "k")]);
    let expected = Published {
        accepted: 3,
        first_seq: 1,
        last_seq: 1,
        subscribers: 1,
        elsewhere: None,
        refusal: None,
        stream: None,
    };
    assert_eq!(outcome, expected);
    assert_eq!(bench.log.stats().head_seq, 2, "another channel's key is another key");
    assert_eq!(event_seqs(&bench.lanes.take(1)), [1]);
    bench.publish("a");
    assert_eq!(bench.publish_all(0, vec![keyed("a", "k")]).last_seq, 1);
    bench.publish("a");
    assert_eq!(bench.publish_all(0, vec![keyed("a", "k")]).last_seq, 5, "it left with its event");
}

#[test]
fn a_channel_over_its_rate_is_refused_even_when_nobody_keeps_it_alive() {
    let unkept = Policy { history_count: 0, publish_rate: Some(2), ..PLENTY };
    let mut bench = Bench::uniform(unkept);
    let four = || (0..4).map(|_| text("a")).collect();
    let outcome = bench.publish_all(0, four());
    assert_eq!((outcome.accepted, outcome.refusal), (2, Some(Refusal::Rate)));
    assert_eq!(bench.log.stats().channels, 0);
    assert_eq!(bench.publish_all(0, four()).accepted, 0);
    bench.now = Duration::from_millis(500);
    assert_eq!(bench.publish_all(0, four()).accepted, 1);
    assert_eq!(bench.publish_all(0, vec![text("b")]).accepted, 1);
}

#[test]
fn the_byte_budget_lets_the_oldest_event_of_the_log_go_first() {
    let one = event_bytes("a", b"data", None, None);
    let policies = rules(&[("a", Policy { history_age: 2 * AGE, ..PLENTY })]);
    let mut bench = Bench::new(settings(3 * one, policies));
    for name in ["a", "b", "b", "a", "b"] {
        bench.publish(name);
    }
    assert_eq!(bench.describe("a").first_seq, Some(4));
    assert_eq!(bench.describe("b").first_seq, Some(3));
    assert_eq!(bench.log.stats().counters.evicted_by_bytes, 2);
    let huge = Publication { data: vec![b'x'; 3 * one as usize].into(), ..text("c") };
    assert_eq!(bench.publish_all(0, vec![huge]).refusal, Some(Refusal::Memory));
    assert_eq!(bench.log.stats().events, 3, "a refused event evicts nothing");
}

#[test]
fn history_ages_by_its_policy_and_says_when_next() {
    let policies = rules(&[("quick", Policy { history_age: AGE / 2, ..PLENTY })]);
    let mut bench = Bench::new(settings(1 << 20, policies));
    assert_eq!(bench.expire_at(Duration::ZERO), None);
    bench.publish("slow");
    bench.now = AGE / 4;
    bench.publish("quick");
    assert_eq!(bench.expire_at(AGE / 2), Some(AGE / 2 + AGE / 4));
    assert_eq!(bench.expire_at(AGE / 2 + AGE / 4), Some(AGE));
    assert_eq!(bench.log.stats().events, 1);
    assert_eq!(bench.expire_at(AGE), None);
    assert_eq!(bench.log.stats().channels, 0);
    assert_eq!(bench.log.stats().counters.evicted_by_age, 2);
}

#[test]
fn what_is_never_kept_counts_as_lost() {
    let mut bench = Bench::uniform(Policy { history_count: 0, ..PLENTY });
    bench.join(1, "a", Cursor::Now);
    bench.publish("a");
    assert_eq!(bench.join(0, "a", Cursor::After(0)), (1, Some(GapReason::Evicted), vec![]));
    assert_eq!(bench.join(0, "a", Cursor::After(1)), (1, None, vec![]));
}

#[test]
fn a_freed_channel_still_knows_what_it_lost() {
    let mut bench = Bench::uniform(Policy { history_count: 0, ..PLENTY });
    bench.log.limit_tombstones(2);
    for name in ["a", "b"] {
        bench.publish(name);
    }
    assert_eq!(bench.log.stats().channels, 0);
    let gone =
        Description { last_seq: Some(1), first_seq: None, events: 0, subscribers: 0, stream: None };
    assert_eq!(bench.describe("a"), gone);
    assert_eq!(bench.describe("z").last_seq, None);
    assert_eq!(bench.log.stats().channels, 0, "describing creates nothing");
    assert_eq!(bench.join(0, "a", Cursor::After(0)), (1, Some(GapReason::Evicted), vec![]));
    assert_eq!(bench.join(0, "z", Cursor::After(0)), (0, None, vec![]));
    bench.publish("c");
    bench.publish("d");
    // "b" fell out of the tombstones, so an unknown channel may have lost as much as "b" did.
    assert_eq!(bench.log.stats().forgotten_to, 2);
    assert_eq!(bench.join(0, "b", Cursor::After(1)), (2, Some(GapReason::Evicted), vec![]));
    assert_eq!(bench.join(0, "y", Cursor::After(2)), (2, None, vec![]));
}

#[test]
fn a_reload_moves_events_under_their_new_policies() {
    let mut bench = Bench::uniform(PLENTY);
    for name in ["a", "b", "a", "b", "a", "c"] {
        bench.publish(name);
    }
    let policies = rules(&[
        ("a", Policy { history_count: 2, history_age: AGE / 2, ..PLENTY }),
        ("c", Policy { history_count: 0, ..PLENTY }),
    ]);
    let bytes = 3 * event_bytes("a", b"data", None, None);
    bench.log.apply(settings(bytes, policies));
    bench.log.check_invariants();
    assert_eq!(bench.describe("a").first_seq, Some(3));
    assert_eq!(bench.describe("b").first_seq, Some(4));
    assert_eq!(bench.describe("c").events, 0);
    assert_eq!(bench.expire_at(AGE / 2), Some(AGE));
    assert_eq!((bench.describe("a").events, bench.describe("b").events), (0, 1));
}

#[test]
fn pages_list_every_channel_once() {
    let mut bench = Bench::uniform(PLENTY);
    let mut names: Vec<String> = (0..25).map(|number| format!("channel:{number}")).collect();
    for name in &names {
        bench.publish(name);
    }
    let (mut listed, mut from) = (Vec::new(), Some(0));
    while let Some(index) = from {
        let page = bench.log.channels(index, 10);
        assert!(page.channels.len() <= 10);
        listed.extend(page.channels.iter().map(|(name, _)| name.to_string()));
        from = page.next;
    }
    names.sort();
    listed.sort();
    assert_eq!(listed, names);
}

/// A publisher of one pattern of channels can evict another pattern's history, but only what that
/// holds beyond its share.
#[test]
fn a_rule_keeps_its_share_when_others_press() {
    let of_users = Policy { history_share: 4_000, ..PLENTY };
    let mut bench = Bench::new(settings(8_000, rules(&[("user:*", of_users)])));
    let kept = |bench: &mut Bench, name: &str| bench.describe(name).events;
    for _ in 0..100 {
        bench.publish("user:1");
    }
    let alone = kept(&mut bench, "user:1");
    for n in 0..100 {
        bench.publish(&format!("x:{n}"));
    }
    let pressed = kept(&mut bench, "user:1");
    assert!((1..alone).contains(&pressed), "{pressed} of {alone}");
    let of_one = event_bytes("user:1", &text("user:1").data, None, None);
    let bytes = u64::from(pressed) * of_one;
    assert!((4_000 - of_one..=4_000).contains(&bytes), "{bytes}");
}

/// A publisher of many events at once leaves room in a worker's lane for one that sends a single
/// one.
#[test]
fn a_lane_is_not_filled_by_one_kind_of_publisher() {
    let mut bench = Bench::uniform(PLENTY);
    bench.join(1, "a", Cursor::Now);
    bench.lanes.places = 8;
    let many = || (0..20).map(|_| text("a")).collect::<Vec<_>>();
    for (share, accepted) in [(Share::Half, 4), (Share::ThreeQuarters, 2), (Share::Whole, 2)] {
        let outcome = bench.publish_within(share, 0, many());
        assert_eq!((outcome.accepted, outcome.refusal), (accepted, Some(Refusal::Busy)));
    }
}
