//! Receiving: connections that are heard often have a multishot receive armed, the others a poll.
//!
//! A multishot receive needs nothing from us, but while it waits it holds 868 B of the kernel's
//! memory (Linux 6.18); a poll holds 256 B, and when it fires, a receive takes the bytes in the
//! same turn. So a connection begins with a receive and a poll, and gets a multishot receive if it
//! is heard again while few others are. Their number is bounded; the connection that has had one
//! longest gives it up.

use std::collections::VecDeque;
use std::io;

use io_uring::types::Fixed;
use io_uring::{cqueue, opcode, squeue};

use super::reap::{Rearm, State};
use super::slots::InFlight;
use super::{UringDriver, buffers, cancel};
use crate::ring::{BufferId, Completion, RecvEnd, Token, Wait};

/// What a poll waits for.
const BYTES_OR_END: u32 = (libc::POLLIN | libc::POLLRDHUP) as u32;

/// The connections that have a multishot receive.
pub(super) struct Multishots {
    max: u16,
    /// In the order in which they got it. Some may have lost it since.
    holders: VecDeque<Token>,
    /// Counts what polls and first receives found; it wraps.
    heard: u16,
}

impl Multishots {
    pub(super) fn new(max: u16) -> Self {
        Self { max, holders: VecDeque::with_capacity(max.into()), heard: 0 }
    }

    /// Gives one to the token. Returns the token it was taken from, if none was left.
    fn pass_to(&mut self, token: Token) -> Option<Token> {
        let are_all_held = self.holders.len() == usize::from(self.max);
        let former = if are_all_held { self.holders.pop_front() } else { None };
        self.holders.push_back(token);
        former
    }
}

impl UringDriver {
    /// Begins with a receive: a first request is nearly always there already.
    pub(super) fn start_receiving(
        &mut self,
        token: Token,
        out: &mut Vec<Completion>,
    ) -> io::Result<()> {
        self.state.slots.adopt(token);
        let was = self.state.slots.set_receiving(token.slot, true);
        assert!(!was, "{token:?} is armed already");
        self.state.is_heard_often(token);
        self.queue_recv(token, out)
    }

    pub(super) fn stop_receiving(
        &mut self,
        token: Token,
        out: &mut Vec<Completion>,
    ) -> io::Result<()> {
        self.state.slots.adopt(token);
        self.state.slots.end_refresh(token.slot);
        if !self.state.slots.set_receiving(token.slot, false) {
            return Ok(());
        }
        if self.state.slots.is_in_flight(token.slot, InFlight::Recv) {
            // It may still bring bytes, and then reports the end itself.
            return self.push(&cancel(InFlight::Recv.user_data(token)), out);
        }
        out.push(Completion::RecvEnded { token, why: RecvEnd::Disarmed });
        self.state.slots.finish(token.slot, InFlight::PollIn);
        self.push(&cancel(InFlight::PollIn.user_data(token)), out)
    }

    /// A poll reported that there is something to receive.
    pub(super) fn receive(&mut self, token: Token, out: &mut Vec<Completion>) -> io::Result<()> {
        if !self.state.may_arm(token) {
            return Ok(());
        }
        self.has_receives = true;
        if self.state.is_heard_often(token) {
            self.queue_multishot(token, out)
        } else {
            self.queue_recv(token, out)
        }
    }

    /// Queues a receive that completes as soon as it is submitted.
    fn queue_recv(&mut self, token: Token, out: &mut Vec<Completion>) -> io::Result<()> {
        self.state.slots.begin(token.slot, InFlight::Recv);
        // The kernel chooses the buffer and fills it.
        let entry = opcode::Recv::new(Fixed(token.slot), std::ptr::null_mut(), 0)
            .buf_group(buffers::GROUP)
            .flags(libc::MSG_DONTWAIT)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(&entry.user_data(InFlight::Recv.user_data(token)), out)
    }

    fn queue_multishot(&mut self, token: Token, out: &mut Vec<Completion>) -> io::Result<()> {
        if let Some(former) = self.state.multishots.pass_to(token)
            && self.state.slots.is_current(former)
            && self.state.slots.is_in_flight(former.slot, InFlight::Recv)
        {
            self.wait_by_poll(former.slot, out)?;
        }
        self.state.slots.begin(token.slot, InFlight::Recv);
        let entry = opcode::RecvMulti::new(Fixed(token.slot), buffers::GROUP).build();
        self.push(&entry.user_data(InFlight::Recv.user_data(token)), out)
    }

