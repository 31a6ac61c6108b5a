//! Ordering one publication: all checks come first, after which nothing can fail.

use std::sync::Arc;
use std::time::Duration;

use super::event::{Event, Publication, is_kept};
use super::history::publication_bytes;
use super::message::{Fed, Refusal, Share};
use super::policy::Keeps;
use super::sequencer::{Outlet, Sequencer};
use crate::bucket::Bucket;

/// A publication's place in the log, and who was there.
#[derive(Debug)]
pub(super) struct Accepted {
    pub seq: u64,
    /// Index of its channel.
    pub channel: u32,
    pub subscribers: u32,
    /// Those of other nodes, if they were counted.
    pub elsewhere: Option<u32>,
}

/// What the checks found.
pub(super) struct Admission {
    /// The channel, if it exists.
    pub found: Option<u32>,
    hash: u64,
    /// The state of the channel's publish rate after this event.
    pub rate: Bucket,
}

impl Sequencer {
    /// Takes an event that has its place already. If workers have no room for it, it and all that are
    /// fed after it wait until they have.
    pub(super) fn follow(&mut self, fed: Fed, outlet: &mut impl Outlet) {
        let Fed { seq, mut publication, ordered_at } = fed;
        if !self.order.follow(seq) {
            return;
        }
        let hash = self.hasher.channel(&publication.channel);
        let mut found = self.channels.find(hash, &publication.channel);
        let origin = publication.attributes.as_mut().and_then(|of| of.origin.take());
        if let Some(origin) = &origin
            && !self.admit_arrived(&mut found, seq, &mut publication, origin, outlet)
        {
            return;
        }
        let index = found.unwrap_or_else(|| self.create_in_room(hash, &publication.channel));
        let part = publication.mark().map(|mark| mark.part);
        let event = self.event_of(index, seq, ordered_at, publication);
        self.note_part(index, &event, None);
        self.show_in_room(index, event, outlet);
        if let Some((part, origin)) = part.zip(origin) {
            self.settle_part(index, seq, part, &origin, outlet);
        }
    }

    /// Shows an event that is committed, once there is room for it and for those before it.
    fn show_in_room(&mut self, index: u32, event: Arc<Event>, outlet: &mut impl Outlet) {
        let has_room = |worker| outlet.has_room(worker, Share::Whole, 0);
        let producer = self.streams.producer(index);
        let channel = self.channels.at_mut(index);
        let has_room = channel.interest.workers().chain(producer).all(has_room);
        if self.pending.is_empty() && has_room {
            return self.show(index, event, outlet);
        }
        channel.pending += 1;
        let seq = event.seq;
        self.pending.push_event(event, index, channel.interest.workers().chain(producer));
        self.pending.commit(seq);
    }

    /// Creates a channel that another node has created. If there are as many as allowed, those with the
    /// oldest events go first.
    pub(super) fn create_in_room(&mut self, hash: u64, name: &str) -> u32 {
        while self.channels.len() >= self.settings.channels_max && self.lose_oldest_of_all() {}
        self.create(hash, name)
    }

    fn event_of(
        &self,
        index: u32,
        seq: u64,
        ordered_at: Duration,
        publication: Publication,
    ) -> Arc<Event> {
        let channel = self.channels.at(index);
        Arc::new(Event::new(seq, channel.name.clone(), channel.hash, ordered_at, publication))
    }

    /// Orders one publication and routes it, or hands it back leaving no trace. `worker`: the one
    /// its publisher is connected to.
    pub(super) fn publish(
        &mut self,
        publication: Publication,
        share: Share,
        worker: Option<u16>,
        outlet: &mut impl Outlet,
    ) -> Result<Accepted, (Refusal, Publication)> {
        if !self.store_is_up {
            return Err((Refusal::Store, publication));
        }
        let hash = self.hasher.channel(&publication.channel);
        let found = self.channels.find(hash, &publication.channel);
        if let Some(accepted) = self.repeated(found, hash, &publication) {
            self.counters.repeated += 1;
            return Ok(accepted);
        }
        if let Some(mark) = publication.mark() {
            match self.admit_part(found, mark, worker) {
                Ok(None) => {}
                Ok(Some(accepted)) => return Ok(accepted),
                Err(refusal) => return Err((refusal, publication)),
            }
        }
        match self.admit(found, hash, &publication, share, outlet) {
            Ok(admission) => Ok(self.assign(admission, publication, worker, outlet)),
            Err(refusal) => Err((refusal, publication)),
        }
    }

