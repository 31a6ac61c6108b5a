//! How the sequencer handles streams: it takes their parts in order, ends those whose producer is lost,
//! and tells a producer whose stream someone else has ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::event::{Event, Kind, Publication};
use super::message::{FromLog, Refusal, Share, StreamAt};
use super::publish::Accepted;
use super::sequencer::{Outlet, Sequencer};
use super::stream::{Due, STREAMS_SHARE, Verdict};
use crate::proto::attributes::Attributes;
use crate::proto::cursor::Cursor;
use crate::proto::stream::{End, Mark, OrElse, Part, STREAM_TYPE, control_data};

/// Pause before a stream is ended again after its end found a full lane.
const END_PAUSE: Duration = Duration::from_millis(20);

impl Publication {
    /// The event that opens a channel's stream, or ends it.
    pub fn control(channel: Box<str>, mark: Mark, tokens: u64) -> Self {
        Self {
            channel,
            kind: Kind::Json,
            data: control_data(&mark.id, mark.part, tokens).into(),
            event_type: Some(STREAM_TYPE.into()),
            key: None,
            attributes: Attributes::of_stream(mark),
        }
    }

    /// Its part in the channel's stream, if it has one.
    pub fn mark(&self) -> Option<&Mark> {
        self.attributes.as_ref()?.stream.as_ref()
    }
}

impl Event {
    /// Its part in the channel's stream, if it has one.
    pub fn mark(&self) -> Option<&Mark> {
        self.attributes.as_ref()?.stream.as_ref()
    }
}

impl Sequencer {
    // --- parts of streams ---

    /// Whether a part of a stream may be ordered. Returns the answer for a part that need not be.
    pub(super) fn admit_part(
        &mut self,
        found: Option<u32>,
        mark: &Mark,
        worker: Option<u16>,
    ) -> Result<Option<Accepted>, Refusal> {
        match self.streams.judge(found, mark) {
            Verdict::Order => Ok(None),
            Verdict::Refuse(refusal) => Err(refusal),
            Verdict::TakeOver => {
                let Some((channel, worker)) = found.zip(worker) else { return Ok(None) };
                self.streams.take_over(channel);
                self.streams.set_producer(channel, worker);
                let of = self.channels.at(channel);
                let (seq, subscribers) = (of.last_seq, of.subscribers());
                Ok(Some(Accepted { seq, channel, subscribers, elsewhere: None }))
            }
        }
    }

    /// Gives a part its number, and the name of its channel's stream if the publisher left it out.
    pub(super) fn number_part(&self, channel: u32, publication: &mut Publication) {
        let mark = publication.attributes.as_mut().and_then(|of| of.stream.as_mut());
        let Some(mark) = mark else { return };
        mark.at = if mark.part == Part::Open { 0 } else { self.streams.number(channel) };
        if let Some(id) = self.streams.id(channel).filter(|_| mark.part != Part::Open) {
            mark.id = id.clone();
        }
        if mark.part != Part::Token {
            publication.data = Bytes::from(control_data(&mark.id, mark.part, mark.at));
        }
    }

    /// An event has its place.
    pub(super) fn note_part(&mut self, channel: u32, event: &Event, worker: Option<u16>) {
        if event.attributes.is_some() {
            let keep_until = self.now.saturating_add(self.settings.streams.keep);
            self.streams.ordered(channel, event, worker, keep_until);
            if let Some(Part::End(end)) = event.mark().map(|mark| mark.part) {
                self.counters.streams_ended[end.index()] += 1;
            }
        }
    }

    /// The end of a stream is shown. Its producer is told, unless it ended the stream itself.
    pub(super) fn tell_producer(&mut self, channel: u32, event: &Event, outlet: &mut impl Outlet) {
        let end = match event.mark().map(|mark| mark.part) {
            Some(Part::End(end)) => end,
            Some(Part::Open | Part::Token) | None => return,
        };
        let Some(worker) = self.streams.take_producer(channel) else { return };
        if matches!(end, End::Cancelled | End::Lost)
            && let Some(at) = self.streams.at(channel)
        {
            let name = event.channel.clone();
            outlet.send(worker, FromLog::StreamEnded { channel: name, at });
        }
    }

