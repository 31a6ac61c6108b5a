//! The home of the log's order: memory, or a journal with a thread of its own.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ServerError, Shared, node, random};
use crate::cluster::ToNodes;
use crate::cluster::broker::Nodes;
use crate::cluster::metrics::ClusterMetrics;
use crate::config::{ClusterSettings, Settings};
use crate::journal::disk::Folder;
use crate::journal::feed::LogFeed;
use crate::journal::keeper::Keeper;
use crate::journal::metrics::JournalMetrics;
use crate::journal::reader::Reader;
use crate::journal::recover::{JournalError, Recovered};
use crate::journal::writer::JournalSettings;
use crate::journal::{self, FarEnds, Lock};
use crate::limits::SEGMENT_BYTES;
use crate::log::Sequencer;
use crate::mesh::hand::SharedLog;
use crate::proto::cursor::Epoch;
use crate::ring::{monotonic_now, unix_now};

/// The home of the order before the log exists.
#[derive(Debug)]
pub(super) enum Home {
    Memory,
    /// A journal that this process holds.
    Journal(Box<Taken>),
    /// A journal that the predecessor holds until it lets go.
    Inherited(Box<JournalSettings>, Epoch),
    /// In a broker's stream.
    Broker,
}

/// A journal whose lock this process has taken.
#[derive(Debug)]
pub(super) struct Taken {
    lock: Lock,
    settings: JournalSettings,
}

