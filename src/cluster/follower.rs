//! How far a node has come on its stream, and whether it is still the same stream. Sans-IO: it is
//! told what comes and what the broker says, and says what to do.
//!
//! A stream gives every message the next place, so a missing place means that its message was dropped
//! before it came here. Each time the stream is opened again it begins with the message that came
//! last: if another one has that place now, the stream has lost events.

use std::time::Duration;

use super::{Ended, Identity};

/// For how long the stream may end before what came here until it counts as having lost events: a new
/// leader may at first know less than the one before.
pub const BEHIND_TIME_MAX: Duration = Duration::from_secs(5);

/// Time between two looks at the stream.
pub const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// What the broker says of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// Differs from before once it was made again, or has lost events.
    pub identity: Identity,
    /// The oldest message, or the next place if there is none.
    pub first: u64,
    /// The newest message ever.
    pub last: u64,
}

/// What identifies a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub seq: u64,
    /// Something another message at that place would not share: when it was stored, or a hash.
    pub sign: u64,
}

/// What to do with a message that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Take it: it is the next one.
    Take,
    /// Skip it: it came before.
    Skip,
    End(Ended),
}

/// Finds out what is missing of a stream, and what to do about it.
#[derive(Debug)]
pub struct Follower {
    identity: Identity,
    /// The last message that came.
    head: Mark,
    /// The place after which the log begins.
    begin: u64,
    /// The node is starting: the first message that comes decides where the log begins.
    begins: bool,
    /// The stream was opened again, and has not sent its first message yet.
    reopened: bool,
    /// Since when the broker says that the stream ends before what came here.
    behind_since: Option<Duration>,
    /// The head at a look that found the message after it dropped.
    missing_at: Option<u64>,
    /// The newest message at a look, and the time of that, until the message comes.
    awaited: Option<(u64, Duration)>,
    /// The last time at which everything had come.
    caught_up_at: Duration,
}

impl Follower {
    /// Follows this stream from after the place `behind`, or from a later one if the stream drops
    /// messages before the first one comes.
    pub fn new(identity: Identity, behind: u64, now: Duration) -> Self {
        Self {
            identity,
            head: Mark { seq: behind, sign: 0 },
            begin: behind,
            begins: true,
            reopened: false,
            behind_since: None,
            missing_at: None,
            awaited: None,
            caught_up_at: now,
        }
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The place of the last message that came.
    pub fn head(&self) -> u64 {
        self.head.seq
    }

    /// Whether all that the stream held at the start, up to `found_to`, has come. That ends the start.
    pub fn has_begun(&mut self, found_to: u64) -> bool {
        let has_come = self.head() >= found_to;
        self.begins &= !has_come;
        has_come
    }

    /// The place after which the log begins. Final once a message has come.
    pub fn began_behind(&self) -> u64 {
        self.begin
    }

    /// Returns the place from which to open the stream: that of the last message, if any came, so
    /// that its mark can be compared.
    pub fn open(&mut self) -> u64 {
        self.reopened = self.head.sign != 0;
        match self.reopened {
            true => self.head.seq,
            false => self.head.seq + 1,
        }
    }

    pub fn deliver(&mut self, mark: Mark, now: Duration) -> Delivery {
        let reopened = std::mem::take(&mut self.reopened);
        if mark.seq <= self.head.seq {
            let is_other = reopened && mark.seq == self.head.seq && mark.sign != self.head.sign;
            return if is_other { Delivery::End(Ended::RolledBack) } else { Delivery::Skip };
        }
        if mark.seq > self.head.seq + 1 && !(self.begins && self.head.sign == 0) {
            return Delivery::End(Ended::Missed);
        }
        if self.begins && self.head.sign == 0 {
            self.begin = mark.seq - 1;
        }
        self.head = mark;
        self.note_progress(now);
        Delivery::Take
    }

    /// Takes the broker's description of the stream.
    ///
    /// # Errors
    /// The log ends.
    pub fn look(&mut self, state: &StreamState, now: Duration) -> Result<Look, Ended> {
        let StreamState { identity, first, last } = state;
        if (&identity.name, &identity.created) != (&self.identity.name, &self.identity.created) {
            return Err(Ended::Recreated);
        }
        if identity.generation != self.identity.generation {
            return Err(Ended::NewGeneration);
        }
        if *last < self.head.seq {
            let since = *self.behind_since.get_or_insert(now);
            return match now.saturating_sub(since) >= BEHIND_TIME_MAX {
                true => Err(Ended::RolledBack),
                false => Ok(Look::Fine),
            };
        }
        self.look_for_missing(*first)?;
        if self.awaited.is_none() {
            self.awaited = Some((*last, now));
        }
        self.note_progress(now);
        match self.behind_since.take() {
            // It has grown again, but perhaps with other messages.
            Some(_) => Ok(Look::OpenAgain),
            None => Ok(Look::Fine),
        }
    }

    /// For how long this node has lacked messages, as far as looks at the stream can tell.
    pub fn lag(&self, now: Duration) -> Duration {
        match self.awaited {
            Some(_) => now.saturating_sub(self.caught_up_at + LOOK_PAUSE),
            None => Duration::ZERO,
        }
    }

    /// A message the stream has dropped may still be on its way here. It is missed if nothing has come
    /// by the next look.
    fn look_for_missing(&mut self, first: u64) -> Result<(), Ended> {
        let head = self.head.seq;
        let is_missing = first > head + 1;
        match self.missing_at.replace(head).filter(|_| is_missing) {
            Some(at) if at == head => Err(Ended::Missed),
            _ => {
                self.missing_at = is_missing.then_some(head);
                Ok(())
            }
        }
    }

    fn note_progress(&mut self, now: Duration) {
        let Some((seq, heard_at)) = self.awaited else { return };
        if self.head.seq >= seq {
            self.awaited = None;
            self.caught_up_at = heard_at.max(self.caught_up_at).min(now);
        }
    }
}

/// What to do after a look at the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Fine,
    /// Open it again: what follows the last message may have changed.
    OpenAgain,
}
