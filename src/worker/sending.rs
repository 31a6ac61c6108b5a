//! What is sent to a connection in a turn, and how that is settled: its subscriber's events and its
//! own output, composed into one send.

use std::ops::Range;

use super::budget::{Budget, CHANNEL_NS, EVENT_NS, PAGE_NS, SEND_NS, STREAM_NS, copy_ns};
use super::effect::Ending;
use super::hub::{Beats, Extent, Wire};
use super::link::Pending;
use super::net::{Carrier, Draft, Net, Queue, Short};
use super::session;
use super::turn::Core;
use crate::limits::{
    CARRIERS_BYTES_PER_TURN, EXPLICIT_BYTES_PER_TURN, EXPLICIT_TIME_PER_TURN, FIRST_SEND_BYTES_MAX,
    PAGE_BYTES_MAX, REPLAY_TIME_PER_TURN,
};
use crate::log::message::Ask;
use crate::proto::dialect::Heartbeat;
use crate::proto::ws::close::CloseCode;
use crate::reason::CloseReason;
use crate::ring::{Completion, Token};

impl Wire for Net {
    fn arena(&mut self) -> &mut Vec<u8> {
        Net::arena(self)
    }

    fn arena_end(&self) -> u32 {
        Net::arena_end(self)
    }

    fn send_shared(&mut self, index: u32, bytes: Range<u32>) -> Option<u64> {
        let copy_ns = copy_ns(bytes.len());
        if self.is_stream(index) {
            let is_first = self.share_with_stream(index, bytes)?;
            return Some(if is_first { SEND_NS } else { 0 } + STREAM_NS + copy_ns);
        }
        Net::send_shared(self, index, bytes);
        Some(SEND_NS + copy_ns)
    }

    fn is_of(&self, index: u32, generation: u32) -> bool {
        self.is_current(Token { slot: index, generation })
    }

    fn wake(&mut self, index: u32) {
        Net::wake(self, index);
    }
}

impl Core {
    // --- connections with something to send ---

    /// Queues a connection that has, or may have, something to send. A live subscriber gets a
    /// cursor of its own for that, as it cannot have a second send in a batch.
    pub(super) fn queue(&mut self, index: u32) {
        self.hub.make_explicit(index);
        self.net.queue(index, Queue::First);
    }

    /// Queues a connection that can be sent more: its own output goes before others' replays, its
    /// events after others' output.
    pub(super) fn go_on(&mut self, index: u32) {
        let has_events = self.hub.has_rest(index) || self.hub.cursor_count(index) > 0;
        if has_events && self.net.out_len(index) == 0 {
            self.net.queue(index, Queue::Behind);
        } else {
            self.queue(index);
        }
    }

    /// Whether there is something to send other than events that have yet to be read from the log.
    pub(super) fn has_output(&self, index: u32) -> bool {
        self.net.out_len(index) > 0 || self.hub.has_rest(index)
    }

    // --- sending ---

    /// Composes sends: first for connections with output of their own or little to read, then for
    /// those that are further behind, and last for those that carry streams, once these have had
    /// their say. Each group has a budget, so that none waits for ever for another.
    pub(super) fn send_queued(&mut self) {
        let mut arena_max = self.net.arena_end() as usize + EXPLICIT_BYTES_PER_TURN;
        for (queue, time) in [
            (Queue::First, EXPLICIT_TIME_PER_TURN),
            (Queue::Behind, REPLAY_TIME_PER_TURN),
            (Queue::Carriers, EXPLICIT_TIME_PER_TURN),
        ] {
            let mut budget = Budget::new(time);
            if queue == Queue::Carriers {
                arena_max = self.net.arena_end() as usize + CARRIERS_BYTES_PER_TURN;
            }
            for _ in 0..self.net.queued(queue) {
                if budget.is_spent() || self.net.arena_end() as usize >= arena_max {
                    break;
                }
                if let Some(Some(index)) = self.net.next_queued(queue) {
                    self.send_to(index, queue, &mut budget);
                }
            }
        }
    }

