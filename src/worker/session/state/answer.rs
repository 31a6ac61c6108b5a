//! How the present request is to be answered, and what the access log shows of it.

use std::borrow::Cow;
use std::time::Duration;

use crate::proto::http::head::{Method, Request};
use crate::proto::http::response::{BodyMode, Connection};

/// How much of a path is shown: enough for the name of any channel.
const PATH_BYTES_MAX: usize = 256;

/// Shown in place of what was not understood or must not be shown.
const HIDDEN: &str = "-";

/// How a request is to be answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Whether the connection stays open afterwards.
    pub connection: Connection,
    /// Whether the client sees the body.
    pub mode: BodyMode,
    /// CORS headers.
    pub cors: Cow<'static, [u8]>,
    /// The request comes from an EventSource, for which any status but 200 is final.
    pub to_event_source: bool,
    /// The request, if its answer goes to the access log.
    pub asked: Option<Box<LoggedRequest>>,
}

impl Default for Answer {
    fn default() -> Self {
        let (connection, mode) = (Connection::KeepAlive, BodyMode::Whole);
        Self { connection, mode, cors: Cow::Borrowed(b""), to_event_source: false, asked: None }
    }
}

/// A request as the access log shows it: no query and no header, which hold tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedRequest {
    /// The method as sent, or a mark if the head could not be read.
    pub method: Box<str>,
    /// The path as sent, cut where it is too long or secret.
    pub path: Box<str>,
    /// When its head was complete, on the worker's clock.
    pub(in crate::worker::session) began: Duration,
}

impl LoggedRequest {
    pub(in crate::worker::session) fn new(request: &Request<'_>, began: Duration) -> Self {
        let method = match request.method() {
            Method::Delete => "DELETE",
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Options => "OPTIONS",
            Method::Other(method) => method,
            Method::Post => "POST",
        };
        Self { method: method.into(), path: shown(request.path()).into(), began }
    }

    /// A request whose head could not be parsed.
    pub(in crate::worker::session) fn unreadable(began: Duration) -> Self {
        Self { method: HIDDEN.into(), path: HIDDEN.into(), began }
    }
}

/// The path without the name by which a stream's token is refreshed, which is a secret of its own.
fn shown(path: &str) -> &str {
    if path.starts_with("/sse/") {
        return "/sse/-/token";
    }
    // A path is ASCII.
    path.get(..PATH_BYTES_MAX).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_without_what_could_be_a_secret_and_not_without_end() {
        assert_eq!(shown("/channels/news"), "/channels/news");
        assert_eq!(shown("/sse"), "/sse");
        assert_eq!(shown("/sse/0-1-2-7c8e2d24f95370c9/token"), "/sse/-/token");
        assert_eq!(shown(&"/x".repeat(4000)).len(), PATH_BYTES_MAX);
    }
}
