//! What a connection's bytes mean to its subscribers: what is counted, and what the server is told.

use super::connection::pong;
use super::http2;
use super::messages::{ClientTask, Progress};
use super::monotonic_ns;
use super::stream::{Fault, Item};
use super::subscriber::{State, Subscriber};
use super::tally::Tally;
use crate::proto::h2::frame::{self, Frame};

/// What came on one connection at one time.
pub(super) struct Reading<'c> {
    task: &'c ClientTask,
    /// Index of the connection's first subscriber in its process.
    first: usize,
    now_ns: u64,
    tally: &'c mut Tally,
    progress: &'c mut Progress,
    /// What the server is to be sent.
    pub answers: Vec<u8>,
    /// How many subscribers it has accepted.
    pub accepted: u64,
    /// Streams that are over, the connection going on: how each ended, and why.
    pub over: Vec<(State, Fault)>,
}

impl<'c> Reading<'c> {
    /// Of a connection whose first subscriber has this index.
    pub fn new(
        task: &'c ClientTask,
        first: usize,
        tally: &'c mut Tally,
        progress: &'c mut Progress,
    ) -> Self {
        let (answers, over) = (Vec::new(), Vec::new());
        Self { task, first, now_ns: monotonic_ns(), tally, progress, answers, accepted: 0, over }
    }

    /// Reads on for the connection's subscriber with this number.
    pub fn feed(
        &mut self,
        number: usize,
        subscriber: &mut Subscriber,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        let channel = self.task.channel(self.first + number);
        let Self { task, now_ns, tally, progress, answers, accepted, .. } = self;
        let Subscriber { sequence, stream, state, is_beating } = subscriber;
        let mut beat = || {
            progress.heartbeats += 1;
            progress.beating += u64::from(!*is_beating);
            *is_beating = true;
        };
        stream.feed(task.transport, bytes, &mut |item| match item {
            Item::Subscribed => {
                *state = State::Subscribed;
                *accepted += 1;
            }
            Item::Data(data) => tally.record(channel, sequence, data, *now_ns),
            Item::Comment => beat(),
            Item::Ping(data) => {
                answers.extend(pong(data));
                beat();
            }
        })
    }

    /// Takes a frame of HTTP/2 for one of the connection's subscribers, or for all.
    pub fn frame(
        &mut self,
        subscribers: &mut [Subscriber],
        frame: &Frame<'_>,
    ) -> Result<(), Fault> {
        match *frame {
            Frame::Headers { stream, fragment, ends, ends_block: true } => {
                self.on_stream(subscribers, stream, &http2::head(fragment)?, ends);
            }
            // No answer that is expected here has a head of 16 KiB.
            Frame::Headers { .. } | Frame::Continuation { .. } => return Err(Fault::TooLong),
            Frame::Data { stream, payload, ends, .. } => {
                self.on_stream(subscribers, stream, payload, ends);
            }
            Frame::Reset { stream } => {
                if let Some(subscriber) = subscribers.get_mut(http2::number_of(stream)) {
                    self.end(subscriber, Fault::Reset);
                }
            }
            Frame::Settings(_) => frame::write_settings_ack(&mut self.answers),
            Frame::Ping(payload) => frame::write_ping_ack(&mut self.answers, &payload),
            Frame::SettingsAck
            | Frame::PingAck
            | Frame::GoAway
            | Frame::WindowUpdate { .. }
            | Frame::Ignored { .. } => {}
        }
        Ok(())
    }

    fn on_stream(&mut self, subscribers: &mut [Subscriber], stream: u32, bytes: &[u8], ends: bool) {
        let number = http2::number_of(stream);
        let Some(subscriber) = subscribers.get_mut(number).filter(|one| one.is_open()) else {
            return;
        };
        if let Err(fault) = self.feed(number, subscriber, bytes) {
            self.end(subscriber, fault);
        } else if ends {
            self.end(subscriber, Fault::End);
        }
    }

    fn end(&mut self, subscriber: &mut Subscriber, fault: Fault) {
        self.over.extend(subscriber.end().map(|how| (how, fault)));
    }
}
