//! The node's questions other than publications, what follows from the answers, and the clock that
//! asks them.

use std::io;
use std::time::Duration;

use super::super::resp::Reply;
use super::super::scripts;
use super::super::talk::{Asked, Server, Talk};
use super::Node;
use crate::cluster::broker::RETRY_PAUSE;
use crate::cluster::follower::{Follower, LOOK_PAUSE, Look, StreamState};
use crate::cluster::{Ended, Identity, LogSide};
use crate::log::store::Answered;

/// A server that takes longer than this to answer counts as gone.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// How far other nodes may be behind before the stream drops entries they lack.
const TRIM_DELAY: Duration = Duration::from_secs(10);

/// After this much silence, the connection for entries counts as gone.
const SILENCE_MAX: Duration = Duration::from_millis(2500);

/// Whether the server is not the primary any more, or has forgotten the script.
fn is_to_connect_again(why: &str) -> bool {
    ["READONLY", "NOSCRIPT", "LOADING", "MASTERDOWN"].iter().any(|of| why.starts_with(of))
}

/// What follows from the refusal of a publication: the stream may be another one.
fn step_after_refusal(why: &str) -> Option<Step> {
    tracing::debug!(why, "Redis refused a publication");
    why.starts_with("EPOCH").then_some(Step::AskRole)
}

impl Node {
    /// What follows from an answer, if something is to be asked or opened.
    pub(super) fn take_answer(
        &mut self,
        asked: Asked,
        took: Duration,
        reply: &Reply<'_>,
        answers: &mut Vec<Answered>,
    ) -> io::Result<Option<Step>> {
        let refusal = match reply {
            Reply::Error(why) => Some(*why),
            _ => None,
        };
        if let Some(why) = refusal
            && is_to_connect_again(why)
        {
            if let Asked::Publish(number) = asked {
                answers.push(Answered::new(number, None));
            }
            return Err(io::Error::other(why.to_owned()));
        }
        match asked {
            Asked::Publish(number) => {
                self.ends.metrics.answer_time.observe_us(took.as_micros() as u64);
                answers.push(Answered::new(number, reply.number()));
                Ok(refusal.and_then(step_after_refusal))
            }
            Asked::Revoke(tell) => {
                let _ = tell.send(reply.number().is_some());
                Ok(None)
            }
            Asked::Role => {
                let server = Server::read(reply.text().unwrap_or_default());
                let obstacle = server.obstacle().map(io::Error::other);
                obstacle.map_or(Ok(Some(Step::Look(server))), Err)
            }
            Asked::Look => {
                let why =
                    || io::Error::other(refusal.unwrap_or("its answer is no stream").to_owned());
                StreamReply::read(reply).map(|found| Some(Step::Looked(found))).ok_or_else(why)
            }
            Asked::Raise => {
                self.end = refusal.is_none().then_some(Ended::RolledBack);
                Ok(None)
            }
            Asked::Trim | Asked::Say => Ok(None),
        }
    }

    pub(super) fn take_step(
        &mut self,
        talk: &mut Talk,
        step: Step,
        now: Duration,
    ) -> io::Result<()> {
        match step {
            Step::AskRole => self.ask_role(talk, now),
            Step::Look(server) => self.ask_look(talk, &server, now),
            Step::Looked(found) => self.looked(&found, now)?,
        }
        Ok(())
    }

    fn ask_role(&self, talk: &mut Talk, now: Duration) {
        if !talk.awaits(|asked| matches!(asked, Asked::Role | Asked::Look)) {
            talk.ask(Asked::Role, &[b"INFO"], now);
        }
    }

    fn ask_look(&self, talk: &mut Talk, server: &Server, now: Duration) {
        let fresh = format!("{:016x}", self.settings.node);
        let words = [
            "EVAL",
            scripts::LOOK,
            "2",
            &self.head_key,
            &self.log_key,
            &server.replication,
            &fresh,
        ];
        talk.ask(Asked::Look, &words.map(str::as_bytes), now);
    }

    /// The first look. The server's role is known from connecting.
    pub(super) fn begin(&mut self, mut talk: Talk, now: Duration) {
        self.looked_at = now;
        let server = talk.server.clone();
        self.ask_look(&mut talk, &server, now);
        self.talk = Some(talk);
    }