    /// The state of a channel's stream.
    pub(super) fn stream_at(&self, channel: &str) -> Option<StreamAt> {
        let index = self.channels.find(self.hasher.channel(channel), channel)?;
        self.streams.at(index)
    }

    /// A producer's connection is gone.
    pub(super) fn stream_lost(&mut self, channel: &str, id: &str, attempt: u64) {
        if attempt == 0 && self.sent.lose_opener(channel, id) {
            return; // It is still on its way.
        }
        let own = self.own_node();
        if let Some(index) = self.channels.find(self.hasher.channel(channel), channel) {
            let until = self.now + self.settings.streams.grace;
            self.streams.lose(index, (id, attempt), own, until);
        }
    }

    /// Ends streams whose producer has not come back, and forgets those that were kept long enough.
    /// Returns when there is more to do.
    pub(super) fn tend_streams(&mut self, outlet: &mut impl Outlet) -> Option<Duration> {
        if self.streams.is_empty() {
            return None;
        }
        while let Some((channel, due)) = self.streams.take_due(self.now) {
            match due {
                Due::Forgotten => self.free_if_idle(channel),
                Due::Lost(mark) => self.end_lost(channel, mark, outlet),
            }
        }
        self.streams.due_at()
    }

    fn end_lost(&mut self, channel: u32, mark: Mark, outlet: &mut impl Outlet) {
        let name: Box<str> = self.channels.at(channel).name[..].into();
        let end = Publication::control(name, mark, self.streams.number(channel));
        if self.store.is_elsewhere() {
            return self.send_end(channel, end);
        }
        if self.publish(end, Share::Whole, None, outlet).is_err() {
            self.streams.put_off(channel, self.now + END_PAUSE);
        }
    }

    // --- what is kept of them ---

    /// Up to where a channel has lost events.
    pub(super) fn lost_to(&self, channel: u32) -> u64 {
        self.streams.lost_to(channel, self.channels.at(channel).evicted_to)
    }

    /// History drops an event.
    pub(super) fn keep_of_stream(&mut self, channel: u32, event: &Arc<Event>) {
        if self.streams.is_empty() {
            return;
        }
        let policy = self.channels.at(channel).policy;
        let bytes_max = self.settings.policies.at(policy).stream_bytes;
        let all_max = self.settings.history_bytes_max / STREAMS_SHARE;
        self.counters.cut_of_streams += self.streams.keep(channel, event, bytes_max, all_max);
    }

    // --- who reads them ---

    /// The cursor in a channel for what a reader asked for.
    pub(super) fn resolve(&self, channel: Option<u32>, cursor: Cursor) -> Result<Cursor, Refusal> {
        let Cursor::Stream(from) = cursor else { return Ok(cursor) };
        let begin = channel.and_then(|channel| {
            let mut key = self.history.first(&self.channels.at(channel).chain);
            let newer = std::iter::from_fn(|| {
                let event = self.history.event(key?).clone();
                key = self.history.newer(key?);
                Some(event)
            });
            let after = self.streams.begin(channel, from.after, from.or_else, newer)?;
            Some((after, after < self.lost_to(channel)))
        });
        match (begin, from.or_else) {
            (None, OrElse::Now) => Ok(Cursor::Now),
            (None, OrElse::Refuse | OrElse::RefuseEnded) => Err(Refusal::NoStream),
            (Some((_, true)), OrElse::Refuse | OrElse::RefuseEnded) => Err(Refusal::StreamCut),
            (Some((after, _)), _) => Ok(Cursor::After(after)),
        }
    }
}
