//! From ordered to seen: at once if the store commits at once, otherwise when it says so.

use std::sync::Arc;

use super::event::Event;
use super::message::{Answer, FromLog, Share};
use super::pending::{PendingAnswer, PendingEvent};
use super::sequencer::{Outlet, Sequencer};
use super::store::{Stored, Taken};

impl Sequencer {
    /// Appends an event that has its place to the store, and shows it if it may be seen at once.
    pub(super) fn append(&mut self, index: u32, event: Arc<Event>, outlet: &mut impl Outlet) {
        match self.store.append(&event) {
            Taken::Seen => self.show(index, event, outlet),
            Taken::Later => {
                let channel = self.channels.at_mut(index);
                channel.pending += 1;
                let workers = channel.interest.workers().chain(self.streams.producer(index));
                self.pending.push_event(event, index, workers);
            }
        }
    }

    /// Answers a publish, after the events it waits for.
    pub(super) fn answer_publish(&mut self, answer: PendingAnswer, outlet: &mut impl Outlet) {
        match self.pending.is_empty() {
            true => send_answer(answer, outlet),
            false => self.pending.push_answer(answer),
        }
    }

    /// Takes a report of the store's thread.
    pub(super) fn stored(&mut self, stored: Stored, outlet: &mut impl Outlet) {
        match stored {
            Stored::Committed { through, .. } => self.pending.commit(through),
            Stored::Answered(answers) => self.answered(answers, outlet),
            Stored::Down => {
                self.store_is_up = false;
                self.lose_uncommitted();
            }
            Stored::Up => self.store_is_up = true,
        }
        self.release(outlet);
    }

    /// Shows what is committed and sends the answers that waited for it. A worker that joined a
    /// channel after its event was ordered may have no room for it: then this event and all after
    /// it wait until there is room.
    pub(super) fn release(&mut self, outlet: &mut impl Outlet) {
        if self.pending.is_empty() {
            return;
        }
        loop {
            while let Some(answer) = self.pending.take_answer() {
                send_answer(answer, outlet);
            }
            let Some(next) = self.pending.committed() else { return };
            let interest = &self.channels.at(next.channel).interest;
            let producer = self.streams.producer(next.channel);
            let has_room = |worker| outlet.has_room(worker, Share::Whole, 0);
            if !next.is_carried && !interest.workers().chain(producer).all(has_room) {
                return;
            }
            let Some(PendingEvent { event, channel, is_carried, .. }) = self.pending.take_event()
            else {
                return;
            };
            self.channels.at_mut(channel).pending -= 1;
            match is_carried {
                true => self.keep_again(channel, event),
                false => self.show(channel, event, outlet),
            }
        }
    }

    /// Whether a committed event waits for room in a lane.
    pub fn is_held_up(&self) -> bool {
        self.pending.committed().is_some()
    }

    fn lose_uncommitted(&mut self) {
        self.store.give_up();
        while let Some(lost) = self.pending.take_lost() {
            self.channels.at_mut(lost.channel).pending -= 1;
            self.streams.undo(lost.channel, &lost.event);
            self.note_lost(lost.channel, &lost.event);
            self.free_if_idle(lost.channel);
        }
        self.pending.cut_answers();
    }

    /// Makes the event a part of the log that all can see.
    pub(super) fn show(&mut self, index: u32, event: Arc<Event>, outlet: &mut impl Outlet) {
        self.order.show(event.seq);
        self.counters.published += 1;
        let channel = self.channels.at_mut(index);
        if event.is_kept() {
            channel.last_seq = event.seq;
        }
        for worker in channel.interest.workers() {
            outlet.send(worker, FromLog::Event(Arc::clone(&event)));
        }
        if event.attributes.is_some() {
            self.tell_producer(index, &event, outlet);
            self.merge_later(index, &event);
        }
        if self.presence.nodes.is_some() {
            self.hear(index, &event);
        }
        self.keep(index, event);
    }
}

pub(super) fn send_answer(answer: PendingAnswer, outlet: &mut impl Outlet) {
    let PendingAnswer { worker, ticket, outcome, unaccepted, .. } = answer;
    outlet.answer(worker, ticket, Answer::Published { outcome, unaccepted });
}
