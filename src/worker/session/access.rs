//! What a connection may do: the gate's answer to a request, kept with the session.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::{Cx, Sessions};
use crate::auth::{
    Access, CORS_FIXED, Credentials, Denied, Gate, Grant, Page, Question, Revoked, bearer_entry,
};
use crate::proto::http::head::Request;
use crate::proto::http::query;
use crate::proto::identity::Identity;
use crate::reason::CloseReason;
use crate::worker::effect::Effect;

/// Connections checked per turn after the rules have changed: about 100 us.
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

    pub fn may_cancel(&self, channel: &str) -> bool {
        match self {
            Self::All => true,
            Self::Granted(grant) => grant.may_cancel(channel),
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

impl Sessions {
    /// Lets a request in, or answers it with the refusal.
    pub(super) fn admit_request(
        &mut self,
        cx: &mut Cx<'_>,
        request: &Request<'_>,
        access: Access,
        subprotocol_token: Option<&str>,
    ) -> bool {
        match self.check_request(cx, request, access, subprotocol_token) {
            Ok(()) => true,
            Err(denied) => {
                self.answer_denied(cx, denied);
                false
            }
        }
    }

    /// Checks what a request shows. The grant stays with the connection.
    pub(super) fn check_request(
        &mut self,
        cx: &mut Cx<'_>,
        request: &Request<'_>,
        access: Access,
        subprotocol_token: Option<&str>,
    ) -> Result<(), Denied> {
        // There is nothing to check: the request has no credentials and comes from no page.
        let is_plain = || ["origin", "authorization"].iter().all(|of| request.header(of).is_none());
        if self.gate.is_open() && access == Access::Http && is_plain() {
            self.of[cx.index()].grant = None;
            return Ok(());
        }
        let shown = (subprotocol_token, self.is_certified(cx.index()));
        let admitted = match self.decided(request) {
            Some(decided) => self.gate.admit_decided(access, decided, &page_of(request)),
            None => admit(&self.gate, request, access, shown, self.unix_s),
        };
        match admitted.and_then(|grant| self.not_revoked(grant)) {
            Ok(grant) => {
                self.of[cx.index()].grant = Some(grant);
                Ok(())
            }
            Err(denied) => {
                if denied.follows_check() && !self.cost_of(request).is_zero() {
                    self.note_failed_check(cx);
                    self.close_after_answer(cx.index());
                }
                Err(denied)
            }
        }
    }

    /// What to ask the backend about the request, if it is the backend's to decide.
    pub(super) fn question_of(&self, request: &Request<'_>) -> Option<Question> {
        // With two of the same name it is unclear which one counts.
        let is_doubled = |name: &str| request.headers_named(name).nth(1).is_some();
        if ["authorization", "cookie", "x-api-key"].into_iter().any(is_doubled) {
            return None;
        }
        let query_token = query_token(request).ok()?;
        let mut entries = request
            .headers_named("sec-websocket-protocol")
            .flat_map(|list| list.split(|byte| *byte == b','));
        let entry =
            entries.find_map(|entry| bearer_entry(std::str::from_utf8(entry.trim_ascii()).ok()?));
        self.gate.question(&credentials(request, entry, query_token.as_deref()))
    }

    /// Whether the server may be asked by this name; if not, the request is answered.
    pub(super) fn admit_host(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> bool {
        let admitted = self.gate.is_meant(request.host());
        if !admitted {
            self.close_after_answer(cx.index());
            self.answer_denied(cx, Denied::HostForbidden);
        }
        admitted
    }

    /// How long checking the request's token takes. Zero without a token, or if it is too cheap to
    /// count.
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

    /// Remembers the CORS headers with which a page of this origin is answered.
    pub(super) fn note_origin(&mut self, cx: &mut Cx<'_>, origin: Option<&[u8]>) {
        let index = cx.index();
        let lines = self.gate.cors_headers(origin);
        let cors = match CORS_FIXED.into_iter().find(|fixed| *fixed == lines) {
            Some(fixed) => Cow::Borrowed(fixed),
            None => Cow::Owned(lines.to_vec()),
        };
        self.work(index).answer.cors = cors;
    }

    /// The second of unix time in which the session's grant runs out.
    fn expires_at_unix_s(&self, index: u32) -> Option<u32> {
        let at = self.grant(index)?.expires_at_unix_s()?;
        u32::try_from(at).ok()
    }

    /// Ends the stream when its grant does. (A request needs no such entry: it is over by then.)
    pub(super) fn await_expiry(&mut self, cx: &mut Cx<'_>) {
        if let Some(at) = self.expires_at_unix_s(cx.index()) {
            cx.push(Effect::ExpireAt(at));
        }
    }

    /// Whether the session's grant runs out in this second, and no other.
    pub fn expires_at(&self, index: u32, unix_s: u32) -> bool {
        self.expires_at_unix_s(index) == Some(unix_s)
    }

    /// Whether the session is a stream whose grant has run out.
    pub fn is_expired_stream(&self, index: u32) -> bool {
        let at = self.expires_at_unix_s(index);
        let due = at.is_some_and(|at| u64::from(at) <= self.unix_s);
        due && self.is_stream(index) && !self.gate.is_open()
    }

    /// Applies new access rules, to open streams too.
    pub fn take_gate(&mut self, gate: Arc<Gate>) {
        self.gate = gate;
        self.vetted_to = Some(0);
    }

    /// Takes the new list of revoked tokens, which ends open streams too.
    pub fn take_revoked(&mut self, revoked: Arc<Revoked>) {
        self.revoked = revoked;
        self.vetted_to = Some(0);
    }

    /// Whether some sessions have not been checked yet against changed rules.
    pub fn has_to_vet(&self) -> bool {
        self.vetted_to.is_some()
    }

    /// Places of the next slice of sessions to check against changed rules; one slice per turn.
    pub fn next_to_vet(&mut self) -> Range<u32> {
        let Some(from) = self.vetted_to else { return 0..0 };
        let end = self.of.len();
        let to = end.min(from.saturating_add(VETTED_PER_TURN));
        self.vetted_to = (to < end).then_some(to);
        from..to
    }

    /// The session at this place, counted over sockets and streams.
    pub fn index_at(&self, place: u32) -> u32 {
        self.of.index_at(place)
    }

    /// Why the present rules end this stream, if they do.
    pub fn disowned(&self, index: u32) -> Option<CloseReason> {
        if !self.is_stream(index) || self.is_vouched_for(index) {
            return None;
        }
        match self.grant(index).is_some_and(|grant| self.revoked.covers(grant)) {
            true => Some(CloseReason::Operator),
            false => Some(CloseReason::KeyRemoved),
        }
    }

    /// Whether the present rules would let the connection in again.
    pub(super) fn is_vouched_for(&self, index: u32) -> bool {
        self.vouches_for(self.grant(index).map(|grant| &**grant))
    }

    fn vouches_for(&self, grant: Option<&Grant>) -> bool {
        self.gate.stands_by(grant) && !grant.is_some_and(|grant| self.revoked.covers(grant))
    }

    fn not_revoked(&self, grant: Arc<Grant>) -> Result<Arc<Grant>, Denied> {
        if self.revoked.covers(&grant) { Err(Denied::Revoked) } else { Ok(grant) }
    }

    /// Whether there may be any channel the connection may publish to.
    pub(super) fn may_publish_somewhere(&self, index: u32) -> bool {
        let grant = self.grant(index);
        self.gate.is_open() || grant.is_some_and(|grant| grant.may_publish_somewhere())
    }

    /// Who the connection's token says it is.
    pub fn identity(&self, index: u32) -> Option<&Arc<Identity>> {
        self.grant(index).and_then(|grant| grant.identity())
    }

    /// What the connection may do.
    pub(super) fn permission(&self, index: u32) -> Permission {
        match self.grant(index) {
            _ if self.gate.is_open() => Permission::All,
            Some(grant) if !grant.is_expired(self.unix_s) && self.vouches_for(Some(grant)) => {
                Permission::Granted(grant.clone())
            }
            _ => Permission::Nothing,
        }
    }

    pub(super) fn answer_denied(&mut self, cx: &mut Cx<'_>, denied: Denied) {
        let challenge = denied.www_authenticate();
        let headers: &[(&str, &[u8])] = match &challenge {
            Some(challenge) => &[("WWW-Authenticate", challenge.as_bytes())],
            None => &[],
        };
        self.reject_with(cx, denied, headers);
    }

    /// Replaces the grant of a running connection by that of a new token.
    pub(super) fn refresh_grant(&mut self, cx: &mut Cx<'_>, token: &str) -> Result<(), Denied> {
        let checked = self.gate.authenticate_token(token, self.unix_s);
        if checked.is_err() && !self.gate.cost_of_token(token).is_zero() {
            self.note_failed_check(cx);
        }
        self.replace_grant(cx, checked?)
    }

    /// As `refresh_grant`, for a token already checked. It must have the same subject, if the old
    /// one named one, and allow every channel the connection reads; otherwise nothing changes.
    pub(super) fn replace_grant(
        &mut self,
        cx: &mut Cx<'_>,
        grant: Arc<Grant>,
    ) -> Result<(), Denied> {
        self.check_subject(cx.index(), &grant)?;
        // Another worker may have checked it, by rules that have since changed.
        if !self.gate.stands_by(Some(&grant)) {
            return Err(Denied::UnknownKey);
        }
        let grant = self.not_revoked(grant)?;
        if !cx.world.all_channels(&|channel| grant.may_subscribe(channel)) {
            return Err(Denied::SubscribeForbidden);
        }
        self.put_grant(cx, grant);
        Ok(())
    }

    /// Replaces the grant by what the backend says of the connection by now. What it reads already
    /// it goes on to read.
    pub(super) fn renew_grant(&mut self, cx: &mut Cx<'_>, grant: Arc<Grant>) -> Result<(), Denied> {
        self.check_subject(cx.index(), &grant)?;
        let grant = self.not_revoked(grant)?;
        self.put_grant(cx, grant);
        Ok(())
    }

    fn check_subject(&self, index: u32, grant: &Grant) -> Result<(), Denied> {
        match self.grant(index).and_then(|old| old.subject()) {
            Some(subject) if grant.subject() != Some(subject) => Err(Denied::OtherSubject),
            _ => Ok(()),
        }
    }

    fn put_grant(&mut self, cx: &mut Cx<'_>, grant: Arc<Grant>) {
        let index = cx.index();
        let before = self.expires_at_unix_s(index);
        self.of[index].grant = Some(grant);
        if self.expires_at_unix_s(index) != before {
            self.await_expiry(cx);
        }
    }
}

fn admit(
    gate: &Gate,
    request: &Request<'_>,
    access: Access,
    (subprotocol_token, certified): (Option<&str>, bool),
    now_unix_s: u64,
) -> Result<Arc<Grant>, Denied> {
    // With two of the same name it is unclear which one counts.
    for name in ["authorization", "cookie", "x-api-key", "origin"] {
        if request.headers_named(name).nth(1).is_some() {
            return Err(Denied::MalformedCredentials);
        }
    }
    let query_token = query_token(request)?;
    let credentials = credentials(request, subprotocol_token, query_token.as_deref());
    let credentials = Credentials { certified, ..credentials };
    gate.admit(access, &credentials, &page_of(request), now_unix_s)
}

fn page_of<'a>(request: &'a Request<'_>) -> Page<'a> {
    Page {
        origin: request.header("origin"),
        host: request.host(),
        fetch_site: request.header("sec-fetch-site"),
    }
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
        certified: false,
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
