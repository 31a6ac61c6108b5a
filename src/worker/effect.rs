//! What a session asks for: it does nothing to sockets, subscribers or the log itself, but leaves
//! effects, which the turn carries out in their order, behind the bytes the session has to say.

use crate::log::event::Publication;
use crate::log::message::{Letter, Share};
use crate::reason::CloseReason;

use super::clock::Why;

/// One thing to be done for a session.
#[derive(Debug)]
pub enum Effect {
    /// Join channels, all at one moment, from this cursor on.
    Join { channels: Vec<Box<str>>, cursor: Vec<u8>, then: AfterJoin },
    /// Leave a channel.
    Leave { channel: Box<str> },
    /// Publish. `share`: of the log's lanes, what this may fill.
    Publish { share: Share, publications: Vec<Publication>, then: AfterPublish },
    /// Ask for a channel's state.
    Describe { channel: Box<str> },
    /// Hand a letter to another worker.
    Forward { to: u16, letter: Letter },
    /// Look at the session again when this time is over.
    Wait(Why),
    /// End the stream when its grant does, in this second of unix time.
    ExpireAt(u32),
    /// End the session once it has back what it published.
    Farewell,
    /// Why the connection ends is decided; the first reason stays.
    Note(CloseReason),
    /// End the connection.
    End(Ending),
}

/// The one way in which a connection ends. What is to be said is among the session's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing more is sent.
    Now(CloseReason),
    /// When all output is sent; `None`: because the last request is answered, or the peer's close
    /// frame.
    AfterOutput(Option<CloseReason>),
    /// Our close frame is among the output, and the peer's has to come (RFC 6455 section 7.1.2).
    Handshake(CloseReason),
    /// Both close frames are among the bytes that went or go out: the peer has nothing more to send.
    HandshakeOver,
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// With what comes from now on.
    Now,
    /// At the cursor its client gave.
    AtCursor,
}

/// What a join is for.
#[derive(Debug)]
pub enum AfterJoin {
    /// The connection becomes an SSE stream.
    OpenSse {
        /// Prepared CORS lines.
        cors: Box<[u8]>,
        begins: Begins,
    },
    /// The connection becomes a WebSocket.
    OpenWs {
        /// `Sec-WebSocket-Accept`.
        accept_key: [u8; 28],
        /// The subprotocol to name.
        protocol: Option<&'static str>,
    },
    /// A WebSocket's `subscribe`: the client's `ref`.
    Subscribed(Option<Box<str>>),
}

/// What a publish is for.
#[derive(Debug)]
pub enum AfterPublish {
    /// `POST /channels/{channel}`.
    Respond { channel: Box<str> },
    /// Lines of `POST /publish`.
    Ndjson,
    /// A message of a bare WebSocket.
    BareMessage,
    /// A WebSocket's `publish`: the client's `ref`.
    Acknowledge(Option<Box<str>>),
}

/// What a session has to say, and what is to be done for it.
#[derive(Debug, Default)]
pub struct Effects {
    pub out: Vec<u8>,
    pub list: Vec<Effect>,
}
