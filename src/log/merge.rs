//! Merges the tokens of a stream that has ended into one event, if its channel's policy says so.
//! Otherwise each token would go on costing a hundred times its size; and a reader who comes late gets
//! the whole text at once. Some tokens are merged at a time, because nothing may hold the log for long.
//! A journal still has the single tokens, and readers that were there have read them.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::channel::Channel;
use super::event::{Attributes, Event, Kind};
use super::message::NO_PLACE;
use super::read::Place;
use super::sequencer::Sequencer;
use crate::proto::stream::merged::Merged;
use crate::proto::stream::{Mark, Part};

/// Events looked at in one call: some ten microseconds.
const LOOKED_AT: usize = 256;

impl Event {
    /// Where its tokens were, if it is several merged into one.
    pub fn merged(&self) -> Option<&Merged> {
        self.attributes.as_ref()?.merged.as_ref()
    }

    /// Its place in the log, or that of its first token.
    pub fn first_seq(&self) -> u64 {
        self.merged().map_or(self.seq, Merged::first_seq)
    }

    /// The place in the log of a token, given by its number in the stream, if that is in this event.
    pub fn seq_of_token(&self, number: u64) -> Option<u64> {
        let mark = self.mark().filter(|mark| mark.part == Part::Token)?;
        let within = number.checked_sub(mark.at)?;
        match self.merged() {
            Some(merged) => merged.seq_of(within),
            None => (within == 0).then_some(self.seq),
        }
    }

    /// The part of it that is new to a reader that has read up to `after`: of merged tokens, those after
    /// it.
    pub fn behind(self: &Arc<Self>, after: u64) -> Arc<Self> {
        match self.merged() {
            Some(merged) if merged.first_seq() <= after => Arc::new(self.without(merged, after)),
            _ => Arc::clone(self),
        }
    }

    fn without(&self, merged: &Merged, after: u64) -> Self {
        let (count, bytes) = merged.read_by(after);
        let rest = Merged::new(merged.tokens().skip(count));
        let mut attributes = self.attributes.clone().unwrap_or_default();
        if let Some(mark) = &mut attributes.stream {
            mark.at += count as u64;
        }
        attributes.merged = rest;
        self.with(self.data.slice(bytes..), *attributes)
    }

    fn with(&self, data: Bytes, attributes: Attributes) -> Self {
        Self {
            seq: self.seq,
            channel: Arc::clone(&self.channel),
            channel_hash: self.channel_hash,
            kind: self.kind,
            data,
            event_type: self.event_type.clone(),
            key: None,
            attributes: attributes.boxed(),
            ordered_ns: self.ordered_ns,
        }
    }

    /// Whether both are text of one stream and may be merged.
    fn goes_with(&self, next: &Self) -> bool {
        let facts = |of: &Self| {
            let attributes = of.attributes.as_deref();
            attributes
                .map(|of| (of.publisher.clone(), of.stream.as_ref().map(|mark| mark.id.clone())))
        };
        self.event_type == next.event_type && facts(self) == facts(next)
    }

    fn is_text_token(&self) -> bool {
        self.kind == Kind::Text && self.mark().is_some_and(|mark| mark.part == Part::Token)
    }
}

/// Tokens as one event, which takes the place of the last one.
fn merge(tokens: &[Arc<Event>]) -> Option<Event> {
    let (first, last) = (tokens.first()?, tokens.last()?);
    let places = tokens.iter().flat_map(|event| {
        let alone = event.merged().is_none().then_some((event.seq, event.data.len()));
        alone.into_iter().chain(event.merged().into_iter().flat_map(Merged::tokens))
    });
    let merged = Merged::new(places)?;
    let mut data = BytesMut::with_capacity(tokens.iter().map(|event| event.data.len()).sum());
    tokens.iter().for_each(|event| data.extend_from_slice(&event.data));
    let stream = first.mark().map(|mark| Mark { id: mark.id.clone(), ..*mark });
    let publisher = first.attributes.as_ref().and_then(|of| of.publisher.clone());
    let attributes =
        Attributes { publisher, stream, merged: Some(merged), ..Attributes::default() };
    Some(last.with(data.freeze(), attributes))
}

