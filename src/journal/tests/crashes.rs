//! The log over a journal on a simulated disk: published to, killed, left without power, started
//! again. What was answered or seen must still be there, with the same content.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;

use crate::journal::disk::Disk;
use crate::journal::feed::{Each, LogFeed};
use crate::journal::keeper::Keeper;
use crate::journal::reader::{Reader, ToReader};
use crate::journal::record::{Record, RecordPublication};
use crate::journal::recover::{JournalError, Recovered, recover};
use crate::journal::sim::{DiskTamper, SimDisk};
use crate::journal::view::ReadOnly;
use crate::journal::writer::{Durability, JournalSettings};
use crate::journal::{self, FarEnds};
use crate::log::event::{Kind, Publication};
use crate::log::message::{
    Ask, Counts, FromLog, NO_PLACE, Page, ReadChannel, Share, Ticket, ToLog,
};
use crate::log::store::Stored;
use crate::log::stream::StreamTimes;
use crate::log::{
    ChannelName, Keeps, LogSettings, Outlet, Policies, Policy, Sequencer, SharedHasher,
};
use crate::proto::attributes::Attributes;
use crate::proto::cursor::{Cursor, Epoch};

const CLOCK_BEGAN: Duration = Duration::from_secs(1_700_000_000);
const SEEDS: u64 = 400;
const LIVES: u64 = 6;
const CHANNELS: [&str; 4] = ["a", "b", "c", "d"];

/// The history of one machine.
struct World {
    rng: Rng,
    disk: SimDisk,
    durability: Durability,
    now: Duration,
    boot: u64,
    /// What must be there: it was answered, seen by a subscriber, or read back.
    truth: BTreeMap<u64, Vec<u8>>,
    /// Keys, and the seq each was answered with.
    keys: BTreeMap<String, u64>,
    /// Events up to here may be gone: history dropped them.
    removed_to: u64,
    /// The newest ephemeral event that was seen.
    ephemeral_to: u64,
    epoch_bits: Option<u64>,
    published: u64,
    /// Whether the disk fails now and then.
    is_troubled: bool,
}

/// One process.
struct Life {
    log: Sequencer,
    keeper: Keeper<SimDisk>,
    reader: Reader<SimDisk>,
    ends: FarEnds,
    /// All of history is in memory, and its keys with it.
    keeps_keys: bool,
    /// By ticket, what was published under it.
    asked: BTreeMap<u32, Publication>,
    outlet: Seen,
}

#[derive(Default)]
struct Seen(Vec<FromLog>);

impl Outlet for Seen {
    fn has_room(&self, _worker: u16, _share: Share, _reserved: usize) -> bool {
        true
    }

    fn send(&mut self, _worker: u16, told: FromLog) {
        self.0.push(told);
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Close,
    Kill,
    PowerLoss,
}

/// Everything about an event that must come back.
fn content(data: &[u8], attributes: Option<&Attributes>) -> Vec<u8> {
    format!("{data:?} {attributes:?}").into_bytes()
}

fn is_ephemeral(of: &Publication) -> bool {
    of.attributes.as_ref().is_some_and(|attributes| attributes.ephemeral)
}

impl World {
    fn new(seed: u64, tamper: Option<DiskTamper>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let lax = tamper.is_none() && rng.u8(..4) == 0;
        Self {
            disk: SimDisk::new(rng.u64(..), tamper),
            durability: if lax { Durability::Os } else { Durability::Sync },
            rng,
            now: Duration::from_secs(1000),
            boot: 1,
            truth: BTreeMap::new(),
            keys: BTreeMap::new(),
            removed_to: 0,
            ephemeral_to: 0,
            epoch_bits: None,
            published: 0,
            is_troubled: true,
        }
    }

    fn settings(&mut self) -> JournalSettings {
        JournalSettings {
            durability: self.durability,
            segment_bytes: self.rng.u64(200..3000),
            bytes_max: self.rng.u64(3_000..50_000),
            clock_began: CLOCK_BEGAN,
            boot: self.boot,
            fresh: [self.rng.u64(..), self.rng.u64(..)],
            accept_loss: false,
        }
    }

