//! The node's questions to JetStream, one at a time, and what follows from the answers: the stream is
//! opened or closed, or the log ends.

use std::io;
use std::time::Duration;

use super::super::NatsError;
use super::super::api::{
    self, ApiError, NO_PEERS, Request, STREAM_IN_USE, STREAM_NOT_FOUND, StreamBounds, StreamInfo,
};
use super::super::wire::{write_line, write_message};
use super::{ASIDES, Asked, Node, Question, Way};
use crate::cluster::broker::RETRY_PAUSE;
use crate::cluster::follower::{Follower, LOOK_PAUSE, Look};
use crate::cluster::{Ended, LogSide};
use crate::log::store::Stored;

/// After this much silence, the stream is opened again.
const SILENCE_MAX: Duration = Duration::from_millis(2500);

/// How long a question may take to be answered.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(3);

impl Node {
    fn ask(&mut self, question: Question, request: Request, now: Duration) {
        self.questions += 1;
        let (number, until) = (self.questions, now + QUESTION_TIME_MAX);
        let reply = format!("{}.q.{number}", self.inbox);
        let (subject, body) = request;
        // JetStream does not answer without a leader; the pong tells that the server is still there.
        write_line(&mut self.out, format_args!("PING"));
        write_message(&mut self.out, &subject, Some(&reply), &[], body.as_bytes());
        self.asked = Some(Asked { number, question, until });
    }

    pub(super) fn take_answer(&mut self, number: u64, payload: &[u8], now: Duration) {
        let Some(Asked { question, .. }) = self.asked.take_if(|asked| asked.number == number)
        else {
            return;
        };
        match question {
            Question::Find | Question::Create => self.found(&question, api::answer(payload), now),
            Question::Follow => match api::answer::<serde_json::Value>(payload) {
                Ok(_) => self.ask(Question::LookAtOpened, self.api.info(), now),
                Err(error) => self.fail(&error, now),
            },
            Question::LookAtOpened => match api::answer(payload) {
                Ok(info) => {
                    // The broker sends no message before this.
                    let line = format!("SUB {} {}", self.deliver_to(), self.subscription);
                    write_line(&mut self.out, format_args!("{line}"));
                    self.way = Way::Open { count: 0, heard_at: now };
                    self.looked(&info, now);
                }
                Err(error) => self.fail(&error, now),
            },
            Question::Look => match api::answer(payload) {
                Ok(info) => self.looked(&info, now),
                Err(_) => self.ends.tail.note(None),
            },
            Question::LookAtGeneration => {
                if let Ok(info) = api::answer::<StreamInfo>(payload) {
                    self.raise(info, now);
                }
            }
            Question::Raise => {
                if let Err(error) = api::answer::<serde_json::Value>(payload) {
                    tracing::warn!("the new epoch can't be written into the stream yet: {error}");
                } else {
                    self.end = Some(Ended::RolledBack);
                }
            }
        }
    }

    fn fail(&mut self, error: &ApiError, now: Duration) {
        tracing::warn!("the stream can't be opened: {error}");
        self.close_way(now);
    }

    /// Takes what was found at a start.
    fn found(&mut self, question: &Question, found: Result<StreamInfo, ApiError>, now: Duration) {
        let bounds = self.bounds();
        let info = match found {
            Ok(info) => info,
            Err(ApiError::Refused { code: STREAM_NOT_FOUND, .. }) => {
                return self.ask(Question::Create, self.api.create(&bounds), now);
            }
            Err(ApiError::Away | ApiError::Refused { code: STREAM_IN_USE | NO_PEERS, .. }) => {
                return;
            }
            Err(error) => {
                self.refused = Some(NatsError::Api(error));
                return;
            }
        };
        let name = self.settings.stream.clone();
        let (soft, hard) = info.differences(&bounds);
        if let Some(why) = hard {
            self.refused = Some(NatsError::Stream { name, why });
            return;
        }
        if matches!(question, Question::Create) {
            tracing::info!(stream = %name, replicas = bounds.replicas, "the stream was created");
        }
        for difference in soft {
            tracing::warn!(stream = %name, "{difference}; the stream stays as it is");
        }
        let state = info.state(&name);
        self.ends.tail.note(Some(state.last));
        self.found_to = state.last;
        let behind = info.begin_behind(self.settings.bytes_max);
        self.follower = Some(Follower::new(state.identity, behind, now));
    }

    fn bounds(&self) -> StreamBounds {
        // A server names all servers that take clients, itself included.
        let servers = self.link.as_ref().map_or(0, |link| link.info().connect_urls.len());
        StreamBounds {
            bytes_max: self.settings.bytes_max,
            age_max: self.settings.age_max,
            replicas: self.settings.replicas.unwrap_or(if servers >= 3 { 3 } else { 1 }),
        }
    }

