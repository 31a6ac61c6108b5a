//! The naive log: no index, no linked list, nothing incremental.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use super::{TOMBSTONES, WORKERS};
use crate::log::history::runs::RUN_COST;

/// A kept event of the model.
#[derive(Clone)]
pub struct Kept {
    pub seq: u64,
    pub name: String,
    pub key: Option<String>,
    pub bytes: u64,
    pub ordered_at: Duration,
    /// Only the store has it, and it is lost together with those of the same run.
    pub run: Option<u64>,
}

#[derive(Clone, Default)]
pub struct ModelChannel {
    pub evicted_to: u64,
    pub last_seq: u64,
    pub subscribers: [u32; WORKERS as usize],
}

/// The log, every answer recomputed.
pub struct Model {
    pub settings: LogSettings,
    pub now: Duration,
    pub head_seq: u64,
    pub kept: Vec<Kept>,
    pub channels: BTreeMap<String, ModelChannel>,
    pub tombstones: Vec<(String, u64)>,
    pub forgotten_to: u64,
}

impl Model {
    pub fn kept_of<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a Kept> + 'a {
        self.kept.iter().filter(move |event| event.name == name)
    }

    pub fn subscribers(&self, name: &str) -> u32 {
        self.channels.get(name).map_or(0, |channel| channel.subscribers.iter().sum())
    }

    pub fn create(&mut self, name: &str) -> &mut ModelChannel {
        if !self.channels.contains_key(name) {
            let place = self.tombstones.iter().position(|(buried, _)| buried == name);
            let last_seq = place.map_or(0, |place| self.tombstones.remove(place).1);
            let evicted_to = if last_seq > 0 { last_seq } else { self.forgotten_to };
            let channel = ModelChannel { evicted_to, last_seq, ..ModelChannel::default() };
            self.channels.insert(name.into(), channel);
        }
        self.channels.get_mut(name).expect("just made sure")
    }

    pub fn free_if_idle(&mut self, name: &str) {
        if self.subscribers(name) > 0 || self.kept_of(name).next().is_some() {
            return;
        }
        let Some(channel) = self.channels.remove(name) else { return };
        if channel.last_seq > 0 {
            if self.tombstones.len() == TOMBSTONES {
                self.forgotten_to = self.forgotten_to.max(self.tombstones.remove(0).1);
            }
            self.tombstones.push((name.into(), channel.last_seq));
        }
    }

    pub fn lose(&mut self, place: usize) {
        let lost = self.piece(place);
        self.kept.retain(|event| lost.iter().all(|lost| lost.seq != event.seq));
        let last = lost.last().expect("one at least");
        self.create(&last.name).evicted_to = last.seq;
        self.free_if_idle(&last.name);
    }

    /// An event, or those of its run.
    pub fn piece(&self, place: usize) -> Vec<Kept> {
        match self.kept[place].run {
            None => vec![self.kept[place].clone()],
            run => self.kept.iter().filter(|event| event.run == run).cloned().collect(),
        }
    }

    pub fn runs(&self) -> BTreeSet<u64> {
        self.kept.iter().filter_map(|event| event.run).collect()
    }

    /// What memory has no room for is left to the store.
    pub fn leave_to_store(&mut self) {
        let in_memory = |model: &Self| {
            let bytes = model.kept.iter().filter(|event| event.run.is_none());
            let bytes: u64 = bytes.map(|event| event.bytes).sum();
            bytes + model.runs().len() as u64 * RUN_COST
        };
        while in_memory(self) > self.settings.history_memory_bytes_max {
            let place = self.kept.iter().position(|event| event.run.is_none());
            let Some(place) = place else { return };
            let Kept { seq, name, .. } = self.kept[place].clone();
            let last =
                self.kept.iter().rposition(|event| event.run.is_some() && event.name == name);
            let run = last.map(|last| self.piece(last)).filter(|run| {
                let bytes: u64 = run.iter().map(|event| event.bytes).sum();
                run.len() < 64 && bytes < 16 * 1024 && run[0].seq >> 16 == seq >> 16
            });
            self.kept[place].run = run.map_or(Some(seq), |run| run[0].run);
        }
    }

    /// When what is oldest under a policy has aged.
    pub fn due(&self, policy: u8) -> Option<(Duration, usize)> {
        let policies = &self.settings.policies;
        let oldest = self.kept.iter().position(|event| policies.index_of(&event.name) == policy)?;
        let newest = self.piece(oldest).pop().expect("one at least");
        Some((newest.ordered_at + policies.at(policy).history_age, oldest))
    }

    pub fn expire(&mut self) {
        for policy in 0..self.settings.policies.count() {
            while let Some((_, place)) = self.due(policy).filter(|(at, _)| *at <= self.now) {
                self.lose(place);
            }
        }
    }

    pub fn trim_to_count(&mut self, name: &str) {
        let events_max = self.settings.policies.of(name).events_max() as usize;
        while let Some(place) = self.kept.iter().position(|event| event.name == name)
            && self.kept_of(name).count() >= events_max + self.piece(place).len()
        {
            self.lose(place);
        }
        self.free_if_idle(name);
    }

    pub fn trim_to_bytes(&mut self) {
        self.leave_to_store();
        let bytes = |model: &Self| model.kept.iter().map(|event| event.bytes).sum::<u64>();
        let listed = |model: &Self| model.runs().len() as u64 * RUN_COST;
        while bytes(self) > self.settings.history_bytes_max
            || listed(self) > self.settings.history_memory_bytes_max / 2
        {
            let over = self.kept.iter().position(|event| self.is_over_its_share(&event.name));
            self.lose(over.unwrap_or(0));
        }
    }

    pub fn is_over_its_share(&self, name: &str) -> bool {
        let policies = &self.settings.policies;
        let index = policies.index_of(name);
        let of_policy = self.kept.iter().filter(|event| policies.index_of(&event.name) == index);
        of_policy.map(|event| event.bytes).sum::<u64>() > policies.at(index).history_share
    }

    pub fn publish(
        &mut self,
        publication: &Publication,
        full: &[u16],
    ) -> Result<(u64, u32), Refusal> {
        let Publication { channel: name, data, key, .. } = publication;
        let key = key.as_deref();
        let repeated = self
            .kept_of(name)
            .find(|of| key.is_some() && of.run.is_none() && of.key.as_deref() == key);
        if let Some(event) = repeated {
            return Ok((event.seq, self.subscribers(name)));
        }
        let deaf = |&worker: &u16| {
            let channel = self.channels.get(&**name);
            channel.is_some_and(|channel| channel.subscribers[usize::from(worker)] > 0)
        };
        if full.iter().any(deaf) {
            return Err(Refusal::Busy);
        }
        let bytes = event_bytes(name, data, None, key);
        let events_max = self.settings.policies.of(name).events_max();
        if events_max > 0 && bytes > self.settings.history_bytes_max {
            return Err(Refusal::Memory);
        }
        if !self.has_room(&[name]) {
            return Err(Refusal::Channels);
        }
        self.head_seq += 1;
        let (seq, ordered_at) = (self.head_seq, self.now);
        self.create(name).last_seq = seq;
        let subscribers = self.subscribers(name);
        let (name, key) = (name.to_string(), key.map(str::to_string));
        self.kept.push(Kept { seq, name: name.clone(), key, bytes, ordered_at, run: None });
        self.trim_to_count(&name);
        self.trim_to_bytes();
        Ok((seq, subscribers))
    }

    /// Whether these names fit, possibly after overdue events have left.
    pub fn has_room(&mut self, names: &[&str]) -> bool {
        let fits = |model: &Self| {
            let fresh = names.iter().filter(|name| !model.channels.contains_key(**name)).count();
            fresh == 0 || model.channels.len() + fresh <= model.settings.channels_max
        };
        if !fits(self) {
            self.expire();
        }
        fits(self)
    }

    pub fn join(&mut self, worker: u16, name: &str, cursor: Cursor) -> Stand {
        let head_seq = self.head_seq;
        let channel = self.create(name);
        channel.subscribers[usize::from(worker)] += 1;
        let lost = channel.evicted_to;
        let (after, gap) = match cursor {
            Cursor::Now => (head_seq, None),
            Cursor::Earliest => (lost, (lost > 0).then_some(GapReason::Evicted)),
            Cursor::Foreign => (lost, Some(GapReason::Epoch)),
            Cursor::After(seq) if seq > head_seq => (lost, Some(GapReason::Epoch)),
            Cursor::After(seq) if seq < lost => (lost, Some(GapReason::Evicted)),
            Cursor::After(seq) => (seq, None),
            Cursor::Stream(_) => unreachable!("the model has no streams"),
        };
        let backlog = self.kept_of(name).map(|event| event.seq).filter(|&seq| seq > after);
        (after, gap, backlog.collect())
    }

    pub fn leave(&mut self, worker: u16, name: &str) {
        self.create(name).subscribers[usize::from(worker)] -= 1;
        self.free_if_idle(name);
    }

    pub fn describe(&self, name: &str) -> Description {
        let buried = self.tombstones.iter().find(|(buried, _)| buried == name);
        let known = self.channels.get(name).map(|channel| channel.last_seq);
        Description {
            last_seq: known.or(buried.map(|stone| stone.1)).filter(|&seq| seq > 0),
            first_seq: self.kept_of(name).next().map(|event| event.seq),
            events: self.kept_of(name).count() as u32,
            subscribers: self.subscribers(name),
            ..Description::default()
        }
    }
}