    fn recover(
        &mut self,
        accept_loss: bool,
    ) -> Result<(Recovered<SimDisk>, Vec<Record>), JournalError> {
        let settings = JournalSettings { accept_loss, ..self.settings() };
        let mut records = Vec::new();
        let mut each = Each(|record| records.push(record));
        let recovered = recover(self.disk.clone(), settings, &mut each)?;
        Ok((recovered, records))
    }

    /// Reads everything and changes nothing.
    fn look(&self, settings: JournalSettings) -> (Recovered<ReadOnly<SimDisk>>, Vec<Record>) {
        let mut records = Vec::new();
        let mut each = Each(|record| records.push(record));
        let found = recover(ReadOnly(self.disk.clone()), settings, &mut each);
        (found.expect("nothing is corrupt"), records)
    }

    /// Starts a process, and checks that everything is there.
    fn start(&mut self) -> Life {
        let journal = self.settings();
        let (found, records) = self.look(journal);
        self.check(&found, &records);
        let policy = Policy {
            history_count: 30,
            history_age: Duration::from_secs(100_000),
            publish_rate: None,
            history_share: 0,
            keeps: Keeps::All,
            stream_bytes: 0,
            stream_compact: 0,
            presence: false,
        };
        // Half of the time most of history is on the disk alone.
        let history_memory_bytes_max = [u64::MAX, self.rng.u64(400..4_000)][self.rng.usize(..2)];
        let settings = LogSettings {
            history_bytes_max: 20_000,
            history_memory_bytes_max,
            presence_grace: Duration::ZERO,
            channels_max: 100,
            policies: Policies::uniform(policy),
            streams: StreamTimes::default(),
        };
        let hasher = SharedHasher::from_seed(1);
        let epoch = Epoch::from_random(found.epoch_bits);
        let mut log = Sequencer::new(settings, epoch, 1, hasher);
        let mut outlet = Seen::default();
        let mut feed = LogFeed::new(&mut log, self.now, CLOCK_BEGAN);
        let recovered = recover(self.disk.clone(), journal, &mut feed).expect("as before");
        feed.finish();
        assert_eq!((found.epoch_bits, found.events), (recovered.epoch_bits, recovered.events));
        assert_eq!((found.resume_at, found.lossy), (recovered.resume_at, recovered.lossy));
        let (near, ends) = journal::lanes();
        log.move_to(Box::new(near), epoch, recovered.resume_at, recovered.removed_to);
        let keeper =
            Keeper::new(recovered.writer, recovered.resume_at, ends.bounds.clone(), Arc::default());
        let reader = Reader::new(self.disk.clone(), CLOCK_BEGAN);
        let channels = CHANNELS.map(Into::into).to_vec();
        let body = Ask::Join { ticket: Ticket(0), channels, cursor: Cursor::Now, identity: None };
        log.handle(ToLog::Worker { worker: 0, body }, self.now, &mut outlet);
        log.check_invariants();
        let mut life = Life {
            log,
            keeper,
            reader,
            ends,
            keeps_keys: history_memory_bytes_max == u64::MAX,
            asked: BTreeMap::new(),
            outlet: Seen::default(),
        };
        self.read_all(&mut life);
        life
    }

