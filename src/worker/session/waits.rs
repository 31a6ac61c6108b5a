//! What a session does when a deadline passes: see [`Why`] for the deadlines.

use std::time::Duration;

use super::state::{Flags, HttpState, Protocol, Session};
use super::{
    Cx, Sessions, client, closing, http2, ndjson, produce, refresh, unfinished, ws_streams,
};
use crate::limits::{
    LETTER_TIME_MAX, LINGER_TIME_MAX, PUBLISH_RETRY_PAUSE, REFUSAL_TIME_MAX, WS_CLOSE_TIME_MAX,
};
use crate::proto::dialect::Heartbeat;
use crate::proto::h2::ErrorCode;
use crate::proto::http::response::Status;
use crate::proto::reject::Reject;
use crate::reason::CloseReason;
use crate::worker::clock::{Mark, Why};
use crate::worker::effect::Ending;

const HEAD_TIMEOUT: Reject =
    Reject::new(Status::RequestTimeout, "head_timeout", "the head took too long");

/// What is due when the clock's hand, which goes round all connections, comes to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Nothing,
    /// It waits for its next request, which it may not do for ever.
    EndIfIdle,
    /// A few bytes are due, so that proxies and peers know the server is there.
    Beat(Heartbeat),
    /// The same, where that is no stream's to say.
    Ping,
    /// The peer has not answered.
    Dead,
}

impl Sessions {
    /// How long a session may take for this.
    pub fn time_for(&self, why: Why) -> Duration {
        match why {
            Why::Head => self.shared.settings.head_time,
            Why::Body => self.shared.settings.body_time,
            Why::Stream => self.shared.settings.stream_idle,
            Why::Linger => LINGER_TIME_MAX,
            Why::WsClose => WS_CLOSE_TIME_MAX,
            // As long as the kernel waits for a peer that accepts nothing.
            Why::WsCloseStalled => self.shared.settings.dead_time.max(WS_CLOSE_TIME_MAX),
            Why::Refusal => REFUSAL_TIME_MAX,
            Why::Letter => LETTER_TIME_MAX,
            Why::Retry => PUBLISH_RETRY_PAUSE,
            Why::Stalled => self.shared.settings.dead_time,
        }
    }
}

impl Session {
    /// Tells, when the time is over, whether the session is still at the same point.
    pub fn mark(&self, why: Why) -> Mark {
        let requests = self.requests;
        match why {
            Why::Head | Why::Refusal | Why::Letter => Mark { requests, progress: 0 },
            Why::Body | Why::Stream => {
                let progress = self.work().map_or(0, |work| work.progress);
                Mark { requests, progress }
            }
            Why::Linger | Why::WsClose | Why::WsCloseStalled | Why::Retry | Why::Stalled => {
                Mark::default()
            }
        }
    }

    /// Whether a deadline set at `before` can still do anything when it passes. Only heads, bodies
    /// and messages are numerous enough to be worth checking.
    pub fn matters(&self, why: Why, before: Mark) -> bool {
        let now = self.mark(why);
        match why {
            Why::Head => {
                let begins = self.protocol == Protocol::Http || self.has_block();
                begins && now == before
            }
            Why::Stream if self.work().is_some_and(|work| work.ws_streams.is_some()) => true,
            Why::Body | Why::Stream => {
                let receiving = self.work().is_some_and(|work| work.is_receiving());
                receiving && now.requests == before.requests
            }
            _ => true,
        }
    }

    /// The hand has come to this session. `blocked`: its socket is full. `streams`: what it
    /// carries.
    pub fn look(&mut self, blocked: bool, streams: usize) -> Look {
        let beat = Look::Beat(self.heartbeat());
        match self.protocol {
            Protocol::Http => Look::EndIfIdle,
            Protocol::Http2 if streams == 0 => Look::EndIfIdle,
            Protocol::Http2 if blocked => {
                self.heard();
                Look::Nothing
            }
            Protocol::Http2 if self.flags.contains(Flags::PING_LATE) => Look::Dead,
            Protocol::Http2 => Look::Ping,
            Protocol::Sse if self.dialect.has_heartbeats() => beat,
            Protocol::Sse => Look::Nothing,
            // A ping would queue behind all that has not reached the peer yet, so its silence says
            // nothing. TCP_USER_TIMEOUT cuts it if it accepts no byte at all.
            Protocol::Ws if blocked => {
                self.heard();
                Look::Nothing
            }
            // One late answer may be our own fault, when the machine is overloaded; cutting such
            // peers would only bring them all back at once.
            Protocol::Ws if self.flags.contains(Flags::PING_LATE) => Look::Dead,
            Protocol::Ws => {
                self.pinged();
                beat
            }
            Protocol::WsClosing => Look::Nothing,
        }
    }
}

/// A deadline set at `mark` has passed.
pub fn due(cx: &mut Cx<'_>, why: Why, mark: Mark) {
    let now = cx.session.mark(why);
    let same = now == mark;
    let state = cx.session.work().map(|work| &work.http);
    match (why, cx.session.protocol, state) {
        (Why::Head, Protocol::Http, None) if same => {
            cx.end(Ending::Now(CloseReason::HeadTimeout));
        }
        (Why::Head, Protocol::Http, Some(HttpState::Head(_))) if same => {
            cx.note(CloseReason::HeadTimeout);
            cx.reject_and_close(HEAD_TIMEOUT);
        }
        (Why::Head, Protocol::Http2, _) if same && cx.session.has_block() => {
            http2::end(cx, ErrorCode::EnhanceYourCalm, CloseReason::HeadTimeout);
        }
        // A later body or message has a deadline of its own.
        (Why::Body, Protocol::Http | Protocol::Ws, _) if now.requests == mark.requests => {
            unfinished::progress_due(cx, same);
        }
        (Why::Stream, Protocol::Http, Some(HttpState::Stream(_)))
            if now.requests == mark.requests =>
        {
            produce::due(cx, same);
        }
        (Why::Stream, Protocol::Ws, _) => ws_streams::due(cx),
        (Why::Retry, Protocol::Ws, _) => ws_streams::go_on(cx),
        (Why::WsClose, Protocol::Ws, _) => closing::say_farewell(cx),
        (Why::WsClose | Why::WsCloseStalled, Protocol::WsClosing, _) => {
            cx.end(Ending::Now(CloseReason::CloseTimeout));
        }
        (Why::Refusal, Protocol::Http, _) if same => client::refuse_unheard(cx),
        (Why::Refusal, Protocol::Http2, _) => closing::disconnect(cx, CloseReason::Refused),
        (Why::Letter, Protocol::Http, _) if same => refresh::letter_lost(cx),
        (Why::Retry, Protocol::Http, Some(HttpState::Ndjson(_))) => ndjson::go_on(cx),
        (Why::Retry, Protocol::Http, Some(HttpState::Stream(_))) => produce::go_on(cx),
        // The deadline was kept.
        _ => {}
    }
}
