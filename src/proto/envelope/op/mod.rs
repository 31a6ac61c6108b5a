//! What clients send as JSON: operations on a WebSocket, publications as lines of NDJSON.

mod read;

use std::borrow::Cow;

use crate::proto::attributes::Attributes;
use crate::proto::reject::Reject;

pub use self::read::{parse_op, parse_publication};

/// Most channels of one publication.
pub const CHANNELS_MAX: usize = 100;

/// Longest `ref`, quotes included: it is echoed with every answer.
pub const REF_BYTES_MAX: usize = 64;

/// An operation, and the client's name for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOp<'a> {
    /// The client's `ref`: a JSON string or number, echoed unchanged.
    pub reference: Option<&'a str>,
    /// The operation.
    pub body: OpBody<'a>,
}

/// What a client asks for. Channel names are not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpBody<'a> {
    /// Join a channel.
    Subscribe {
        /// The channel's name.
        channel: Cow<'a, str>,
        /// The cursor, as the client sent it.
        after: Option<Cow<'a, str>>,
    },
    /// Leave a channel.
    Unsubscribe {
        /// The channel's name.
        channel: Cow<'a, str>,
    },
    /// Publish an event.
    Publish(Publication<'a>),
    /// Open a channel's stream, or go on with it.
    Open {
        /// The channel's name.
        channel: Cow<'a, str>,
        /// The stream's name, if the client gives it one; it is checked.
        stream: Option<Cow<'a, str>>,
        /// The number of the token it appends first, if that is not the stream's next.
        offset: Option<u64>,
    },
    /// Append a token to a channel's stream: its data and type.
    Append(Publication<'a>),
    /// End a channel's stream.
    End {
        /// The channel's name.
        channel: Cow<'a, str>,
        /// Whether it ends as an error.
        failed: bool,
    },
    /// End a channel's stream, also one that another connection produces.
    Cancel {
        /// The channel's name.
        channel: Cow<'a, str>,
    },
    /// Ask for a pong.
    Ping,
    /// Ask who is on a channel.
    Presence {
        /// The channel's name.
        channel: Cow<'a, str>,
    },
    /// Renew the token.
    Auth {
        /// Must never be echoed or logged.
        token: Cow<'a, str>,
    },
}

/// An event to publish. Its type and key are checked, its channel is not yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication<'a> {
    /// The channel's name.
    pub channel: Cow<'a, str>,
    /// Its sender is not sent it.
    pub to_others: bool,
    /// Further channels that get the same.
    pub also: Vec<Cow<'a, str>>,
    /// Its data.
    pub payload: Payload<'a>,
    /// `event`: what browsers dispatch it as.
    pub event_type: Option<Cow<'a, str>>,
    /// `key`: a repeat of it is answered and not published again.
    pub key: Option<Cow<'a, str>>,
    /// `event_key`, `tombstone`, `ephemeral`.
    pub attributes: Option<Box<Attributes>>,
}

/// A payload: a JSON string in `data` is text, any other value there is JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The string's characters.
    Text(Cow<'a, str>),
    /// The value as written.
    Json(&'a str),
    /// From `data_base64`.
    Binary(Vec<u8>),
}

impl Payload<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Json(_) => false,
            Self::Binary(bytes) => bytes.is_empty(),
        }
    }
}

/// Why an operation was refused, and the client's name for it (if that could be read).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpError<'a> {
    /// As in [`ClientOp::reference`].
    pub reference: Option<&'a str>,
    /// What is wrong.
    pub reason: Invalid,
}

/// What is wrong with an operation, a publication or a part of one. All are the client's fault;
/// nothing took effect, and the connection may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// `data_base64` is not base64.
    Base64,
    /// No `channel`.
    Channel,
    /// `channels` is empty, too long or names one twice, or there is a `channel`, too.
    Channels,
    /// Neither `data` nor `data_base64`, or both.
    Data,
    /// The event key is empty, too long, or has control characters.
    EventKey,
    /// The event type is empty, too long, or has control characters.
    EventType,
    /// Not a JSON object, a field of the wrong type, or a field twice.
    Json,
    /// The idempotency key is empty, too long, or has control characters.
    Key,
    /// No `op`, or one we don't know.
    Op,
    /// `ref` is neither string nor number, or too long.
    Ref,
    /// The event type begins with the reserved prefix.
    ReservedEventType,
    /// A stream ends in a state that is neither `done` nor `error`.
    State,
    /// What is appended to a stream has more than data and type.
    StreamToken,
    /// It is neither for `all` nor for `others`.
    To,
    /// No `token`.
    Token,
    /// A tombstone without a key, with data, or one that is not to be kept.
    Tombstone,
    /// A publication has a field we do not know: a slip that would silently lose something.
    UnknownKey,
    /// Not UTF-8.
    Utf8,
}

impl From<Invalid> for Reject {
    fn from(invalid: Invalid) -> Self {
        let bad_request = Self::bad_request;
        match invalid {
            Invalid::Base64 => bad_request("bad_base64", "data_base64 is not base64"),
            Invalid::Channel => bad_request("bad_channel", "channel is missing"),
            Invalid::Channels => bad_request(
                "bad_channels",
                "a publication has either channel, or channels: 1 to 100 different names",
            ),
            Invalid::Data => {
                bad_request("bad_data", "exactly one of data and data_base64 is needed")
            }
            Invalid::EventKey => bad_request(
                "bad_event_key",
                "an event key is 1 to 128 bytes without control characters",
            ),
            Invalid::EventType => bad_request(
                "bad_event_type",
                "an event type is 1 to 128 bytes without control characters",
            ),
            Invalid::Json => bad_request("bad_json", "not a JSON object of the expected form"),
            Invalid::Key => bad_request(
                "bad_key",
                "an idempotency key is 1 to 128 bytes without control characters",
            ),
            Invalid::Op => bad_request(
                "unknown_op",
                "op must be subscribe, unsubscribe, publish, presence, open, append, end, cancel, ping or \
                 auth",
            ),
            Invalid::Ref => {
                bad_request("bad_ref", "ref must be a string or a number of at most 64 bytes")
            }
            Invalid::ReservedEventType => bad_request(
                "reserved_event_type",
                "event types that begin with pushline. are reserved",
            ),
            Invalid::State => bad_request("bad_state", "a stream ends as done or error"),
            Invalid::StreamToken => bad_request(
                "bad_stream_token",
                "a token has a channel, data and event, and nothing else",
            ),
            Invalid::To => bad_request("bad_to", "an event is published to all or to others"),
            Invalid::Token => bad_request("bad_token", "token is missing"),
            Invalid::Tombstone => bad_request(
                "bad_tombstone",
                "a tombstone has an event key and no data, and is not ephemeral",
            ),
            Invalid::UnknownKey => bad_request(
                "unknown_key",
                "a publication has channel or channels, data or data_base64, event, key, to, event_key, \
                 tombstone and ephemeral, and nothing else",
            ),
            Invalid::Utf8 => bad_request("bad_utf8", "not UTF-8"),
        }
    }
}
