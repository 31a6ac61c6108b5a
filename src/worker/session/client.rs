//! Which client a trusted proxy speaks for: told by the PROXY protocol before anything else, or by
//! a header of each request.

use super::state::Session;
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
    by_header && cx.world.is_proxied()
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
    cx.world.end_proxied();
    if let Some(source) = source
        && let Err(refused) = cx.world.note_client(source.to_canonical())
    {
        refuse_later(cx, refused);
    }
    Step::Used(length)
}

/// Notes the client for which a trusted proxy sends this request.
pub(super) fn note_forwarded(cx: &mut Cx<'_>, request: &Request<'_>) -> Result<(), Refused> {
    if !cx.world.is_proxied() {
        return Ok(());
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
    client.map_or(Ok(()), |client| cx.world.note_client(client))
}

/// Notes that there is no room for the connection: its first request will be refused.
pub fn refuse_later(cx: &mut Cx<'_>, refused: Refused) {
    cx.work().refused = Some(refused);
    cx.wait(Why::Refusal);
}

/// Ends a connection that is to be refused but did not send its request in time.
pub(super) fn refuse_unheard(cx: &mut Cx<'_>) {
    let Some(refused) = cx.session.work().and_then(|work| work.refused) else { return };
    access::note_origin(cx, None);
    answer::refuse_connection(cx, refused);
}
