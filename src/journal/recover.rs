//! Reading a journal back, and what to make of one that was not closed.
//!
//! Only the end of the last segment may be torn: what was not synced when the machine stopped. It
//! is cut off. Anything else that is broken or missing was already safe, so the journal is corrupt:
//! the server does not start unless the operator accepts the loss. Then a new epoch begins, so that
//! every client is told.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use super::disk::{Disk, read_all};
use super::feed::Feed;
use super::record::{Head, Read, Record, SEGMENT_HEAD_BYTES, SegmentHead, read_record};
use super::runs::{Gathered, Noted, OpenStreams, RUNS_SUFFIX, Segment, SegmentRuns, runs_name};
use super::writer::{
    HEAD_NAME, JournalSettings, NEW_SUFFIX, SEGMENT_SUFFIX, Sealed, WriteError, Writer, make_file,
};

/// Suffix for a segment that cannot be read at all, once its loss was accepted.
const DAMAGED_SUFFIX: &str = ".damaged";

/// Why a journal can't be used.
#[derive(Debug)]
pub enum JournalError {
    /// Something was not permitted, or the disk failed.
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        error: io::Error,
    },
    /// Another process has it.
    InUse {
        /// The folder of `data_dir`.
        dir: PathBuf,
        /// The process, if it left its number.
        pid: Option<u32>,
    },
    /// A later version wrote something this one does not know.
    Newer {
        /// Its name in the journal's folder.
        file: String,
        /// The offset in bytes.
        offset: u64,
    },
    /// Something that was safe is broken or missing.
    Corrupt {
        /// Its name in the journal's folder.
        file: String,
        /// The offset in bytes.
        offset: u64,
        /// What was expected there.
        what: &'static str,
    },
}

impl JournalError {
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Io { doing, error }
    }
}

impl From<WriteError> for JournalError {
    fn from(error: WriteError) -> Self {
        let error = match error {
            WriteError::Full => io::ErrorKind::StorageFull.into(),
            WriteError::Broken(error) => error,
        };
        Self::Io { doing: "writing the journal's head".into(), error }
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, error } => write!(f, "{doing}: {error}"),
            Self::InUse { dir, pid } => {
                let dir = dir.display();
                write!(f, "the journal in {dir} is in use")?;
                if let Some(pid) = pid {
                    write!(f, " by process {pid}")?;
                }
                write!(
                    f,
                    "; end that one, take over from it (--take-over), or choose another data_dir"
                )
            }
            Self::Newer { file, offset } => write!(
                f,
                "a later version of pushline wrote {file}, byte {offset}; start that version, or \
                 choose another data_dir"
            ),
            Self::Corrupt { file, offset, what } => write!(
                f,
                "the journal is damaged: {file}, byte {offset}: {what}; restore it from a copy, or \
                 start with --accept-loss to go on without what can't be read (every client is told \
                 that events may be missing)"
            ),
        }
    }
}

impl std::error::Error for JournalError {}

/// A journal that was read back.
#[derive(Debug)]
pub struct Recovered<D: Disk> {
    /// Writes what comes next.
    pub writer: Writer<D>,
    /// The epoch is made from these bits.
    pub epoch_bits: u64,
    /// The next event gets a place after this.
    pub resume_at: u64,
    /// Channels that are not in the journal may have lost events up to here.
    pub removed_to: u64,
    /// Bytes that were cut off after the last complete event.
    pub cut_bytes: u64,
    /// Whether something that was safe is lost, or may be.
    pub lossy: bool,
    /// How many events were read.
    pub events: u64,
}

/// Reads in order what `feed` wants, and prepares to continue.
///
/// # Errors
/// See [`JournalError`].
pub fn recover<D: Disk>(
    disk: D,
    settings: JournalSettings,
    feed: &mut impl Feed,
) -> Result<Recovered<D>, JournalError> {
    let mut names = disk.list().map_err(JournalError::io("listing the journal's files"))?;
    names.sort_unstable();
    let segments: Vec<String> =
        names.iter().filter(|name| name.ends_with(SEGMENT_SUFFIX)).cloned().collect();
    remove_what_is_left_over(&disk, &names, &segments)?;
    let mut reader = Reader {
        disk,
        settings,
        feed,
        head: None,
        journal: None,
        sealed: VecDeque::new(),
        last_seq: 0,
        skipped: Vec::new(),
        removed_to: 0,
        cut_bytes: 0,
        lossy: false,
        events: 0,
        streams: OpenStreams::default(),
    };
    reader.read_head(&names, &segments)?;
    let listed = reader.count_listed(&segments);
    for (place, name) in segments.iter().enumerate() {
        match place < listed {
            true => reader.list_segment(name)?,
            false => reader.read_segment(name, place + 1 == segments.len())?,
        }
    }
    reader.finish()
}

