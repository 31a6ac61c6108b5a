//! Carries out what sessions ask for, and hands the log's answers back to them.

use super::around::Around;
use super::clock::Why;
use super::effect::{AfterJoin, AfterPublish, Effect, Listing};
use super::hub::Arrived;
use super::link::{Pending, PendingJoin};
use super::net::Carrier;
use super::session::{self, Cx, RefreshLetter, RefreshOutcome};
use super::turn::Core;
use crate::limits::PAGE_BYTES_MAX;
use crate::log::event::Publication;
use crate::log::message::{
    Answer, Ask, JoinedChannel, Letter, Page, Published, Refusal, Share, StreamAt, Ticket,
};
use crate::proto::cursor::Cursor;
use crate::proto::envelope::AFTER_BYTES_MAX;
use crate::reason::CloseReason;
use crate::ring::Token;

impl Core {
    // --- sessions and their effects ---

    /// Lets a session do something, and carries out what it asks for.
    pub(super) fn session<R>(&mut self, index: u32, act: impl FnOnce(&mut Cx<'_>) -> R) -> R {
        let Self { net, hub, link, sessions, effects, .. } = self;
        let token = net.token(index);
        let world = Around { net, hub, link, index };
        let result = act(&mut sessions.at(token, &world, effects));
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
                self.publish(token, share, publications, then);
            }
            Effect::LeaveStream { channel, id, attempt } => {
                // After what it has published, because that tells the log that the producer is there.
                let outstanding = self.sessions[index].outstanding();
                self.link.ask(Ask::StreamLost { channel, id, attempt }, outstanding);
            }
            Effect::List(listing) => self.list(token, listing),
            Effect::Describe { channel } => {
                let pending = Pending::Describe { token, channel: channel.clone() };
                self.ask_and_await(pending, |ticket| Ask::Describe { ticket, channel });
            }
            Effect::ListMembers { channel, then } => {
                let pending = Pending::ListMembers { token, channel: channel.clone(), then };
                self.ask_and_await(pending, |ticket| Ask::ListMembers { ticket, channel });
            }
            Effect::Forward { to, letter } => self.forward(to, letter),
            Effect::Wait(why) => self.await_time(index, why),
            Effect::ExpireAt(unix_s) => self.clock.expires(unix_s, token),
            Effect::Farewell => self.begin_farewell(index),
            Effect::Carry => self.net.carry(index),
            Effect::Note(reason) => self.net.note_ending(index, reason),
            Effect::End(ending) => self.end(index, ending),
        }
    }

    fn publish(
        &mut self,
        token: Token,
        share: Share,
        publications: Vec<Publication>,
        then: AfterPublish,
    ) {
        let counts = then.counts();
        if matches!(then, AfterPublish::Stream) {
            self.gathering.token();
        }
        self.ask_and_await(Pending::Publish { token, then }, |ticket| Ask::Publish {
            ticket,
            share,
            counts,
            publications,
        });
    }

    fn list(&mut self, token: Token, listing: Listing) {
        let (channel, cursor) = (listing.channel.clone(), listing.cursor);
        let bytes_max = PAGE_BYTES_MAX;
        self.ask_and_await(Pending::List { token, listing }, |ticket| Ask::List {
            ticket,
            channel,
            cursor,
            bytes_max,
        });
    }

    fn ask_and_await(&mut self, pending: Pending, body: impl FnOnce(Ticket) -> Ask) {
        let index = pending.token().slot;
        let ticket = self.link.wait_for(pending);
        self.ask_for(index, body(ticket));
    }

    /// Asks the log for a connection. Streams of HTTP/2 share the place of theirs: a client with a
    /// hundred of them is one client.
    pub(super) fn ask_for(&mut self, index: u32, body: Ask) {
        let own = self.sessions.begin_asking(index);
        let carrier = self.net.carrier_mut(self.net.carrier_of(index));
        let beside = carrier.map_or(0, Carrier::begin_asking);
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
        let join = PendingJoin { token, replicas, after, identity: identity.clone(), then };
        self.ask_and_await(Pending::Join(join), |ticket| Ask::Join {
            ticket,
            channels,
            cursor,
            identity,
        });
    }

    fn joined(&mut self, join: PendingJoin, head_seq: u64, channels: Vec<JoinedChannel>) {
        let PendingJoin { token, replicas, after, identity, then } = join;
        let index = token.slot;
        let wanted = self.net.is_current(token) && self.sessions[index].wants_to_join();
        let reader = wanted.then(|| (index, self.sessions[index].dialect(), &*after));
        self.hub.joined(reader, identity.as_ref(), &replicas, head_seq, channels);
        self.answered_by_log(token, |cx| session::joined(cx, then));
    }

    fn join_refused(&mut self, join: PendingJoin, refusal: Refusal) {
        self.hub.join_refused(&join.replicas);
        self.answered_by_log(join.token, |cx| session::join_refused(cx, join.then, refusal));
    }

    // --- answers of the log ---

    /// Takes an answer to what the ticket was for.
    pub(super) fn answer_of_log(&mut self, ticket: Ticket, answer: Answer) {
        match (self.link.answered(ticket), answer) {
            (Pending::Join(join), Answer::Joined { head_seq, channels }) => {
                self.joined(join, head_seq, channels);
            }
            (Pending::Join(join), Answer::JoinRefused(refusal)) => self.join_refused(join, refusal),
            (Pending::Read { token, carrier }, Answer::Page(page)) => {
                if self.net.is_current(carrier)
                    && let Some(by) = self.net.carrier_mut(carrier.slot)
                {
                    by.end_paging();
                }
                if self.net.is_current(token) {
                    self.page(token.slot, ticket, page);
                }
            }
            (Pending::List { token, listing }, Answer::Page(page)) => {
                self.answered_by_log(token, |cx| session::listed(cx, &listing, &page));
            }
            (Pending::Publish { token, then }, Answer::Published { outcome, unaccepted }) => {
                self.count_published(&outcome);
                self.answered_by_log(token, |cx| {
                    session::published(cx, then, &outcome, unaccepted);
                });
            }
            (Pending::Describe { token, channel }, Answer::Described(description)) => {
                self.answered_by_log(token, |cx| session::described(cx, &channel, &description));
            }
            (Pending::ListMembers { token, channel, then }, Answer::Members(members)) => {
                self.answered_by_log(token, |cx| {
                    session::members_listed(cx, &channel, members, &then);
                });
            }
            (asked, answer) => debug_assert!(false, "{answer:?} answers {asked:?}"),
        }
    }

    /// A page of history for a subscriber.
    fn page(&mut self, index: u32, ticket: Ticket, page: Page) {
        match self.hub.page(index, ticket, page) {
            Arrived::Late => {}
            Arrived::Read => self.go_on(index),
            Arrived::TooSlow => self.disconnect(index, CloseReason::SlowConsumer),
        }
    }

    fn count_published(&self, outcome: &Published) {
        self.metrics.published.add(u64::from(outcome.accepted));
        if outcome.refusal.is_some() {
            self.metrics.publish_refusals.add(1);
        }
    }

    /// Takes the log's answer to a connection's request.
    fn answered_by_log(&mut self, token: Token, take: impl FnOnce(&mut Cx<'_>)) {
        if self.net.is_current(token) {
            self.sessions.end_asking(token.slot);
            self.end_asking_beside(token.slot, 1);
        }
        self.answered(token, take);
    }

    /// Counts requests of a stream as answered, or as belonging to one that is gone, for its
    /// connection.
    pub(super) fn end_asking_beside(&mut self, index: u32, count: u16) {
        if let Some(carrier) = self.net.carrier_mut(self.net.carrier_of(index)) {
            carrier.end_asking(count);
        }
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

    /// A channel's stream was ended by someone else than its producer here.
    pub(super) fn token_stream_ended(&mut self, channel: &str, at: &StreamAt) {
        if let Some(token) = self.sessions.producer_of(channel)
            && self.net.is_current(token)
        {
            self.session(token.slot, |cx| session::token_stream_ended(cx, channel, at));
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
