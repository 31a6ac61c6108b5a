//! What a start need not read: segments whose events memory has no room for are only listed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::publish;
use crate::journal::disk::{Disk, DiskFile};
use crate::journal::feed::LogFeed;
use crate::journal::keeper::Keeper;
use crate::journal::reader::{Reader, ToReader};
use crate::journal::recover::{JournalError, recover};
use crate::journal::runs::RUNS_SUFFIX;
use crate::journal::sim::SimDisk;
use crate::journal::writer::{Durability, JournalSettings, SEGMENT_SUFFIX, segment_name};
use crate::journal::{self, FarEnds};
use crate::log::event::{Kind, Publication};
use crate::log::message::{
    Answer, Ask, FromLog, NO_PLACE, Page, ReadChannel, Share, Ticket, ToLog,
};
use crate::log::stream::StreamTimes;
use crate::log::{
    ChannelName, Keeps, LogSettings, Outlet, Policies, Policy, Sequencer, SharedHasher,
};
use crate::proto::attributes::Attributes;
use crate::proto::cursor::Epoch;
use crate::proto::stream::{End, Mark, Part};

const CLOCK_BEGAN: Duration = Duration::from_secs(1_700_000_000);
const NOW: Duration = Duration::from_secs(1000);
/// Room for some of what the tests publish.
const LITTLE: u64 = 20_000;

#[derive(Default)]
struct Told(Vec<FromLog>);

impl Outlet for Told {
    fn has_room(&self, _worker: u16, _share: Share, _reserved: usize) -> bool {
        true
    }

    fn send(&mut self, _worker: u16, told: FromLog) {
        self.0.push(told);
    }
}

/// Room for all of what they publish but for a long story.
const BYTES_MAX: u64 = 200_000;

/// A process with a journal.
struct Life {
    log: Sequencer,
    keeper: Keeper<SimDisk>,
    reader: Reader<SimDisk>,
    ends: FarEnds,
    told: Told,
}

fn log_settings(history_memory_bytes_max: u64, history_count: u32, keeps: Keeps) -> LogSettings {
    let policy = Policy {
        history_count,
        history_age: Duration::from_secs(100_000),
        publish_rate: None,
        history_share: 0,
        keeps,
        stream_bytes: 1 << 20,
        stream_compact: 0,
        presence: false,
    };
    LogSettings {
        history_bytes_max: 10 << 20,
        history_memory_bytes_max,
        channels_max: 100,
        presence_grace: Duration::ZERO,
        policies: Policies::uniform(policy),
        streams: StreamTimes { grace: Duration::from_secs(10), keep: Duration::from_secs(60) },
    }
}

impl Life {
    fn start(disk: &SimDisk, settings: LogSettings) -> Result<Self, JournalError> {
        let journal = JournalSettings {
            durability: Durability::Sync,
            segment_bytes: 4000,
            bytes_max: BYTES_MAX,
            clock_began: CLOCK_BEGAN,
            boot: 1,
            fresh: [1, 2],
            accept_loss: false,
        };
        let hasher = SharedHasher::from_seed(1);
        let mut log = Sequencer::new(settings, Epoch::from_random(0), 1, hasher);
        let mut feed = LogFeed::new(&mut log, NOW, CLOCK_BEGAN);
        let recovered = recover(disk.clone(), journal, &mut feed)?;
        feed.finish();
        let (near, ends) = journal::lanes();
        let epoch = Epoch::from_random(recovered.epoch_bits);
        log.move_to(Box::new(near), epoch, recovered.resume_at, recovered.removed_to);
        log.check_invariants();
        let bounds = ends.bounds.clone();
        let keeper = Keeper::new(recovered.writer, recovered.resume_at, bounds, Arc::default());
        let reader = Reader::new(disk.clone(), CLOCK_BEGAN);
        Ok(Self { log, keeper, reader, ends, told: Told::default() })
    }

    /// Publishes it and commits it; returns its place.
    fn publish(&mut self, publication: Publication) -> u64 {
        self.log.handle(publish(Ticket(0), publication), NOW, &mut self.told);
        self.commit();
        match self.told.0.pop() {
            Some(FromLog::Answer { answer: Answer::Published { outcome, .. }, .. })
                if outcome.accepted == 1 =>
            {
                outcome.last_seq
            }
            told => panic!("it was not taken: {told:?}"),
        }
    }

    /// The log's upkeep, and what its threads then have to do.
    fn tend(&mut self) {
        self.log.tend(NOW, &mut self.told);
        self.read_pages();
        self.commit();
    }

    fn commit(&mut self) {
        let mut reports = Vec::new();
        let mut report = |stored| reports.push(stored);
        self.ends.keeper.try_iter().for_each(|message| self.keeper.take(message, &mut report));
        self.keeper.work(&mut report);
        for stored in reports {
            self.log.handle(ToLog::Store(stored), NOW, &mut self.told);
        }
    }

