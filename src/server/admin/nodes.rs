//! What an operator sees of all nodes at any of them: `GET /v1/nodes`, and the connections of the others,
//! which are asked. A thread of its own answers them, as it waits for this node's workers.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde::Serialize;
use serde_json::Value;

use super::connections::{ID_FORM, Page, Place, of_node};
use super::page::{PAGE_MAX, PageQuery, bad_query};
use super::reply::Reply;
use super::{AdminServer, State};
use crate::cluster::ToNodes;
use crate::cluster::peers::{Answer, Asked, QUESTION_TIME_MAX, Question};
use crate::proto::http::response::Status;
use crate::server::ServerError;

/// How long this node's workers may take, so that its answer is in time.
const ANSWER_TIME: Duration = Duration::from_millis(500);
const _: () = assert!(ANSWER_TIME.as_millis() < QUESTION_TIME_MAX.as_millis());

/// Bytes of an answer to another node: a quarter of what a NATS server takes at once by default.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Questions of other nodes that wait; more are not answered.
const ASKED_MAX: usize = 64;

/// In a query: all nodes.
const ALL: &str = "all";

/// Connections of several nodes.
#[derive(Debug, Default, Serialize)]
struct Listed {
    connections: Vec<Value>,
    /// The value of `after` for the next page; null after the last one.
    next: Option<String>,
    /// Nodes that did not answer in time: theirs are missing.
    silent: Vec<String>,
}

impl State {
    /// `GET /v1/nodes`: this one first.
    pub(super) fn nodes(&self) -> Reply {
        let nodes = self.shared.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        Reply::json(&BTreeMap::from([("nodes", &*nodes)]))
    }

    /// The nodes that are there, in the order of their names.
    fn node_names(&self) -> Vec<String> {
        let nodes = self.shared.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<String> = nodes.iter().map(|here| here.node.clone()).collect();
        names.sort_unstable();
        names
    }

    /// Whether this is the node.
    pub(super) fn is_here(&self, node: &str) -> bool {
        self.to_nodes.as_ref().is_some_and(|nodes| nodes.node() == node)
    }

    /// `GET /v1/connections?node=`: of that node, or of all, node by node. One that does not answer is
    /// named.
    pub(super) fn connections_of(
        &self,
        wanted: &str,
        query: &PageQuery,
        deadline: Instant,
    ) -> Reply {
        let Some(to_nodes) = &self.to_nodes else {
            return match wanted {
                ALL => self.connections_here(query, deadline),
                _ => no_such_node(wanted),
            };
        };
        let mut names = self.node_names();
        names.retain(|name| matches!(wanted, ALL) || name == wanted);
        if names.is_empty() {
            return no_such_node(wanted);
        }
        match query.place.as_deref().map(of_node) {
            None => Reply::json(&self.walk(to_nodes, names, None, query, deadline)),
            Some((Some(node), id)) if Place::parse(id).is_ok() => {
                names.retain(|name| name.as_str() >= node);
                let after = (names.first().is_some_and(|name| name == node)).then(|| id.to_owned());
                Reply::json(&self.walk(to_nodes, names, after, query, deadline))
            }
            Some(_) => bad_query(ID_FORM),
        }
    }

    /// Those of one node after the other, of the first behind `after`, until the page is full or there
    /// is no time to ask another one.
    fn walk(
        &self,
        to_nodes: &ToNodes,
        names: Vec<String>,
        mut after: Option<String>,
        query: &PageQuery,
        deadline: Instant,
    ) -> Listed {
        let mut listed = Listed::default();
        let mut names = names.into_iter().peekable();
        while let Some(name) = names.next() {
            let limit = query.limit - listed.connections.len();
            let subject = query.filter("subject").map(str::to_owned);
            let question = Question::Connections { after: after.take(), limit, subject };
            let behind = format!("{name}-{}", Place::END.before());
            match self.ask_node(to_nodes, &name, question) {
                Some(Answer::Connections { connections, next }) => {
                    listed.connections.extend(connections);
                    listed.next = next;
                }
                _ => listed.silent.push(name),
            }
            let is_full = listed.connections.len() >= query.limit;
            if listed.next.is_some() || is_full || Instant::now() + QUESTION_TIME_MAX > deadline {
                listed.next = listed.next.or(names.peek().map(|_| behind));
                break;
            }
        }
        listed
    }

