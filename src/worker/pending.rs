//! What a worker waits for at the log, by ticket.

use crate::ring::Token;

/// A request on its way.
#[derive(Debug)]
pub enum Pending {
    /// A connection joins channels.
    Join(PendingJoin),
    /// A connection publishes.
    Publish {
        /// Who.
        token: Token,
        /// What is to be done with the answer.
        then: AfterPublish,
    },
    /// A connection's next page of history.
    Read {
        /// Who.
        token: Token,
    },
    /// `GET /channels/{channel}`.
    Describe {
        /// Who.
        token: Token,
        /// The channel's name.
        channel: Box<str>,
    },
}

/// A join on its way. Its replicas are held until the log answers.
#[derive(Debug)]
pub struct PendingJoin {
    /// Who.
    pub token: Token,
    /// The replicas, in the order of the request.
    pub replicas: Vec<u32>,
    /// The cursor as the client gave it, to be echoed if it can't be honoured.
    pub after: Box<str>,
    /// What becomes of the connection then.
    pub then: AfterJoin,
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// With what comes from now on.
    Now,
    /// At the cursor its client gave.
    AtCursor,
}

/// What a join was for.
#[derive(Debug)]
pub enum AfterJoin {
    /// The connection becomes an SSE stream.
    OpenSse {
        /// Prepared CORS lines.
        cors: Box<[u8]>,
        /// Where it begins.
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

/// What a publish was for.
#[derive(Debug)]
pub enum AfterPublish {
    /// `POST /channels/{channel}`.
    Respond {
        /// The channel's name.
        channel: Box<str>,
    },
    /// Lines of `POST /publish`.
    GoOn,
    /// A message of a bare WebSocket.
    Nothing,
    /// A WebSocket's `publish`: the client's `ref`.
    Acknowledge(Option<Box<str>>),
}

impl Pending {
    /// The connection that waits.
    pub fn token(&self) -> Token {
        match self {
            Self::Join(join) => join.token,
            Self::Publish { token, .. } | Self::Read { token } | Self::Describe { token, .. } => {
                *token
            }
        }
    }
}
