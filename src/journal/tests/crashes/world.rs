//! A machine, its disk and the processes that run on it one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use crate::journal::disk::Disk;
use crate::journal::feed::{Each, LogFeed};
use crate::journal::keeper::Keeper;
use crate::journal::reader::Reader;
use crate::journal::record::{Record, RecordPublication};
use crate::journal::recover::{JournalError, Recovered, recover};
use crate::journal::sim::{DiskTamper, SimDisk};
use crate::journal::view::ReadOnly;
use crate::journal::writer::{Durability, JournalSettings};
use crate::journal::{self, FarEnds};
use crate::log::event::Publication;
use crate::log::message::{Ask, FromLog, Share, Ticket, ToLog};
use crate::log::stream::StreamTimes;
use crate::log::{Keeps, LogSettings, Outlet, Policies, Policy, Sequencer, SharedHasher};
use crate::proto::attributes::Attributes;
use crate::proto::cursor::{Cursor, Epoch};

const CLOCK_BEGAN: Duration = Duration::from_secs(1_700_000_000);
pub const CHANNELS: [&str; 4] = ["a", "b", "c", "d"];

/// The history of one machine.
pub struct World {
    pub rng: Rng,
    pub disk: SimDisk,
    pub durability: Durability,
    pub now: Duration,
    pub boot: u64,
    /// What must be there: it was answered, seen by a subscriber, or read back.
    pub truth: BTreeMap<u64, Vec<u8>>,
    /// Keys, and the seq each was answered with.
    pub keys: BTreeMap<String, u64>,
    /// Events up to here may be gone: history dropped them.
    pub removed_to: u64,
    /// The newest ephemeral event that was seen.
    pub ephemeral_to: u64,
    pub epoch_bits: Option<u64>,
    pub published: u64,
    /// Whether the disk fails now and then.
    pub is_troubled: bool,
}

/// One process.
pub struct Life {
    pub log: Sequencer,
    pub keeper: Keeper<SimDisk>,
    pub reader: Reader<SimDisk>,
    pub ends: FarEnds,
    /// All of history is in memory, and its keys with it.
    pub keeps_keys: bool,
    /// By ticket, what was published under it.
    pub asked: BTreeMap<u32, Publication>,
    pub outlet: Seen,
}

#[derive(Default)]
pub struct Seen(pub Vec<FromLog>);

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
pub fn content(data: &[u8], attributes: Option<&Attributes>) -> Vec<u8> {
    format!("{data:?} {attributes:?}").into_bytes()
}

pub fn is_ephemeral(of: &Publication) -> bool {
    of.attributes.as_ref().is_some_and(|attributes| attributes.ephemeral)
}

impl World {
    pub fn new(seed: u64, tamper: Option<DiskTamper>) -> Self {
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

    pub fn recover(
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
    pub fn start(&mut self) -> Life {
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

    pub fn check<D: Disk>(&mut self, recovered: &Recovered<D>, records: &[Record]) {
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

    pub fn end(&mut self, mut life: Life, has_stopped: bool) {
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

    pub fn close(&mut self, life: &mut Life) {
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