    fn looked(&mut self, found: &StreamReply, now: Duration) -> io::Result<()> {
        let state = found.state(&self.settings.stream);
        self.ends.tail.note(Some(state.last));
        if self.follower.is_none() {
            tracing::info!(stream = %self.settings.stream, entries = state.last, "the stream is found");
            self.found_to = state.last;
            let behind = state.first - 1;
            self.follower = Some(Follower::new(state.identity.clone(), behind, now));
        }
        let Some(follower) = &mut self.follower else { return Ok(()) };
        let head = follower.head();
        self.ends.metrics.behind_events.set(state.last.saturating_sub(head));
        match follower.look(&state, now) {
            Ok(Look::OpenAgain) => self.entries = None,
            Ok(Look::Fine) => {}
            Err(Ended::RolledBack) => self.went_back = true,
            Err(ended) => self.end = Some(ended),
        }
        if self.entries.is_none() && self.end.is_none() && !self.went_back {
            self.open_entries(now)?;
        }
        Ok(())
    }

    pub(super) fn tick(&mut self, log: &mut dyn LogSide) {
        let now = log.now();
        self.ticked_at = now;
        if let Some(follower) = &self.follower {
            self.ends.metrics.behind_ms.set(follower.lag(now).as_millis() as u64);
        }
        let since = |at: Duration| now.saturating_sub(at);
        let is_late = self.talk.as_ref().and_then(Talk::waits_since);
        let is_late = is_late.is_some_and(|at| since(at) >= ANSWER_TIME_MAX);
        // While the log has no room, no entries are asked for, and silence means nothing.
        let is_silent = self.ask_after.is_none()
            && self.entries.as_ref().is_some_and(|(_, heard_at)| since(*heard_at) > SILENCE_MAX);
        if is_late || is_silent {
            self.lose_links(&io::ErrorKind::TimedOut.into(), log);
        }
        let Some(mut talk) = self.talk.take() else {
            if self.tried_at.is_none_or(|at| since(at) >= RETRY_PAUSE) {
                self.connect(now);
            }
            return;
        };
        if self.went_back {
            self.raise(&mut talk, now);
        } else if since(self.looked_at) >= LOOK_PAUSE {
            self.looked_at = now;
            self.ask_role(&mut talk, now);
            self.trim(&mut talk, now);
        }
        self.talk = Some(talk);
    }

    /// Raises the generation before this log ends, so that the other nodes learn of it, too.
    fn raise(&self, talk: &mut Talk, now: Duration) {
        let Some(follower) = &self.follower else { return };
        if talk.awaits(|asked| matches!(asked, Asked::Raise)) {
            return;
        }
        let generation = follower.identity().generation.to_string();
        let words = ["EVAL", scripts::RAISE, "1", &self.head_key, &generation];
        talk.ask(Asked::Raise, &words.map(str::as_bytes), now);
    }

    /// The stream has no bounds of its own. What is older than this node's history is dropped from it,
    /// after a while in which other nodes can still read it.
    fn trim(&mut self, talk: &mut Talk, now: Duration) {
        self.to_trim.push_back((now, self.ends.tail.kept_from()));
        let is_due = |&mut (at, _): &mut (Duration, u64)| now.saturating_sub(at) >= TRIM_DELAY;
        let mut due = None;
        while let Some((_, kept_from)) = self.to_trim.pop_front_if(is_due) {
            due = Some(kept_from);
        }
        let Some(kept_from) = due.filter(|&seq| seq > self.trimmed_to) else { return };
        if self.entries.is_none() || self.end.is_some() {
            return;
        }
        self.trimmed_to = kept_from;
        let from = format!("{kept_from}-0");
        let words = ["XTRIM", &self.log_key, "MINID", &from];
        talk.ask(Asked::Trim, &words.map(str::as_bytes), now);
    }
}

/// What is to be done after an answer.
#[derive(Debug)]
pub(super) enum Step {
    AskRole,
    Look(Server),
    Looked(StreamReply),
}

/// What the script answers that looks at the stream.
#[derive(Debug)]
pub(super) struct StreamReply {
    created: String,
    generation: u64,
    last: u64,
    first: Option<u64>,
}

impl StreamReply {
    fn read(reply: &Reply<'_>) -> Option<Self> {
        let [created, generation, last, first] = reply.list() else { return None };
        Some(Self {
            created: created.text()?.to_owned(),
            generation: generation.number()?,
            last: last.number()?,
            first: first.text().and_then(|id| id.split_once('-')?.0.parse().ok()),
        })
    }

    fn state(&self, name: &str) -> StreamState {
        let Self { created, generation, last, first } = self;
        StreamState {
            identity: Identity {
                name: name.to_owned(),
                created: created.clone(),
                generation: *generation,
            },
            first: first.unwrap_or(last + 1).max(1),
            last: *last,
        }
    }
}
