//! Who may do what: the gate's answer to a request, kept with the connection.

use std::borrow::Cow;
use std::sync::Arc;

use super::core::Core;
use crate::auth::{Access, CORS_ANYBODY, Credentials, Denied, Gate, Grant};
use crate::limits::TOKEN_CHECKS_PER_TURN;
use crate::proto::http::head::Request;
use crate::proto::http::query;
use crate::proto::http::response::Status;
use crate::reason::CloseReason;
use crate::ring::Token;

/// Connections looked at in a turn after the rules have changed: some 100 us.
const VETTED_PER_TURN: u32 = 4096;

/// What a connection may do.
#[derive(Clone, Debug)]
pub(super) enum Permission {
    /// Everything: the server is open.
    All,
    /// What its grant says.
    Granted(Arc<Grant>),
    /// Nothing.
    Nothing,
}

impl Permission {
    pub fn may_publish(&self, channel: &str) -> bool {
        match self {
            Self::All => true,
            Self::Granted(grant) => grant.may_publish(channel),
            Self::Nothing => false,
        }
    }

    pub fn may_subscribe(&self, channel: &str) -> bool {
        match self {
            Self::All => true,
            Self::Granted(grant) => grant.may_subscribe(channel),
            Self::Nothing => false,
        }
    }
}

/// Checks of tokens in the present turn.
#[derive(Debug)]
pub(super) struct TokenChecks {
    /// Further ones that are made.
    pub left: u32,
    /// Whose was the last.
    pub last: Option<Token>,
}

impl Default for TokenChecks {
    /// At the beginning of a turn.
    fn default() -> Self {
        Self { left: TOKEN_CHECKS_PER_TURN, last: None }
    }
}

/// Whether there may be a token in a request.
pub(super) fn may_bring_token(request: &Request<'_>) -> bool {
    let headers = ["authorization", "cookie", "sec-websocket-protocol"];
    headers.iter().any(|name| request.header(name).is_some()) || !request.query().is_empty()
}

/// An error as it is answered: status, code, message.
pub(super) type Fault = (Status, &'static str, &'static str);

/// A refusal by the rules of access, as it is answered.
pub(super) fn fault(denied: Denied) -> Fault {
    let status = match denied.status() {
        401 => Status::Unauthorized,
        _ => Status::Forbidden,
    };
    (status, denied.code(), denied.message())
}

impl Core {
    /// Lets a request in, or answers it with the refusal. The grant stays with the connection.
    pub(super) fn admit_request(
        &mut self,
        index: u32,
        request: &Request<'_>,
        access: Access,
        subprotocol_token: Option<&str>,
    ) -> bool {
        let gate = self.gate.clone();
        // Nothing to look at: no credentials count, and no origin is refused.
        if gate.is_open() && access == Access::Http {
            return true;
        }
        self.note_token_check(index);
        match admit(&gate, request, access, subprotocol_token, self.unix_s) {
            Ok(grant) => {
                self.hold_grant(index, grant);
                true
            }
            Err(denied) => {
                self.answer_denied(index, denied);
                false
            }
        }
    }

    fn note_token_check(&mut self, index: u32) {
        if self.gate.is_slow() {
            let left = self.token_checks.left.saturating_sub(1);
            self.token_checks = TokenChecks { left, last: Some(self.token(index)) };
        }
    }

    /// Whether the connection's next token has to wait for another turn: there is one for each
    /// connection, and not too many in all. Then the connection is read on in that turn.
    pub(super) fn token_has_to_wait(&mut self, index: u32) -> bool {
        let waits = self.token_checks.left == 0 || self.showed_token(index);
        if waits {
            self.read_on_later(index);
        }
        waits
    }

    /// Whether the connection was the last to have its token checked in this turn.
    pub(super) fn showed_token(&self, index: u32) -> bool {
        self.token_checks.last == Some(self.token(index))
    }

    /// Cross-origin lines of the answer to a page of this origin.
    pub(super) fn note_origin(&mut self, index: u32, origin: Option<&[u8]>) {
        let lines = self.gate.cors_headers(origin);
        let cors = match lines == CORS_ANYBODY {
            true => Cow::Borrowed(CORS_ANYBODY),
            false => Cow::Owned(lines.to_vec()),
        };
        self.work(index).answer.cors = cors;
    }

    fn hold_grant(&mut self, index: u32, grant: Arc<Grant>) {
        let slot = &mut self.slots[index as usize];
        slot.expires_unix_s =
            grant.expires_at_unix_s().map_or(u32::MAX, |at| u32::try_from(at).unwrap_or(u32::MAX));
        slot.grant = Some(grant);
    }

    /// The connection is a stream: it ends when its grant does. (Requests need no such entry, they
    /// are over by then.)
    pub(super) fn await_expiry(&mut self, index: u32) {
        let at = self.slots[index as usize].expires_unix_s;
        if at != u32::MAX {
            self.expiries.push(at, self.token(index));
        }
    }