    /// Cancels the armed receive; the poll is armed once that has ended.
    pub(super) fn wait_by_poll(&mut self, slot: u32, out: &mut Vec<Completion>) -> io::Result<()> {
        match self.state.slots.begin_refresh(slot) {
            Some((token, what)) => self.push(&cancel(what.user_data(token)), out),
            None => Ok(()),
        }
    }

    pub(super) fn watch(&mut self, token: Token, out: &mut Vec<Completion>) -> io::Result<()> {
        if !self.state.may_arm(token) {
            return Ok(());
        }
        self.state.slots.begin(token.slot, InFlight::PollIn);
        let entry = opcode::PollAdd::new(Fixed(token.slot), BYTES_OR_END).build();
        self.push(&entry.user_data(InFlight::PollIn.user_data(token)), out)
    }

    /// Makes the receives that polls called for. What those call for can wait for the next turn.
    pub(super) fn receive_now(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        if !self.has_receives {
            return Ok(());
        }
        self.ring.enter(Wait::No)?;
        self.reap(out)?;
        self.rearm(out)
    }
}

impl State {
    fn may_arm(&self, token: Token) -> bool {
        self.slots.is_current(token)
            && self.slots.is_receiving(token.slot)
            && !self.slots.is_in_flight(token.slot, InFlight::Recv)
            && !self.slots.is_in_flight(token.slot, InFlight::PollIn)
    }

    /// Notes that the token is heard. Returns whether it was among the last that were.
    fn is_heard_often(&mut self, token: Token) -> bool {
        let Multishots { heard, max, .. } = &mut self.multishots;
        *heard = heard.wrapping_add(1);
        heard.wrapping_sub(self.slots.note_heard(token.slot, *heard)) <= *max
    }

    pub(super) fn poll_in_completed(&mut self, token: Token, result: i32) {
        if !self.slots.is_current(token) {
            self.stats.stale += 1;
            return;
        }
        if result != -libc::ECANCELED {
            self.slots.end_refresh(token.slot);
            self.slots.finish(token.slot, InFlight::PollIn);
            self.rearms.push(Rearm::Recv(token));
        } else if self.slots.end_refresh(token.slot) {
            self.slots.finish(token.slot, InFlight::PollIn);
            self.rearms.push(Rearm::PollIn(token));
        }
        // Otherwise it was stopped, and another may be armed by now.
    }

    pub(super) fn recv_completed(
        &mut self,
        token: Token,
        result: i32,
        flags: u32,
        out: &mut Vec<Completion>,
    ) {
        let buffer = cqueue::buffer_select(flags).map(BufferId);
        if !self.slots.is_current(token) {
            self.stats.stale += 1;
            if let Some(buffer) = buffer {
                self.buffers.put_back(buffer);
            }
            return;
        }
        match buffer {
            Some(buffer) if result > 0 => {
                self.buffers.lend(buffer, result as u32);
                out.push(Completion::Received { token, buffer });
            }
            Some(buffer) => self.buffers.put_back(buffer),
            None => {}
        }
        if !cqueue::more(flags) {
            self.recv_ended(token, result, out);
        }
    }

    /// The receive is no longer armed; the poll takes its place, unless receiving has ended.
    fn recv_ended(&mut self, token: Token, result: i32, out: &mut Vec<Completion>) {
        self.slots.end_refresh(token.slot);
        self.slots.finish(token.slot, InFlight::Recv);
        let why = match -result {
            0 => RecvEnd::Eof,
            libc::ENOBUFS => RecvEnd::NoBuffers,
            errno if errno > 0 && errno != libc::EAGAIN && errno != libc::ECANCELED => {
                RecvEnd::Failed(errno)
            }
            _ if self.slots.is_receiving(token.slot) => {
                self.rearms.push(Rearm::PollIn(token));
                return;
            }
            _ => RecvEnd::Disarmed,
        };
        self.stats.no_buffers += u64::from(why == RecvEnd::NoBuffers);
        self.slots.set_receiving(token.slot, false);
        out.push(Completion::RecvEnded { token, why });
    }
}
