//! Writing: batches of events become records of the last segment, then one sync makes all of them
//! safe. All of this runs on the store's thread.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Disk, DiskFile, write_all};
use super::record::{Head, SEGMENT_HEAD_BYTES, SegmentHead, record_bytes, write_record};
use super::runs::{Gathered, Noted, OpenStreams, Segment, SegmentRuns};
use crate::log::event::Event;
use crate::log::store::Shortage;

/// The name of the head file.
pub(super) const HEAD_NAME: &str = "head";
/// What a segment's name ends with, and a file's that is being made.
pub(super) const SEGMENT_SUFFIX: &str = ".log";
pub(super) const NEW_SUFFIX: &str = ".new";

/// Places in the order that the head file reserves at once: after a crash the log continues beyond
/// them, and one small file is synced for each million events.
const RESERVED_AT_ONCE: u64 = 1 << 20;

/// The last part of the room, an eighth: while it fills, values of states leave the oldest segment.
const SCARCE_PART: u64 = 8;

/// How safe an event must be before it is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The disk has it: it survives a loss of power.
    Sync,
    /// The kernel has it: it survives the process.
    Os,
}

/// How a journal is kept.
#[derive(Clone, Copy, Debug)]
pub struct JournalSettings {
    /// How safe events must be.
    pub durability: Durability,
    /// Bytes of a segment; an event that does not fit gets one of its own.
    pub segment_bytes: u64,
    /// Bytes of all segments beyond which history loses its oldest events.
    pub bytes_max: u64,
    /// Unix time minus the log's clock.
    pub clock_began: Duration,
    /// Hash of the machine's boot.
    pub boot: u64,
    /// Random bits for a new journal or epoch.
    pub fresh: [u64; 2],
    /// Whether to skip what is broken or missing, and begin a new epoch.
    pub accept_loss: bool,
}

/// Why events were not written.
#[derive(Debug)]
pub enum WriteError {
    /// The disk is full. What was not committed is cut off; there may be room later.
    Full,
    /// Nothing is known about what was not committed. A second attempt could lie: the kernel
    /// forgets what it could not write.
    Broken(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Broken(error),
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the disk is full"),
            Self::Broken(error) => write!(f, "{error}"),
        }
    }
}

/// A segment that is complete.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub name: String,
    pub last_seq: u64,
    pub bytes: u64,
}

/// The segment that is being written.
#[derive(Debug)]
struct Open<F> {
    name: String,
    first_seq: u64,
    file: F,
    seed: u32,
    /// Where the next record goes.
    at: u64,
    /// Everything before this offset is committed.
    committed_at: u64,
    room: u64,
    runs: Gathered,
}

/// The writing end of a journal.
#[derive(Debug)]
pub struct Writer<D: Disk> {
    pub(super) disk: D,
    pub(super) settings: JournalSettings,
    pub(super) head: Head,
    pub(super) sealed: VecDeque<Sealed>,
    open: Option<Open<D::File>>,
    streams: OpenStreams,
    /// Records that are encoded and not written.
    buffer: Vec<u8>,
    /// The newest event that needed no record, if all before it are committed.
    passed_to: u64,
    /// The newest event encoded, written and synced.
    encoded_to: u64,
    written_to: u64,
    synced_to: u64,
    /// Syncs of the last batch, for the metrics.
    pub(super) syncs: u64,
}

impl<D: Disk> Writer<D> {
    /// Continues after what was read back; `last_seq` is its newest event, `streams` are open there.
    pub(super) fn new(
        disk: D,
        settings: JournalSettings,
        head: Head,
        sealed: VecDeque<Sealed>,
        last_seq: u64,
        streams: OpenStreams,
    ) -> Self {
        Self {
            disk,
            settings,
            head,
            sealed,
            open: None,
            streams,
            buffer: Vec::new(),
            passed_to: 0,
            encoded_to: last_seq,
            written_to: last_seq,
            synced_to: last_seq,
            syncs: 0,
        }
    }

    /// The newest event that may be seen.
    pub fn committed_to(&self) -> u64 {
        self.safe_to().max(self.passed_to)
    }

    /// The newest event whose record is as safe as `durability` asks.
    fn safe_to(&self) -> u64 {
        match self.settings.durability {
            Durability::Sync => self.synced_to,
            Durability::Os => self.written_to,
        }
    }

    /// Bytes of all segments, and how many there are.
    pub fn size(&self) -> (u64, u64) {
        let open = self.open.as_ref().map_or(0, |open| open.at);
        let bytes = self.sealed.iter().map(|sealed| sealed.bytes).sum::<u64>() + open;
        (bytes, self.sealed.len() as u64 + u64::from(self.open.is_some()))
    }

