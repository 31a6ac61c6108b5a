//! The journal in the simulation: a machine whose disk forgets what was not synced, and fails; the
//! store's threads as an actor; and what a start must find.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::Sender;
use fastrand::Rng;
use pushline::journal::disk::{Disk, DiskFile};
use pushline::journal::feed::{Each, LogFeed};
use pushline::journal::keeper::Keeper;
use pushline::journal::reader::{Reader, ToReader};
use pushline::journal::record::{HEAD_BYTES, Head, Record};
use pushline::journal::recover::{JournalError, recover};
use pushline::journal::sim::SimDisk;
use pushline::journal::view::ReadOnly;
use pushline::journal::writer::{Durability, JournalSettings};
use pushline::journal::{FarEnds, Journal, lanes};
use pushline::log::event::Event;
use pushline::log::message::ToLog;
use pushline::log::older::OlderRead;
use pushline::log::store::{Shortage, Store, Taken};
use pushline::log::{LogSettings, Sequencer, SharedHasher};
use pushline::mesh::combine::Left;
use pushline::mesh::hand::Hand;
use pushline::proto::cursor::Epoch;
use pushline::ring::Bell;

use crate::canary::{CanaryBell, Tamper};
use crate::log::SimHand;
use crate::plan::{Concern, Plan, Role, pick, stream, up_to};
use crate::truth::Truth;

/// Unix time minus the world's clock.
const CLOCK_BEGAN: Duration = Duration::from_secs(1_700_000_000);
/// How often the store's thread looks after the disk when nothing is published.
const KEEPING_PAUSE: Duration = Duration::from_secs(1);

/// Where the log lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    Memory,
    Journal,
}

/// How a life of the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// In order.
    Close,
    /// The process is killed.
    Kill,
    /// The machine loses power.
    PowerLoss,
}

/// A machine with a disk.
pub struct Machine {
    disk: SimDisk,
    rng: Rng,
    settings: JournalSettings,
}

/// Events in the order of the log; taken from the front when they are seen.
pub type Ordered = Arc<Mutex<VecDeque<Arc<Event>>>>;

/// The far ends of a log's store.
pub struct Far {
    keeper: Keeper<SimDisk>,
    reader: Reader<SimDisk>,
    ends: FarEnds,
}

/// A log that was read back.
pub struct Started {
    pub log: Sequencer,
    pub epoch: Epoch,
    pub ordered: Ordered,
    pub far: Far,
}

impl Machine {
    pub fn new(plan: &Plan, tamper: Option<Tamper>) -> Self {
        let mut rng = stream(plan.seed, Concern::Disk);
        let disk = SimDisk::new(rng.u64(..), tamper.and_then(Tamper::of_disk));
        // Where there is a state, its values have to move on.
        let spare = if plan.roles.contains(&Role::Watcher) { 20_000 } else { 200_000 };
        let settings = JournalSettings {
            // A loss of power may then take events that were seen, and a new epoch begins.
            durability: Durability::Sync,
            segment_bytes: pick(&mut rng, &[1_000, 10_000, 100_000]),
            bytes_max: 2 * plan.settings.history_bytes + spare,
            clock_began: CLOCK_BEGAN,
            boot: 0,
            fresh: [rng.u64(..), rng.u64(..)],
            accept_loss: false,
        };
        Self { disk, rng, settings }
    }

    /// The disk fails, fills up, or has room again.
    pub fn trouble(&mut self) {
        match self.rng.u8(..6) {
            0 => self.disk.limit(self.disk.used() + self.rng.u64(0..20_000)),
            1 => self.disk.fail_in(Some(self.rng.u32(0..5))),
            _ => self.disk.limit(u64::MAX),
        }
    }

    /// Now and then the process will stop within its next changes of the disk.
    pub fn may_stop(&mut self) {
        if self.rng.u16(..500) == 0 {
            self.disk.stop_in(self.rng.u32(..8));
        }
    }

    /// Whether it has: then it is to be started again, and tells nothing of what it did last.
    pub fn has_stopped(&self) -> bool {
        self.disk.has_stopped()
    }

