//! Ordering one publication: all checks first, then nothing can fail.

use std::sync::Arc;

use super::event::{Event, Publication};
use super::history::event_bytes;
use super::message::{Notice, Refusal, Share};
use super::sequencer::{Outlet, Sequencer};
use crate::bucket::Bucket;

/// A publication's place in the log, and who was there.
#[derive(Debug)]
pub(super) struct Accepted {
    pub seq: u64,
    pub subscribers: u32,
}

/// What the checks found out.
struct Admission {
    /// The channel, if it exists.
    found: Option<u32>,
    hash: u64,
    /// The channel's publish rate from now on.
    rate: Bucket,
}

impl Sequencer {
    /// Orders one publication and routes it, or hands it back and leaves no trace.
    pub(super) fn publish(
        &mut self,
        publication: Publication,
        share: Share,
        outlet: &mut impl Outlet,
    ) -> Result<Accepted, (Refusal, Publication)> {
        let hash = self.hasher.channel(&publication.channel);
        let found = self.channels.find(hash, &publication.channel);
        if let Some(accepted) = self.repeated(found, hash, &publication) {
            self.counters.repeated += 1;
            return Ok(accepted);
        }
        match self.admit(found, hash, &publication, |worker| outlet.has_room(worker, share)) {
            Ok(admission) => Ok(self.order(admission, publication, outlet)),
            Err(refusal) => Err((refusal, publication)),
        }
    }

    /// The answer to an idempotency key the channel's history holds already.
    fn repeated(&self, found: Option<u32>, hash: u64, again: &Publication) -> Option<Accepted> {
        let (index, key) = (found?, again.key.as_deref()?);
        let seq = self.history.seq_by_key(index, hash, key)?;
        Some(Accepted { seq, subscribers: self.channels.at(index).subscribers() })
    }

    fn admit(
        &mut self,
        found: Option<u32>,
        hash: u64,
        publication: &Publication,
        has_room: impl Fn(u16) -> bool,
    ) -> Result<Admission, Refusal> {
        let (policy, rate) = match found.map(|index| self.channels.at(index)) {
            Some(channel) => {
                if !channel.interest.workers().all(has_room) {
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
        let kept = policy.events_max() > 0;
        let Publication { channel, data, event_type, key, .. } = publication;
        let bytes = event_bytes(channel, data, event_type.as_deref(), key.as_deref());
        if kept && bytes > self.settings.history_bytes_max {
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

    fn order(
        &mut self,
        admission: Admission,
        publication: Publication,
        outlet: &mut impl Outlet,
    ) -> Accepted {
        let Admission { found, hash, rate } = admission;
        let index = found.unwrap_or_else(|| self.create(hash, &publication.channel));
        self.head_seq += 1;
        self.counters.published += 1;
        let channel = self.channels.at_mut(index);
        channel.last_seq = self.head_seq;
        channel.rate = rate;
        let event = Arc::new(Event {
            seq: self.head_seq,
            channel: channel.name.clone(),
            channel_hash: hash,
            kind: publication.kind,
            data: publication.data,
            event_type: publication.event_type,
            key: publication.key,
            ordered_at: self.now,
        });
        for worker in channel.interest.workers() {
            outlet.send(worker, Notice::Event(Arc::clone(&event)));
        }
        let subscribers = channel.subscribers();
        self.keep(index, event);
        Accepted { seq: self.head_seq, subscribers }
    }

    /// Into history, within its bounds.
    fn keep(&mut self, index: u32, event: Arc<Event>) {
        let channel = self.channels.at_mut(index);
        if self.settings.policies.at(channel.policy).events_max() == 0 {
            channel.evicted_to = event.seq;
            self.counters.evicted_by_count += 1;
            self.free_if_idle(index);
            return;
        }
        self.history.keep(event, index, &mut channel.chain, channel.policy);
        self.trim_to_count(index);
        self.trim_to_bytes();
    }
}
