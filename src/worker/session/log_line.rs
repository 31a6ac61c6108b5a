//! Log lines about single connections and requests, written only if the settings ask for them. They
//! go over a bounded lane to a thread that may block on the log's reader; a worker never does, and
//! counts the lines that find the lane full.

use std::net::IpAddr;
use std::time::Duration;

use super::connection_id::ConnectionId;
use super::state::{LoggedRequest, Session};
use super::{Cx, Shared};
use crate::config::LogLevel;
use crate::metrics::TRANSPORTS;
use crate::proto::http::head::Request;
use crate::reason::CloseReason;

/// What a worker has to say; a thread of its own writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogLine {
    /// A request was answered. (Access log.)
    Answered {
        /// The connection.
        id: ConnectionId,
        /// The client, if addresses are known.
        client: Option<IpAddr>,
        /// The request.
        asked: Box<LoggedRequest>,
        /// The status it was answered with.
        status: u16,
        /// The time from its head to its answer.
        took: Duration,
    },
    /// A stream began.
    Opened {
        /// The connection.
        id: ConnectionId,
        /// The stream's kind, as in `metrics::TRANSPORTS`.
        transport: &'static str,
    },
    /// A connection ended.
    Closed {
        /// The connection.
        id: ConnectionId,
        /// Its kind at the end.
        transport: &'static str,
        /// Why it ended.
        reason: CloseReason,
        /// Seconds since it was accepted.
        age_s: u32,
    },
}

impl Shared {
    fn logs_connections(&self) -> bool {
        self.lines.is_some() && self.settings.log_lines.level >= LogLevel::Debug
    }

    fn log(&self, line: LogLine) {
        let taken = self.lines.as_ref().is_some_and(|lane| lane.try_send(line).is_ok());
        if !taken {
            self.metrics.lines_dropped.add(1);
        }
    }
}

impl Session {
    fn transport(&self) -> &'static str {
        TRANSPORTS[self.protocol.index()]
    }
}

/// Keeps what a line about the request will say, if its answer is to be logged.
pub(super) fn log_asked(cx: &mut Cx<'_>, request: Option<&Request<'_>>) {
    if cx.shared.lines.is_none() || !cx.shared.settings.log_lines.access {
        return;
    }
    let now = cx.shared.now;
    let asked = request
        .map_or_else(|| LoggedRequest::unreadable(now), |request| LoggedRequest::new(request, now));
    cx.work().answer.asked = Some(Box::new(asked));
}

/// Logs that the request was answered.
pub(super) fn log_answered(cx: &mut Cx<'_>, status: u16) {
    let work = cx.session.work.as_mut();
    let Some(asked) = work.and_then(|work| work.answer.asked.take()) else { return };
    let took = cx.shared.now.saturating_sub(asked.began);
    let id = cx.shared.connection_id(cx.token);
    let client = cx.world.client();
    cx.shared.log(LogLine::Answered { id, client, asked, status, took });
}

/// Logs that a stream has begun.
pub(super) fn log_opened(cx: &mut Cx<'_>) {
    if cx.shared.logs_connections() {
        let (id, transport) = (cx.shared.connection_id(cx.token), cx.session.transport());
        cx.shared.log(LogLine::Opened { id, transport });
    }
}

/// Logs that a connection has ended; its session still says what it was.
pub fn log_closed(cx: &mut Cx<'_>, reason: CloseReason) {
    if cx.shared.logs_connections() {
        let (id, transport) = (cx.shared.connection_id(cx.token), cx.session.transport());
        let age_s = cx.world.age_s();
        cx.shared.log(LogLine::Closed { id, transport, reason, age_s });
    }
}