    /// The disk does not fail any more, but for what has failed.
    pub fn calm(&self) {
        self.disk.limit(u64::MAX);
        self.disk.fail_in(None);
    }

    pub fn any_outage(&mut self) -> Outage {
        pick(&mut self.rng, &[Outage::Close, Outage::Kill, Outage::PowerLoss, Outage::PowerLoss])
    }

    pub fn any_crash(&mut self) -> Outage {
        pick(&mut self.rng, &[Outage::Kill, Outage::PowerLoss])
    }

    /// The server is no more.
    pub fn went_down(&mut self, how: Outage) {
        if how == Outage::PowerLoss {
            self.disk.lose_power();
            self.settings.boot += 1;
        }
        self.calm();
    }

    /// The server starts: everything that was answered or seen must be there.
    pub fn start(
        &mut self,
        plan: &Plan,
        now: Duration,
        hasher: SharedHasher,
        truth: &Rc<RefCell<Truth>>,
    ) -> Started {
        self.check_flipped_bit(&truth.borrow());
        let found = self.look(&self.disk).expect("nothing is damaged");
        check(&found, &truth.borrow());
        let mut truth = truth.borrow_mut();
        for (seq, record) in found.records {
            if !truth.has(seq) {
                truth.note_ordered(&record.publication.into(), seq);
            }
        }
        let history_memory_bytes_max = pick(&mut self.rng, &[u64::MAX, 3_000, 30_000]);
        let settings = LogSettings { history_memory_bytes_max, ..plan.settings.log_settings() };
        let epoch = Epoch::from_random(found.epoch_bits);
        let mut log = Sequencer::new(settings, epoch, plan.sim.workers, hasher);
        let mut feed = LogFeed::new(&mut log, now, CLOCK_BEGAN);
        let recovered = recover(self.disk.clone(), self.settings, &mut feed).expect("as before");
        feed.finish();
        assert!(!recovered.lossy && recovered.epoch_bits == found.epoch_bits);
        truth.restarted(recovered.resume_at, recovered.removed_to);
        let (near, ends) = lanes();
        let ordered = Ordered::default();
        let store = Box::new(Overheard { journal: near, ordered: ordered.clone() });
        log.move_to(store, epoch, recovered.resume_at, recovered.removed_to);
        let (resume_at, bounds) = (recovered.resume_at, ends.bounds.clone());
        let keeper = Keeper::new(recovered.writer, resume_at, bounds, Arc::default());
        let reader = Reader::new(self.disk.clone(), CLOCK_BEGAN);
        Started { log, epoch, ordered, far: Far { keeper, reader, ends } }
    }

    fn look(&self, disk: &SimDisk) -> Result<Found, JournalError> {
        let mut records = BTreeMap::new();
        let mut each = Each(|record: Record| {
            let seq = record.seq;
            assert!(records.insert(seq, record).is_none(), "{seq} is there twice");
        });
        let recovered = recover(ReadOnly(disk.clone()), self.settings, &mut each)?;
        let (epoch_bits, removed_to) = (recovered.epoch_bits, recovered.removed_to);
        Ok(Found { records, epoch_bits, removed_to })
    }

    /// Whether the journal was closed in order: a disk that has failed leaves no room for that.
    fn is_closed(&self) -> bool {
        let mut bytes = [0; HEAD_BYTES];
        let read = self.disk.open("head").and_then(|file| file.read_at(&mut bytes, 0));
        read.is_ok() && Head::decode(&bytes).is_some_and(|head| head.closed)
    }

