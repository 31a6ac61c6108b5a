//! Behaviour of the log, and what its tests share. `model` compares it with a naive one over thousands
//! of random operations.

mod bounds;
mod broker;
mod model;
mod nodes;
mod older;
mod presence;
mod publishing;
mod reading;
mod state;
mod store;
mod stream_nodes;
mod streams;

use std::time::Duration;

use bytes::Bytes;

use self::older::Shelf;
use super::event::{Kind, Publication};
use super::history::event_bytes;
use super::message::{
    Answer, Ask, Counts, Description, FromLog, GapReason, JoinedChannel, LeaveChannel, NO_PLACE,
    Page, PageChannel, Published, ReadChannel, Refusal, Share, Ticket, ToLog,
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
    fn answer(&mut self, worker: u16) -> Answer {
        match self.lanes.queues[usize::from(worker)].pop() {
            Some(FromLog::Answer { answer, .. }) => answer,
            other => panic!("not an answer: {other:?}"),
        }
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
            Answer::Published { outcome, .. } => outcome,
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
            Answer::Joined { head_seq, channels } => Ok((head_seq, channels)),
            Answer::JoinRefused(refusal) => Err(refusal),
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
            Answer::Page(page) => page,
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
            Answer::Described(description) => description,
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
