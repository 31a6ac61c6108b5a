//! The log on disk: an append-only journal, so that a restart is a reconnect like any other.
//!
//! The sequencer orders events and hands them to the near end, [`Journal`]; the store's thread
//! writes what has gathered ([`writer`]), syncs it once, and reports that it is committed
//! ([`keeper`]). Only then is it seen and answered. A start reads everything back ([`mod@recover`]).
//!
//! | file | what | when it is safe |
//! |---|---|---|
//! | `lock` | held by the process that has the journal | |
//! | `head` | the epoch, and up to which seq events may have been shown ([`record::Head`]) | before an event above that is written |
//! | `<first seq>.log` | a segment ([`record`]) | each group commit; its length and name when the next one begins |
//! | `<first seq>.runs` | a list of a complete segment's events, for a start that need not read them (`runs`) | never: without it the segment is read |
//! | `*.new` | a file that was being made | never: the next start removes it |

pub mod disk;
pub mod feed;
pub mod keeper;
pub mod metrics;
pub mod reader;
pub mod record;
pub mod recover;
pub(crate) mod runs;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(test)]
mod tests;
pub mod view;
pub mod writer;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::fs::{FlockOperation, flock};

use self::disk::{Disk, Folder, OWNER_ONLY};
use self::feed::Feed;
use self::keeper::ToKeeper;
use self::reader::ToReader;
use self::record::Head;
use self::recover::{JournalError, Recovered, recover};
use self::writer::{HEAD_NAME, JournalSettings};
use crate::log::event::Event;
use crate::log::older::OlderRead;
use crate::log::store::{Shortage, Store, Taken};

const LOCK_NAME: &str = "lock";

/// The near end of the journal: what the sequencer sees.
#[derive(Debug)]
pub struct Journal {
    /// Bounded by how much the log lets wait for a commit.
    to_keeper: Sender<ToKeeper>,
    /// Events of the present request, which go into one group.
    gathered: Vec<Arc<Event>>,
    /// Bounded by the pages workers may wait for.
    to_reader: Sender<ToReader>,
    bounds: Arc<Bounds>,
}

/// The far ends of the lanes to the store's thread and to the reader, and what both sides tell each
/// other.
#[derive(Debug)]
pub struct FarEnds {
    /// Events, in groups that the [`keeper`] commits.
    pub keeper: Receiver<ToKeeper>,
    /// Pages that the log wants of the [`reader`].
    pub reader: Receiver<ToReader>,
    /// The server's own way to the reader, by which it ends.
    pub end_reader: Sender<ToReader>,
    /// From where on history needs events, and has them.
    pub bounds: Arc<Bounds>,
}

/// Both ends of the journal's lanes.
pub fn lanes() -> (Journal, FarEnds) {
    let (to_keeper, keeper) = unbounded();
    let (to_reader, reader) = unbounded();
    let bounds = Arc::<Bounds>::default();
    let ends = FarEnds { keeper, reader, end_reader: to_reader.clone(), bounds: bounds.clone() };
    (Journal { to_keeper, gathered: Vec::new(), to_reader, bounds }, ends)
}

/// What each end tells the other about history.
#[derive(Debug, Default)]
pub struct Bounds {
    /// From the log: nothing before this seq is kept.
    kept_from: AtomicU64,
    /// From the store's thread: its [`Shortage`].
    lost_before: AtomicU64,
    scarce_before: AtomicU64,
}

impl Store for Journal {
    fn append(&mut self, event: &Arc<Event>) -> Taken {
        self.gathered.push(Arc::clone(event));
        Taken::Later
    }

    fn flush(&mut self) {
        if !self.gathered.is_empty() {
            let gathered = std::mem::take(&mut self.gathered);
            // A store's thread that is gone has told its server to end.
            let _ = self.to_keeper.send(ToKeeper::Events(gathered));
        }
    }

    fn give_up(&mut self) {
        self.gathered.clear();
        let _ = self.to_keeper.send(ToKeeper::GivenUp);
    }

    fn read_older(&mut self, read: OlderRead) {
        // Without a reader the server is about to end.
        let _ = self.to_reader.send(ToReader::Read(read));
    }

    fn close(&mut self) {
        self.flush();
        let _ = self.to_keeper.send(ToKeeper::Close);
    }

    fn keeps_from(&mut self, seq: u64) -> Shortage {
        let Bounds { kept_from, lost_before, scarce_before } = &*self.bounds;
        kept_from.store(seq, Ordering::Relaxed);
        let [lost_before, scarce_before] =
            [lost_before, scarce_before].map(|seq| seq.load(Ordering::Relaxed));
        Shortage { lost_before, scarce_before }
    }
}

/// Keeps other processes out of the journal while it lives.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes the lock, and creates the folder if there is none.
    ///
    /// # Errors
    /// Another process has it, or the folder cannot be written.
    pub fn take(dir: &Path) -> Result<Self, JournalError> {
        let doing = |what: &str| JournalError::io(format!("{what} {}", dir.display()));
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(dir);
        made.map_err(doing("making the journal's folder"))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(OWNER_ONLY);
        let file = options.open(dir.join(LOCK_NAME)).map_err(doing("opening the lock in"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let mut lock = Self(file);
                // Only there so that another process can say which one has it.
                let _ = lock.0.set_len(0);
                let _ = writeln!(lock.0, "{}", std::process::id());
                Ok(lock)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(JournalError::InUse { dir: dir.to_owned(), pid: pid_in(file) })
            }
            Err(error) => Err(doing("locking")(error.into())),
        }
    }
}

fn pid_in(mut file: File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Reads the journal in a folder whose lock is taken.
///
/// # Errors
/// See [`JournalError`].
pub fn open(
    dir: &Path,
    settings: JournalSettings,
    feed: &mut impl Feed,
) -> Result<Recovered<Folder>, JournalError> {
    recover(Folder::new(dir), settings, feed)
}

/// The epoch of a journal that another process holds, as bits.
///
/// # Errors
/// There is no journal, or its head cannot be read.
pub fn epoch_bits(dir: &Path) -> Result<u64, JournalError> {
    let doing =
        || JournalError::io(format!("reading the head of the journal in {}", dir.display()));
    let file = Folder::new(dir).open(HEAD_NAME).map_err(doing())?;
    let bytes = disk::read_all(&file).map_err(doing())?;
    let head = Head::decode(&bytes).ok_or(io::ErrorKind::InvalidData.into()).map_err(doing())?;
    Ok(head.epoch_bits)
}
