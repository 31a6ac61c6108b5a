//! What only a busy connection has: bytes not yet parsed or sent, cursors of its own, a request
//! half received. It comes from a pool and goes back when the connection is idle again.

use std::sync::Arc;

use super::admission::Refused;
use super::answer::Answer;
use super::closing::Farewell;
use super::http::HttpState;
use super::reading::Reading;
use crate::limits::SPARE_BUFFER_BYTES_MAX;
use crate::log::event::Event;
use crate::log::message::GapReason;
use crate::proto::ws::message::Receiver;

/// The state of a busy connection.
#[derive(Debug, Default)]
pub struct Work {
    /// Received, not yet parsed.
    pub carry: Vec<u8>,
    /// Own output (responses, control frames) the socket has not taken yet.
    pub out: Vec<u8>,
    /// An event the socket took only the front part of. It goes out before anything else.
    pub rest: Option<Rest>,
    /// Channels read with a cursor of their own; empty for a live subscriber.
    pub subs: Vec<Sub>,
    /// Where the events of `subs` come from.
    pub reading: Reading,
    /// Where reading left history, by channel.
    pub places: Vec<u32>,
    /// Of several channels read as one stream: everything up to here was sent, or told to be lost.
    pub position: u64,
    /// There is no room for the connection; its first request is told so.
    pub(super) refused: Option<Refused>,
    /// The request being received or answered.
    pub http: HttpState,
    /// A WebSocket message half received.
    pub ws: Option<Box<Receiver>>,
    /// What ends the WebSocket once it has back what it published.
    pub farewell: Option<Farewell>,
    /// A token that waits for its check.
    pub shown: Option<Box<Shown>>,
    /// The last event it published.
    pub published_to: u64,
    /// Bytes its socket took of its last send, if that was not all of it.
    pub taken: Option<u32>,
    /// Place of its send among the batch's explicit sends (while it has one there).
    pub sent_at: u32,
    /// Requests at the log.
    pub outstanding: u16,
    /// One of them is a join.
    pub joining: bool,
    /// How the present request is to be answered.
    pub answer: Answer,
    /// Grows with what comes of a body, a line or a message; tells a deadline whether there was
    /// progress.
    pub progress: u32,
    /// Bytes of unfinished input its worker has counted for it.
    pub unfinished: usize,
}

/// A token a WebSocket has shown, until it is its turn to be checked.
#[derive(Debug)]
pub struct Shown {
    /// The client's `ref`.
    pub reference: Option<Box<str>>,
    /// The token.
    pub token: Box<str>,
}

/// The unsent remainder of an event.
#[derive(Debug)]
pub struct Rest {
    /// The event; pinned until it is sent.
    pub event: Arc<Event>,
    /// Bytes of its encoding that were taken.
    pub offset: usize,
}

/// An explicit subscription: a channel, and how far this connection has read it.
#[derive(Debug)]
pub struct Sub {
    /// Which replica.
    pub replica: u32,
    /// Place in its list of followers.
    pub index: u32,
    /// Everything up to here was sent (or is lost and told by `gap`).
    pub cursor: u64,
    /// A loss the client has not been told of.
    pub gap: Option<Box<Gap>>,
}

/// A loss to be told.
#[derive(Debug)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// The client's cursor, as it gave it.
    pub after: Box<str>,
    /// The oldest event behind it, where the log said so.
    pub first: Option<u64>,
}

impl Work {
    /// Whether there is something to send that is not an event of a channel.
    pub fn has_output(&self) -> bool {
        self.rest.is_some() || !self.out.is_empty()
    }

    /// Whether nothing is left in it that a later turn needs.
    pub fn is_idle(&self) -> bool {
        self.carry.is_empty()
            && !self.has_output()
            && self.subs.is_empty()
            && self.outstanding == 0
            && self.ws.is_none()
            && self.farewell.is_none()
            && self.shown.is_none()
            && self.refused.is_none()
            && self.http.is_idle()
    }

    /// Whether a body or a message is on its way in.
    pub fn is_receiving(&self) -> bool {
        self.ws.is_some() || matches!(self.http, HttpState::Body(_) | HttpState::Lines(_))
    }

    /// Memory of what has begun to come and has not ended.
    pub fn unfinished_bytes(&self) -> usize {
        let message = self.ws.as_ref().map_or(0, |receiver| receiver.held_bytes());
        let request = match &self.http {
            HttpState::Body(body) => body.held_bytes(),
            HttpState::Lines(lines) => lines.held_bytes(),
            HttpState::Head(_) | HttpState::Discard(_) | HttpState::Waiting { .. } => 0,
        };
        let carried = if self.carry.is_empty() { 0 } else { self.carry.capacity() };
        carried + request + message
    }

    /// Ready for another connection; buffers keep their capacity while it is small.
    pub fn clear(&mut self) {
        for buffer in [&mut self.carry, &mut self.out] {
            buffer.clear();
            if buffer.capacity() > SPARE_BUFFER_BYTES_MAX {
                *buffer = Vec::new();
            }
        }
        self.rest = None;
        self.subs.clear();
        self.reading = Reading::Replicas;
        self.places = Vec::new();
        self.position = 0;
        self.refused = None;
        self.http = HttpState::default();
        self.ws = None;
        self.farewell = None;
        self.shown = None;
        self.published_to = 0;
        self.taken = None;
        self.outstanding = 0;
        self.joining = false;
        self.answer = Answer::default();
        self.progress = 0;
    }
}