    /// Whichever bit changes in a closed journal: everything is there, or the start is refused.
    fn check_flipped_bit(&self, truth: &Truth) {
        let copy = self.disk.copy();
        if self.is_closed() && copy.flip_bit() {
            match self.look(&copy) {
                Ok(found) => check(&found, truth),
                Err(JournalError::Corrupt { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// What is in a journal.
struct Found {
    records: BTreeMap<u64, Record>,
    epoch_bits: u64,
    removed_to: u64,
}

fn check(found: &Found, truth: &Truth) {
    for (seq, content) in truth.all().filter(|(seq, _)| *seq > found.removed_to) {
        let record = found.records.get(&seq).unwrap_or_else(|| panic!("event {seq} is lost"));
        assert_eq!(record.publication.data[..], content.data[..], "event {seq}");
        assert_eq!(record.publication.channel[..], content.channel[..], "event {seq}");
    }
}

/// The journal's near end, and what it is given.
#[derive(Debug)]
struct Overheard {
    journal: Journal,
    ordered: Ordered,
}

impl Store for Overheard {
    fn append(&mut self, event: &Arc<Event>) -> Taken {
        self.ordered.lock().expect("one thread").push_back(event.clone());
        self.journal.append(event)
    }

    fn flush(&mut self) {
        self.journal.flush();
    }

    fn give_up(&mut self) {
        self.journal.give_up();
    }

    fn read_older(&mut self, read: OlderRead) {
        self.journal.read_older(read);
    }

    fn close(&mut self) {
        self.journal.close();
    }

    fn keeps_from(&mut self, seq: u64) -> Shortage {
        self.journal.keeps_from(seq)
    }
}

/// The store's threads.
pub struct StoreActor {
    far: Far,
    requests: Sender<ToLog>,
    hand: SimHand,
    bell: CanaryBell,
    unsent: VecDeque<ToLog>,
    /// When it is done with what it does, and when it looks after the disk.
    free_at: Duration,
    keeps_at: Duration,
}

impl StoreActor {
    pub fn new(far: Far, requests: Sender<ToLog>, hand: SimHand, bell: CanaryBell) -> Self {
        let (unsent, free_at, keeps_at) = (VecDeque::new(), Duration::ZERO, Duration::ZERO);
        Self { far, requests, hand, bell, unsent, free_at, keeps_at }
    }

    pub fn is_quiet(&self) -> bool {
        let Far { keeper, ends, .. } = &self.far;
        let lanes_are_empty = ends.keeper.is_empty() && ends.reader.is_empty();
        lanes_are_empty && self.unsent.is_empty() && keeper.waiting() == 0
    }

    pub fn due_at(&self) -> Duration {
        if self.is_quiet() { self.free_at.max(self.keeps_at) } else { self.free_at }
    }

    /// Works; nothing is told before [`StoreActor::tell`].
    pub fn step(&mut self, now: Duration, rng: &mut Rng) {
        let Self { far: Far { keeper, reader, ends }, unsent, .. } = self;
        let mut report = |stored| unsent.push_back(ToLog::Store(stored));
        for message in ends.keeper.try_iter().take(rng.usize(0..8)) {
            keeper.take(message, &mut report);
        }
        keeper.work(&mut report);
        for message in ends.reader.try_iter().take(rng.usize(0..3)) {
            let ToReader::Read(asked) = message else { panic!("it goes on") };
            unsent.push_back(ToLog::Older(reader.read(asked)));
        }
        let slow = rng.u8(..50) == 0;
        self.free_at = now + up_to(rng, Duration::from_millis(if slow { 2_000 } else { 2 }));
        self.keeps_at = now + KEEPING_PAUSE;
    }

    /// Tells the log what was done.
    pub fn tell(&mut self, now: Duration) {
        let mut rings = Vec::new();
        while let Some(told) = self.unsent.pop_front() {
            if let Err(full) = self.requests.try_send(told) {
                self.unsent.push_front(full.into_inner());
                break;
            }
        }
        while self.hand.run(now, &mut rings) == Left::Work {}
        rings.into_iter().for_each(|worker| self.bell.ring(worker));
        self.bell.flush();
    }

    /// The log was told to close: everything it has ordered becomes safe.
    pub fn finish(mut self) {
        while !self.far.keeper.is_closed() {
            let message = self.far.ends.keeper.try_recv().expect("the end of the journal");
            self.far.keeper.take(message, &mut |_| {});
        }
    }
}
