//! Why a client fails, and whether another attempt could help.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::proto::ws::close::{CloseCode, Violation};
use crate::tools::wire::connection::WireError;
use crate::tools::wire::tls::TrustError;
use crate::tools::wire::url::BadUrl;

#[derive(Debug)]
pub enum ClientError {
    /// Not a URL we can use; the user's mistake.
    Url(BadUrl),
    /// Who is to be believed cannot be found out; the user's doing.
    Trust(TrustError),
    /// The environment variable named on the command line is not set; the user's mistake.
    TokenMissing(String),
    /// The token contains bytes no token has; the user's mistake.
    TokenInvalid(String),
    /// The server's certificate is not one to be believed; the user's doing, or an attack.
    Untrusted(rustls::Error),
    /// The connection could not be made: to where, and why.
    Unreachable(String, io::Error),
    /// The connection broke.
    Network(io::Error),
    /// The server closed the connection.
    Closed,
    /// Nothing came for longer than any server is silent.
    Silent,
    /// What came is not HTTP, or not what was asked for.
    NotUnderstood(String),
    /// An answer broke off or broke its coding.
    Answer(WireError),
    /// The server broke the WebSocket protocol.
    Frame(Violation),
    /// The server closed the WebSocket, and said why.
    ClosedWith(Option<CloseCode>, String),
    Refused(Refused),
    /// Standard input failed.
    Input(io::Error),
    /// Standard output failed, other than by a closed pipe.
    Output(io::Error),
    /// How many lines were refused; each was reported.
    LinesRefused(u64),
    /// How many lines were not confirmed when time was up.
    LinesUnconfirmed(usize),
    /// The signal handlers could not be set up.
    Signals(io::Error),
}

/// An answer with an error status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub status: u16,
    /// What the server said.
    pub message: String,
    /// When the server wants to be asked again.
    pub retry_after: Option<Duration>,
}

/// Whether another attempt could help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    Retry,
    /// The same would happen again.
    GiveUp,
}

impl ClientError {
    /// What came is not what a Pushline server says.
    pub(super) fn not_understood(what: impl Into<String>) -> Self {
        Self::NotUnderstood(what.into())
    }

    /// Whether another attempt could help.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Unreachable(..)
            | Self::Network(_)
            | Self::Closed
            | Self::Silent
            | Self::Answer(_)
            | Self::Frame(_) => Recovery::Retry,
            Self::Refused(refused) => refused.recovery(),
            Self::ClosedWith(Some(CloseCode::TOKEN_EXPIRED | CloseCode::POLICY), _) => {
                Recovery::GiveUp
            }
            Self::ClosedWith(..) => Recovery::Retry,
            Self::Url(_)
            | Self::Trust(_)
            | Self::Untrusted(_)
            | Self::TokenMissing(_)
            | Self::TokenInvalid(_)
            | Self::NotUnderstood(_)
            | Self::Input(_)
            | Self::Output(_)
            | Self::LinesRefused(_)
            | Self::LinesUnconfirmed(_)
            | Self::Signals(_) => Recovery::GiveUp,
        }
    }

    /// How long the server asked us to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refused) => refused.retry_after,
            _ => None,
        }
    }
}

impl Refused {
    /// The server has too much to do at the moment, or is not ready: that passes.
    pub(super) fn recovery(&self) -> Recovery {
        match self.status {
            408 | 425 | 429 | 500 | 502..=504 => Recovery::Retry,
            _ => Recovery::GiveUp,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(f, "{url}"),
            Self::Trust(error) => error.fmt(f),
            Self::Untrusted(error) => write!(
                f,
                "the server is not trusted: {error}; name its authority with --ca FILE, or for a first \
                 try say --insecure"
            ),
            Self::TokenMissing(name) => write!(f, "no token: {name} is not set"),
            Self::TokenInvalid(name) => write!(f, "{name} does not hold a token"),
            Self::Unreachable(address, error) => write!(f, "no server at {address}: {error}"),
            Self::Network(error) => write!(f, "{error}"),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Silent => f.write_str("the server has gone silent"),
            Self::NotUnderstood(what) => {
                write!(f, "not a Pushline server: {what}; is the URL right?")
            }
            Self::Answer(error) => error.fmt(f),
            Self::Frame(violation) => {
                write!(f, "the server broke the protocol: {}", violation.reason())
            }
            Self::ClosedWith(code, reason) => {
                let code = code.map_or(1005, |code| code.0);
                write!(f, "the server closed the connection: {code} {reason}")
            }
            Self::Refused(Refused { status, message, .. }) => write!(f, "{message} ({status})"),
            Self::Input(error) => write!(f, "standard input: {error}"),
            Self::Output(error) => write!(f, "standard output: {error}"),
            Self::LinesRefused(count) => write!(f, "{count} lines were refused"),
            Self::LinesUnconfirmed(count) => write!(f, "{count} lines may not be published"),
            Self::Signals(error) => write!(f, "signals: {error}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        if let Some(untrusted @ rustls::Error::InvalidCertificate(_)) = of_tls(&error) {
            return Self::Untrusted(untrusted.clone());
        }
        match error.kind() {
            // This is how a read timeout shows.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Network(error),
        }
    }
}

/// What TLS has to say.
fn of_tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

impl From<TrustError> for ClientError {
    fn from(error: TrustError) -> Self {
        Self::Trust(error)
    }
}

impl From<WireError> for ClientError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Io(error) => error.into(),
            WireError::Closed => Self::Closed,
            WireError::Body(_) => Self::Answer(error),
            WireError::Head(_) | WireError::BodyTooLong => Self::not_understood(error.to_string()),
        }
    }
}
