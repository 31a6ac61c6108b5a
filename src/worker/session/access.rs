//! What a connection may do: the gate's answer to a request, kept with the session.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use super::{Cx, Session, backend, checks};
use crate::auth::{
    Access, CORS_FIXED, Credentials, Denied, Gate, Grant, Page, Question, bearer_entry,
};
use crate::proto::http::head::Request;
use crate::proto::http::query;
use crate::proto::identity::Identity;
use crate::worker::effect::Effect;

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

impl Session {
    /// The second of unix time in which the session's grant runs out.
    pub(super) fn expires_at_unix_s(&self) -> Option<u32> {
        let at = self.grant()?.expires_at_unix_s()?;
        u32::try_from(at).ok()
    }

    /// Whether the session's grant runs out in this second, and no other.
    pub fn expires_at(&self, unix_s: u32) -> bool {
        self.expires_at_unix_s() == Some(unix_s)
    }

    /// Who the connection's token says it is.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.grant().and_then(|grant| grant.identity())
    }

    fn check_subject(&self, grant: &Grant) -> Result<(), Denied> {
        match self.grant().and_then(|old| old.subject()) {
            Some(subject) if grant.subject() != Some(subject) => Err(Denied::OtherSubject),
            _ => Ok(()),
        }
    }
}

impl Shared {
    /// Whether the present rules would let a connection with this grant in again.
    pub(super) fn vouches_for(&self, grant: Option<&Arc<Grant>>) -> bool {
        let grant = grant.map(|grant| &**grant);
        self.gate.stands_by(grant) && !grant.is_some_and(|grant| self.revoked.covers(grant))
    }

    fn not_revoked(&self, grant: Arc<Grant>) -> Result<Arc<Grant>, Denied> {
        if self.revoked.covers(&grant) { Err(Denied::Revoked) } else { Ok(grant) }
    }
}

impl Cx<'_> {
    /// What the connection may do.
    pub(super) fn permission(&self) -> Permission {
        match self.session.grant() {
            _ if self.shared.gate.is_open() => Permission::All,
            Some(grant)
                if !grant.is_expired(self.shared.unix_s)
                    && self.shared.vouches_for(Some(grant)) =>
            {
                Permission::Granted(grant.clone())
            }
            _ => Permission::Nothing,
        }
    }
}

/// Lets a request in, or answers it with the refusal.
pub(super) fn admit_request(
    cx: &mut Cx<'_>,
    request: &Request<'_>,
    access: Access,
    subprotocol_token: Option<&str>,
) -> bool {
    match check_request(cx, request, access, subprotocol_token) {
        Ok(()) => true,
        Err(denied) => {
            answer_denied(cx, denied);
            false
        }
    }
}

/// Checks what a request shows. The grant stays with the connection.
pub(super) fn check_request(
    cx: &mut Cx<'_>,
    request: &Request<'_>,
    access: Access,
    subprotocol_token: Option<&str>,
) -> Result<(), Denied> {
    // There is nothing to check: the request has no credentials and comes from no page.
    let is_plain = || ["origin", "authorization"].iter().all(|of| request.header(of).is_none());
    if cx.shared.gate.is_open() && access == Access::Http && is_plain() {
        cx.session.grant = None;
        return Ok(());
    }
    let shown = (subprotocol_token, cx.session.is_certified());
    let admitted = match backend::decided(cx, request) {
        Some(decided) => cx.shared.gate.admit_decided(access, decided, &page_of(request)),
        None => admit(&cx.shared.gate, request, access, shown, cx.shared.unix_s),
    };
    match admitted.and_then(|grant| cx.shared.not_revoked(grant)) {
        Ok(grant) => {
            cx.session.grant = Some(grant);
            Ok(())
        }
        Err(denied) => {
            if denied.follows_check() && !cost_of(cx, request).is_zero() {
                checks::note_failed(cx);
                cx.close_after_answer();
            }
            Err(denied)
        }
    }
}

/// What to ask the backend about the request, if it is the backend's to decide.
pub(super) fn question_of(cx: &Cx<'_>, request: &Request<'_>) -> Option<Question> {
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
    cx.shared.gate.question(&credentials(request, entry, query_token.as_deref()))
}

