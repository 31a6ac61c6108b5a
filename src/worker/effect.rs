//! What a session asks for: it does nothing to sockets, subscribers or the log itself. It leaves
//! effects, which the turn carries out in order, after the session's output. (What the turn has to do
//! before the session reads on is a `Step`.)

use std::sync::Arc;

use crate::log::event::Publication;
use crate::log::message::{Counts, Letter, Share};
use crate::proto::cursor::Cursor;
use crate::proto::stream::Begin;
use crate::reason::CloseReason;

use super::clock::Why;

/// One thing to do for a session.
#[derive(Debug)]
pub enum Effect {
    /// Join channels, all at one moment, from this cursor on.
    Join { channels: Vec<Box<str>>, cursor: Vec<u8>, then: AfterJoin },
    /// Leave a channel.
    Leave { channel: Box<str> },
    /// Publish. `share`: the part of the log's lane this may fill.
    Publish { share: Share, publications: Vec<Publication>, then: AfterPublish },
    /// Tell the log that a stream's producer is gone.
    LeaveStream { channel: Box<str>, id: Arc<str>, attempt: u64 },
    /// Ask for a page of a channel's history.
    List(Listing),
    /// Ask for a channel's state.
    Describe { channel: Box<str> },
    /// Ask who is on a channel.
    ListMembers { channel: Box<str>, then: AfterList },
    /// Hand a letter to another worker.
    Forward { to: u16, letter: Letter },
    /// Call the session again when this time is over.
    Wait(Why),
    /// End the stream when its grant does, in this second of unix time.
    ExpireAt(u32),
    /// End the session once it has been sent what it published.
    Farewell,
    /// Carry streams of HTTP/2 from now on.
    Carry,
    /// Note why the connection ends; the first reason is kept.
    Note(CloseReason),
    /// End the connection.
    End(Ending),
}

/// A page of a channel's history, for a request.
#[derive(Clone, Debug)]
pub struct Listing {
    pub channel: Box<str>,
    pub cursor: Cursor,
    /// How many events are answered at most.
    pub limit: usize,
}

/// How a connection ends. What the peer is told is among the session's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// At once: nothing more is sent.
    Now(CloseReason),
    /// When all output is sent. `None`: the last request is answered, or the peer's close frame.
    AfterOutput(Option<CloseReason>),
    /// Our close frame is among the output, and the peer's is awaited (RFC 6455 section 7.1.2).
    Handshake(CloseReason),
    /// Both close frames were sent or are among the output: the peer has nothing more to send.
    HandshakeOver,
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// At the events that come from now on.
    Now,
    /// At the cursor its client gave.
    AtCursor,
}

/// What happens after a join.
#[derive(Debug)]
pub enum AfterJoin {
    /// The connection becomes an SSE stream.
    OpenSse {
        /// Prepared CORS headers.
        cors: Box<[u8]>,
        begins: Begins,
        /// It is told its connection's name.
        named: bool,
    },
    /// The connection becomes a WebSocket.
    OpenWs {
        /// `Sec-WebSocket-Accept`.
        accept_key: [u8; 28],
        /// The subprotocol to name.
        protocol: Option<&'static str>,
    },
    /// The connection becomes a plain reader of a stream.
    OpenView {
        /// Prepared CORS lines.
        cors: Box<[u8]>,
        /// Where it begins; in place of a cursor.
        begin: Begin,
    },
    /// A WebSocket's `subscribe` is acknowledged, with the client's `ref`.
    Subscribed(Option<Box<str>>),
}

/// What happens after a publish.
#[derive(Debug)]
pub enum AfterPublish {
    /// `POST /channels/{channel}` is answered.
    Respond { channel: Box<str>, counts: Counts },
    /// `POST /publish` goes on.
    Ndjson,
    /// Parts of a stream.
    Stream,
    /// `POST /channels/{channel}/stream/cancel`, or a WebSocket's `cancel` with the client's `ref`.
    Cancelled { channel: Box<str>, reference: Option<Box<str>> },
    /// Nothing: it was a message of a bare WebSocket.
    BareMessage,
    /// A WebSocket's `publish` is acknowledged, with the client's `ref`.
    Acknowledge(Option<Box<str>>),
}

impl AfterPublish {
    /// Which subscribers the publisher is told of.
    pub fn counts(&self) -> Counts {
        match self {
            Self::Respond { counts, .. } => *counts,
            _ => Counts::Here,
        }
    }
}

/// What a list of members is for.
#[derive(Debug)]
pub enum AfterList {
    /// `GET /channels/{channel}/presence`.
    Respond,
    /// A WebSocket's `presence`: the client's `ref`.
    Acknowledge(Option<Box<str>>),
}

/// A session's output, and what is to be done for it.
#[derive(Debug, Default)]
pub struct Effects {
    pub out: Vec<u8>,
    pub list: Vec<Effect>,
}
