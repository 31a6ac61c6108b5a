//! `/v1/connections`: the list of connections, in pages, and cutting one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tracing::info;

use super::ask::{NoAnswer, within};
use super::page::{PageQuery, bad_query};
use super::reply::Reply;
use super::{STALL_TIME, State};
use crate::cluster::Revocation;
use crate::metrics::TRANSPORTS;
use crate::proto::http::query;
use crate::proto::http::response::Status;
use crate::ring::Token;
use crate::worker::ConnectionId;
use crate::worker::command::Command;
use crate::worker::inspect::ConnectionInfo;

/// One connection as the operator sees it.
#[derive(Debug, Serialize)]
struct Entry {
    id: String,
    worker: u16,
    transport: &'static str,
    /// The HTTP/2 connection it is a stream of.
    #[serde(skip_serializing_if = "Option::is_none")]
    carried_by: Option<String>,
    client: Option<IpAddr>,
    age_seconds: u32,
    channels: Vec<String>,
    channel_count: usize,
    state: &'static str,
    behind: usize,
    subject: Option<String>,
}

#[derive(Debug, Serialize)]
struct Page {
    connections: Vec<Entry>,
    /// The value of `after` for the next page; null after the last one.
    next: Option<String>,
}

/// A place in the list: a worker, and the slot to begin at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    worker: u16,
    slot: u32,
}

impl State {
    /// `GET /v1/connections`: worker by worker, ordered by slot.
    pub(super) fn connections(&self, query: &str, deadline: Instant) -> Reply {
        let (mut place, PageQuery { limit, filter: subject, .. }) = match parse_query(query) {
            Ok(parsed) => parsed,
            Err(refusal) => return refusal,
        };
        // Searching a table that is mostly empty may take longer than a request may: then the page
        // is short.
        let look_until = within(STALL_TIME, deadline);
        let mut page = Page { connections: Vec::new(), next: None };
        while place.worker < self.workers() {
            let wanted = limit - page.connections.len();
            let answer_by = within(STALL_TIME, deadline);
            let glance = self.ask_worker(place.worker, answer_by, |reply| Command::List {
                from: place.slot,
                limit: wanted,
                subject: subject.as_deref().map(Box::from),
                reply,
            });
            let glance = match glance {
                Ok(glance) => glance,
                Err(NoAnswer::Gone) => {
                    place = place.next_worker();
                    continue;
                }
                Err(NoAnswer::Stalled) => return stalled(place.worker),
            };
            let entries = glance.connections.into_iter().map(|seen| entry(place.worker, seen));
            page.connections.extend(entries);
            place = match glance.next {
                Some(slot) => Place { slot, ..place },
                None => place.next_worker(),
            };
            let done = page.connections.len() >= limit || Instant::now() >= look_until;
            if done && place.worker < self.workers() {
                page.next = Some(place.before().to_string());
                break;
            }
        }
        Reply::json(&page)
    }

    /// `DELETE /v1/subjects/{sub}`: revokes the tokens it has so far and ends its connections, on
    /// every node. A token of this very second may be from before, so it is revoked too.
    pub(super) fn call_back(&self, segment: &str, deadline: Instant) -> Reply {
        let Some(subject) = decoded(segment) else {
            return Reply::error(Status::BadRequest, "subject", "a subject is text, with %XX");
        };
        let revocation = Revocation { subject, before_unix_s: unix_now_s() + 1 };
        match self.revoke(std::slice::from_ref(&revocation)) {
            Ok(()) => {}
            Err(NotRevoked::TooMany) => {
                let message = "too many subjects are revoked: change the key that signs tokens";
                return Reply::error(Status::ServiceUnavailable, "too_many_subjects", message);
            }
            Err(NotRevoked::Stalled(worker)) => return stalled(worker),
        }
        if self.to_nodes.as_ref().is_some_and(|nodes| !nodes.revoke(revocation, deadline)) {
            let message = "done on this node, and the others may not know: try again";
            return Reply::error(Status::ServiceUnavailable, "broker_away", message);
        }
        info!("the operator revoked a subject");
        Reply::done()
    }

    /// Revokes tokens on this node.
    pub(super) fn revoke(&self, revocations: &[Revocation]) -> Result<(), NotRevoked> {
        let mut revoked = self.revoked.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let table = Arc::make_mut(&mut revoked);
        for Revocation { subject, before_unix_s } in revocations {
            table.add(subject, *before_unix_s).map_err(|_| NotRevoked::TooMany)?;
        }
        // Under the lock, so that no worker is left with an older table.
        let told = |worker| self.command(worker, Command::Revoke(revoked.clone()));
        let stalled_worker = (0..self.workers()).find(|&w| told(w) == Err(NoAnswer::Stalled));
        stalled_worker.map_or(Ok(()), |worker| Err(NotRevoked::Stalled(worker)))
    }

