//! Closed lists of reasons: every connection that ends has one close reason, every refusal one
//! name.

use rustix::io::Errno;

use crate::log::message::{GapReason, Refusal};
use crate::proto::http::response::Status;
use crate::proto::reject::Reject;
use crate::proto::ws::close::{CloseCode, Violation};

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refused {
    /// No slot, or the server's limit is reached.
    Full,
    /// Its address has too many connections already.
    Address,
    /// Connections arrive too fast.
    Rate,
    /// The server is shutting down.
    Draining,
}

impl Refused {
    /// All of them, in the order of the variants, by which they are counted.
    pub const ALL: [Self; 4] = [Self::Full, Self::Address, Self::Rate, Self::Draining];

    /// The reason in a word.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "room",
            Self::Address => "address",
            Self::Rate => "rate",
            Self::Draining => "draining",
        }
    }
}

impl From<Refused> for Reject {
    fn from(refused: Refused) -> Self {
        let (code, message) = match refused {
            Refused::Full => ("too_many_connections", "no room for another connection"),
            Refused::Address => ("too_many_from_address", "no more connections for this address"),
            Refused::Rate => ("too_fast", "connections arrive too fast; come back in a second"),
            Refused::Draining => ("draining", "the server is going away"),
        };
        Self::new(Status::ServiceUnavailable, code, message)
    }
}

/// Why no connection can be accepted for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AcceptFailure {
    /// The worker's table, the process or the system has no descriptor left.
    Descriptors,
    /// `fs.epoll.max_user_watches` is reached.
    Watches,
    /// Anything else: most likely the kernel has no memory.
    Kernel,
}

impl AcceptFailure {
    /// All of them, in the order of the variants, by which they are counted.
    pub const ALL: [Self; 3] = [Self::Descriptors, Self::Watches, Self::Kernel];

