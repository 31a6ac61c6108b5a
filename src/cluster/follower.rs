//! How far a node has come on its stream, and whether that is still the stream it follows. Sans-IO:
//! told what comes and what the broker says, it says what to do.
//!
//! A stream gives every message the next place, so a place that is left out means that its message
//! was there and is gone before it came here. And each time the stream is opened again it begins with
//! the message that came last: if that is another one now, the stream went back.

use std::time::Duration;

use super::{Ended, Identity};

/// How long the stream may end before what came here, until that is believed: a new leader may at
/// first know less than the one before.
pub const BEHIND_TIME_MAX: Duration = Duration::from_secs(5);

/// How often the stream is looked at.
pub const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// What the broker says of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// Which one it is.
    pub identity: Identity,
    /// The oldest message, or the next place if there is none.
    pub first: u64,
    /// The newest message ever.
    pub last: u64,
}

/// A message by what tells it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its place.
    pub seq: u64,
    /// What another message at that place would not have: when it was stored, or a hash.
    pub sign: u64,
}

/// What to do with a message that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is the next one.
    Take,
    /// It is known.
    Skip,
    /// The log ends.
    End(Ended),
}

/// Follows a stream.
#[derive(Debug)]
pub struct Follower {
    identity: Identity,
    /// The last message that came.
    head: Mark,
    begin: u64,
    /// Until what was there at a start has come, the first message says where the log begins.
    begins: bool,
    /// Whether the first message after an opening is still to come, if the stream has it.
    reopened: bool,
    /// Since when the stream has ended before what came here.
    behind_since: Option<Duration>,
    /// What came last when the stream had let go of what comes next.
    missing_at: Option<u64>,
    /// The newest that was heard of, and when, as long as it has not come.
    awaited: Option<(u64, Duration)>,
    /// When everything had come that was there.
    caught_up_at: Duration,
}

impl Follower {
    /// Of this stream, from behind this place on, or from a later one if the stream lets go of more
    /// until its first message comes.
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

    /// Which stream.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The place of the last message that came.
    pub fn head(&self) -> u64 {
        self.head.seq
    }

    /// Whether what was there at the start, up to this place, has come; then it has begun.
    pub fn has_begun(&mut self, found_to: u64) -> bool {
        let has_come = self.head() >= found_to;
        self.begins &= !has_come;
        has_come
    }

    /// Behind which place the log begins, once a message has come.
    pub fn began_behind(&self) -> u64 {
        self.begin
    }

    /// The stream is opened (again), at this place: that of the last message, if any came, so that it
    /// is seen to be the same.
    pub fn open(&mut self) -> u64 {
        self.reopened = self.head.sign != 0;
        match self.reopened {
            true => self.head.seq,
            false => self.head.seq + 1,
        }
    }

    /// A message came.
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

    /// The broker said how the stream is.
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
            // It has grown again, perhaps with other messages.
            Some(_) => Ok(Look::OpenAgain),
            None => Ok(Look::Fine),
        }
    }

    /// For how long this node has not had all there was, as far as looks can tell.
    pub fn lag(&self, now: Duration) -> Duration {
        match self.awaited {
            Some(_) => now.saturating_sub(self.caught_up_at + LOOK_PAUSE),
            None => Duration::ZERO,
        }
    }

    /// What the stream has let go of may still be on its way here: only if nothing comes it is missed.
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
    /// Nothing.
    Fine,
    /// Open it again: it may not be the same behind what came last.
    OpenAgain,
}
