//! The values of a state outlive the place where they are. A store makes room at its oldest end alone
//! ([`Shortage`]), and there may be a value that no newer event has replaced: it is ordered again,
//! behind everything else, before the store loses it. Subscribers are not sent it: they have it, or
//! are on their way through the log, which they then read up to its head.
//!
//! [`Shortage`]: super::store::Shortage

use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use super::event::Event;
use super::message::Ticket;
use super::older::{OlderChannel, OlderPage, OlderRead};
use super::policy::Keeps;
use super::sequencer::Sequencer;
use super::store::Taken;

/// Values that are ordered again in one step, and bytes that are read for them: a tenth of a
/// millisecond of the log's time.
const CARRIED_AT_ONCE: usize = 512;
const CARRIED_BYTES_AT_ONCE: u64 = 1 << 20;

/// Between two of these steps: as long as a commit may take.
pub(super) const CARRY_PAUSE: Duration = Duration::from_millis(20);

/// The same while the store waits for them to make room: no publisher fills a store faster than these
/// steps empty it.
pub(super) const HURRIED_CARRY_PAUSE: Duration = Duration::from_millis(1);

/// Asks for a page in place of a worker: the log itself.
pub(super) const CARRIER: u16 = u16::MAX;

impl Sequencer {
    /// Orders again the oldest values that lie before a place. Returns whether that has to go on: the
    /// next ones are found once these are committed.
    pub(super) fn carry_some(&mut self, before: u64) -> bool {
        if before == 0 {
            return false;
        }
        if self.is_reading_values || self.pending.has_carried() {
            return true;
        }
        // A store that is down takes none, and has no need of room meanwhile.
        if !self.store_is_up {
            return self.oldest_value_before(before).is_some();
        }
        let mut policies = self.policies_of_states().collect::<Vec<u8>>().into_iter();
        policies.any(|policy| self.carry_some_of(policy, before))
    }

    /// Where the oldest value before a place is, or the run that it is in begins.
    pub(super) fn oldest_value_before(&self, before: u64) -> Option<u64> {
        let oldest = |policy| {
            let in_store = self.history.value_runs_before(policy, before).next();
            let in_memory = || Some(self.history.values_before(policy, before, 1).first()?.seq);
            in_store.map(|run| run.first_seq).or_else(in_memory)
        };
        self.policies_of_states().filter_map(oldest).min()
    }

    fn policies_of_states(&self) -> impl Iterator<Item = u8> {
        let policies = &self.settings.policies;
        (0..policies.count()).filter(|policy| policies.at(*policy).keeps == Keeps::Latest)
    }

    fn carry_some_of(&mut self, policy: u8, before: u64) -> bool {
        if let Some(read) = self.plan_carry(policy, before) {
            self.is_reading_values = true;
            self.store.read_older(read);
            return true;
        }
        let values = self.history.values_before(policy, before, CARRIED_AT_ONCE);
        self.carry(&values);
        !values.is_empty()
    }

    /// The oldest of the values that only the store has.
    fn plan_carry(&self, policy: u8, before: u64) -> Option<OlderRead> {
        let (mut places, mut channels) = (HashMap::new(), Vec::<OlderChannel>::new());
        let (mut count, mut through) = (0, 0);
        for run in self.history.value_runs_before(policy, before) {
            let place = *places.entry(run.channel).or_insert_with(|| {
                channels.push(self.channels.at(run.channel).older());
                channels.len() - 1
            });
            channels[place].ranges.extend(self.history.runs().places_of(run, 0));
            through = through.max(run.last_seq);
            count += run.events as usize;
            if count >= CARRIED_AT_ONCE {
                break;
            }
        }
        let (worker, ticket, bytes_max) = (CARRIER, Ticket(0), CARRIED_BYTES_AT_ONCE);
        (count > 0).then_some(OlderRead { worker, ticket, channels, through, bytes_max })
    }

    /// The store has read values that are to be ordered again.
    pub(super) fn carry_page(&mut self, page: OlderPage) {
        self.is_reading_values = false;
        for of in &page.asked.channels {
            self.lose_unreadable(of);
        }
        let values: Vec<_> = page.events.into_iter().map(|(_, event)| event).collect();
        self.carry(&values);
    }

    /// Orders these again, but for those that have been replaced meanwhile, or will be by what waits
    /// for its commit.
    fn carry(&mut self, values: &[Arc<Event>]) {
        let waiting = self.pending.events().filter_map(|event| self.history.value_hash(event));
        let waiting: HashSet<u64> = waiting.collect();
        for value in values {
            let Some(index) = self.channels.find(value.channel_hash, &value.channel) else {
                continue;
            };
            let will_be_replaced =
                self.history.value_hash(value).is_some_and(|hash| waiting.contains(&hash));
            let policy = self.channels.at(index).policy;
            if !self.history.is_newest(value, index) {
                self.history.lose_replaced(value, policy);
            } else if !will_be_replaced && self.store_is_up && !self.pending.is_full() {
                self.order_again(index, value);
            }
        }
    }

    fn order_again(&mut self, index: u32, value: &Event) {
        let value = Arc::new(value.at(self.order.assign()));
        match self.store.append(&value) {
            Taken::Seen => self.keep_again(index, value),
            Taken::Later => {
                self.channels.at_mut(index).pending += 1;
                self.pending.push_carried(value, index);
            }
        }
    }

    /// Puts a value that was ordered again in the place of its older self.
    pub(super) fn keep_again(&mut self, index: u32, value: Arc<Event>) {
        self.order.show(value.seq);
        self.channels.at_mut(index).last_seq = value.seq;
        self.keep(index, value);
    }
}

impl Event {
    /// The same at another place in the log.
    fn at(&self, seq: u64) -> Self {
        Self {
            seq,
            channel: Arc::clone(&self.channel),
            channel_hash: self.channel_hash,
            kind: self.kind,
            data: self.data.clone(),
            event_type: self.event_type.clone(),
            key: self.key.clone(),
            attributes: self.attributes.clone(),
            ordered_ns: self.ordered_ns,
        }
    }
}
