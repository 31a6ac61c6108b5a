//! Who may do what: the gate's answer to a request, kept with the connection.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use crate::auth::{
    Access, CORS_FIXED, Credentials, Denied, Gate, Grant, Page, Revoked, bearer_entry,
};
use crate::proto::http::head::Request;
use crate::proto::http::query;
use crate::reason::CloseReason;

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
        // Nothing to look at: no credentials count, and there is no page.
        if gate.is_open() && access == Access::Http && request.header("origin").is_none() {
            return true;
        }
        let admitted = admit(&gate, request, access, subprotocol_token, self.unix_s);
        match admitted.and_then(|grant| self.not_revoked(grant)) {
            Ok(grant) => {
                self.hold_grant(index, grant);
                true
            }
            Err(denied) => {
                if denied.follows_check() && !self.cost_of(request).is_zero() {
                    self.note_failed_check(index);
                    self.close_after_answer(index);
                }
                self.answer_denied(index, denied);
                false
            }
        }
    }

    /// Whether the server may be asked by this name; if not, the request is answered.
    pub(super) fn admit_host(&mut self, index: u32, request: &Request<'_>) -> bool {
        let admitted = self.gate.is_meant(request.host());
        if !admitted {
            self.close_after_answer(index);
            self.answer_denied(index, Denied::HostForbidden);
        }
        admitted
    }

    /// How long the check of a request's token takes, where it brings one and that is worth
    /// counting.
    pub(super) fn cost_of(&self, request: &Request<'_>) -> Duration {
        if !self.gate.is_slow() {
            return Duration::ZERO;
        }
        let Ok(query_token) = query_token(request) else { return Duration::ZERO };
        let entry = request
            .headers_named("sec-websocket-protocol")
            .flat_map(|list| list.split(|byte| *byte == b','))
            .find_map(|entry| bearer_entry(std::str::from_utf8(entry.trim_ascii()).ok()?));
        self.gate.cost_of(&credentials(request, entry, query_token.as_deref()))
    }

    /// Cross-origin lines of the answer to a page of this origin.
    pub(super) fn note_origin(&mut self, index: u32, origin: Option<&[u8]>) {
        let lines = self.gate.cors_headers(origin);
        let cors = match CORS_FIXED.into_iter().find(|fixed| *fixed == lines) {
            Some(fixed) => Cow::Borrowed(fixed),
            None => Cow::Owned(lines.to_vec()),
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
    fn end_if_disowned(&mut self, index: u32) {
        if self.slots[index as usize].is_subscriber() && !self.is_vouched_for(index) {
            self.disconnect(index, self.why_disowned(index));
        }
    }

    fn why_disowned(&self, index: u32) -> CloseReason {
        let grant = self.slots[index as usize].grant.as_ref();
        match grant.is_some_and(|grant| self.revoked.covers(grant)) {
            true => CloseReason::Operator,
            false => CloseReason::KeyRemoved,
        }
    }

    /// Whether what let the connection in would do so now.
    pub(super) fn is_vouched_for(&self, index: u32) -> bool {
        self.vouches_for(self.slots[index as usize].grant.as_deref())
    }

    fn vouches_for(&self, grant: Option<&Grant>) -> bool {
        self.gate.stands_by(grant) && !grant.is_some_and(|grant| self.revoked.covers(grant))
    }

    fn not_revoked(&self, grant: Arc<Grant>) -> Result<Arc<Grant>, Denied> {
        if self.revoked.covers(&grant) { Err(Denied::Revoked) } else { Ok(grant) }
    }

    /// From now on these tokens are void, those of open streams too.
    pub(super) fn take_revoked(&mut self, revoked: Arc<Revoked>) {
        self.revoked = revoked;
        self.vetted_to = Some(0);
    }

    /// Whether there may be a channel the connection may publish to.
    pub(super) fn may_publish_somewhere(&self, index: u32) -> bool {
        let grant = self.slots[index as usize].grant.as_ref();
        self.gate.is_open() || grant.is_some_and(|grant| grant.may_publish_somewhere())
    }

    /// What the connection may do.
    pub(super) fn permission(&self, index: u32) -> Permission {
        match &self.slots[index as usize].grant {
            _ if self.gate.is_open() => Permission::All,
            Some(grant) if !grant.is_expired(self.unix_s) && self.vouches_for(Some(grant)) => {
                Permission::Granted(grant.clone())
            }
            _ => Permission::Nothing,
        }
    }

    pub(super) fn answer_denied(&mut self, index: u32, denied: Denied) {
        let challenge = denied.www_authenticate();
        let headers: &[(&str, &[u8])] = match &challenge {
            Some(challenge) => &[("WWW-Authenticate", challenge.as_bytes())],
            None => &[],
        };
        self.reject_with(index, denied, headers);
    }

    /// A running connection shows a new token.
    pub(super) fn refresh_grant(&mut self, index: u32, token: &str) -> Result<(), Denied> {
        let checked = self.gate.authenticate_token(token, self.unix_s);
        if checked.is_err() && !self.gate.cost_of_token(token).is_zero() {
            self.note_failed_check(index);
        }
        self.replace_grant(index, checked?)
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
        let grant = self.not_revoked(grant)?;
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
    let query_token = query_token(request)?;
    let credentials = credentials(request, subprotocol_token, query_token.as_deref());
    let page = Page {
        origin: request.header("origin"),
        host: request.host(),
        fetch_site: request.header("sec-fetch-site"),
    };
    gate.admit(access, &credentials, &page, now_unix_s)
}

fn credentials<'a>(
    request: &'a Request<'_>,
    subprotocol_token: Option<&'a str>,
    query_token: Option<&'a str>,
) -> Credentials<'a> {
    Credentials {
        authorization: request.header("authorization"),
        api_key: request.header("x-api-key"),
        subprotocol_token,
        query_token,
        cookie: request.header("cookie"),
    }
}

fn query_token(request: &Request<'_>) -> Result<Option<String>, Denied> {
    let mut tokens = query::pairs(request.query())
        .filter_map(Result::ok)
        .filter(|(key, _)| key.as_ref() == b"access_token")
        .map(|(_, value)| String::from_utf8_lossy(&value).into_owned());
    let token = tokens.next();
    match tokens.next() {
        Some(_) => Err(Denied::MalformedCredentials),
        None => Ok(token),
    }
}
