//! Who reads which channel, and from where. The hub knows no socket and no HTTP: a subscriber is an
//! index, and its bytes go to a [`Wire`].

mod bounds;
mod channels;
mod check;
mod explicit;
mod live;
mod members;
mod reading;
mod replica;
mod subscriber;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use self::channels::Channels;
use self::explicit::Sending;
use self::subscriber::{Explicit, Subscriber};
use super::pool::Pool;
use super::table::Table;
use crate::config::Settings;
use crate::log::event::Event;
use crate::log::message::LeaveChannel;
use crate::log::{ChannelName, SharedHasher};
use crate::metrics::WorkerMetrics;
use crate::proto::cursor::{Epoch, EventId};
use crate::proto::dialect::Dialect;
use crate::proto::identity::Identity;
use crate::proto::sender::Home;

pub use self::explicit::Extent;
pub use self::live::{Beats, Wire};
pub use self::reading::Arrived;

/// A worker's subscribers, by index, and its replicas of their channels.
#[derive(Debug)]
pub struct Hub {
    settings: Arc<Settings>,
    metrics: Arc<WorkerMetrics>,
    home: Home,
    epoch: Epoch,
    hasher: SharedHasher,
    now: Duration,
    turn: u32,
    subscribers: Table<Subscriber>,
    pool: Pool<Explicit>,
    channels: Channels,
    /// Newest event of the log this worker knows of.
    head_seen: u64,
    /// Replicas with something to fan out.
    scheduled: VecDeque<u32>,
    /// Replicas that were fanned out in this batch.
    fanned: Vec<u32>,
    slice: Vec<Arc<Event>>,
    /// Live subscribers that took nothing of a slice, empty in between.
    refused: Vec<u32>,
    stands: Vec<(u32, u64)>,
    sending: Sending,
    /// Deliveries handed to sockets since the last turn was settled.
    handed: u64,
    /// Who is a member of which channel, by index and replica.
    members: HashMap<(u32, u32), Arc<Identity>>,
    /// Leaves to tell the log of.
    leaves: Vec<LeaveChannel>,
    /// Subscribers that were too slow for a channel that disconnects such readers.
    too_slow: Vec<u32>,
    /// Subscribers that were sent the last event they want.
    ended: Vec<u32>,
    /// Replicas are not made to give memory back before this time.
    relieve_at: Duration,
}

impl Hub {
    /// A hub without subscribers. `slots` is the size of the driver's table.
    pub fn new(
        (home, epoch, hasher): (Home, Epoch, SharedHasher),
        slots: u32,
        settings: Arc<Settings>,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        Self {
            settings,
            metrics,
            home,
            epoch,
            hasher,
            now: Duration::ZERO,
            turn: 0,
            subscribers: Table::with_room(slots),
            pool: Pool::default(),
            channels: Channels::default(),
            head_seen: 0,
            scheduled: VecDeque::new(),
            fanned: Vec::new(),
            slice: Vec::new(),
            refused: Vec::new(),
            stands: Vec::new(),
            sending: Sending::default(),
            handed: 0,
            members: HashMap::new(),
            leaves: Vec::new(),
            too_slow: Vec::new(),
            ended: Vec::new(),
            relieve_at: Duration::ZERO,
        }
    }

    pub fn set_now(&mut self, now: Duration) {
        self.now = now;
    }

    /// Applies new settings. A replica that is now too large shrinks with its next event.
    pub fn apply_settings(&mut self, settings: Arc<Settings>) {
        for replica in self.channels.iter_mut() {
            replica.set_bounds(settings.channel_index(replica.name()) as u16);
        }
        self.settings = settings;
    }

    /// The place in the log at which a stream that begins now starts.
    pub fn head(&self) -> EventId {
        EventId { epoch: self.epoch, seq: self.head_seen }
    }

    /// Channels that are read here.
    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// Bytes of events that replicas hold.
    pub fn held_bytes(&self) -> usize {
        self.channels.held_bytes()
    }

    /// Subscriptions at present, live and explicit.
    pub fn subscriptions(&self) -> usize {
        self.channels.iter().map(|of| of.live_len() + of.followers().len()).sum()
    }

    // --- what a subscriber reads ---

    fn subscriber(&self, index: u32) -> &Subscriber {
        self.subscribers.get(index).unwrap_or(&Subscriber::None)
    }

    fn explicit(&self, index: u32) -> Option<&Explicit> {
        match self.subscriber(index) {
            Subscriber::Explicit(_, explicit) => Some(explicit),
            Subscriber::None | Subscriber::Live { .. } => None,
        }
    }

    fn explicit_mut(&mut self, index: u32) -> Option<(Dialect, &mut Explicit)> {
        match self.subscribers.get_mut(index) {
            Some(Subscriber::Explicit(dialect, explicit)) => Some((*dialect, explicit)),
            _ => None,
        }
    }

    /// The replicas a subscriber reads, each with its cursor.
    fn cursors(&self, index: u32) -> impl Iterator<Item = (u32, u64)> {
        let (live, explicit) = match self.subscriber(index) {
            Subscriber::None => (None, None),
            &Subscriber::Live { replica, place, .. } => {
                (Some((replica, self.channels[replica].live_cursor(place))), None)
            }
            Subscriber::Explicit(_, explicit) => (None, Some(explicit)),
        };
        let subs = explicit.into_iter().flat_map(|explicit| &explicit.subs);
        live.into_iter().chain(subs.map(|sub| (sub.replica, sub.cursor)))
    }

    /// Whether the subscriber is live.
    pub fn is_live(&self, index: u32) -> bool {
        matches!(self.subscriber(index), Subscriber::Live { .. })
    }

    /// The names of its channels, in the order it joined them.
    pub fn channels_of(&self, index: u32) -> impl Iterator<Item = &Arc<ChannelName>> {
        self.cursors(index).map(|(replica, _)| self.channels[replica].name())
    }

    /// How many events its replicas hold that were not sent to it yet, all its channels together.
    pub fn events_behind(&self, index: u32) -> usize {
        self.cursors(index).map(|(replica, cursor)| self.channels[replica].behind(cursor)).sum()
    }

    /// Whether the subscriber has the channel.
    pub fn has_channel(&self, index: u32, name: &str) -> bool {
        self.find(name).is_some_and(|known| self.cursors(index).any(|(of, _)| of == known))
    }

    /// The channel it joined last, and its cursor there.
    pub fn last_joined(&self, index: u32) -> Option<(&Arc<ChannelName>, EventId)> {
        let sub = self.explicit(index)?.subs.last()?;
        let id = EventId { epoch: self.epoch, seq: sub.cursor };
        Some((self.channels[sub.replica].name(), id))
    }

    fn find(&self, name: &str) -> Option<u32> {
        self.channels.find(self.hasher.channel(name), name)
    }
}