    /// The failure in a word.
    pub fn label(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Watches => "watches",
            Self::Kernel => "kernel",
        }
    }

    /// What the operator has to look at.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Descriptors => "no descriptor",
            Self::Watches => "epoll.max_user_watches",
            Self::Kernel => "no memory",
        }
    }

    /// What the error that ended accepting means; `None` if the next accept may succeed at once.
    pub fn of(errno: i32) -> Option<Self> {
        let error = (errno != 0).then(|| Errno::from_raw_os_error(errno))?;
        match error {
            Errno::CONNABORTED => None,
            Errno::MFILE | Errno::NFILE => Some(Self::Descriptors),
            Errno::NOSPC => Some(Self::Watches),
            _ => Some(Self::Kernel),
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseReason {
    /// The last response said `Connection: close` and is sent.
    Answered,
    /// The peer closed in order: by FIN, or by a close frame.
    PeerClosed,
    /// The connection broke.
    PeerGone,
    /// Nothing was heard for a heartbeat after a ping.
    PeerDead,
    /// No request came in time on an idle connection.
    IdleTimeout,
    /// The head of a request did not come in time (408).
    HeadTimeout,
    /// The body of a request made no progress (408).
    BodyTimeout,
    /// The request broke the protocol.
    BadRequest,
    /// The WebSocket peer broke the protocol or a limit.
    Violation(Violation),
    /// The reader was slower than its channel and the policy is `disconnect`.
    SlowConsumer,
    /// Events were lost, and a bare WebSocket has no other way to be told.
    Gap,
    /// The time of its token is over.
    TokenExpired,
    /// The key that let it in was removed, or everybody's rights have changed.
    KeyRemoved,
    /// Its token no longer allows what it is subscribed to.
    Denied,
    /// No room: connections, address or rate limit.
    Refused,
    /// The log refused (lanes full, memory).
    Overloaded,
    /// The closing handshake took too long.
    CloseTimeout,
    /// An operator cut it by its id.
    Operator,
    /// The server is shutting down.
    Drain,
    /// An HTTP/2 client did too much of something that costs us more than it costs the client.
    Flood,
}

impl CloseReason {
    /// Labels in the order of [`CloseReason::index`].
    pub const LABELS: [&'static str; 20] = [
        "answered",
        "peer_closed",
        "peer_gone",
        "peer_dead",
        "idle_timeout",
        "head_timeout",
        "body_timeout",
        "bad_request",
        "violation",
        "slow_consumer",
        "gap",
        "token_expired",
        "denied",
        "refused",
        "overloaded",
        "close_timeout",
        "operator",
        "drain",
        "key_removed",
        "flood",
    ];

    /// Its place in tables, as in [`CloseReason::LABELS`].
    pub fn index(self) -> usize {
        match self {
            Self::Answered => 0,
            Self::PeerClosed => 1,
            Self::PeerGone => 2,
            Self::PeerDead => 3,
            Self::IdleTimeout => 4,
            Self::HeadTimeout => 5,
            Self::BodyTimeout => 6,
            Self::BadRequest => 7,
            Self::Violation(_) => 8,
            Self::SlowConsumer => 9,
            Self::Gap => 10,
            Self::TokenExpired => 11,
            Self::Denied => 12,
            Self::Refused => 13,
            Self::Overloaded => 14,
            Self::CloseTimeout => 15,
            Self::Operator => 16,
            Self::Drain => 17,
            Self::KeyRemoved => 18,
            Self::Flood => 19,
        }
    }

    /// Whether an SSE stream is told the reason: a page then knows that reconnecting with the same
    /// credentials is useless.
    pub fn is_told(self) -> bool {
        matches!(self, Self::TokenExpired | Self::KeyRemoved | Self::Denied | Self::Operator)
    }

    /// The code and text for a WebSocket's close frame, and for the last event of an SSE stream.
    pub fn close_frame(self) -> (CloseCode, &'static str) {
        match self {
            Self::Answered | Self::PeerClosed | Self::PeerGone | Self::CloseTimeout => {
                (CloseCode::NORMAL, "")
            }
            Self::PeerDead | Self::IdleTimeout | Self::HeadTimeout | Self::BodyTimeout => {
                (CloseCode::GOING_AWAY, "timeout")
            }
            Self::BadRequest => (CloseCode::PROTOCOL_ERROR, "bad request"),
            Self::Violation(violation) => (violation.code(), violation.reason()),
            Self::SlowConsumer => (CloseCode::TRY_AGAIN, "slow consumer"),
            Self::Gap => (CloseCode::GAP, "gap"),
            Self::TokenExpired => (CloseCode::TOKEN_EXPIRED, "token expired"),
            Self::KeyRemoved => (CloseCode::TOKEN_EXPIRED, "key removed"),
            Self::Denied => (CloseCode::POLICY, "denied"),
            Self::Flood => (CloseCode::POLICY, "too much"),
            Self::Refused | Self::Overloaded => (CloseCode::TRY_AGAIN, "overloaded"),
            Self::Operator => (CloseCode::POLICY, "closed by the operator"),
            Self::Drain => (CloseCode::RESTART, "restart"),
        }
    }
}

impl GapReason {
    /// The reason as clients are told it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Epoch => "epoch",
            Self::Overrun => "overrun",
        }
    }
}

impl From<Refusal> for Reject {
    fn from(refusal: Refusal) -> Self {
        let unavailable = |code, message| Self::new(Status::ServiceUnavailable, code, message);
        match refusal {
            Refusal::Busy => unavailable(
                "busy",
                "a subscriber's worker is behind; nothing was published, try again",
            ),
            Refusal::Memory => unavailable(
                "history_full",
                "the event does not fit the history's memory; nothing was published",
            ),
            Refusal::Channels => {
                unavailable("too_many_channels", "the number of channels is at its limit")
            }
            Refusal::Store => unavailable(
                "log_unavailable",
                "the log can't be written at the moment; try again later, with the same \
                 Idempotency-Key if there is one",
            ),
            Refusal::Behind => unavailable(
                "node_behind",
                "this node has not seen the event of the cursor yet; try again",
            ),
            Refusal::Rate => Self::new(
                Status::TooManyRequests,
                "publish_rate",
                "the publish rate is exceeded; nothing was published",
            ),
            Refusal::NoStream => {
                Self::new(Status::NotFound, "no_stream", "the channel has no open stream")
            }
            Refusal::StreamOpen => Self::new(
                Status::Conflict,
                "stream_open",
                "another stream of the channel is open; cancel it, or wait for its end",
            ),
            Refusal::StreamEnded => {
                Self::new(Status::Conflict, "stream_ended", "the stream has ended")
            }
            Refusal::StreamTaken => Self::new(
                Status::Conflict,
                "stream_taken",
                "another producer goes on with the stream",
            ),
            Refusal::StreamCut => Self::new(
                Status::Gone,
                "stream_cut",
                "the beginning of the stream is gone: it is longer than stream_bytes",
            ),
        }
    }
}
