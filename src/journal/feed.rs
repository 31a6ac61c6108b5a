//! Where the events of a journal go that is read back: to the log, or to someone who looks at them.

use std::time::Duration;

use super::record::Record;
use super::runs::SegmentRuns;
use crate::log::Sequencer;
use crate::log::message::{Fed, ToLog};
use crate::log::restore::{FedRun, Nowhere, Room};

/// Events fed to the log at once.
const FED_AT_ONCE: usize = 1024;

/// Receives what is in a journal.
pub trait Feed {
    /// Channels may have lost events up to here, about which nothing is known any more. Called before
    /// anything newer is fed, so that a channel does not seem to begin with the events it still has.
    fn lost(&mut self, to: u64);

    /// Whether this segment must be read, and with it all newer ones. Asked for each segment whose
    /// runs are known, newest first, before anything is fed.
    fn wants(&mut self, runs: &SegmentRuns) -> bool;

    /// Takes the events of a segment that is not read.
    fn list(&mut self, runs: &SegmentRuns);

    /// Takes the next event.
    fn take(&mut self, record: Record);
}

/// Passes on every event.
#[derive(Debug)]
pub struct Each<F>(pub F);

impl<F: FnMut(Record)> Feed for Each<F> {
    fn lost(&mut self, _to: u64) {}

    fn wants(&mut self, _runs: &SegmentRuns) -> bool {
        true
    }

    fn list(&mut self, _runs: &SegmentRuns) {}

    fn take(&mut self, record: Record) {
        (self.0)(record);
    }
}

/// Feeds a log that has nothing yet.
#[derive(Debug)]
pub struct LogFeed<'a> {
    log: &'a mut Sequencer,
    now: Duration,
    /// Unix time minus the log's clock.
    clock_began: Duration,
    lost_to: u64,
    /// `None` until the first segment is asked for.
    room: Option<Room>,
    /// The first event of a stream that is open, or still kept for late readers.
    streams_from: u64,
    gathered: Vec<Fed>,
}

impl<'a> LogFeed<'a> {
    /// Feeds this log; `now` on its clock.
    pub fn new(log: &'a mut Sequencer, now: Duration, clock_began: Duration) -> Self {
        let (room, streams_from, gathered) = (None, u64::MAX, Vec::new());
        Self { log, now, clock_began, lost_to: 0, room, streams_from, gathered }
    }

    /// Feeds what was gathered last.
    pub fn finish(mut self) {
        self.feed();
    }

    fn feed(&mut self) {
        let gathered = std::mem::take(&mut self.gathered);
        self.log.handle(ToLog::Feed(gathered), self.now, &mut Nowhere);
    }
}

impl Feed for LogFeed<'_> {
    fn lost(&mut self, to: u64) {
        self.feed();
        self.lost_to = self.lost_to.max(to);
        self.log.forget_to(to);
    }

    fn wants(&mut self, runs: &SegmentRuns) -> bool {
        if self.room.is_none() {
            // Streams that were open at the end of an older segment are open here, too, or have ended
            // in between.
            self.streams_from = runs.streams.open_from;
        }
        let room = self.room.get_or_insert_with(|| self.log.room(self.now));
        if room.keeps_stream(at(runs.streams.ended_ms, self.clock_began)) {
            self.streams_from = self.streams_from.min(runs.streams.ended_from);
        }
        let has_room = !room.is_full();
        if has_room {
            fed_runs(runs, self.clock_began).rev().for_each(|run| room.take(&run));
        }
        let has_stream = runs.last_seq >= self.streams_from;
        has_room || has_stream || (runs.has_event_keys && room.has_states())
    }

    fn list(&mut self, runs: &SegmentRuns) {
        // Others are older than what was lost, and were about to be removed.
        if runs.last_seq > self.lost_to {
            fed_runs(runs, self.clock_began).for_each(|run| self.log.follow_run(&run));
        }
    }

    fn take(&mut self, record: Record) {
        if record.seq <= self.lost_to {
            return;
        }
        let ordered_at = at(record.unix_ms, self.clock_began);
        let publication = record.publication.into();
        self.gathered.push(Fed { seq: record.seq, publication, ordered_at });
        if self.gathered.len() >= FED_AT_ONCE {
            self.feed();
        }
    }
}

fn at(unix_ms: u64, clock_began: Duration) -> Duration {
    Duration::from_millis(unix_ms).saturating_sub(clock_began)
}

fn fed_runs(
    of: &SegmentRuns,
    clock_began: Duration,
) -> impl DoubleEndedIterator<Item = FedRun<'_>> {
    of.runs.iter().map(move |run| FedRun {
        channel: of.channel_of(run),
        first_seq: run.first_seq,
        last_seq: run.last_seq,
        newest_at: at(run.newest_ms, clock_began),
        events: run.events,
        bytes: run.bytes,
    })
}
