//! Which client a trusted proxy speaks for: told by the PROXY protocol before anything else, or by
//! a header of each request.

use std::net::IpAddr;

use super::state::{Flags, Session};
use super::step::Step;
use super::{Cx, access, answer};
use crate::config::ClientAddress;
use crate::proto::http::head::Request;
use crate::proto::{forwarded, proxy};
use crate::reason::{CloseReason, Refused};
use crate::worker::clock::Why;
use crate::worker::effect::Ending;

impl Session {
    /// Whether the connection is to be refused.
    pub fn is_refused(&self) -> bool {
        self.work().is_some_and(|work| work.refused.is_some())
    }
}

/// Whether the connection's PROXY protocol header is still to come.
pub(super) fn awaits_proxy_header(cx: &Cx<'_>) -> bool {
    let by_header = cx.shared.settings.client_address == ClientAddress::ProxyProtocol;
    by_header && cx.session.is_proxied()
}

/// Reads what a trusted proxy says before its client says anything. If that is missing or
/// malformed, there is no client to answer.
pub(super) fn proxy_input(cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
    let (source, length) = match proxy::parse(bytes) {
        Ok(proxy::Parsed::Complete { source, length }) => (source, length),
        Ok(proxy::Parsed::Partial) => return Step::Wait(0),
        Err(proxy::Malformed) => {
            cx.end(Ending::Now(CloseReason::BadRequest));
            return Step::Used(bytes.len());
        }
    };
    // It is named once, for the whole connection.
    cx.session.flags.remove(Flags::PROXIED);
    match source {
        Some(source) => Step::Client(length, source.to_canonical()),
        None => Step::Used(length),
    }
}

/// The client for which a trusted proxy sends this request, if the connection does not count as that
/// client's yet.
pub(super) fn other_client(cx: &Cx<'_>, request: &Request<'_>) -> Option<IpAddr> {
    if !cx.session.is_proxied() {
        return None;
    }
    let by_header = cx.shared.settings.client_address == ClientAddress::Forwarded;
    let name = if by_header { "forwarded" } else { "x-forwarded-for" };
    let mut values: Vec<&str> =
        request.headers_named(name).filter_map(|value| str::from_utf8(value).ok()).collect();
    values.reverse();
    let client = match by_header {
        true => cx.world.nearest_client(&mut values.into_iter().flat_map(forwarded::forwarded)),
        false => {
            cx.world.nearest_client(&mut values.into_iter().flat_map(forwarded::x_forwarded_for))
        }
    };
    client.filter(|&client| cx.world.client_place().is_none() || cx.world.client() != Some(client))
}

/// Notes that there is no room for the connection: its first request will be refused.
pub fn refuse_later(cx: &mut Cx<'_>, refused: Refused) {
    cx.work().refused = Some(refused);
    cx.wait(Why::Refusal);
}

/// Ends a connection that is to be refused but did not send its request in time.
pub(super) fn refuse_unheard(cx: &mut Cx<'_>) {
    let Some(refused) = cx.session.work().and_then(|work| work.refused) else { return };
    access::prepare_cors(cx, None);
    answer::refuse_connection(cx, refused);
}
