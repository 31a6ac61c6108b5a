//! Carries out what sessions ask for, and hands the log's answers back to them.

use super::around::Around;
use super::clock::Why;
use super::effect::{AfterJoin, AfterPublish, Effect, Listing};
use super::link::{Pending, PendingJoin};
use super::session::{self, Cx, RefreshLetter, RefreshOutcome};
use super::turn::Core;
use crate::limits::PAGE_BYTES_MAX;
use crate::log::message::{Ask, Letter, Published};
use crate::proto::cursor::Cursor;
use crate::proto::envelope::AFTER_BYTES_MAX;
use crate::ring::Token;

impl Core {
    // --- sessions and their effects ---

    /// Lets a session do something, and carries out what it asks for.
    pub(super) fn session<R>(&mut self, index: u32, act: impl FnOnce(&mut Cx<'_>) -> R) -> R {
        let Self { net, hub, link, sessions, effects, .. } = self;
        let token = net.token(index);
        let mut world = Around { net, hub, link, index };
        let result = act(&mut sessions.at(token, &mut world, effects));
        self.carry_out(token);
        result
    }

    /// Takes the session's output first, then its effects in order. An effect may end the
    /// connection, or make its session do more.
    pub(super) fn carry_out(&mut self, token: Token) {
        let index = token.slot;
        if !self.effects.out.is_empty() {
            if self.net.is_stream(index) {
                self.write_heads(index);
            }
            self.net.write(index, |out| out.append(&mut self.effects.out));
            self.queue(index);
        }
        if self.effects.list.is_empty() {
            return;
        }
        let mut list = std::mem::take(&mut self.effects.list);
        for effect in list.drain(..) {
            if self.net.is_current(token) {
                self.effect(token, effect);
            }
        }
        // Put back to keep its memory.
        self.effects.list = list;
    }

    pub(super) fn effect(&mut self, token: Token, effect: Effect) {
        let index = token.slot;
        match effect {
            Effect::Join { channels, cursor, then } => self.join(token, channels, &cursor, then),
            Effect::Leave { channel } => {
                self.hub.leave(index, &channel);
            }
            Effect::Publish { share, publications, then } => {
                let counts = then.counts();
                if matches!(then, AfterPublish::Stream) {
                    self.gathering.token();
                }
                let ticket = self.link.wait_for(Pending::Publish { token, then });
                self.ask_for(index, Ask::Publish { ticket, share, counts, publications });
            }
            Effect::LeaveStream { channel, id, attempt } => {
                // After what it has published, because that tells the log that the producer is there.
                let outstanding = self.sessions[index].outstanding();
                self.link.ask(Ask::StreamLost { channel, id, attempt }, outstanding);
            }
            Effect::List(listing) => {
                let Listing { channel, cursor, .. } = listing.clone();
                let ticket = self.link.wait_for(Pending::List { token, listing });
                let bytes_max = PAGE_BYTES_MAX;
                self.ask_for(index, Ask::List { ticket, channel, cursor, bytes_max });
            }
            Effect::Describe { channel } => {
                let pending = Pending::Describe { token, channel: channel.clone() };
                let ticket = self.link.wait_for(pending);
                self.ask_for(index, Ask::Describe { ticket, channel });
            }
            Effect::ListMembers { channel, then } => {
                let pending = Pending::ListMembers { token, channel: channel.clone(), then };
                let ticket = self.link.wait_for(pending);
                self.ask_for(index, Ask::ListMembers { ticket, channel });
            }
            Effect::Forward { to, letter } => self.forward(to, letter),
            Effect::Wait(why) => self.await_time(index, why),
            Effect::ExpireAt(unix_s) => self.clock.expires(unix_s, token),
            Effect::Farewell => {
                self.queue(index);
                if !self.say_farewell_if_due(index) {
                    self.await_time(index, Why::WsClose);
                }
            }
            Effect::Note(reason) => self.net.note_ending(index, reason),
            Effect::End(ending) => self.end(index, ending),
        }
    }

    /// Asks the log for a connection. Streams of HTTP/2 share the place of theirs: a client with a
    /// hundred of them is one client.
    pub(super) fn ask_for(&mut self, index: u32, body: Ask) {
        let beside = self.net.asked_beside(index);
        let own = self.sessions.begin_asking(index);
        self.net.begin_asking(index);
        self.link.ask(body, own.max(beside));
    }

    pub(super) fn await_time(&mut self, index: u32, why: Why) {
        let Self { net, sessions, clock, now, .. } = self;
        let times = (*now, sessions.time_for(why));
        let mark = sessions[index].mark(why);
        clock.wait(why, net.token(index), mark, times, |other| {
            net.is_current(other.token) && sessions[other.token.slot].matters(why, other.mark)
        });
    }

    /// Takes the log's answer to a connection's request.
    pub(super) fn answered_by_log(&mut self, token: Token, take: impl FnOnce(&mut Cx<'_>)) {
        if self.net.is_current(token) {
            self.sessions.end_asking(token.slot);
            self.net.end_asking(token.slot, 1);
        }
        self.answered(token, take);
    }

    /// Hands a connection its answer, then reads on what it has received meanwhile. A lingering
    /// connection is told nothing more.
    fn answered(&mut self, token: Token, take: impl FnOnce(&mut Cx<'_>)) {
        if !self.net.is_current(token) || self.net.is_lingering(token.slot) {
            return;
        }
        self.session(token.slot, take);
        self.say_farewell_if_due(token.slot);
        if self.net.is_current(token) {
            self.take_carry(token);
        }
    }

    // --- joins ---

    pub(super) fn join(
        &mut self,
        token: Token,
        channels: Vec<Box<str>>,
        cursor: &[u8],
        then: AfterJoin,
    ) {
        let (index, text) = (token.slot, cursor);
        let cursor = match then {
            AfterJoin::OpenView { begin, .. } => Cursor::Stream(begin),
            _ => Cursor::parse(text, self.hub.head().epoch),
        };
        if cursor != Cursor::Now {
            self.metrics.replays.add(1);
        }
        let dialect = self.sessions[index].dialect();
        let identity = self.sessions[index].identity().cloned();
        if self.hub.join_here(index, dialect, &channels, cursor, identity.is_some()) {
            return self.session(index, |cx| session::joined(cx, then));
        }
        let replicas = self.hub.hold(&channels);
        let after = cut_echo(text);
        let ticket = self.link.wait_for(Pending::Join(PendingJoin {
            token,
            replicas,
            after,
            identity: identity.clone(),
            then,
        }));
        self.ask_for(index, Ask::Join { ticket, channels, cursor, identity });
    }

    pub(super) fn count_published(&self, outcome: &Published) {
        self.metrics.published.add(u64::from(outcome.accepted));
        if outcome.refusal.is_some() {
            self.metrics.publish_refusals.add(1);
        }
    }

    // --- letters between workers ---

    pub(super) fn forward(&mut self, to: u16, letter: Letter) {
        if to == self.worker {
            return self.letter(letter);
        }
        self.link.ask(Ask::Forward { to, letter }, 0);
    }

    /// Takes a letter from a worker, perhaps this one.
    pub(super) fn letter(&mut self, letter: Letter) {
        let Ok(letter) = letter.downcast::<RefreshLetter>() else { return };
        match *letter {
            RefreshLetter::Refresh { from, asker, target, grant } => {
                let outcome = match self.net.is_current(target) {
                    true => self.session(target.slot, |cx| session::take_grant(cx, &grant)),
                    false => RefreshOutcome::NoSuchConnection,
                };
                self.forward(from, Box::new(RefreshLetter::Refreshed { asker, outcome }));
            }
            RefreshLetter::Refreshed { asker, outcome } => {
                self.answered(asker, |cx| session::refreshed(cx, outcome));
            }
        }
    }
}

fn cut_echo(text: &[u8]) -> Box<str> {
    let text = &text[..text.len().min(AFTER_BYTES_MAX)];
    String::from_utf8_lossy(text).into()
}
