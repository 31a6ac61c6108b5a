//! A new token for a running SSE stream. The stream has no way back to the server, so the token
//! comes in a POST, and the stream may live on another worker: a letter takes the grant there by
//! way of the log.

use std::sync::Arc;

use super::answer::Content;
use super::{Cx, access, grant};
use crate::auth::{Denied, Grant};
use crate::proto::http::response::Status;
use crate::proto::reject::Reject;
use crate::ring::Token;
use crate::worker::clock::Why;
use crate::worker::effect::Effect;

/// A letter from one worker to another.
#[derive(Debug)]
pub enum RefreshLetter {
    /// A connection of the sender brings a new token for a connection of the receiver.
    Refresh {
        /// The worker that sends this.
        from: u16,
        /// The connection that asks, at the sender.
        asker: Token,
        /// The connection the token is for.
        target: Token,
        /// What the new token grants.
        grant: Arc<Grant>,
    },
    /// The answer: what became of the new token.
    Refreshed {
        /// The connection that asked.
        asker: Token,
        /// What it is told.
        outcome: RefreshOutcome,
    },
}

/// What became of a new token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// The connection goes on with it.
    Refreshed,
    /// There is no such connection, or no longer.
    NoSuchConnection,
    /// It does not allow all channels the connection reads.
    Denied,
    /// It belongs to another subject.
    OtherSubject,
}

/// `POST /sse/{connection}/token`; the new token is where any request has its token.
pub(super) fn begin(cx: &mut Cx<'_>, target: &str) {
    let Some(target) = cx.shared.refresh_target(target) else {
        return answer(cx, RefreshOutcome::NoSuchConnection);
    };
    let Some(grant) = cx.session.grant().cloned() else {
        let message = "the server is open: there is nothing to refresh";
        return cx.reject(Reject::bad_request("open", message));
    };
    let (from, asker) = (cx.shared.home.worker, cx.token);
    let letter = RefreshLetter::Refresh { from, asker, target: target.token, grant };
    cx.await_log();
    cx.work().awaits_letter = true;
    cx.wait(Why::Letter);
    cx.push(Effect::Forward { to: target.worker, letter: Box::new(letter) });
}

/// Answers the request once its letter is answered.
pub fn refreshed(cx: &mut Cx<'_>, outcome: RefreshOutcome) {
    if ends_awaiting_letter(cx) {
        answer(cx, outcome);
    }
}

/// Refuses the request if its letter got no answer: the other worker is gone or overwhelmed.
pub(super) fn letter_lost(cx: &mut Cx<'_>) {
    if ends_awaiting_letter(cx) {
        let message = "the connection's worker did not answer";
        cx.reject(Reject::new(Status::ServiceUnavailable, "busy", message));
    }
}

fn ends_awaiting_letter(cx: &mut Cx<'_>) -> bool {
    cx.session.work.as_mut().is_some_and(|work| std::mem::take(&mut work.awaits_letter))
}

/// Gives a stream the grant that a letter brought.
pub fn take_grant(cx: &mut Cx<'_>, grant: &Arc<Grant>) -> RefreshOutcome {
    if !cx.session.is_subscriber() {
        return RefreshOutcome::NoSuchConnection;
    }
    match grant::replace_grant(cx, grant.clone()) {
        Ok(()) => RefreshOutcome::Refreshed,
        Err(Denied::OtherSubject) => RefreshOutcome::OtherSubject,
        Err(_) => RefreshOutcome::Denied,
    }
}

fn answer(cx: &mut Cx<'_>, outcome: RefreshOutcome) {
    match outcome {
        RefreshOutcome::Refreshed => {
            let content = Content { content_type: "", bytes: b"" };
            cx.respond(Status::NoContent, &content, &[]);
        }
        RefreshOutcome::NoSuchConnection => {
            let message = "no such connection: it may have ended";
            cx.reject(Reject::new(Status::NotFound, "connection", message));
        }
        RefreshOutcome::Denied => {
            let message = "the token does not open all channels of the connection";
            let message = message.into();
            cx.reject(Reject { message, ..Denied::SubscribeForbidden.into() });
        }
        RefreshOutcome::OtherSubject => access::answer_denied(cx, Denied::OtherSubject),
    }
}
