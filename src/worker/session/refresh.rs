//! A new token for a running SSE stream: it has no way back, so the token comes by a POST, and the
//! connection it is for may live on another worker. The letter goes there by way of the log.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::answer::Content;
use super::{Cx, Sessions};
use crate::auth::{Denied, Grant};
use crate::proto::http::response::Status;
use crate::proto::reject::Reject;
use crate::ring::Token;
use crate::worker::clock::Why;
use crate::worker::effect::Effect;

/// A connection's name outside its worker: in streams, logs and the operator's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    /// Which worker owns it.
    pub worker: u16,
    /// Which connection of that worker.
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

/// What workers write to each other.
#[derive(Debug)]
pub enum RefreshLetter {
    /// A connection of mine brings a new token for a connection of yours.
    Refresh {
        /// Who sends this.
        from: u16,
        /// The connection that asks, at the sender.
        asker: Token,
        /// The connection it is for.
        target: Token,
        /// What the new token grants.
        grant: Arc<Grant>,
    },
    /// What became of it.
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
    /// There is no such connection (any more).
    NoSuchConnection,
    /// It does not open all channels the connection has.
    Denied,
    /// It is another subject's.
    OtherSubject,
}

impl Sessions {
    /// The connection's name.
    pub(super) fn connection_id(&self, token: Token) -> ConnectionId {
        ConnectionId { worker: self.worker, token }
    }

    /// What a stream is told to be refreshed by: its name, and a proof that cannot be guessed from
    /// other names.
    pub(super) fn refresh_name(&self, token: Token) -> String {
        let id = self.connection_id(token).to_string();
        let proof = self.proof_key.prove(&id);
        format!("{id}-{proof}")
    }

    fn refresh_target(&self, name: &str) -> Option<ConnectionId> {
        let (id, proof) = name.rsplit_once('-')?;
        let proven = self.proof_key.is_proven(id, proof);
        id.parse().ok().filter(|_| proven)
    }

    /// `POST /sse/{connection}/token`, with the new token where a request has its token.
    pub(super) fn refresh_token(&mut self, cx: &mut Cx<'_>, target: &str) {
        let Some(target) = self.refresh_target(target) else {
            return self.answer_refresh(cx, RefreshOutcome::NoSuchConnection);
        };
        let index = cx.index();
        let Some(grant) = self.grant(index).cloned() else {
            let message = "the server is open: there is nothing to refresh";
            return self.reject(cx, Reject::bad_request("open", message));
        };
        let (from, asker) = (self.worker, cx.token);
        let letter = RefreshLetter::Refresh { from, asker, target: target.token, grant };
        self.await_log(index);
        self.work(index).awaits_letter = true;
        cx.wait(Why::Letter);
        cx.push(Effect::Forward { to: target.worker, letter: Box::new(letter) });
    }

    /// The answer to its letter has come.
    pub fn refreshed(&mut self, cx: &mut Cx<'_>, outcome: RefreshOutcome) {
        if self.ends_awaiting_letter(cx.index()) {
            self.answer_refresh(cx, outcome);
        }
    }

    /// No answer came: the other worker is gone or overwhelmed.
    pub(super) fn letter_lost(&mut self, cx: &mut Cx<'_>) {
        if self.ends_awaiting_letter(cx.index()) {
            let message = "the connection's worker did not answer";
            self.reject(cx, Reject::new(Status::ServiceUnavailable, "busy", message));
        }
    }

    fn ends_awaiting_letter(&mut self, index: u32) -> bool {
        self.of[index as usize]
            .work
            .as_mut()
            .is_some_and(|work| std::mem::take(&mut work.awaits_letter))
    }

    /// A letter brings a stream a new grant.
    pub fn take_grant(&mut self, cx: &mut Cx<'_>, grant: &Arc<Grant>) -> RefreshOutcome {
        if !self.is_stream(cx.index()) {
            return RefreshOutcome::NoSuchConnection;
        }
        match self.replace_grant(cx, grant.clone()) {
            Ok(()) => RefreshOutcome::Refreshed,
            Err(Denied::OtherSubject) => RefreshOutcome::OtherSubject,
            Err(_) => RefreshOutcome::Denied,
        }
    }

    fn answer_refresh(&mut self, cx: &mut Cx<'_>, outcome: RefreshOutcome) {
        match outcome {
            RefreshOutcome::Refreshed => {
                let content = Content { content_type: "", bytes: b"" };
                self.respond(cx, Status::NoContent, &content, &[]);
            }
            RefreshOutcome::NoSuchConnection => {
                let message = "no such connection: it may have ended";
                self.reject(cx, Reject::new(Status::NotFound, "connection", message));
            }
            RefreshOutcome::Denied => {
                let message = "the token does not open all channels of the connection";
                let message = message.into();
                self.reject(cx, Reject { message, ..Denied::SubscribeForbidden.into() });
            }
            RefreshOutcome::OtherSubject => self.answer_denied(cx, Denied::OtherSubject),
        }
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