    /// What there is no room for: the oldest segment. Old events that are kept can hold on to
    /// segments full of others that are not.
    pub(crate) fn shortage(&self) -> Shortage {
        let (bytes, bytes_max) = (self.size().0, self.settings.bytes_max);
        let oldest = self.sealed.front().map_or(0, |oldest| oldest.last_seq + 1);
        let before = |is_short| if is_short { oldest } else { 0 };
        Shortage {
            lost_before: before(bytes > bytes_max),
            scarce_before: before(bytes > bytes_max - bytes_max / SCARCE_PART),
        }
    }

    /// Writes a group of events, in order, and commits it.
    ///
    /// # Errors
    /// What comes after [`Writer::committed_to`] is not in the journal, or the journal is broken.
    pub fn commit(&mut self, events: &[Arc<Event>]) -> Result<(), WriteError> {
        let done = self.try_commit(events);
        match done {
            Err(WriteError::Full) => self.cut_back().and(Err(WriteError::Full)),
            done => done,
        }
    }

    fn try_commit(&mut self, events: &[Arc<Event>]) -> Result<(), WriteError> {
        self.syncs = 0;
        if let Some(last) = events.last() {
            self.reserve(last.seq)?;
        }
        for event in events.iter().filter(|event| event.is_kept()) {
            self.encode(event)?;
        }
        if self.encoded_to > self.safe_to() {
            self.make_safe()?;
        }
        self.passed_to = events.last().map_or(self.passed_to, |last| last.seq);
        Ok(())
    }

    fn make_safe(&mut self) -> Result<(), WriteError> {
        self.write()?;
        match self.settings.durability {
            Durability::Sync => self.sync(),
            Durability::Os => {
                self.note_committed();
                Ok(())
            }
        }
    }

    fn encode(&mut self, event: &Event) -> Result<(), WriteError> {
        let bytes = record_bytes(event) as u64;
        if !self.has_room_for(bytes) {
            self.seal()?;
            self.begin_segment(event.seq, bytes)?;
        }
        let unix_ms = (self.settings.clock_began + event.ordered_at()).as_millis() as u64;
        if let Some(open) = &mut self.open {
            write_record(&mut self.buffer, open.seed, event, unix_ms, self.synced_to);
            open.runs.note(Noted::event(event, unix_ms), &mut self.streams);
        }
        self.encoded_to = event.seq;
        Ok(())
    }

    fn has_room_for(&self, bytes: u64) -> bool {
        let end = |open: &Open<D::File>| open.at + self.buffer.len() as u64 + bytes;
        self.open.as_ref().is_some_and(|open| end(open) <= open.room)
    }