    fn ask_node(&self, to_nodes: &ToNodes, node: &str, question: Question) -> Option<Answer> {
        match to_nodes.node() == node {
            true => self.answer_to(to_nodes, &question),
            false => to_nodes.ask(node, question),
        }
    }

    /// Ends a connection of another node; whether there was one.
    pub(super) fn cut_at(&self, node: &str, id: &str) -> Result<bool, Reply> {
        let is_there = self.node_names().iter().any(|name| name == node);
        let to_nodes = self.to_nodes.as_ref().filter(|_| is_there);
        let to_nodes = to_nodes.ok_or_else(|| no_such_node(node))?;
        match to_nodes.ask(node, Question::Cut(id.to_owned())) {
            Some(Answer::Cut(was_there)) => Ok(was_there),
            _ => {
                let message = format!("node {node} does not answer: it may have ended it or not");
                Err(Reply::error(Status::ServiceUnavailable, "node_silent", message))
            }
        }
    }

    fn answer_nodes(&self, to_nodes: &ToNodes, lane: &Receiver<Asked>) {
        for asked in lane {
            if let Some(answer) = self.answer_to(to_nodes, &asked.question) {
                to_nodes.say(asked.answer(answer));
            }
        }
    }

    /// What this node answers; none: nothing, as a worker does not turn, or the question is none.
    fn answer_to(&self, to_nodes: &ToNodes, question: &Question) -> Option<Answer> {
        match question {
            Question::Connections { after, limit, subject } => {
                let place = after.as_deref().map_or(Ok(Place::START), Place::parse).ok()?;
                let limit = (*limit).clamp(1, PAGE_MAX);
                let deadline = Instant::now() + ANSWER_TIME;
                let page = self.page(place, limit, subject.as_deref(), deadline).ok()?;
                Some(bounded_answer(page, to_nodes.node()))
            }
            Question::Cut(id) => self.cut_here(id.parse().ok()?).ok().map(Answer::Cut),
        }
    }
}

/// As much of a page of this node as other nodes are told at once.
fn bounded_answer(page: Page, node: &str) -> Answer {
    let (mut connections, mut bytes) = (Vec::new(), 0);
    let mut next = page.next.map(|id| format!("{node}-{id}"));
    for entry in page.connections {
        let entry = serde_json::to_value(entry.at(node)).unwrap_or_default();
        bytes += entry.to_string().len();
        if bytes > ANSWER_BYTES_MAX {
            let last = connections.last().map(|last: &Value| &last["id"]);
            next = last.and_then(Value::as_str).map(str::to_owned);
            break;
        }
        connections.push(entry);
    }
    Answer::Connections { connections, next }
}

impl AdminServer {
    /// Answers what other nodes ask of this one's operator, until the lane's end is dropped.
    pub fn serve_nodes(&mut self, to_nodes: ToNodes) -> Result<Sender<Asked>, ServerError> {
        let (ask, lane) = bounded(ASKED_MAX);
        let state = self.state.clone();
        let body = move || state.answer_nodes(&to_nodes, &lane);
        let thread = thread::Builder::new().name("admin".into()).spawn(body);
        let thread =
            thread.map_err(|error| ServerError::io("starting the admin threads", error))?;
        self.threads.push(thread);
        Ok(ask)
    }
}

fn no_such_node(node: &str) -> Reply {
    let message = format!("there is no node {node}: GET /v1/nodes lists them");
    Reply::error(Status::NotFound, "no_such_node", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_another_node_has_a_bound_and_says_where_to_go_on() {
        let page = Page::of_test(3_000);
        let Answer::Connections { connections, next } = bounded_answer(page, "0123456789abcdef")
        else {
            panic!("it is a page")
        };
        let bytes: usize = connections.iter().map(|of| of.to_string().len()).sum();
        assert!((ANSWER_BYTES_MAX / 2..=ANSWER_BYTES_MAX).contains(&bytes), "{bytes}");
        assert_eq!(connections.last().expect("some")["id"].as_str(), next.as_deref());
    }
}