/// Whether the server may be asked by this name; if not, the request is answered.
pub(super) fn admit_host(cx: &mut Cx<'_>, request: &Request<'_>) -> bool {
    let admitted = cx.shared.gate.is_meant(request.host());
    if !admitted {
        cx.close_after_answer();
        answer_denied(cx, Denied::HostForbidden);
    }
    admitted
}

/// How long checking the request's token takes. Zero without a token, or if it is too cheap to
/// count.
pub(super) fn cost_of(cx: &Cx<'_>, request: &Request<'_>) -> Duration {
    if !cx.shared.gate.is_slow() {
        return Duration::ZERO;
    }
    let Ok(query_token) = query_token(request) else { return Duration::ZERO };
    let entry = request
        .headers_named("sec-websocket-protocol")
        .flat_map(|list| list.split(|byte| *byte == b','))
        .find_map(|entry| bearer_entry(std::str::from_utf8(entry.trim_ascii()).ok()?));
    cx.shared.gate.cost_of(&credentials(request, entry, query_token.as_deref()))
}

/// Remembers the CORS headers with which a page of this origin is answered.
pub(super) fn note_origin(cx: &mut Cx<'_>, origin: Option<&[u8]>) {
    let lines = cx.shared.gate.cors_headers(origin);
    let cors = match CORS_FIXED.into_iter().find(|fixed| *fixed == lines) {
        Some(fixed) => Cow::Borrowed(fixed),
        None => Cow::Owned(lines.to_vec()),
    };
    cx.work().answer.cors = cors;
}

/// Ends the stream when its grant does. (A request needs no such entry: it is over by then.)
pub(super) fn await_expiry(cx: &mut Cx<'_>) {
    if let Some(at) = cx.session.expires_at_unix_s() {
        cx.push(Effect::ExpireAt(at));
    }
}

/// Whether there may be any channel the connection may publish to.
pub(super) fn may_publish_somewhere(cx: &Cx<'_>) -> bool {
    let grant = cx.session.grant();
    cx.shared.gate.is_open() || grant.is_some_and(|grant| grant.may_publish_somewhere())
}

pub(super) fn answer_denied(cx: &mut Cx<'_>, denied: Denied) {
    let challenge = denied.www_authenticate();
    let headers: &[(&str, &[u8])] = match &challenge {
        Some(challenge) => &[("WWW-Authenticate", challenge.as_bytes())],
        None => &[],
    };
    cx.reject_with(denied, headers);
}

/// Replaces the grant of a running connection by that of a new token.
pub(super) fn refresh_grant(cx: &mut Cx<'_>, token: &str) -> Result<(), Denied> {
    let checked = cx.shared.gate.authenticate_token(token, cx.shared.unix_s);
    if checked.is_err() && !cx.shared.gate.cost_of_token(token).is_zero() {
        checks::note_failed(cx);
    }
    replace_grant(cx, checked?)
}

/// As `refresh_grant`, for a token already checked. It must have the same subject, if the old
/// one named one, and allow every channel the connection reads; otherwise nothing changes.
pub(super) fn replace_grant(cx: &mut Cx<'_>, grant: Arc<Grant>) -> Result<(), Denied> {
    cx.session.check_subject(&grant)?;
    // Another worker may have checked it, by rules that have since changed.
    if !cx.shared.gate.stands_by(Some(&grant)) {
        return Err(Denied::UnknownKey);
    }
    let grant = cx.shared.not_revoked(grant)?;
    if !cx.world.all_channels(&|channel| grant.may_subscribe(channel)) {
        return Err(Denied::SubscribeForbidden);
    }
    put_grant(cx, grant);
    Ok(())
}

/// Replaces the grant by what the backend says of the connection by now. What it reads already
/// it goes on to read.
pub(super) fn renew_grant(cx: &mut Cx<'_>, grant: Arc<Grant>) -> Result<(), Denied> {
    cx.session.check_subject(&grant)?;
    let grant = cx.shared.not_revoked(grant)?;
    put_grant(cx, grant);
    Ok(())
}

fn put_grant(cx: &mut Cx<'_>, grant: Arc<Grant>) {
    let before = cx.session.expires_at_unix_s();
    cx.session.grant = Some(grant);
    if cx.session.expires_at_unix_s() != before {
        await_expiry(cx);
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