/// Removes unfinished files, and lists whose segments are gone.
fn remove_what_is_left_over<D: Disk>(
    disk: &D,
    names: &[String],
    segments: &[String],
) -> Result<(), JournalError> {
    for unfinished in names.iter().filter(|name| name.ends_with(NEW_SUFFIX)) {
        disk.remove(unfinished).map_err(JournalError::io(format!("removing {unfinished}")))?;
    }
    let of_segments = names.iter().filter_map(|name| name.strip_suffix(RUNS_SUFFIX));
    for segment in of_segments.map(|stem| format!("{stem}{SEGMENT_SUFFIX}")) {
        if segments.binary_search(&segment).is_err() {
            SegmentRuns::remove(disk, &segment);
        }
    }
    Ok(())
}

struct Reader<'a, D: Disk, F> {
    disk: D,
    settings: JournalSettings,
    feed: &'a mut F,
    /// `None` if the journal is new or its head is lost.
    head: Option<Head>,
    /// From the head, otherwise from the first segment.
    journal: Option<u64>,
    sealed: VecDeque<Sealed>,
    last_seq: u64,
    /// Ranges of the present segment that are not events.
    skipped: Vec<Range<usize>>,
    /// Segments up to here are missing, which was accepted.
    removed_to: u64,
    cut_bytes: u64,
    lossy: bool,
    events: u64,
    streams: OpenStreams,
}