    /// `DELETE /v1/connections/{id}`.
    pub(super) fn cut(&self, id: &str) -> Reply {
        let id: ConnectionId = match id.parse() {
            Ok(id) => id,
            Err(_) => return Reply::error(Status::BadRequest, "connection_id", ID_FORM),
        };
        let gone =
            || Reply::error(Status::NotFound, "no_such_connection", "there is no such connection");
        if id.worker >= self.workers() {
            return gone();
        }
        let deadline = Instant::now() + STALL_TIME;
        let token = id.token;
        match self.ask_worker(id.worker, deadline, |reply| Command::Cut { token, reply }) {
            Ok(true) => {
                info!(connection = %id, "cut by the operator");
                Reply::done()
            }
            Ok(false) | Err(NoAnswer::Gone) => gone(),
            Err(NoAnswer::Stalled) => stalled(id.worker),
        }
    }
}

/// Why tokens are not revoked, or not on every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotRevoked {
    TooMany,
    /// This worker has stalled.
    Stalled(u16),
}

const ID_FORM: &str = "an id is worker-slot-generation, as in 0-17-3";

impl Place {
    const START: Self = Self { worker: 0, slot: 0 };

    /// After this connection, which may be gone by now.
    fn after(id: ConnectionId) -> Self {
        match id.token.slot.checked_add(1) {
            Some(slot) => Self { worker: id.worker, slot },
            None => Self { worker: id.worker, slot: 0 }.next_worker(),
        }
    }

    /// The id before this place; no connection need have it.
    fn before(self) -> ConnectionId {
        let (worker, slot) = match self.slot.checked_sub(1) {
            Some(slot) => (self.worker, slot),
            None => (self.worker.saturating_sub(1), u32::MAX),
        };
        ConnectionId { worker, token: Token { slot, generation: 0 } }
    }

    fn next_worker(self) -> Self {
        Self { worker: self.worker.saturating_add(1), slot: 0 }
    }
}

/// Decodes a segment of a path.
fn decoded(segment: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), segment.as_bytes());
    while let Some((byte, after)) = query::next_byte(rest).ok()? {
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

fn unix_now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn parse_query(query: &str) -> Result<(Place, PageQuery), Reply> {
    let query = PageQuery::parse(query, "after", Some("subject"))?;
    let place = match query.place.as_deref() {
        None => Place::START,
        Some(id) => id.parse().map(Place::after).map_err(|_| bad_query(ID_FORM))?,
    };
    Ok((place, query))
}

fn entry(worker: u16, seen: ConnectionInfo) -> Entry {
    let name = |token| ConnectionId { worker, token }.to_string();
    Entry {
        id: name(seen.token),
        carried_by: seen.carrier.map(name),
        worker,
        transport: TRANSPORTS[seen.phase.transport()],
        client: seen.client,
        age_seconds: seen.age_s,
        channels: seen.channels.iter().map(|name| name[..].to_owned()).collect(),
        channel_count: seen.channel_count,
        state: match (seen.live, seen.channel_count) {
            (true, _) => "live",
            (false, 0) => "idle",
            (false, _) => "explicit",
        },
        behind: seen.behind,
        subject: seen.grant.and_then(|grant| grant.subject().map(Into::into)),
    }
}

fn stalled(worker: u16) -> Reply {
    let message = format!("worker {worker} does not turn");
    Reply::error(Status::ServiceUnavailable, "worker_stalled", message)
}

#[cfg(test)]
mod tests {
    use super::super::page::{PAGE_DEFAULT, PAGE_MAX};
    use super::*;

    #[test]
    fn every_place_but_the_first_is_named_by_what_stands_before_it() {
        for (worker, slot) in [(0, 1), (0, 256), (1, 0), (3, 0), (2, u32::MAX)] {
            let place = Place { worker, slot };
            assert_eq!(Place::after(place.before()), place);
        }
    }

    #[test]
    fn a_query_names_a_place_and_a_limit_or_is_refused() {
        let parsed = |query: &str| match parse_query(query) {
            Ok((place, query)) => Ok((place, query.limit)),
            Err(_) => Err(()),
        };
        assert_eq!(parsed(""), Ok((Place::START, PAGE_DEFAULT)));
        let place = Place { worker: 1, slot: 8 };
        assert_eq!(parsed("after=1-7-3&limit=5"), Ok((place, 5)));
        assert_eq!(parsed("limit=100000"), Ok((Place::START, PAGE_MAX)));
        for bad in ["limit=0", "limit=x", "limit=-1", "after=7", "after=%", "limt=5", "limit=%ff"] {
            assert_eq!(parsed(bad), Err(()), "{bad}");
        }
    }
}
