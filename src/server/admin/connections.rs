//! `/v1/connections`: the list of this node's connections, in pages, and cutting one. Those of other
//! nodes: [`super::nodes`].

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tracing::info;

use super::ask::{NoAnswer, within};
use super::page::{PageQuery, bad_query};
use super::reply::Reply;
use super::{STALL_TIME, State};
use crate::cluster::Revocation;
use crate::cluster::peers::is_node_name;
use crate::metrics::TRANSPORTS;
use crate::proto::http::query;
use crate::proto::http::response::Status;
use crate::ring::{Token, unix_now};
use crate::worker::ConnectionId;
use crate::worker::command::Command;
use crate::worker::inspect::ConnectionInfo;

/// One connection as the operator sees it.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    id: String,
    /// The node it is on, if the query asked about nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
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

#[derive(Debug, Default, Serialize)]
pub(super) struct Page {
    pub connections: Vec<Entry>,
    /// The value of `after` for the next page; null after the last one.
    pub next: Option<String>,
}

/// A place in the list: a worker, and the slot to begin at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    worker: u16,
    slot: u32,
}

impl State {
    /// `GET /v1/connections`: worker by worker, ordered by slot.
    pub(super) fn connections(&self, query: &str, deadline: Instant) -> Reply {
        let query = match PageQuery::parse(query, "after", &["subject", "node"]) {
            Ok(query) => query,
            Err(refusal) => return refusal,
        };
        if let Some(nodes) = query.filter("node") {
            return self.connections_of(nodes, &query, deadline);
        }
        self.connections_here(&query, deadline)
    }

    /// Of this node alone, as ids that name none.
    pub(super) fn connections_here(&self, query: &PageQuery, deadline: Instant) -> Reply {
        let Ok(place) = query.place.as_deref().map_or(Ok(Place::START), Place::parse) else {
            return bad_query(ID_FORM);
        };
        match self.page(place, query.limit, query.filter("subject"), deadline) {
            Ok(page) => Reply::json(&page),
            Err(worker) => stalled(worker),
        }
    }

    /// Connections from this place on; fails with a worker that does not turn.
    pub(super) fn page(
        &self,
        mut place: Place,
        limit: usize,
        subject: Option<&str>,
        deadline: Instant,
    ) -> Result<Page, u16> {
        // Searching a table that is mostly empty may take longer than a request may: then the page
        // is short.
        let look_until = within(STALL_TIME, deadline);
        let mut page = Page::default();
        while place.worker < self.workers.count() {
            let wanted = limit - page.connections.len();
            let answer_by = within(STALL_TIME, deadline);
            let glance = self.ask_worker(place.worker, answer_by, |reply| Command::List {
                from: place.slot,
                limit: wanted,
                subject: subject.map(Box::from),
                reply,
            });
            let glance = match glance {
                Ok(glance) => glance,
                Err(NoAnswer::Gone) => {
                    place = place.next_worker();
                    continue;
                }
                Err(NoAnswer::Stalled) => return Err(place.worker),
            };
            let entries = glance.connections.into_iter().map(|seen| entry(place.worker, seen));
            page.connections.extend(entries);
            place = match glance.next {
                Some(slot) => Place { slot, ..place },
                None => place.next_worker(),
            };
            let done = page.connections.len() >= limit || Instant::now() >= look_until;
            if done && place.worker < self.workers.count() {
                page.next = Some(place.before().to_string());
                break;
            }
        }
        Ok(page)
    }

    /// `DELETE /v1/subjects/{sub}`: revokes the tokens it has so far and ends its connections, on
    /// every node. A token of this very second may be from before, so it is revoked too.
    pub(super) fn call_back(&self, segment: &str, deadline: Instant) -> Reply {
        let Some(subject) = decoded(segment) else {
            return Reply::error(Status::BadRequest, "subject", "a subject is text, with %XX");
        };
        let revocation = Revocation { subject, before_unix_s: unix_now().as_secs() + 1 };
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
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        let table = Arc::make_mut(&mut revoked);
        for Revocation { subject, before_unix_s } in revocations {
            table.add(subject, *before_unix_s).map_err(|_| NotRevoked::TooMany)?;
        }
        // Under the lock, so that no worker is left with an older table.
        let told = |worker| self.command(worker, Command::Revoke(revoked.clone()));
        let stalled_worker = (0..self.workers.count()).find(|&w| told(w) == Err(NoAnswer::Stalled));
        stalled_worker.map_or(Ok(()), |worker| Err(NotRevoked::Stalled(worker)))
    }