    fn check<D: Disk>(&mut self, recovered: &Recovered<D>, records: &[Record]) {
        let of_record = |record: &Record| {
            let RecordPublication { data, attributes, .. } = &record.publication;
            (record.seq, content(data, attributes.as_deref()))
        };
        let found: BTreeMap<u64, Vec<u8>> = records.iter().map(of_record).collect();
        assert_eq!(found.len(), records.len(), "nothing twice");
        self.removed_to = self.removed_to.max(recovered.removed_to);
        if recovered.lossy {
            assert_ne!(Some(recovered.epoch_bits), self.epoch_bits, "clients are told");
        } else if let Some(epoch_bits) = self.epoch_bits {
            assert_eq!(recovered.epoch_bits, epoch_bits);
        }
        let resume_at = recovered.resume_at;
        assert!(self.ephemeral_to <= resume_at || recovered.lossy, "its place is given again");
        for (seq, content) in &self.truth {
            assert!(*seq <= recovered.resume_at, "{seq} would be given again");
            if *seq > self.removed_to && !recovered.lossy {
                assert_eq!(found.get(seq), Some(content), "event {seq}");
            }
        }
        if recovered.lossy {
            self.truth.clear();
            self.keys.clear();
            self.ephemeral_to = 0;
        }
        self.epoch_bits = Some(recovered.epoch_bits);
        // Clients can read them from here on.
        self.truth.extend(found);
    }

    /// Whether the process has stopped in the middle of something.
    fn live(&mut self, life: &mut Life) -> bool {
        let mut has_stopped = false;
        for _ in 0..self.rng.usize(0..60) {
            match self.rng.u8(..14) {
                0..6 => self.publish(life),
                6..10 => has_stopped = self.store_works(life),
                10 => {
                    self.now += Duration::from_secs(1);
                    life.log.tend(self.now, &mut life.outlet);
                }
                11 => {
                    let after = self.rng.u64(..=life.log.stats().head_seq);
                    self.ask_page(life, after);
                }
                12 => self.reader_works(life),
                _ if self.is_troubled => self.trouble(),
                _ => {}
            }
            if has_stopped {
                return true;
            }
            self.listen(life);
            life.log.check_invariants();
        }
        false
    }

    /// Everything that is kept, page by page, wherever it is: as it was told, and none is missing.
    fn read_all(&mut self, life: &mut Life) {
        let (mut through, mut count) = (0, 0);
        while through < life.log.stats().head_seq {
            self.ask_page(life, through);
            self.reader_works(life);
            let Some(FromLog::Page { page, .. }) = life.outlet.0.pop() else { panic!("a page") };
            assert!(page.through > through);
            through = page.through;
            count += self.check_page(&page);
        }
        assert_eq!(count, life.log.stats().events);
    }

    fn ask_page(&mut self, life: &mut Life, after: u64) {
        let hasher = SharedHasher::from_seed(1);
        let channel = |name: &str| ReadChannel {
            name: Arc::new(ChannelName::new(name)),
            hash: hasher.channel(name),
            after,
            place: NO_PLACE,
        };
        let channels = CHANNELS.into_iter().map(channel).collect();
        let body = Ask::Read { ticket: Ticket(0), channels, bytes_max: self.rng.u64(0..5_000) };
        life.log.handle(ToLog::Worker { worker: 0, body }, self.now, &mut life.outlet);
    }

    fn reader_works(&mut self, life: &mut Life) {
        for message in life.ends.reader.try_iter() {
            let ToReader::Read(asked) = message else { panic!("it goes on") };
            let page = life.reader.read(asked);
            life.log.handle(ToLog::Older(page), self.now, &mut life.outlet);
        }
    }

    fn check_page(&self, page: &Page) -> u64 {
        assert!(page.channels.iter().all(|of| !of.unreadable));
        assert!(page.events.is_sorted_by_key(|(_, event)| event.seq));
        for (_, event) in &page.events {
            let found = content(&event.data, event.attributes.as_deref());
            assert_eq!(self.truth.get(&event.seq), Some(&found));
        }
        page.events.len() as u64
    }

    fn trouble(&mut self) {
        match self.rng.u8(..6) {
            0 => self.disk.limit(self.disk.used() + self.rng.u64(0..2000)),
            1 => self.disk.fail_in(Some(self.rng.u32(0..3))),
            _ => self.disk.limit(u64::MAX),
        }
    }