impl Home {
    /// The home the operator chose. `has_predecessor`: another process may hold the journal for
    /// now.
    pub fn of(settings: &Settings, has_predecessor: bool) -> Result<Self, ServerError> {
        let ClusterSettings { nats, redis, .. } = &settings.cluster;
        if !nats.is_empty() || !redis.is_empty() {
            return Ok(Self::Broker);
        }
        let Some(dir) = &settings.data_dir else { return Ok(Self::Memory) };
        let journal = journal_settings(settings)?;
        match Lock::take(dir) {
            Ok(lock) => Ok(Self::Journal(Box::new(Taken { lock, settings: journal }))),
            Err(JournalError::InUse { .. }) if has_predecessor => {
                let epoch = Epoch::from_random(journal::epoch_bits(dir)?);
                Ok(Self::Inherited(Box::new(journal), epoch))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the journal into an empty log, unless another process holds it; returns the log's
    /// epoch.
    pub fn open(
        self,
        settings: &Settings,
        metrics: &Arc<JournalMetrics>,
        of_cluster: &Arc<ClusterMetrics>,
        nodes: &Nodes,
        log: &mut Sequencer,
    ) -> Result<(Epoch, Opening), ServerError> {
        match self {
            Self::Memory => Ok((log.epoch(), Opening::Memory)),
            Self::Journal(taken) => {
                let opened = taken.read(settings, metrics.clone(), log)?;
                Ok((log.epoch(), Opening::Done(Box::new(opened))))
            }
            Self::Inherited(journal, epoch) => Ok((epoch, Opening::Later(journal))),
            Self::Broker => {
                let node = node::Opened::new(settings, of_cluster, nodes, log)?;
                Ok((log.epoch(), Opening::Node(Box::new(node))))
            }
        }
    }
}

/// How far a home has been opened.
#[derive(Debug)]
pub(super) enum Opening {
    /// There is nothing to open.
    Memory,
    /// All of it was opened.
    Done(Box<Opened>),
    /// Another process still holds it.
    Later(Box<JournalSettings>),
    /// This is a node, and has read its stream.
    Node(Box<node::Opened>),
}

/// What the store's thread is to do.
#[derive(Debug)]
pub(super) enum Task {
    Keep(Box<Opened>),
    Follow(Box<node::Opened>),
}

impl Opening {
    /// How the operator's listener reaches the other nodes, if there may be any.
    pub fn to_nodes(&self) -> Option<ToNodes> {
        match self {
            Self::Node(node) => Some(node.to_nodes()),
            Self::Memory | Self::Done(_) | Self::Later(_) => None,
        }
    }

    /// What the store's thread needs, once another process has let go of the journal; `None` if
    /// there is no such thread.
    pub fn finish(self, shared: &Shared, log: &SharedLog) -> Result<Option<Task>, ServerError> {
        let opened = match self {
            Self::Memory => return Ok(None),
            Self::Done(opened) => opened,
            Self::Later(journal) => Box::new(inherit(*journal, shared, &mut log.lock())?),
            Self::Node(node) => return Ok(Some(Task::Follow(node))),
        };
        Ok(Some(Task::Keep(opened)))
    }
}

/// Takes the journal that the predecessor has let go of, and reads it.
fn inherit(
    journal: JournalSettings,
    shared: &Shared,
    log: &mut Sequencer,
) -> Result<Opened, ServerError> {
    let (settings, metrics) = (&shared.settings, shared.journal.clone());
    let dir = settings.data_dir.as_deref().unwrap_or_else(|| ".".as_ref());
    let lock = Lock::take(dir)?;
    let opened = Taken { lock, settings: journal }.read(settings, metrics, log)?;
    match log.epoch() == shared.epoch {
        true => Ok(opened),
        // The workers know the old epoch. This cannot happen after an orderly end.
        false => Err(ServerError::io(
            "taking the journal over",
            std::io::Error::other("its epoch has changed meanwhile; start without --take-over"),
        )),
    }
}

/// A journal that was read, with what its thread needs.
#[derive(Debug)]
pub(super) struct Opened {
    pub lock: Lock,
    pub keeper: Keeper<Folder>,
    pub reader: Reader<Folder>,
    pub ends: FarEnds,
}

impl Taken {
    fn read(
        self,
        settings: &Settings,
        metrics: Arc<JournalMetrics>,
        log: &mut Sequencer,
    ) -> Result<Opened, ServerError> {
        let began = Instant::now();
        let dir = settings.data_dir.as_deref().unwrap_or_else(|| ".".as_ref());
        let mut feed = LogFeed::new(log, monotonic_now(), self.settings.clock_began);
        let recovered = journal::open(dir, self.settings, &mut feed)?;
        feed.finish();
        metrics.recovery_us.set(began.elapsed().as_micros() as u64);
        tell(&recovered, began.elapsed());
        let (near, ends) = journal::lanes();
        let Recovered { writer, epoch_bits, resume_at, removed_to, .. } = recovered;
        log.move_to(Box::new(near), Epoch::from_random(epoch_bits), resume_at, removed_to);
        let keeper = Keeper::new(writer, resume_at, ends.bounds.clone(), metrics);
        let reader = Reader::new(Folder::new(dir), self.settings.clock_began);
        Ok(Opened { lock: self.lock, keeper, reader, ends })
    }
}

fn tell(recovered: &Recovered<Folder>, took: Duration) {
    let Recovered { events, cut_bytes, lossy, .. } = recovered;
    let took = format!("{:.3} s", took.as_secs_f64());
    tracing::info!(events, cut_bytes, took, "the journal was read");
    if *lossy {
        tracing::warn!(
            "events that were shown may be missing from the journal: a new epoch begins, and every \
             client that returns is told of a gap"
        );
    }
}

fn journal_settings(settings: &Settings) -> Result<JournalSettings, ServerError> {
    Ok(JournalSettings {
        durability: settings.durability,
        segment_bytes: SEGMENT_BYTES,
        bytes_max: settings.history_bytes.saturating_mul(2).saturating_add(2 * SEGMENT_BYTES),
        clock_began: unix_now().saturating_sub(monotonic_now()),
        boot: boot().map_or_else(random, Ok)?,
        fresh: [random()?, random()?],
        accept_loss: settings.accept_loss,
    })
}

/// Identifies this boot of the machine, if the kernel tells; otherwise every start counts as a new
/// boot.
fn boot() -> Option<u64> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).ok()
}