    /// Ends the streams whose grant has run out this second.
    pub(super) fn check_expiries(&mut self) {
        while let Some(token) = self.expiries.pop_due(self.unix_s) {
            // Gone, or renewed: a new grant has an entry of its own.
            if self.is_current(token) {
                self.expire_if_due(token.slot);
            }
        }
        if self.expiries.are_crowded(self.open) {
            let mut expiries = std::mem::take(&mut self.expiries);
            expiries.retain(|at, token| {
                self.is_current(token) && self.slots[token.slot as usize].expires_unix_s == at
            });
            self.expiries = expiries;
        }
    }

    /// From now on these rules hold, for streams that are open too.
    pub(super) fn take_gate(&mut self, gate: Arc<Gate>) {
        self.gate = gate;
        self.vetted_to = Some(0);
    }

    /// Ends streams that the rules, which have changed, no longer let in; a slice of them a turn.
    pub(super) fn vet_slice(&mut self) {
        let Some(from) = self.vetted_to else { return };
        let end = self.slots.len() as u32;
        let to = end.min(from.saturating_add(VETTED_PER_TURN));
        for index in from..to {
            self.end_if_disowned(index);
        }
        self.vetted_to = (to < end).then_some(to);
    }

    /// Nothing vouches for the stream any more: it ends.
    pub(super) fn end_if_disowned(&mut self, index: u32) {
        let slot = &self.slots[index as usize];
        if slot.is_subscriber() && !self.gate.stands_by(slot.grant.as_deref()) {
            self.disconnect(index, CloseReason::KeyRemoved);
        }
    }

    /// What the connection may do.
    pub(super) fn permission(&self, index: u32) -> Permission {
        match &self.slots[index as usize].grant {
            _ if self.gate.is_open() => Permission::All,
            Some(grant) if !grant.is_expired(self.unix_s) && self.gate.stands_by(Some(grant)) => {
                Permission::Granted(grant.clone())
            }
            _ => Permission::Nothing,
        }
    }

    pub(super) fn answer_denied(&mut self, index: u32, denied: Denied) {
        let (status, code, message) = fault(denied);
        let challenge = denied.www_authenticate();
        let headers: &[(&str, &[u8])] = match &challenge {
            Some(challenge) => &[("WWW-Authenticate", challenge.as_bytes())],
            None => &[],
        };
        self.respond_error(index, status, code, message, headers);
    }

    /// A running connection shows a new token.
    pub(super) fn refresh_grant(&mut self, index: u32, token: &str) -> Result<(), Denied> {
        self.note_token_check(index);
        let grant = self.gate.authenticate_token(token, self.unix_s)?;
        self.replace_grant(index, grant)
    }

    /// The same with a token that is already checked. It must be of the same subject, if the old one
    /// named one, and open every channel the connection has; else all stays as it was.
    pub(super) fn replace_grant(&mut self, index: u32, grant: Arc<Grant>) -> Result<(), Denied> {
        let slot = &self.slots[index as usize];
        let subject = slot.grant.as_ref().and_then(|old| old.subject());
        if subject.is_some() && subject != grant.subject() {
            return Err(Denied::OtherSubject);
        }
        // Another worker may have checked it, by rules that have changed meanwhile.
        if !self.gate.stands_by(Some(&grant)) {
            return Err(Denied::UnknownKey);
        }
        let live = slot.is_live().then_some(slot.replica);
        let explicit = slot.work.iter().flat_map(|work| work.subs.iter().map(|sub| sub.replica));
        for replica in live.into_iter().chain(explicit) {
            grant.check_subscribe(&self.channels[replica].name)?;
        }
        let before = self.slots[index as usize].expires_unix_s;
        self.hold_grant(index, grant);
        if self.slots[index as usize].expires_unix_s != before {
            self.await_expiry(index);
        }
        Ok(())
    }

    /// The grant has run out: the connection ends, saying so where it can.
    fn expire_if_due(&mut self, index: u32) {
        let slot = &self.slots[index as usize];
        let due = u64::from(slot.expires_unix_s) <= self.unix_s && slot.expires_unix_s != u32::MAX;
        if due && slot.is_subscriber() && !self.gate.is_open() {
            self.disconnect(index, CloseReason::TokenExpired);
        }
    }
}

fn admit(
    gate: &Gate,
    request: &Request<'_>,
    access: Access,
    subprotocol_token: Option<&str>,
    now_unix_s: u64,
) -> Result<Arc<Grant>, Denied> {
    // Two of one would leave open which one counts.
    for name in ["authorization", "cookie", "x-api-key", "origin"] {
        if request.headers_named(name).nth(1).is_some() {
            return Err(Denied::MalformedCredentials);
        }
    }
    let mut query_tokens = query::pairs(request.query())
        .filter_map(Result::ok)
        .filter(|(key, _)| key.as_ref() == b"access_token")
        .map(|(_, value)| String::from_utf8_lossy(&value).into_owned());
    let query_token = query_tokens.next();
    if query_tokens.next().is_some() {
        return Err(Denied::MalformedCredentials);
    }
    let credentials = Credentials {
        authorization: request.header("authorization"),
        api_key: request.header("x-api-key"),
        subprotocol_token,
        query_token: query_token.as_deref(),
        cookie: request.header("cookie"),
    };
    let origin = request.header("origin");
    gate.admit(access, &credentials, origin, request.host(), now_unix_s)
}