    fn read_pages(&mut self) {
        for message in self.ends.reader.try_iter() {
            let ToReader::Read(asked) = message else { panic!("it goes on") };
            let page = self.reader.read(asked);
            self.log.handle(ToLog::Older(page), NOW, &mut self.told);
        }
    }

    fn publish_many(&mut self, channel: &str, count: usize) {
        for number in numbers(count) {
            self.publish(text(channel, &number));
        }
    }

    /// A channel's events, and whether some may be missing.
    fn read(&mut self, channel: &str) -> (Vec<String>, bool) {
        let (mut found, mut is_cut, mut after) = (Vec::new(), false, 0);
        while after < self.log.stats().head_seq {
            let page = self.page(channel, after);
            let text = |data: &Bytes| String::from_utf8_lossy(data).into_owned();
            found.extend(page.events.iter().map(|(_, event)| text(&event.data)));
            is_cut |= page.channels.iter().any(|of| of.unreadable);
            after = page.through;
        }
        (found, is_cut)
    }

    fn page(&mut self, channel: &str, after: u64) -> Page {
        let hash = SharedHasher::from_seed(1).channel(channel);
        let name = Arc::new(ChannelName::new(channel));
        let channels = vec![ReadChannel { name, hash, after, place: NO_PLACE }];
        let body = Ask::Read { ticket: Ticket(0), channels, bytes_max: 5_000 };
        self.log.handle(ToLog::Worker { worker: 0, body }, NOW, &mut self.told);
        self.read_pages();
        match self.told.0.pop() {
            Some(FromLog::Answer { answer: Answer::Page(page), .. }) => page,
            told => panic!("no page: {told:?}"),
        }
    }

    fn close(mut self) {
        self.log.close();
        self.ends.keeper.try_iter().for_each(|message| self.keeper.take(message, &mut |_| {}));
        assert!(self.keeper.is_closed());
    }
}

fn text(channel: &str, data: &str) -> Publication {
    Publication {
        channel: channel.into(),
        kind: Kind::Text,
        data: Bytes::from(data.to_owned()),
        event_type: None,
        key: None,
        attributes: None,
    }
}