    /// The answer if the idempotency key is already in the channel's history, or will be once what
    /// is ordered is committed.
    pub(super) fn repeated(
        &self,
        found: Option<u32>,
        hash: u64,
        again: &Publication,
    ) -> Option<Accepted> {
        let (index, key) = (found?, again.key.as_deref()?);
        let kept = self.history.seq_by_key(index, hash, key);
        let seq = kept.or_else(|| self.pending.seq_by_key(hash, key))?;
        let subscribers = self.channels.at(index).subscribers();
        Some(Accepted { seq, channel: index, subscribers, elsewhere: None })
    }

    pub(super) fn admit(
        &mut self,
        found: Option<u32>,
        hash: u64,
        publication: &Publication,
        share: Share,
        outlet: &impl Outlet,
    ) -> Result<Admission, Refusal> {
        if self.pending.is_full() {
            return Err(Refusal::Busy);
        }
        let has_room = |worker| outlet.has_room(worker, share, self.pending.reserved_for(worker));
        let (policy, rate) = match found.map(|index| self.channels.at(index)) {
            Some(channel) => {
                let producer = found.and_then(|index| self.streams.producer(index));
                if !channel.interest.workers().chain(producer).all(has_room) {
                    return Err(Refusal::Busy);
                }
                (self.settings.policies.at(channel.policy), channel.rate)
            }
            None => {
                let stone = self.tombstones.find(hash);
                let policy = self.settings.policies.of(&publication.channel);
                (policy, stone.map_or(Bucket::default(), |stone| stone.rate))
            }
        };
        let rate = policy.admit(rate, self.now).ok_or(Refusal::Rate)?;
        let kept = policy.events_max() > 0 && is_kept(publication.attributes.as_deref());
        if kept && publication_bytes(publication) > self.settings.history_bytes_max {
            return Err(Refusal::Memory);
        }
        if found.is_none() && self.channels.len() >= self.settings.channels_max {
            self.expire(self.now);
            if self.channels.len() >= self.settings.channels_max {
                return Err(Refusal::Channels);
            }
        }
        Ok(Admission { found, hash, rate })
    }

    fn assign(
        &mut self,
        admission: Admission,
        mut publication: Publication,
        worker: Option<u16>,
        outlet: &mut impl Outlet,
    ) -> Accepted {
        let Admission { found, hash, rate } = admission;
        let index = found.unwrap_or_else(|| self.create(hash, &publication.channel));
        let (seq, now) = (self.order.assign(), self.now);
        self.channels.at_mut(index).rate = rate;
        let subscribers = self.channels.at(index).subscribers();
        self.number_part(index, &mut publication);
        let event = self.event_of(index, seq, now, publication);
        self.note_part(index, &event, worker);
        self.append(index, event, outlet);
        Accepted { seq, channel: index, subscribers, elsewhere: None }
    }

    /// Puts an event into history, within its bounds.
    pub(super) fn keep(&mut self, index: u32, event: Arc<Event>) {
        if !event.is_kept() {
            return self.free_if_idle(index);
        }
        let channel = self.channels.at_mut(index);
        if self.settings.policies.at(channel.policy).events_max() == 0 {
            channel.evicted_to = event.seq;
            self.counters.evicted_by_count += 1;
            self.keep_of_stream(index, &event);
            self.free_if_idle(index);
            return;
        }
        if self.settings.policies.at(channel.policy).keeps == Keeps::Latest {
            // Not a loss: readers that have not seen it get the event that replaces it.
            self.history.make_way(&event, index, &mut channel.chain, channel.policy);
        }
        self.history.keep(event, index, &mut channel.chain, channel.policy);
        self.trim_to_count(index);
        self.trim_to_bytes();
    }
}