    fn publish(&mut self, life: &mut Life) {
        self.published += 1;
        let key = (self.rng.u8(..3) == 0).then(|| format!("k{}", self.rng.u8(..20)));
        let size = self.rng.usize(0..300);
        let attributes = self.some_attributes();
        let mut publication = Publication {
            channel: CHANNELS[self.rng.usize(..CHANNELS.len())].into(),
            kind: Kind::Text,
            data: Bytes::from(format!("{}{}", self.published, "x".repeat(size))),
            event_type: None,
            key: key.map(Into::into),
            attributes,
        };
        if is_ephemeral(&publication) {
            publication.key = None;
        }
        let ticket = Ticket(self.published as u32);
        life.asked.insert(ticket.0, publication.clone());
        let publications = vec![publication];
        let body = Ask::Publish { ticket, share: Share::Whole, counts: Counts::Here, publications };
        life.log.handle(ToLog::Worker { worker: 0, body }, self.now, &mut life.outlet);
    }

    fn some_attributes(&mut self) -> Option<Box<Attributes>> {
        let rng = &mut self.rng;
        let mut text = |of: &str| rng.bool().then(|| format!("{of}{}", rng.u8(..9)).into());
        let (publisher, event_key) = (text("jane"), text("price"));
        let (tombstone, ephemeral) = (rng.bool(), rng.u8(..4) == 0);
        Attributes { publisher, event_key, tombstone, ephemeral, ..Attributes::default() }.boxed()
    }

    /// Whether the process stops meanwhile.
    fn store_works(&mut self, life: &mut Life) -> bool {
        if self.is_troubled && self.rng.u8(..40) == 0 {
            self.disk.stop_in(self.rng.u32(..6));
        }
        let mut reports = Vec::new();
        let count = self.rng.usize(0..20);
        for message in life.ends.keeper.try_iter().take(count) {
            life.keeper.take(message, &mut |stored| reports.push(stored));
        }
        life.keeper.work(&mut |stored| reports.push(stored));
        if self.disk.has_stopped() {
            return true;
        }
        self.report(life, reports);
        false
    }

    fn report(&mut self, life: &mut Life, reports: Vec<Stored>) {
        for stored in reports {
            life.log.handle(ToLog::Store(stored), self.now, &mut life.outlet);
        }
    }

    /// Records what clients are told.
    fn listen(&mut self, life: &mut Life) {
        for told in life.outlet.0.drain(..) {
            match told {
                FromLog::Page { page, .. } => drop(self.check_page(&page)),
                FromLog::Event(event) if !event.is_kept() => self.note_ephemeral(event.seq),
                FromLog::Event(event) => {
                    self.note(event.seq, content(&event.data, event.attributes.as_deref()));
                }
                FromLog::Published { ticket, outcome, .. } if outcome.accepted == 1 => {
                    let asked = &life.asked[&ticket.0];
                    match &asked.key {
                        // A repeat has the content of the first time.
                        Some(key) => {
                            let key = format!("{}/{key}", asked.channel);
                            self.keys.insert(key, outcome.last_seq);
                        }
                        None if is_ephemeral(asked) => self.note_ephemeral(outcome.last_seq),
                        None => self.note(
                            outcome.last_seq,
                            content(&asked.data, asked.attributes.as_deref()),
                        ),
                    }
                }
                _ => {}
            }
        }
    }

    /// Its place is never given to another event.
    fn note_ephemeral(&mut self, seq: u64) {
        assert!(!self.truth.contains_key(&seq), "{seq} was given twice");
        self.ephemeral_to = self.ephemeral_to.max(seq);
    }

    fn note(&mut self, seq: u64, content: Vec<u8>) {
        let known = self.truth.entry(seq).or_insert_with(|| content.clone());
        assert_eq!(*known, content, "{seq} was given twice");
    }