fn part(part: Part, data: &str) -> Publication {
    let mark = Mark { id: "answer".into(), part, at: 1 };
    Publication { attributes: Attributes::of_stream(mark), ..text("talk", data) }
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

fn files(disk: &SimDisk, suffix: &str) -> Vec<String> {
    let names = disk.list().expect("a list");
    names.into_iter().filter(|name| name.ends_with(suffix)).collect()
}

/// A disk with a journal of many segments, `busy` in all of them.
fn filled() -> SimDisk {
    let disk = SimDisk::new(7, None);
    let mut life = Life::start(&disk, log_settings(LITTLE, 10_000, Keeps::All)).expect("it is new");
    life.publish(text("quiet", "long ago"));
    life.publish_many("busy", 1000);
    life.close();
    assert!(files(&disk, SEGMENT_SUFFIX).len() > 10);
    disk
}

/// Changes a byte of an event in the oldest segment.
fn spoil(disk: &SimDisk, text: &[u8]) {
    let name = files(disk, SEGMENT_SUFFIX).swap_remove(0);
    let mut file = disk.open(&name).expect("a segment");
    let mut bytes = vec![0; file.length().expect("a length") as usize];
    let count = file.read_at(&mut bytes, 0).expect("bytes");
    let at =
        bytes[..count].windows(text.len()).position(|found| found == text).expect("it is there");
    while file.write_at(b"?", at as u64).expect("it can be written") == 0 {}
    file.sync().expect("it can be synced");
}

#[test]
fn what_memory_has_no_room_for_is_not_read_at_a_start_and_can_be_read_afterwards() {
    let disk = filled();
    let mut life = Life::start(&disk, log_settings(LITTLE, 10_000, Keeps::All)).expect("whole");
    assert_eq!(life.log.stats().events, 1001);
    assert_eq!(life.read("busy"), (numbers(1000), false));
    assert_eq!(life.read("quiet"), (vec!["long ago".into()], false));
    life.publish_many("busy", 3);
    assert_eq!(life.read("busy").0.len(), 1003);
}

#[test]
fn damage_that_a_start_did_not_see_is_told_to_readers() {
    for wrong in [&b"quiet"[..], b"long ago", b"busy"] {
        let disk = filled();
        spoil(&disk, wrong);
        let mut life =
            Life::start(&disk, log_settings(LITTLE, 10_000, Keeps::All)).expect("unseen");
        let channel = if wrong == b"busy" { "busy" } else { "quiet" };
        let (found, is_cut) = life.read(channel);
        assert!(is_cut, "{found:?}");
        let refused = Life::start(&disk, log_settings(u64::MAX, 10_000, Keeps::All));
        assert!(matches!(refused, Err(JournalError::Corrupt { .. })), "it is read, and refused");
    }
}

#[test]
fn a_list_of_runs_that_is_lost_or_damaged_only_costs_the_reading_of_its_segment() {
    let disk = filled();
    let lists = files(&disk, RUNS_SUFFIX);
    assert!(lists.len() > 10);
    disk.remove(&lists[3]).expect("it is there");
    let mut spoilt = disk.open(&lists[5]).expect("it is there");
    while spoilt.write_at(b"?", 40).expect("it can be written") == 0 {}
    let mut life = Life::start(&disk, log_settings(LITTLE, 10_000, Keeps::All)).expect("whole");
    assert_eq!(life.log.stats().events, 1001);
    assert_eq!(life.read("busy"), (numbers(1000), false));
    assert!(files(&disk, RUNS_SUFFIX).contains(&lists[3]), "it is written again");
}

#[test]
fn a_key_of_a_quiet_channel_is_remembered_however_much_others_publish() {
    let disk = SimDisk::new(7, None);
    let settings = || log_settings(LITTLE, 20, Keeps::All);
    let mut life = Life::start(&disk, settings()).expect("it is new");
    let keyed = || Publication { key: Some("k".into()), ..text("quiet", "once") };
    let first = life.publish(keyed());
    life.publish_many("busy", 1000);
    assert!(files(&disk, SEGMENT_SUFFIX).len() > 10);
    drop(life);
    let mut life = Life::start(&disk, settings()).expect("whole");
    assert_eq!(life.publish(keyed()), first, "history is short, so memory has room for it");
}

#[test]
fn a_stream_that_is_open_is_read_from_its_first_event() {
    let disk = SimDisk::new(7, None);
    let settings = || log_settings(LITTLE, 10_000, Keeps::All);
    let mut life = Life::start(&disk, settings()).expect("it is new");
    life.publish_many("busy", 200);
    life.publish(part(Part::Open, ""));
    life.publish(part(Part::Token, "Hello"));
    life.publish_many("busy", 500);
    life.publish(part(Part::Token, " you"));
    drop(life);
    let mut life = Life::start(&disk, settings()).expect("whole");
    assert_eq!(life.log.stats().streams, 1);
    life.publish(part(Part::End(End::Cancelled), ""));
    assert_eq!(life.log.stats().streams, 0);
    life.publish_many("busy", 500);
    life.close();
    let life = Life::start(&disk, settings()).expect("whole");
    assert_eq!(life.log.stats().streams, 0);
}

fn value(key: u32, value: u32) -> Publication {
    let event_key = Some(format!("k{key}").into());
    let attributes = Attributes { event_key, ..Attributes::default() };
    Publication { attributes: attributes.boxed(), ..text("state", &value.to_string()) }
}

#[test]
fn a_state_is_what_it_was_whichever_segments_its_values_are_in() {
    let disk = SimDisk::new(7, None);
    let settings = || log_settings(LITTLE, 10_000, Keeps::Latest);
    let mut life = Life::start(&disk, settings()).expect("it is new");
    for round in 0..1000 {
        life.publish(value(round % 20, round));
    }
    let before = life.read("state");
    assert_eq!(before.0.len(), 20);
    drop(life);
    let mut life = Life::start(&disk, settings()).expect("whole");
    assert_eq!(life.read("state"), before);
}

/// One value changes all the time, the others never: the disk has room for all of them, and not for
/// all that ever was.
#[test]
fn values_of_long_ago_outlive_their_segments_and_the_journal_stays_within_its_bounds() {
    let disk = SimDisk::new(7, None);
    let settings = || log_settings(2 * LITTLE, 10_000, Keeps::Latest);
    let mut life = Life::start(&disk, settings()).expect("it is new");
    let values = |life: &mut Life| {
        let (mut values, is_cut) = life.read("state");
        values.sort();
        assert!(!is_cut);
        values
    };
    for key in 0..200 {
        life.publish(value(key, key));
    }
    for round in 1000..9000 {
        life.publish(value(1000, round));
        if round % 50 == 0 {
            life.tend();
        }
        assert!(disk.used() < BYTES_MAX + 20_000, "{} bytes", disk.used());
    }
    assert_ne!(files(&disk, SEGMENT_SUFFIX)[0], segment_name(1), "the oldest was removed");
    let mut expected = numbers(200);
    expected.push("8999".into());
    expected.sort();
    assert_eq!(values(&mut life), expected);
    drop(life);
    let mut life = Life::start(&disk, settings()).expect("whole");
    assert_eq!(values(&mut life), expected);
}