    fn write(&mut self) -> Result<(), WriteError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        write_all(&mut open.file, &self.buffer, open.at)?;
        open.at += self.buffer.len() as u64;
        self.buffer.clear();
        self.written_to = self.encoded_to;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), WriteError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        // After a failed sync it is not known what the disk has.
        open.file.sync().map_err(WriteError::Broken)?;
        self.syncs += 1;
        self.synced_to = self.written_to;
        self.note_committed();
        Ok(())
    }

    fn note_committed(&mut self) {
        if let Some(open) = &mut self.open {
            open.committed_at = open.at;
        }
    }

    /// Ends the open segment: cuts it to what is in it, and makes it safe.
    fn seal(&mut self) -> Result<(), WriteError> {
        self.write()?;
        let Some(open) = &mut self.open else { return Ok(()) };
        open.file.set_length(open.at)?;
        self.sync()?;
        self.set_aside();
        Ok(())
    }

    /// Removes a segment without an event: the next one may need its name.
    fn set_aside(&mut self) {
        let Some(Open { name, first_seq, at, runs, .. }) = self.open.take() else { return };
        match at > SEGMENT_HEAD_BYTES as u64 {
            true => {
                let of = Segment { journal: self.head.journal, first_seq, segment_bytes: at };
                runs.write(&self.disk, &name, of, &self.streams);
                self.sealed.push_back(Sealed { name, last_seq: self.written_to, bytes: at });
            }
            // If it stays, it does no harm.
            false => drop(self.disk.remove(&name)),
        }
    }

    /// A segment gets its name once its head is safe, so that every segment found has a complete
    /// head.
    fn begin_segment(&mut self, first_seq: u64, bytes: u64) -> Result<(), WriteError> {
        let name = segment_name(first_seq);
        let head = SegmentHead { journal: self.head.journal, first_seq, before: self.written_to };
        let room = self.settings.segment_bytes.max(SEGMENT_HEAD_BYTES as u64 + bytes);
        let file = make_file(&self.disk, &name, &head.encode(), room)?;
        let at = SEGMENT_HEAD_BYTES as u64;
        self.open = Some(Open {
            name,
            first_seq,
            file,
            seed: head.seed(),
            at,
            committed_at: at,
            room,
            runs: Gathered::new(),
        });
        Ok(())
    }

    /// Makes sure that the head file reserves this seq: nothing above it may be shown.
    fn reserve(&mut self, seq: u64) -> Result<(), WriteError> {
        match seq > self.head.reserved_to {
            true => self.write_head(seq + RESERVED_AT_ONCE, false),
            false => Ok(()),
        }
    }

    /// Replaces the head file.
    pub(super) fn write_head(&mut self, reserved_to: u64, closed: bool) -> Result<(), WriteError> {
        let head = Head {
            reserved_to,
            synced_to: self.synced_to,
            boot: self.settings.boot,
            closed,
            lax: self.settings.durability == Durability::Os,
            ..self.head
        };
        make_file(&self.disk, HEAD_NAME, &head.encode(), 0)?;
        self.head = head;
        Ok(())
    }

    /// The disk is full: cuts off what is not committed, and with it all doubt about how much of it
    /// was written. A new segment begins once there is room.
    fn cut_back(&mut self) -> Result<(), WriteError> {
        self.buffer.clear();
        let safe_to = self.safe_to();
        (self.encoded_to, self.written_to) = (safe_to, safe_to);
        if let Some(open) = &mut self.open {
            open.runs.give_up();
            self.streams.doubt();
            open.at = open.committed_at;
            open.file.set_length(open.at).map_err(WriteError::Broken)?;
            open.file.sync().map_err(WriteError::Broken)?;
            self.synced_to = safe_to;
            self.set_aside();
        }
        Ok(())
    }

    /// Checks whether there is room for a segment, so that events can be accepted again.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub(crate) fn find_room(&mut self, next_seq: u64) -> Result<(), WriteError> {
        if self.open.is_none() {
            // A start continues above what is reserved, so its segments come after this one.
            self.reserve(next_seq)?;
            self.begin_segment(next_seq, 0)?;
        }
        Ok(())
    }

    /// Removes segments whose events are all older than `kept_from`.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub(crate) fn remove_before(&mut self, kept_from: u64) -> Result<(), WriteError> {
        let gone = self.sealed.iter().take_while(|sealed| sealed.last_seq < kept_from).count();
        let Some(last) = gone.checked_sub(1).map(|last| self.sealed[last].last_seq) else {
            return Ok(());
        };
        self.head.removed_to = self.head.removed_to.max(last);
        self.write_head(self.head.reserved_to, false)?;
        for sealed in self.sealed.drain(..gone) {
            self.disk.remove(&sealed.name)?;
            SegmentRuns::remove(&self.disk, &sealed.name);
        }
        self.disk.sync_names().map_err(WriteError::Broken)
    }

    /// Closes the journal: the next start knows that nothing is missing.
    ///
    /// # Errors
    /// As [`Writer::commit`]; the next start then finds out by itself.
    pub fn close(mut self, ordered_to: u64) -> Result<(), WriteError> {
        self.seal()?;
        self.write_head(ordered_to.max(self.written_to), true)
    }
}

/// The name of the segment that begins with this event.
pub(super) fn segment_name(first_seq: u64) -> String {
    format!("{first_seq:020}{SEGMENT_SUFFIX}")
}

/// Creates a file that is complete and safe by the time it has its name.
pub(super) fn make_file<D: Disk>(
    disk: &D,
    name: &str,
    bytes: &[u8],
    room: u64,
) -> Result<D::File, WriteError> {
    let unfinished = format!("{name}{NEW_SUFFIX}");
    let made = fill_file(disk, &unfinished, bytes, room);
    if made.is_err() {
        // It takes room on a disk that may have none; if it stays, the next start removes it.
        let _ = disk.remove(&unfinished);
    }
    let file = made?;
    disk.rename(&unfinished, name)?;
    disk.sync_names().map_err(WriteError::Broken)?;
    Ok(file)
}

fn fill_file<D: Disk>(disk: &D, name: &str, bytes: &[u8], room: u64) -> io::Result<D::File> {
    let mut file = disk.create(name)?;
    if room > 0 {
        file.make_room(room)?;
    }
    write_all(&mut file, bytes, 0)?;
    file.sync()?;
    Ok(file)
}