impl Sequencer {
    /// The end of a stream is shown.
    pub(super) fn merge_later(&mut self, channel: u32, event: &Event) {
        let policy = self.settings.policies.at(self.channels.at(channel).policy);
        let is_end = event.mark().is_some_and(|mark| matches!(mark.part, Part::End(_)));
        if is_end && policy.stream_compact > 0 {
            self.streams.merge_later(channel);
        }
    }

    /// Whether there is something to merge.
    #[cfg(test)]
    pub(super) fn merges(&mut self) -> bool {
        self.streams.next_to_merge().is_some()
    }

    /// Merges some tokens of streams that have ended. Returns whether there was something to do.
    pub(super) fn merge_some(&mut self) -> bool {
        let Some((channel, from)) = self.streams.next_to_merge() else { return false };
        let places = self.places_of_stream(channel, from);
        let run = self.first_run(channel, &places);
        let seq_at = |place: usize| places.get(place).map(|place| self.event_at(*place).seq);
        let behind = seq_at(run.end);
        // A run that ends where this call stopped looking may go on after that.
        let goes_on = places.len() >= LOOKED_AT;
        let last = seq_at(places.len().wrapping_sub(1)).filter(|_| goes_on);
        let is_merged = run.len() > 1 && self.merge_run(channel, &places[run.clone()]);
        let is_open = run.end == places.len() && (is_merged || run.len() == 1);
        let next = behind.or(last.map(|last| if is_open { last } else { last + 1 }));
        self.streams.merge_from(channel, next);
        if is_merged {
            // Events that were kept beside history may be in it now.
            self.trim_to_bytes();
        }
        true
    }

    /// Where the stream's events are in memory, from this one on, up to [`LOOKED_AT`].
    fn places_of_stream(&self, channel: u32, from: u64) -> Vec<Place> {
        let Some(last) = self.streams.last_seq(channel) else { return Vec::new() };
        let after = from.saturating_sub(1);
        let kept = self.streams.first_kept_after(channel, after);
        // Events that only the store has lie between those kept and those in memory.
        let kept = kept.filter(|_| self.history.runs().first(channel).is_none());
        let chain = &self.channels.at(channel).chain;
        let in_history = || self.history.first_after(chain, channel, after, NO_PLACE);
        let mut next = kept
            .map(|at| Place::OfStream(channel, at))
            .or_else(|| in_history().map(Place::History));
        let mut places = Vec::new();
        while let Some(place) = next.filter(|place| self.event_at(*place).seq <= last)
            && places.len() < LOOKED_AT
        {
            places.push(place);
            next = self.newer(place);
        }
        places
    }

    /// The first of these events that can be merged, without another between them.
    fn first_run(&self, channel: u32, places: &[Place]) -> Range<usize> {
        let policy = self.settings.policies.at(self.channels.at(channel).policy);
        let mut events = places.iter().map(|place| self.event_at(*place));
        let Some(start) = events.position(|event| event.is_text_token()) else {
            return places.len()..places.len();
        };
        let first = self.event_at(places[start]);
        let mut bytes = first.data.len() as u64;
        let fits = |event: &&Arc<Event>| {
            bytes += event.data.len() as u64;
            event.is_text_token() && first.goes_with(event) && bytes <= policy.stream_compact
        };
        start..start + 1 + events.take_while(fits).count()
    }

    /// Replaces these events by one. Returns whether that was possible.
    fn merge_run(&mut self, channel: u32, places: &[Place]) -> bool {
        let events: Vec<_> = places.iter().map(|place| self.event_at(*place).clone()).collect();
        let Some(merged) = merge(&events).map(Arc::new) else { return false };
        let Some((last, others)) = places.split_last() else { return false };
        let Channel { chain, policy, .. } = self.channels.at_mut(channel);
        match *last {
            Place::History(key) => self.history.replace(key, merged, *policy),
            Place::OfStream(_, at) => self.streams.replace_kept(channel, at, merged),
        }
        let mut of_stream = 0;
        for place in others {
            match *place {
                Place::History(key) => drop(self.history.lose(key, chain, *policy)),
                Place::OfStream(..) => of_stream += 1,
            }
        }
        if let Some(&Place::OfStream(_, first)) = others.first() {
            self.streams.drop_kept(channel, first, of_stream);
        }
        true
    }
}