impl<D: Disk, F: Feed> Reader<'_, D, F> {
    fn read_head(&mut self, names: &[String], segments: &[String]) -> Result<(), JournalError> {
        let is_there = names.iter().any(|name| name == HEAD_NAME);
        if is_there {
            let bytes = self.read_file(HEAD_NAME)?;
            self.head = Head::decode(&bytes);
            self.journal = self.head.map(|head| head.journal);
            self.feed.lost(self.head.map_or(0, |head| head.removed_to));
        }
        match self.head.is_none() && (is_there || !segments.is_empty()) {
            true => self.corrupt(HEAD_NAME, 0, "it is missing or not a head"),
            false => Ok(()),
        }
    }

    fn read_file(&self, name: &str) -> Result<Vec<u8>, JournalError> {
        let read = self.disk.open(name).and_then(|file| read_all(&file));
        read.map_err(JournalError::io(format!("reading {name}")))
    }

    fn is_closed(&self) -> bool {
        self.head.is_some_and(|head| head.closed)
    }

    /// Something that was safe is gone. Continues only if the operator accepts the loss.
    fn corrupt(
        &mut self,
        file: &str,
        offset: usize,
        what: &'static str,
    ) -> Result<(), JournalError> {
        if self.settings.accept_loss {
            tracing::warn!(file, offset, "{what}: this loss was accepted");
            self.lossy = true;
            return Ok(());
        }
        Err(JournalError::Corrupt { file: file.to_owned(), offset: offset as u64, what })
    }

    /// How many segments, from the oldest on, need not be read. They are checked when a client asks for
    /// their events.
    fn count_listed(&mut self, segments: &[String]) -> usize {
        // The last one may be torn.
        let complete = segments.split_last().map_or(&[][..], |(_, complete)| complete);
        let mut listed = complete.len();
        for (place, name) in complete.iter().enumerate().rev() {
            let known = SegmentRuns::read(&self.disk, name);
            let known = known.filter(|(runs, _)| self.journal == Some(runs.journal));
            if known.is_none_or(|(runs, _)| self.feed.wants(&runs)) {
                listed = place;
            }
        }
        listed
    }

    fn list_segment(&mut self, name: &str) -> Result<(), JournalError> {
        let known = SegmentRuns::read(&self.disk, name).ok_or(io::ErrorKind::InvalidData.into());
        let doing = format!("reading {} again", runs_name(name));
        let (runs, head) = known.map_err(JournalError::io(doing))?;
        self.check_before(name, &head)?;
        self.feed.list(&runs);
        self.last_seq = runs.last_seq;
        self.events += runs.events;
        let (last_seq, bytes) = (runs.last_seq, runs.segment_bytes);
        self.sealed.push_back(Sealed { name: name.into(), last_seq, bytes });
        Ok(())
    }

    /// Checks that no segment is missing before this one, except those that were removed.
    fn check_before(&mut self, name: &str, head: &SegmentHead) -> Result<(), JournalError> {
        let removed_to = self.removed_to.max(self.head.map_or(0, |head| head.removed_to));
        if head.before > self.last_seq.max(removed_to) {
            self.corrupt(name, 0, "events before this segment are missing")?;
            self.removed_to = head.before;
            self.feed.lost(head.before);
        }
        Ok(())
    }

    fn read_segment(&mut self, name: &str, is_last: bool) -> Result<(), JournalError> {
        let bytes = self.read_file(name)?;
        let Some(head) = SegmentHead::decode(&bytes)
            .filter(|head| self.journal.is_none_or(|journal| journal == head.journal))
        else {
            self.corrupt(name, 0, "this is not a segment of this journal")?;
            SegmentRuns::remove(&self.disk, name);
            let aside = self.disk.rename(name, &format!("{name}{DAMAGED_SUFFIX}"));
            return aside.map_err(JournalError::io(format!("setting {name} aside")));
        };
        self.journal = Some(head.journal);
        self.check_before(name, &head)?;
        self.skipped.clear();
        let mut gathered = Gathered::new();
        let end = self.read_records(name, &bytes, &head, is_last, &mut gathered)?;
        if !self.skipped.is_empty() {
            let whole = self.without_skipped(&bytes[..end]);
            make_file(&self.disk, name, &whole, 0)?;
        } else if is_last && !(self.is_closed() && end == bytes.len()) {
            let torn = bytes[end..].iter().rposition(|byte| *byte != 0);
            self.cut_bytes = torn.map_or(0, |last| last as u64 + 1);
            // What was read is about to be seen, so it must be safe first. Syncing this file could
            // lie: after a failed sync the kernel may consider the bytes clean although the disk
            // does not have them. So they are written again.
            make_file(&self.disk, name, &bytes[..end], 0)?;
        }
        let skipped = self.skipped.iter().map(ExactSizeIterator::len).sum::<usize>();
        let bytes = (end - skipped) as u64;
        let of = Segment { journal: head.journal, first_seq: head.first_seq, segment_bytes: bytes };
        gathered.write(&self.disk, name, of, &self.streams);
        self.sealed.push_back(Sealed { name: name.into(), last_seq: self.last_seq, bytes });
        Ok(())
    }

    /// Finds where the records end.
    fn read_records(
        &mut self,
        name: &str,
        bytes: &[u8],
        head: &SegmentHead,
        is_last: bool,
        gathered: &mut Gathered,
    ) -> Result<usize, JournalError> {
        let (seed, mut at) = (head.seed(), SEGMENT_HEAD_BYTES);
        while at < bytes.len() {
            if let Some((record, length)) = self.record_at(&bytes[at..], seed) {
                self.last_seq = record.seq;
                self.events += 1;
                gathered.note(Noted::record(&record), &mut self.streams);
                self.feed.take(record);
                at += length;
                continue;
            }
            // It is complete: cutting it off would lose an event that was safe.
            if read_record(&bytes[at..], seed) == Read::Newer {
                return Err(JournalError::Newer { file: name.to_owned(), offset: at as u64 });
            }
            let next = self.next_record(bytes, at, seed, is_last);
            if next.is_none() && is_last {
                return Ok(at);
            }
            self.corrupt(name, at, "an event was here and cannot be read")?;
            let next = next.unwrap_or(bytes.len());
            self.skipped.push(at..next);
            at = next;
        }
        Ok(at)
    }

    /// The segment as it will be from now on.
    fn without_skipped(&self, bytes: &[u8]) -> Vec<u8> {
        let (mut whole, mut from) = (Vec::with_capacity(bytes.len()), 0);
        for skipped in &self.skipped {
            whole.extend_from_slice(&bytes[from..skipped.start]);
            from = skipped.end;
        }
        whole.extend_from_slice(&bytes[from..]);
        whole
    }

    /// The complete record at the front, if it is newer than those before it.
    fn record_at(&self, bytes: &[u8], seed: u32) -> Option<(Record, usize)> {
        match read_record(bytes, seed) {
            Read::Record(record, length) if record.seq > self.last_seq => Some((record, length)),
            Read::Record(..) | Read::End | Read::Broken | Read::Newer => None,
        }
    }

    /// The next record after something that is not one, if the missing part was safe. In the last
    /// segment a record shows that if it was written after the missing part was synced.
    fn next_record(&self, bytes: &[u8], from: usize, seed: u32, is_last: bool) -> Option<usize> {
        (from + 8..bytes.len()).step_by(8).find(|&at| match self.record_at(&bytes[at..], seed) {
            Some((record, _)) => !is_last || record.synced_to > self.last_seq,
            None => false,
        })
    }

    fn finish(mut self) -> Result<Recovered<D>, JournalError> {
        let head = self.head;
        if let Some(head) = head
            && self.last_seq.max(head.removed_to) < head.synced_to
        {
            let file = self.sealed.back().map_or(HEAD_NAME.into(), |last| last.name.clone());
            let end = self.sealed.back().map_or(0, |last| last.bytes as usize);
            self.corrupt(&file, end, "events that were safe are missing after this")?;
        }
        // The kernel held events that were shown, and that kernel is gone.
        let forgot =
            head.is_some_and(|head| head.lax && !head.closed && head.boot != self.settings.boot);
        let lossy = self.lossy || forgot;
        let [journal, epoch_bits] = self.settings.fresh;
        let journal = self.journal.unwrap_or(journal);
        let mut head = head.unwrap_or_else(|| Head::fresh(journal, epoch_bits));
        head.removed_to = head.removed_to.max(self.removed_to);
        head.epoch_bits = if lossy { epoch_bits } else { head.epoch_bits };
        let resume_at = head.reserved_to.max(self.last_seq);
        let Self { disk, settings, sealed, last_seq, streams, .. } = self;
        let mut writer = Writer::new(disk, settings, head, sealed, last_seq, streams);
        writer.write_head(resume_at, false)?;
        Ok(Recovered {
            writer,
            epoch_bits: head.epoch_bits,
            resume_at,
            removed_to: head.removed_to,
            cut_bytes: self.cut_bytes,
            lossy,
            events: self.events,
        })
    }
}
