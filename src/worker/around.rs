//! What a session may ask about its own connection's socket and subscriber.

use std::net::IpAddr;
use std::sync::Arc;

use super::hub::Hub;
use super::link::Link;
use super::net::{Carrier, Net};
use super::session::World;
use super::table::{CarrierView, StreamView};
use crate::log::ChannelName;
use crate::proto::cursor::EventId;

/// A connection's surroundings, for its session.
pub(super) struct Around<'a> {
    pub net: &'a Net,
    pub hub: &'a Hub,
    pub link: &'a Link,
    pub index: u32,
}

impl World for Around<'_> {
    fn out_len(&self) -> usize {
        self.net.out_len(self.index)
    }

    fn is_blocked(&self) -> bool {
        self.net.is_blocked(self.index)
    }

    fn has_peer_ended(&self) -> bool {
        self.net.has_peer_ended(self.index)
    }

    fn ends_after_output(&self) -> bool {
        self.net.ends_after_output(self.index)
    }

    fn is_silent(&self) -> bool {
        self.net.is_silent(self.index)
    }

    fn age_s(&self) -> u32 {
        self.net.age_s(self.index)
    }

    fn client(&self) -> Option<IpAddr> {
        self.net.client(self.index)
    }

    fn client_place(&self) -> Option<u32> {
        self.net.client_place(self.index)
    }

    fn nearest_client(
        &self,
        addresses: &mut dyn Iterator<Item = Option<IpAddr>>,
    ) -> Option<IpAddr> {
        self.net.nearest_client(addresses)
    }

    fn channel_count(&self) -> usize {
        self.hub.channels_of(self.index).count()
    }

    fn only_channel(&self) -> Option<Arc<ChannelName>> {
        let mut channels = self.hub.channels_of(self.index);
        let first = channels.next()?;
        channels.next().is_none().then(|| first.clone())
    }

    fn has_channel(&self, name: &str) -> bool {
        self.hub.has_channel(self.index, name)
    }

    fn all_channels(&self, holds: &dyn Fn(&str) -> bool) -> bool {
        self.hub.channels_of(self.index).all(|channel| holds(channel))
    }

    fn last_joined(&self) -> Option<(Arc<ChannelName>, EventId)> {
        self.hub.last_joined(self.index).map(|(channel, id)| (channel.clone(), id))
    }

    fn live_tail(&self) -> Option<u64> {
        self.hub.live_tail(self.index)
    }

    fn head(&self) -> EventId {
        self.hub.head()
    }

    fn carrier(&self) -> u32 {
        self.net.carrier_of(self.index)
    }

    fn stream_count(&self) -> usize {
        self.net.stream_count(self.index)
    }

    fn may_open_stream(&self) -> bool {
        self.net.h2().may_open()
    }

    fn held_for_streams(&self) -> usize {
        self.net.carrier(self.index).map_or(0, Carrier::held)
    }

    fn stream(&self, id: u32) -> Option<StreamView> {
        self.net.stream(self.index, id)
    }

    fn carrier_view(&self) -> CarrierView {
        self.net.carrier(self.index).map_or_else(CarrierView::default, Carrier::view)
    }

    fn asked_beside(&self) -> u16 {
        self.net.carrier(self.carrier()).map_or(0, Carrier::asked)
    }

    fn waiting_at_log(&self) -> usize {
        self.link.waiting()
    }
}