    /// `DELETE /v1/connections/{id}`, of this node or of the one that the id begins with.
    pub(super) fn cut(&self, id: &str) -> Reply {
        let (node, id) = of_node(id);
        let Ok(connection) = id.parse() else {
            return Reply::error(Status::BadRequest, "connection_id", ID_FORM);
        };
        let was_there = match node.filter(|&node| !self.is_here(node)) {
            Some(node) => self.cut_at(node, id),
            None => self.cut_here(connection).map_err(stalled),
        };
        match was_there {
            Ok(true) => {
                info!(connection = %id, node, "cut by the operator");
                Reply::done()
            }
            Ok(false) => {
                let message = "there is no such connection";
                Reply::error(Status::NotFound, "no_such_connection", message)
            }
            Err(refusal) => refusal,
        }
    }

    /// Whether there was such a connection at this node; fails with its worker if that does not turn.
    pub(super) fn cut_here(&self, id: ConnectionId) -> Result<bool, u16> {
        let ConnectionId { worker, token } = id;
        if worker >= self.workers.count() {
            return Ok(false);
        }
        let deadline = Instant::now() + STALL_TIME;
        match self.ask_worker(worker, deadline, |reply| Command::Cut { token, reply }) {
            Ok(was_there) => Ok(was_there),
            Err(NoAnswer::Gone) => Ok(false),
            Err(NoAnswer::Stalled) => Err(worker),
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

pub(super) const ID_FORM: &str =
    "an id is worker-slot-generation, as in 0-17-3, with a node's name and a dash before it or not";

impl Entry {
    /// Of this node, by which the ids begin then.
    pub(super) fn at(self, node: &str) -> Self {
        let with_node = |id| format!("{node}-{id}");
        Self {
            id: with_node(self.id),
            carried_by: self.carried_by.map(with_node),
            node: Some(node.to_owned()),
            ..self
        }
    }
}

/// The node that an id begins with, if it does, and the rest.
pub(super) fn of_node(id: &str) -> (Option<&str>, &str) {
    match id.split_once('-') {
        Some((node, rest)) if is_node_name(node) => (Some(node), rest),
        _ => (None, id),
    }
}

impl Place {
    pub(super) const START: Self = Self { worker: 0, slot: 0 };

    /// Behind every connection of a node.
    pub(super) const END: Self = Self { worker: u16::MAX, slot: 0 };

    /// After the connection of this id.
    pub(super) fn parse(id: &str) -> Result<Self, ()> {
        id.parse().map(Self::after)
    }

    /// After this connection, which may be gone by now.
    fn after(id: ConnectionId) -> Self {
        match id.token.slot.checked_add(1) {
            Some(slot) => Self { worker: id.worker, slot },
            None => Self { worker: id.worker, slot: 0 }.next_worker(),
        }
    }

    /// The id before this place; no connection need have it.
    pub(super) fn before(self) -> ConnectionId {
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

fn entry(worker: u16, seen: ConnectionInfo) -> Entry {
    let name = |token| ConnectionId { worker, token }.to_string();
    Entry {
        id: name(seen.token),
        node: None,
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

pub(super) fn stalled(worker: u16) -> Reply {
    let message = format!("worker {worker} does not turn");
    Reply::error(Status::ServiceUnavailable, "worker_stalled", message)
}

#[cfg(test)]
impl Page {
    /// Of this many connections, all the same.
    pub(super) fn of_test(count: usize) -> Self {
        let entry = || Entry {
            id: "0-17-3".to_owned(),
            node: None,
            worker: 0,
            transport: TRANSPORTS[0],
            carried_by: None,
            client: None,
            age_seconds: 1,
            channels: vec!["news".to_owned()],
            channel_count: 1,
            state: "live",
            behind: 0,
            subject: None,
        };
        Self { connections: std::iter::repeat_with(entry).take(count).collect(), next: None }
    }
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
    fn an_id_may_begin_with_a_node() {
        assert_eq!(of_node("0123456789abcdef-0-17-3"), (Some("0123456789abcdef"), "0-17-3"));
        for id in ["0-17-3", "12345-17-3", "", "x", "0123456789abcdef"] {
            assert_eq!(of_node(id), (None, id));
        }
    }

    #[test]
    fn a_query_names_a_place_and_a_limit_or_is_refused() {
        let parsed = |query: &str| {
            let query = PageQuery::parse(query, "after", &["subject", "node"]).map_err(|_| ())?;
            let place = query.place.as_deref().map_or(Ok(Place::START), Place::parse)?;
            Ok((place, query.limit))
        };
        assert_eq!(parsed(""), Ok((Place::START, PAGE_DEFAULT)));
        let place = Place { worker: 1, slot: 8 };
        assert_eq!(parsed("after=1-7-3&limit=5"), Ok((place, 5)));
        assert_eq!(parsed("limit=100000&node=all"), Ok((Place::START, PAGE_MAX)));
        for bad in ["limit=0", "limit=x", "limit=-1", "after=7", "after=%", "limt=5", "limit=%ff"] {
            assert_eq!(parsed(bad), Err(()), "{bad}");
        }
    }
}