    fn send_to(&mut self, index: u32, queue: Queue, budget: &mut Budget) {
        let bytes_max = match queue {
            Queue::First | Queue::Carriers => FIRST_SEND_BYTES_MAX,
            Queue::Behind => {
                self.ask_page_if_due(index, budget);
                self.net.replay_bytes_max(index)
            }
        };
        if self.hub.must_end_for_gap(index) {
            self.session(index, |cx| {
                session::ws_close(cx, CloseCode::GAP, "gap", CloseReason::Gap);
            });
        }
        if self.net.is_stream(index) {
            self.send_to_h2_stream(index, bytes_max, budget);
        } else if !self.compose(index, bytes_max, budget) {
            self.rest(index);
        }
    }

    /// Composes the connection's send; returns whether there was something to send.
    fn compose(&mut self, index: u32, bytes_max: usize, budget: &mut Budget) -> bool {
        let (draft, events, extent) = self.draft(index, bytes_max, budget);
        let length = self.net.finish_send(index, draft);
        if length == 0 {
            if events > 0 {
                self.skip_events(index);
            }
            return false;
        }
        budget.spend(SEND_NS + copy_ns(length) + events as u64 * EVENT_NS);
        if extent == Extent::Part || self.waits_for_output(index) {
            self.net.settle_soon();
        }
        true
    }

    /// Puts into the arena what the connection is to be sent next. Tells how many events that is,
    /// and whether it is all there is.
    pub(super) fn draft(
        &mut self,
        index: u32,
        bytes_max: usize,
        budget: &mut Budget,
    ) -> (Draft, usize, Extent) {
        let Self { net, hub, .. } = self;
        budget.spend(hub.cursor_count(index) as u64 * CHANNEL_NS);
        let mut draft = net.begin_send(bytes_max);
        let (events, extent) = match hub.write_rest(index, net.arena(), draft.until) {
            Extent::Part => {
                net.end_with_rest(&mut draft);
                (0, Extent::Part)
            }
            Extent::Whole => {
                net.add_own(index, &mut draft);
                let generation = net.token(index).generation;
                hub.write_events((index, generation), net.arena(), draft.until)
            }
        };
        (draft, events, extent)
    }

    /// Whether the connection does something as soon as its output is sent. For all others the next
    /// turn is early enough to learn that their sends were taken.
    fn waits_for_output(&self, index: u32) -> bool {
        self.net.ends_after_output(index)
            || self.sessions[index].carried() > 0
            || self.sessions[index].has_farewell()
            || self.net.carrier(index).is_some_and(Carrier::has_waiting)
    }

    /// Handles a connection with nothing to send: it asks for a page, or rests.
    pub(super) fn rest(&mut self, index: u32) {
        if self.hub.needs_page(index) {
            self.go_on(index);
        } else {
            self.relax(index);
        }
    }

    fn ask_page_if_due(&mut self, index: u32, budget: &mut Budget) {
        if !self.hub.needs_page(index) {
            return;
        }
        budget.spend(PAGE_NS + self.hub.cursor_count(index) as u64 * CHANNEL_NS);
        let (token, carrier) = (self.net.token(index), self.net.token(self.net.carrier_of(index)));
        let ticket = self.link.wait_for(Pending::Read { token, carrier });
        let ahead = self.net.carrier_mut(carrier.slot).map_or(0, Carrier::begin_paging);
        let channels = self.hub.begin_reading(index, ticket);
        self.link.ask(Ask::Read { ticket, channels, bytes_max: PAGE_BYTES_MAX }, ahead);
    }

    /// Sends a few bytes, so that proxies and peers know the server is there.
    pub(super) fn beat(&mut self, index: u32, form: Heartbeat, beats: &mut Beats) {
        // Nothing may follow its last output.
        if self.net.ends_after_output(index) {
            return;
        }
        self.metrics.heartbeats.add(1);
        if self.hub.is_live(index) {
            if !self.hub.beat(index, form, beats, &mut self.net) {
                // It is sent an event instead of a ping, so it owes no answer.
                self.sessions[index].heard();
            }
        } else if !self.net.is_blocked(index) {
            let dialect = self.sessions[index].dialect();
            self.net.write(index, |out| dialect.write_heartbeat(out, form));
            self.queue(index);
        }
    }

