//! Requests whose rights the operator's backend decides. They wait until it has answered, and are then
//! read again; nothing else waits for the backend. A request with a question that is being asked
//! already waits for the same answer.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::credentials::{credentials, query_token};
use super::route::route;
use super::state::Flags;
use super::{Cx, Sessions, grant};
use crate::auth::{Denied, Grant, Question, Verdict, bearer_entry};
use crate::bits::Change;
use crate::limits::{BACKEND_ANSWERS_BYTES_MAX, BACKEND_WAITING_MAX};
use crate::proto::http::head::Request;
use crate::ring::Token;

/// What this worker knows from the backend.
#[derive(Debug, Default)]
pub(super) struct Answers {
    known: HashMap<Question, Known>,
    /// Memory of those.
    known_bytes: usize,
    /// The connections that wait, by what was asked.
    asked: HashMap<Question, Vec<Token>>,
    waiting: usize,
}

#[derive(Debug)]
struct Known {
    grant: Result<Arc<Grant>, Denied>,
    until: Duration,
}

impl Answers {
    /// Whether the connection waits for an answer.
    pub fn has(&self, token: Token) -> bool {
        self.asked.values().flatten().any(|waiting| *waiting == token)
    }

    pub fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    fn of(&self, question: &Question, now: Duration) -> Option<&Result<Arc<Grant>, Denied>> {
        self.known.get(question).filter(|known| known.until > now).map(|known| &known.grant)
    }

    fn note(&mut self, question: Question, verdict: Verdict, now: Duration) {
        if self.known_bytes >= BACKEND_ANSWERS_BYTES_MAX {
            self.known.retain(|_, known| known.until > now);
            self.known_bytes = self.known.keys().map(Question::held_bytes).sum();
        }
        // All are still valid. They are asked for again when needed.
        if self.known_bytes >= BACKEND_ANSWERS_BYTES_MAX {
            self.known.clear();
            self.known_bytes = 0;
        }
        let (bytes, until) = (question.held_bytes(), now + verdict.age_max);
        if self.known.insert(question, Known { grant: verdict.grant, until }).is_none() {
            self.known_bytes += bytes;
        }
    }
}

impl Sessions {
    /// Takes the backend's answer. Returns the connections that waited for it; some may be gone.
    pub fn take_verdict(&mut self, question: Question, verdict: Verdict) -> Vec<Token> {
        let waiting = self.shared.answers.asked.remove(&question).unwrap_or_default();
        self.shared.answers.waiting -= waiting.len();
        self.shared.answers.note(question, verdict, self.shared.now);
        waiting
    }
}

/// Asks the backend if the request needs that. Returns whether the request has to wait; it is read
/// again when the backend has answered.
pub(super) fn has_to_ask(cx: &mut Cx<'_>, request: &Request<'_>) -> bool {
    if !cx.shared.gate.has_backend() || !route(request).needs_rights() {
        return false;
    }
    let Some(question) = question_of(cx, request) else { return false };
    cx.shared.answers.of(&question, cx.shared.now).is_none() && wait_for_answer(cx, question)
}

/// The operator's backend decides once more over a connection that it has let in, with the
/// cookies of its request. Whether that has to wait.
///
/// # Errors
/// It refuses now, or can't be asked. What the connection has it keeps.
pub(super) fn has_to_ask_again(cx: &mut Cx<'_>) -> Result<bool, Denied> {
    let asked = cx.session.grant().and_then(|grant| grant.asked());
    let Some(question) = asked.and_then(|asked| cx.shared.gate.question_again(asked)) else {
        return Ok(false);
    };
    if let Some(known) = cx.shared.answers.of(&question, cx.shared.now).cloned() {
        return grant::renew_grant(cx, known?).map(|()| false);
    }
    match wait_for_answer(cx, question) {
        true => Ok(true),
        false => Err(Denied::BackendUnavailable),
    }
}

/// Has the connection wait for the backend's answer. Whether that can be.
fn wait_for_answer(cx: &mut Cx<'_>, question: Question) -> bool {
    if cx.shared.answers.waiting >= BACKEND_WAITING_MAX {
        return false;
    }
    let is_asked = cx.shared.answers.asked.contains_key(&question);
    if !is_asked && !cx.shared.gate.ask(cx.shared.home.worker, &question) {
        return false;
    }
    if cx.session.flags.raise(Flags::UNREAD) {
        cx.shared.answers.asked.entry(question).or_default().push(cx.token);
        cx.shared.answers.waiting += 1;
    }
    true
}

/// The backend's decision about a request, if it is the backend's to decide. If the backend could
/// not be asked because too many requests wait, nothing is granted.
pub(super) fn decided(cx: &Cx<'_>, request: &Request<'_>) -> Option<Result<Arc<Grant>, Denied>> {
    let question = question_of(cx, request).filter(|_| cx.shared.gate.has_backend())?;
    let known = cx.shared.answers.of(&question, cx.shared.now);
    Some(known.cloned().unwrap_or(Err(Denied::BackendUnavailable)))
}

/// What to ask the backend about the request, if it is the backend's to decide.
fn question_of(cx: &Cx<'_>, request: &Request<'_>) -> Option<Question> {
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