    /// A key that was answered must be answered again while history has its event.
    fn check_keys(&mut self, life: &mut Life) {
        for (name, seq) in self.keys.clone() {
            let (channel, key) = name.split_once('/').expect("as it was made");
            let first = life.log.channels(0, 100).channels.into_iter();
            let kept = first.filter(|(name, _)| name[..] == *channel);
            if !life.keeps_keys
                || !kept.filter_map(|(_, of)| of.first_seq).any(|first| first <= seq)
            {
                continue;
            }
            let before = life.log.stats().counters.repeated;
            let publication = Publication {
                channel: channel.into(),
                kind: Kind::Text,
                data: Bytes::from_static(b"again"),
                event_type: None,
                key: Some(key.into()),
                attributes: None,
            };
            let publications = vec![publication];
            let body = Ask::Publish {
                ticket: Ticket(0),
                share: Share::Whole,
                counts: Counts::Here,
                publications,
            };
            life.log.handle(ToLog::Worker { worker: 0, body }, self.now, &mut life.outlet);
            assert_eq!(life.log.stats().counters.repeated, before + 1, "{name} at {seq}");
        }
        life.outlet.0.clear();
    }

    fn end(&mut self, mut life: Life, has_stopped: bool) {
        let end = match self.rng.u8(..4) {
            0 if !has_stopped => End::Close,
            1 => End::Kill,
            _ => End::PowerLoss,
        };
        match end {
            End::Close => self.close(&mut life),
            End::Kill => {}
            End::PowerLoss => {
                self.disk.lose_power();
                self.boot += 1;
            }
        }
        self.disk.limit(u64::MAX);
        self.disk.fail_in(None);
    }

    fn close(&mut self, life: &mut Life) {
        life.log.close();
        let mut reports = Vec::new();
        for message in life.ends.keeper.try_iter() {
            life.keeper.take(message, &mut |stored| reports.push(stored));
        }
        assert!(life.keeper.is_closed());
        self.report(life, reports);
        self.listen(life);
    }
}

/// A machine's lives; panics if one of them finds less than earlier ones promised.
fn run(seed: u64, tamper: Option<DiskTamper>) {
    let mut world = World::new(seed, tamper);
    for _ in 0..LIVES {
        let mut life = world.start();
        world.check_keys(&mut life);
        let has_stopped = world.live(&mut life);
        world.end(life, has_stopped);
    }
    world.start();
}

#[test]
fn what_was_answered_or_seen_is_there_whatever_happens_to_process_and_machine() {
    let seed = std::env::var("PUSHLINE_SIM_SEED").ok().and_then(|text| text.parse().ok());
    let seeds = std::env::var("PUSHLINE_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    let from = seed.unwrap_or(0);
    let count = seeds.unwrap_or(if seed.is_some() { 1 } else { SEEDS });
    for seed in from..from + count {
        let failed = std::panic::catch_unwind(|| run(seed, None));
        assert!(failed.is_ok(), "PUSHLINE_SIM_SEED={seed} finds it again");
    }
}

#[test]
fn rules_broken_on_purpose_are_found_out() {
    for tamper in [DiskTamper::AcknowledgeBeforeSync, DiskTamper::ForgetNames] {
        let is_found = |seed| std::panic::catch_unwind(|| run(seed, Some(tamper))).is_err();
        assert!((0..50).any(is_found), "{tamper:?}");
    }
}

/// Whichever bit changes in a closed journal, either everything is there, or the start is refused
/// and names the place; and once the loss is accepted, every client is told.
#[test]
fn a_flipped_bit_is_never_a_silent_loss() {
    let mut refused = 0;
    for seed in 0..300 {
        let mut world = World::new(seed, None);
        (world.durability, world.is_troubled) = (Durability::Sync, false);
        let mut life = world.start();
        world.live(&mut life);
        world.close(&mut life);
        drop(life);
        assert!(world.disk.flip_bit());
        match world.recover(false) {
            Ok((recovered, records)) => world.check(&recovered, &records),
            Err(JournalError::Corrupt { .. }) => {
                refused += 1;
                let (recovered, records) = world.recover(true).expect("the loss is accepted");
                assert!(recovered.lossy);
                world.check(&recovered, &records);
                assert!(!world.recover(false).expect("it is whole again").0.lossy);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 50, "{refused}");
}
