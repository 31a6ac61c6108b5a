//! A new token for a running SSE stream. The stream has no way back to the server, so the token
//! comes in a POST, and the stream may live on another worker: a letter takes the grant there by
//! way of the log.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::answer::Content;
use super::{Cx, Shared, access};
use crate::auth::{Denied, Grant};
use crate::proto::http::response::Status;
use crate::proto::reject::Reject;
use crate::proto::sender::{Home, Sender};
use crate::ring::Token;
use crate::worker::clock::Why;
use crate::worker::effect::Effect;

/// A connection's name outside its worker: in streams, log lines and the operator's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    /// Which worker owns it.
    pub worker: u16,
    /// Its token at that worker.
    pub token: Token,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.worker, self.token.slot, self.token.generation)
    }
}

impl FromStr for ConnectionId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('-').map(|part| part.parse::<u32>().map_err(|_| ()));
        let mut part = || parts.next().ok_or(())?;
        let worker = u16::try_from(part()?).map_err(|_| ())?;
        let token = Token { slot: part()?, generation: part()? };
        if parts.next().is_some() { Err(()) } else { Ok(Self { worker, token }) }
    }
}

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
        /// The outcome.
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

impl Shared {
    /// The connection's name.
    pub(super) fn connection_id(&self, token: Token) -> ConnectionId {
        ConnectionId { worker: self.home.worker, token }
    }

    /// The name a stream is told to be refreshed by: its id, and a proof that cannot be guessed
    /// from those of other streams.
    pub(super) fn refresh_name(&self, token: Token) -> String {
        let id = self.connection_id(token).to_string();
        let proof = self.proof_key.prove(&id);
        format!("{id}-{proof}")
    }

    /// The connection as the sender of what it publishes.
    pub(super) fn sender(&self, token: Token) -> Sender {
        Sender { home: self.home, slot: token.slot, generation: token.generation }
    }

    /// The connection that a request is sent for, by the name its stream was told. `None` if it is gone,
    /// or at another node.
    pub(super) fn sender_named(&self, name: &str) -> Option<Sender> {
        let ConnectionId { worker, token } = self.refresh_target(name)?;
        Some(Sender { home: Home { worker, ..self.home }, ..self.sender(token) })
    }

    fn refresh_target(&self, name: &str) -> Option<ConnectionId> {
        let (id, proof) = name.rsplit_once('-')?;
        let proven = self.proof_key.is_proven(id, proof);
        id.parse().ok().filter(|_| proven)
    }
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
    if !cx.session.is_stream() {
        return RefreshOutcome::NoSuchConnection;
    }
    match access::replace_grant(cx, grant.clone()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_id_survives_the_round_trip_and_nothing_else_parses() {
        let token = Token { slot: 7, generation: u32::MAX };
        let id = ConnectionId { worker: 3, token };
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "1", "1-2", "1-2-3-4", "x-2-3", "70000-1-1", "1-2-4294967296", "1--2"] {
            assert_eq!(text.parse::<ConnectionId>(), Err(()), "{text}");
        }
    }
}
