//! The far end of the journal: takes what has gathered in its lane, commits all of it at once, and
//! reports to the log. While one group is synced the next one gathers, so no timer is needed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Bounds;
use super::disk::Disk;
use super::metrics::JournalMetrics;
use super::writer::{WriteError, Writer};
use crate::log::event::Event;
use crate::log::store::{Shortage, Stored};

/// What the near end sends.
#[derive(Debug)]
pub enum ToKeeper {
    /// The next events of the log.
    Events(Vec<Arc<Event>>),
    /// The log knows that what it sent before this is lost.
    GivenUp,
    /// End in an orderly way.
    Close,
}

/// Whether events are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    /// The log was told of the loss but does not know yet; what comes meanwhile is lost, too.
    Losing(Cause),
    /// The log knows of the loss, and gives nothing more to commit.
    Down(Cause),
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Full,
    /// Until this process ends.
    Broken,
}

/// Commits groups of events, and tells the log of it.
#[derive(Debug)]
pub struct Keeper<D: Disk> {
    /// `None` once it is closed.
    writer: Option<Writer<D>>,
    state: State,
    /// The events to commit next.
    group: Vec<Arc<Event>>,
    /// The newest event that was sent.
    ordered_to: u64,
    reported_to: u64,
    bounds: Arc<Bounds>,
    metrics: Arc<JournalMetrics>,
}

impl<D: Disk> Keeper<D> {
    /// Continues after what was read back.
    pub fn new(
        writer: Writer<D>,
        resume_at: u64,
        bounds: Arc<Bounds>,
        metrics: Arc<JournalMetrics>,
    ) -> Self {
        let reported_to = writer.committed_to();
        let keeper = Self {
            writer: Some(writer),
            state: State::Up,
            group: Vec::new(),
            ordered_to: resume_at,
            reported_to,
            bounds,
            metrics,
        };
        keeper.note_size();
        keeper
    }

    /// Whether it was closed, so that there is nothing more to do.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// How many events were taken and not committed.
    pub fn waiting(&self) -> usize {
        self.group.len()
    }

    /// Takes a message; [`Keeper::work`] acts on it.
    pub fn take(&mut self, message: ToKeeper, report: &mut impl FnMut(Stored)) {
        match (message, self.state) {
            (ToKeeper::Events(events), state) => {
                self.ordered_to = events.last().map_or(self.ordered_to, |last| last.seq);
                if state == State::Up {
                    self.group.extend(events);
                }
            }
            (ToKeeper::GivenUp, State::Losing(cause)) => self.state = State::Down(cause),
            (ToKeeper::GivenUp, _) => {}
            (ToKeeper::Close, _) => {
                self.work(report);
                self.close();
            }
        }
    }

    /// Commits what was taken, and does the journal's upkeep.
    pub fn work(&mut self, report: &mut impl FnMut(Stored)) {
        if !self.group.is_empty() {
            self.commit(report);
        }
        if self.state == State::Down(Cause::Full) {
            self.find_room(report);
        }
        if self.state == State::Up {
            self.remove_old();
        }
        self.note_size();
    }

    fn commit(&mut self, report: &mut impl FnMut(Stored)) {
        let Some(writer) = &mut self.writer else { return };
        let began = std::time::Instant::now();
        let done = writer.commit(&self.group);
        if writer.syncs > 0 {
            self.metrics.sync_time.observe_us(began.elapsed().as_micros() as u64);
        }
        let through = writer.committed_to();
        if through > self.reported_to {
            self.reported_to = through;
            let count = self.group.partition_point(|event| event.seq <= through) as u32;
            report(Stored::Committed { through, count });
        }
        self.group.clear();
        if let Err(error) = done {
            self.fail(&error);
            report(Stored::Down);
        }
    }

    fn fail(&mut self, error: &WriteError) {
        let (cause, until) = match error {
            WriteError::Full => (Cause::Full, "there is room again"),
            WriteError::Broken(_) => (Cause::Broken, "the server is started again"),
        };
        tracing::error!(
            "the journal can't be written: {error}; publishes are refused until {until}"
        );
        self.state = State::Losing(cause);
    }

    fn find_room(&mut self, report: &mut impl FnMut(Stored)) {
        let Some(writer) = &mut self.writer else { return };
        match writer.find_room(self.ordered_to + 1) {
            Ok(()) => {
                tracing::info!("the journal has room again: publishes are taken");
                self.state = State::Up;
                report(Stored::Up);
            }
            Err(WriteError::Full) => {}
            Err(error) => {
                self.fail(&error);
                // Nothing was taken meanwhile.
                self.state = State::Down(Cause::Broken);
            }
        }
    }

    fn remove_old(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        if let Err(error) = writer.remove_before(self.bounds.kept_from.load(Ordering::Relaxed)) {
            tracing::warn!("removing what history no longer holds from the journal: {error}");
        }
    }

    fn close(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        if matches!(self.state, State::Up | State::Down(Cause::Full) | State::Losing(Cause::Full))
            && let Err(error) = writer.close(self.ordered_to)
        {
            tracing::warn!("closing the journal: {error}; the next start can still read it");
        }
        self.state = State::Closed;
    }

    fn note_size(&self) {
        let Some(writer) = &self.writer else { return };
        let (bytes, segments) = writer.size();
        self.metrics.bytes.set(bytes);
        self.metrics.segments.set(segments);
        let Shortage { lost_before, scarce_before } = writer.shortage();
        self.bounds.lost_before.store(lost_before, Ordering::Relaxed);
        self.bounds.scarce_before.store(scarce_before, Ordering::Relaxed);
    }
}
