//! What a session sees of its worker, and how it talks to it.

use std::net::IpAddr;
use std::sync::Arc;

use super::shared::Shared;
use super::state::{Protocol, Session, Work};
use crate::log::ChannelName;
use crate::proto::cursor::EventId;
use crate::reason::CloseReason;
use crate::ring::Token;
use crate::worker::clock::Why;
use crate::worker::effect::{Effect, Effects, Ending};
use crate::worker::table::{CarrierView, StreamView};

/// What a session may ask the rest of its worker about its own connection. It only asks: what it wants
/// changed is an [`Effect`] or a [`super::Step`].
pub trait World {
    /// Bytes of its output that its peer has not taken yet.
    fn out_len(&self) -> usize;
    /// Whether its socket is full.
    fn is_blocked(&self) -> bool;
    /// Whether its peer sends no more.
    fn has_peer_ended(&self) -> bool;
    /// Whether it ends once its output is sent.
    fn ends_after_output(&self) -> bool;
    /// Whether the peer was silent for as long as a connection may be idle.
    fn is_silent(&self) -> bool;
    /// Seconds since it was accepted.
    fn age_s(&self) -> u32;

    /// Its client, if addresses are known.
    fn client(&self) -> Option<IpAddr>;
    /// Where its client's address is counted, if it is.
    fn client_place(&self) -> Option<u32>;
    /// The nearest address in a proxy's list that is not itself a trusted proxy.
    fn nearest_client(&self, addresses: &mut dyn Iterator<Item = Option<IpAddr>>)
    -> Option<IpAddr>;

    /// Channels it reads.
    fn channel_count(&self) -> usize;
    /// The channel it reads, if it reads exactly one.
    fn only_channel(&self) -> Option<Arc<ChannelName>>;
    /// Whether it reads the channel.
    fn has_channel(&self, name: &str) -> bool;
    /// Whether this holds for all its channels.
    fn all_channels(&self, holds: &dyn Fn(&str) -> bool) -> bool;
    /// The channel it joined last, and the id from which it reads it.
    fn last_joined(&self) -> Option<(Arc<ChannelName>, EventId)>;
    /// The newest event of a channel it reads live.
    fn live_tail(&self) -> Option<u64>;
    /// The newest event of the log this worker knows of.
    fn head(&self) -> EventId;

    /// The index of its socket: for a stream, the one that carries it.
    fn carrier(&self) -> u32;
    /// Streams it carries.
    fn stream_count(&self) -> usize;
    /// Whether its worker can have one more stream.
    fn may_open_stream(&self) -> bool;
    /// Bytes that wait for the windows of the streams it carries.
    fn held_for_streams(&self) -> usize;
    /// A stream it carries, by its id.
    fn stream(&self, id: u32) -> Option<StreamView>;
    /// What the streams it carries share.
    fn carrier_view(&self) -> CarrierView;

    /// Requests at the log of all streams that share its connection.
    fn asked_beside(&self) -> u16;
    /// Requests of all connections that wait for room at the log.
    fn waiting_at_log(&self) -> usize;
}

/// A session at work: itself, what it shares with the other sessions of its worker, what it asks its
/// connection, and the effects it wants.
pub struct Cx<'a> {
    pub token: Token,
    pub(super) session: &'a mut Session,
    pub(super) shared: &'a mut Shared,
    pub(super) world: &'a dyn World,
    pub(super) effects: &'a mut Effects,
}

impl Cx<'_> {
    /// The session's work, from the pool if it has none.
    pub(super) fn work(&mut self) -> &mut Work {
        self.session.begin_work(&mut self.shared.pool)
    }

    /// The session speaks something else from now on.
    pub(super) fn speak(&mut self, protocol: Protocol) {
        self.session.speak(protocol, &self.shared.metrics);
    }

    /// What is left of the input is read when the next turn begins.
    pub(super) fn read_on_later(&mut self) {
        self.session.read_on_later(self.token, &mut self.shared.unread);
    }

    // --- effects ---

    /// The session's work, and where its output goes.
    pub(super) fn work_and_out(&mut self) -> (&mut Work, &mut Vec<u8>) {
        (self.session.begin_work(&mut self.shared.pool), &mut self.effects.out)
    }

    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.effects.out
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.list.push(effect);
    }

    pub(super) fn wait(&mut self, why: Why) {
        self.push(Effect::Wait(why));
    }

    /// Notes why the connection ends; the first reason is kept.
    pub(super) fn note(&mut self, reason: CloseReason) {
        self.push(Effect::Note(reason));
    }

    pub(super) fn end(&mut self, ending: Ending) {
        self.push(Effect::End(ending));
    }

    /// Bytes of output not yet taken, including this turn's.
    pub(super) fn out_len(&self) -> usize {
        self.world.out_len() + self.effects.out.len()
    }
}