    // --- the way ---

    pub(super) fn is_open(&self) -> bool {
        matches!(self.way, Way::Open { .. })
    }

    pub(super) fn close_way(&mut self, now: Duration) {
        self.way = Way::Closed { since: now };
        self.flow_control = None;
    }

    fn open(&mut self, now: Duration) {
        let Some(follower) = &mut self.follower else { return };
        let from = follower.open();
        self.ends.metrics.openings.add(1);
        if self.subscription != ASIDES {
            write_line(&mut self.out, format_args!("UNSUB {}", self.subscription));
        }
        self.subscription += 1;
        self.way = Way::Opening;
        self.ask(Question::Follow, self.api.follow(&self.deliver_to(), from), now);
    }

    /// The subject to which the messages of this opening are sent.
    fn deliver_to(&self) -> String {
        format!("{}d.{}", self.inbox, self.subscription)
    }

    fn looked(&mut self, info: &StreamInfo, now: Duration) {
        let Some(follower) = &mut self.follower else { return };
        let state = info.state(&self.settings.stream);
        self.ends.tail.note(Some(state.last));
        self.ends.tail.note_first(state.first);
        self.ends.metrics.behind_events.set(state.last.saturating_sub(follower.head()));
        match follower.look(&state, now) {
            Ok(Look::Fine) => {}
            Ok(Look::OpenAgain) => self.close_way(now),
            Err(ended) => self.end_log(ended, now),
        }
    }

    pub(super) fn end_log(&mut self, ended: Ended, now: Duration) {
        self.close_way(now);
        match ended {
            // The other nodes have to learn of it, too, before this log ends.
            Ended::RolledBack => self.went_back = true,
            _ => self.end = Some(ended),
        }
    }

    /// Raises the stream's generation, unless another node has.
    fn raise(&mut self, info: StreamInfo, now: Duration) {
        let Some(follower) = &self.follower else { return };
        let seen = follower.identity();
        if info.state(&seen.name).identity != *seen {
            self.end = Some(Ended::NewGeneration);
            return;
        }
        let request = self.api.raise_generation(info, seen);
        self.ask(Question::Raise, request, now);
    }

    // --- the clock ---

    pub(super) fn tick(&mut self, log: &mut dyn LogSide) {
        let now = log.now();
        self.ticked_at = now;
        let overdue = self.sending.lock().unanswered.overdue(now);
        self.answer(overdue, log);
        if let Some(asked) = self.asked.take_if(|asked| asked.until <= now) {
            if now.saturating_sub(self.heard_at) >= QUESTION_TIME_MAX {
                return self.lose_link(&io::ErrorKind::TimedOut.into(), log);
            }
            tracing::warn!("JetStream does not answer");
            match asked.question {
                Question::Follow | Question::LookAtOpened => self.close_way(now),
                Question::Look => self.ends.tail.note(None),
                _ => {}
            }
        }
        if let Some(follower) = &self.follower {
            self.ends.metrics.behind_ms.set(follower.lag(now).as_millis() as u64);
        }
        let may_try =
            |at: Option<Duration>| at.is_none_or(|at| now.saturating_sub(at) >= RETRY_PAUSE);
        if self.link.is_none() {
            if may_try(self.tried_at) {
                self.connect(log);
            }
        } else if self.asked.is_none() {
            self.go_on(now);
        }
    }

    /// Asks the next question.
    fn go_on(&mut self, now: Duration) {
        let since = |at: Duration| now.saturating_sub(at);
        match self.way {
            _ if self.follower.is_none() => self.ask(Question::Find, self.api.info(), now),
            _ if self.went_back => self.ask(Question::LookAtGeneration, self.api.info(), now),
            Way::Closed { since: at } if since(at) >= RETRY_PAUSE => self.open(now),
            // (`heard_at` is also set while the log has no room and nothing is read.)
            Way::Open { heard_at, .. } if since(heard_at) > SILENCE_MAX => {
                tracing::warn!("the stream is silent: it is opened again");
                self.close_way(now);
            }
            Way::Open { .. } if since(self.looked_at) >= LOOK_PAUSE => {
                self.looked_at = now;
                self.ask(Question::Look, self.api.info(), now);
            }
            Way::Open { .. } | Way::Opening | Way::Closed { .. } => {}
        }
    }

    /// Tells the log whether this node follows the stream.
    pub(super) fn tell_turned(&mut self, log: &mut dyn LogSide) {
        let is_up = self.is_open();
        self.ends.note_turned(is_up, log.now());
        self.held_up = log.tell(if is_up { Stored::Up } else { Stored::Down });
    }
}
