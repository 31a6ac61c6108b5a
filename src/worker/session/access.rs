//! What a connection may do: the gate's answer to a request, kept with the session.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::credentials::{credentials, query_token};
use super::{Cx, backend, checks};
use crate::auth::{Access, CORS_FIXED, Credentials, Denied, Gate, Grant, Page, bearer_entry};
use crate::proto::http::head::Request;

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
                checks::count_failure(cx);
                cx.close_after_answer();
            }
            Err(denied)
        }
    }
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
pub(super) fn prepare_cors(cx: &mut Cx<'_>, origin: Option<&[u8]>) {
    let lines = cx.shared.gate.cors_headers(origin);
    let cors = match CORS_FIXED.into_iter().find(|fixed| *fixed == lines) {
        Some(fixed) => Cow::Borrowed(fixed),
        None => Cow::Owned(lines.to_vec()),
    };
    cx.work().answer.cors = cors;
}

pub(super) fn answer_denied(cx: &mut Cx<'_>, denied: Denied) {
    let challenge = denied.www_authenticate();
    let headers: &[(&str, &[u8])] = match &challenge {
        Some(challenge) => &[("WWW-Authenticate", challenge.as_bytes())],
        None => &[],
    };
    cx.reject_with(denied, headers);
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