    // --- settling ---

    /// Settles the last batch's sends: first those the sockets did not take whole, then all others.
    /// Nothing else may have happened in between.
    pub(super) fn settle_sends(&mut self, completions: &[Completion]) {
        for completion in completions {
            match *completion {
                Completion::SendShort { token, taken } if self.net.is_current(token) => {
                    self.settle_short(token, taken);
                }
                Completion::SendFailed { token, .. } if self.net.is_current(token) => {
                    self.net.settle_failed(token);
                    self.end(token.slot, Ending::Now(CloseReason::PeerGone));
                }
                _ => {}
            }
        }
        let sends = self.net.take_sends();
        for sent in &sends {
            if let Some(taken) = self.net.settle_whole(sent) {
                self.hub.settle(sent.token.slot, taken.rest, taken.events);
                self.after_send(sent.token);
            }
        }
        self.hub.begin_batch();
        self.net.begin_batch(sends);
        self.end_those_that_have_read();
    }

    fn settle_short(&mut self, token: Token, taken: u32) {
        let index = token.slot;
        match self.net.settle_short(token, taken) {
            Short::Composed(taken, sent) => {
                if let Some(gap) = self.hub.settle(index, taken.rest, taken.events) {
                    self.net.keep(&sent, gap);
                }
            }
            Short::Shared => {
                let form = self.sessions[index].heartbeat();
                let untaken = self.hub.settle_shared(index, taken as usize, form);
                self.net.untaken(untaken.bytes);
                self.net.write(index, |out| out.extend_from_slice(&untaken.heartbeat));
            }
        }
        self.hub.end_reading(index);
    }

    /// Ends the readers of streams that were sent the end.
    pub(super) fn end_those_that_have_read(&mut self) {
        while let Some(index) = self.hub.next_ended() {
            if self.net.is_open(index) {
                self.end(index, Ending::AfterOutput(None));
            }
        }
    }

    /// Events this reader does not receive are behind it, although there was nothing to send.
    fn skip_events(&mut self, index: u32) {
        self.hub.settle(index, 0, 0);
        self.skipped(index);
    }

    /// The same once that is settled.
    pub(super) fn skipped(&mut self, index: u32) {
        self.end_those_that_have_read();
        if self.hub.is_behind(index) {
            self.go_on(index);
        }
    }

    /// All of the connection's send was taken: either it has more, or it can rest.
    pub(super) fn after_send(&mut self, token: Token) {
        let index = token.slot;
        self.net.release_next(index);
        if self.say_farewell_if_due(index) {
            return;
        }
        if self.sessions[index].carried() > 0 {
            self.sessions.read_on_later(token);
        }
        if self.has_output(index) || self.hub.is_behind(index) {
            self.go_on(index);
        } else {
            self.relax(index);
        }
    }

    /// Lets a connection rest: a subscriber of one channel that has caught up becomes live, and
    /// what only a busy connection needs goes back to the pools.
    fn relax(&mut self, index: u32) {
        if self.say_farewell_if_due(index) {
            return;
        }
        if self.net.out_len(index) == 0 && !self.sessions[index].has_farewell() {
            self.hub.make_live_if_caught_up(index);
        }
        if self.finish_if_done(index) {
            return;
        }
        self.net.h2_mut().note_rest(index);
        self.free_idle(index);
    }

    fn free_idle(&mut self, index: u32) {
        if self.net.is_sending(index) {
            return;
        }
        self.net.free_idle(index);
        self.hub.free_idle(index);
        // What it has published counts until it has read past it.
        if self.hub.cursor_count(index) == 0 {
            self.sessions.free_idle(index);
        }
    }

    /// Ends subscribers that were too slow for a channel that disconnects such readers.
    pub(super) fn disconnect_too_slow(&mut self) {
        while let Some(index) = self.hub.next_too_slow() {
            if self.net.is_open(index) && self.hub.cursor_count(index) > 0 {
                self.disconnect(index, CloseReason::SlowConsumer);
            }
        }
    }
}
