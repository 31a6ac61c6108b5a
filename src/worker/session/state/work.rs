//! What only a busy session has: bytes not yet parsed, a request half received. It comes from a
//! pool and returns there when the session is idle again.

use super::answer::Answer;
use super::body::Body;
use super::http2::Http2;
use super::ndjson::Ndjson;
use super::producer::Producer;
use super::ws_streams::WsStreams;
use crate::proto::http::body::BodyDecoder;
use crate::proto::http::head::HeadScan;
use crate::proto::ws::close::CloseCode;
use crate::proto::ws::message::Receiver;
use crate::reason::{CloseReason, Refused};
use crate::worker::pool::{Reuse, clear_buffer};

/// The state of a busy session.
#[derive(Debug, Default)]
pub struct Work {
    /// Received, not yet parsed.
    pub carry: Vec<u8>,
    /// Why there is no room for the connection; its first request is told.
    pub refused: Option<Refused>,
    /// The request being received or answered.
    pub http: HttpState,
    /// What a connection of HTTP/2 has, as long as it lasts.
    pub http2: Option<Box<Http2>>,
    /// A WebSocket message half received.
    pub ws: Option<Box<Receiver>>,
    /// The token streams a WebSocket produces.
    pub ws_streams: Option<Box<WsStreams>>,
    /// How the WebSocket ends once it has been sent all it published.
    pub farewell: Option<Farewell>,
    /// A token that waits for its check.
    pub shown: Option<Box<Shown>>,
    /// A `subscribe` that waits for the backend.
    pub wanted: Option<Box<WantedChannel>>,
    /// The `seq` of the last event it published.
    pub published_to: u64,
    /// Requests at the log.
    pub outstanding: u16,
    /// A join is on its way.
    pub joining: bool,
    /// A letter to another worker is unanswered.
    pub awaits_letter: bool,
    /// How the present request is to be answered.
    pub answer: Answer,
    /// Grows with each part of a body, a line or a message that arrives; shows a deadline whether
    /// there was progress.
    pub progress: u32,
    /// Bytes of unfinished input that its worker has counted for it.
    pub unfinished: usize,
}

/// Where a connection is between and within requests.
#[derive(Debug)]
pub enum HttpState {
    /// Between requests, or in the middle of a head.
    Head(HeadScan),
    /// The body of `POST /channels/{channel}` is coming.
    Body(Box<Body>),
    /// The body of `POST /publish` is coming.
    Ndjson(Box<Ndjson>),
    /// The body of `POST /channels/{channel}/stream` is coming.
    Stream(Box<Producer>),
    /// A body no route wants is coming.
    Discard(BodyDecoder),
    /// Waiting for the log. A body no route wants may be arriving meanwhile.
    Waiting {
        /// Reads that body.
        unwanted: Option<BodyDecoder>,
    },
}

impl Default for HttpState {
    fn default() -> Self {
        Self::Head(HeadScan::default())
    }
}

impl HttpState {
    /// Whether nothing of a request is held.
    pub fn is_idle(&self) -> bool {
        matches!(self, Self::Head(_))
    }

    /// The request is answered: what is left of a body no route wants is still read. Returns the
    /// producer of a stream, if the request was one.
    pub fn answered(&mut self) -> Option<Box<Producer>> {
        let mut left = None;
        *self = match std::mem::take(self) {
            Self::Waiting { unwanted: Some(decoder) } => Self::Discard(decoder),
            Self::Waiting { unwanted: None } | Self::Body(_) | Self::Ndjson(_) => Self::default(),
            Self::Stream(producer) => {
                left = Some(producer);
                Self::default()
            }
            kept @ (Self::Head(_) | Self::Discard(_)) => kept,
        };
        left
    }
}

/// How a WebSocket ends because of what its peer sent.
#[derive(Clone, Copy, Debug)]
pub enum Farewell {
    /// The peer's close frame goes back to it.
    Answer(Option<CloseCode>),
    /// A close frame of our own.
    Refusal {
        code: CloseCode,
        text: &'static str,
        /// The reason we count.
        reason: CloseReason,
    },
}

/// A token a WebSocket has sent, kept until it is checked.
#[derive(Debug)]
pub struct Shown {
    /// The client's `ref`.
    pub reference: Option<Box<str>>,
    pub token: Box<str>,
}

/// A channel to which a WebSocket wants to subscribe, kept until the backend has answered.
#[derive(Debug)]
pub struct WantedChannel {
    /// The client's `ref`.
    pub reference: Option<Box<str>>,
    pub channel: Box<str>,
    pub after: Option<Box<str>>,
}

impl Work {
    /// Whether nothing of a request or a message is under way.
    pub fn is_idle(&self) -> bool {
        self.carry.is_empty()
            && self.outstanding == 0
            && self.ws.is_none()
            && self.farewell.is_none()
            && self.shown.is_none()
            && self.wanted.is_none()
            && self.refused.is_none()
            && self.ws_streams.as_ref().is_none_or(|streams| streams.is_idle())
            && self.http.is_idle()
    }

    /// Whether a later turn needs nothing of it.
    pub fn is_spare(&self) -> bool {
        self.is_idle()
            && self.http2.is_none()
            && self.ws_streams.as_ref().is_none_or(|streams| streams.is_spare())
    }

    /// Whether a body or a message is arriving.
    pub fn is_receiving(&self) -> bool {
        self.ws.is_some()
            || matches!(self.http, HttpState::Body(_) | HttpState::Ndjson(_) | HttpState::Stream(_))
    }

    /// Memory held for input that has begun and not ended.
    pub fn unfinished_bytes(&self) -> usize {
        let message = self.ws.as_ref().map_or(0, |receiver| receiver.held_bytes());
        let request = match &self.http {
            HttpState::Body(body) => body.held_bytes(),
            HttpState::Ndjson(lines) => lines.held_bytes(),
            HttpState::Stream(producer) => producer.held_bytes(),
            HttpState::Head(_) | HttpState::Discard(_) | HttpState::Waiting { .. } => 0,
        };
        let carried = if self.carry.is_empty() { 0 } else { self.carry.capacity() };
        let block = self.http2.as_ref().map_or(0, |http2| http2.held_bytes());
        let tokens = self.ws_streams.as_ref().map_or(0, |streams| streams.held_bytes());
        carried + request + message + block + tokens
    }
}

impl Reuse for Work {
    fn clear(&mut self) {
        let mut carry = std::mem::take(&mut self.carry);
        clear_buffer(&mut carry);
        *self = Self { carry, ..Self::default() };
    }
}
