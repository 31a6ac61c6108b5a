//! The HTTP side of a connection: requests in, in order; one answered before the next is read.

use std::borrow::Cow;

use memchr::memmem;

use super::admission::Refused;
use super::answer::{Answer, Content};
use super::core::Core;
use super::lines::Lines;
use super::publish::Body;
use super::route::{Route, route};
use super::slot::{Flags, Phase};
use crate::auth::{Access, CORS_ANYBODY, CORS_PREFLIGHT};
use crate::limits::{CARRY_BYTES_MAX, OUT_BYTES_MAX};
use crate::proto::http::body::BodyDecoder;
use crate::proto::http::head::{
    self, Expectation, Framing, HeadError, HeadScan, Method, Parsed, Request,
};
use crate::proto::http::response::{BodyMode, Status};
use crate::proto::reject::Reject;
use crate::reason::CloseReason;
use crate::ring::{Op, Token};
use crate::web::Asset;

const METHOD_NOT_ALLOWED: Reject = Reject::new(
    Status::MethodNotAllowed,
    "method_not_allowed",
    "this path is not there for this method",
);

const NOT_FOUND: Reject = Reject::new(Status::NotFound, "not_found", "no such path");

/// A body no route wants is read to its end if it is no longer than this, so that the connection
/// can be used again; before a longer one it is closed.
const DISCARD_BYTES_MAX: u64 = 64 * 1024;

/// Where a connection stands between and within requests.
#[derive(Debug)]
pub enum HttpState {
    /// Between requests, or in the middle of a head.
    Head(HeadScan),
    /// The body of `POST /channels/{channel}` is coming.
    Body(Box<Body>),
    /// The body of `POST /publish` is coming.
    Lines(Box<Lines>),
    /// A body nobody wants is coming.
    Discard(BodyDecoder),
    /// The log is asked. A body nobody wants may be on its way meanwhile.
    Waiting {
        /// Reads that body.
        unwanted: Option<BodyDecoder>,
    },
}

impl Default for HttpState {
    fn default() -> Self {
        Self::Head(HeadScan::default())
    }
}

impl HttpState {
    /// Whether nothing of a request is held.
    pub fn is_idle(&self) -> bool {
        matches!(self, Self::Head(_))
    }
}

/// What a piece of input led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes are done with; go on with the rest.
    Used(usize),
    /// So many bytes are done with; the rest has to wait for more input, or for an answer.
    Wait(usize),
}

impl Core {
    // --- input ---

    /// Bytes arrived for a connection of any phase.
    pub(super) fn received(&mut self, index: u32, bytes: &[u8]) {
        let slot = &mut self.slots[index as usize];
        slot.heard_s = self.now.as_secs() as u32;
        slot.flags.clear(Flags::PING_OUT | Flags::PING_LATE);
        match slot.phase {
            Phase::Http | Phase::Ws => {}
            // A WebSocket that is closing still has to see the peer's close frame.
            Phase::WsClosing => return self.ws_closing_received(index, bytes),
            Phase::Free | Phase::Sse | Phase::Lingering => return,
        }
        let carried = slot.work.as_ref().is_some_and(|work| !work.carry.is_empty());
        let token = self.token(index);
        if carried {
            self.work(index).carry.extend_from_slice(bytes);
            self.take_carry(index);
        } else {
            let used = self.take_input(token, bytes);
            if used < bytes.len() && self.takes_input(token) {
                self.work(index).carry.extend_from_slice(&bytes[used..]);
            }
        }
        if self.takes_input(token) {
            let work = self.slots[index as usize].work.as_ref();
            if work.is_some_and(|work| work.carry.len() > CARRY_BYTES_MAX) {
                self.pause(index);
            }
        }
    }

    /// Goes on with what was left unparsed, now that an answer came or output was sent.
    pub(super) fn take_carry(&mut self, index: u32) {
        let token = self.token(index);
        self.parse_carry(index);
        if self.is_current(token) {
            self.note_unfinished(index);
        }
    }

    fn parse_carry(&mut self, index: u32) {
        let token = self.token(index);
        let Some(work) = &mut self.slots[index as usize].work else { return };
        let mut carry = std::mem::take(&mut work.carry);
        let used = self.take_input(token, &carry);
        if !self.takes_input(token) {
            self.end_if_deaf(token);
            return;
        }
        carry.drain(..used);
        let left = carry.len();
        if left > 0 || self.slots[index as usize].work.is_some() {
            self.work(index).carry = carry;
        }
        if left <= CARRY_BYTES_MAX {
            self.resume(index);
        }
        if self.slots[index as usize].flags.has(Flags::EOF) {
            self.peer_ended(index);
        }
    }

    /// What the connection has left unread is looked at again when the next turn begins.
    pub(super) fn read_on_later(&mut self, index: u32) {
        if self.slots[index as usize].flags.raise(Flags::UNREAD) {
            self.unread.push_back(self.token(index));
        }
    }

    /// Goes on with the input of those whose unsent output stood in its way.
    pub(super) fn read_on(&mut self) {
        for token in std::mem::take(&mut self.unread) {
            if self.is_current(token) {
                self.slots[token.slot as usize].flags.clear(Flags::UNREAD);
                self.take_carry(token.slot);
            }
        }
    }

    /// A stream that was opened from what was carried: its peer may have ended already, or its
    /// receiving be paused. Neither may go unnoticed.
    fn end_if_deaf(&mut self, token: Token) {
        let index = token.slot;
        if !self.is_current(token) || self.slots[index as usize].phase != Phase::Sse {
            return;
        }
        if self.slots[index as usize].flags.has(Flags::EOF) {
            self.close(index, CloseReason::PeerClosed);
        } else {
            self.resume(index);
        }
    }

    fn takes_input(&self, token: Token) -> bool {
        self.is_current(token)
            && matches!(self.slots[token.slot as usize].phase, Phase::Http | Phase::Ws)
    }

    fn take_input(&mut self, token: Token, bytes: &[u8]) -> usize {
        let index = token.slot;
        let mut used = 0;
        while used < bytes.len() && self.takes_input(token) {
            let rest = &bytes[used..];
            let step = match self.slots[index as usize].phase {
                _ if self.awaits_proxy_header(index) => self.proxy_input(index, rest),
                Phase::Ws => self.ws_input(index, rest),
                _ => self.http_input(index, rest),
            };
            match step {
                Step::Used(count) => used += count,
                Step::Wait(count) => return used + count,
            }
        }
        used
    }

    fn http_input(&mut self, index: u32, bytes: &[u8]) -> Step {
        let slot = &mut self.slots[index as usize];
        if slot.flags.has(Flags::CLOSE_AFTER_OUT) {
            return Step::Used(bytes.len());
        }
        let Some(work) = &mut slot.work else { return self.head_input(index, bytes) };
        match &mut work.http {
            HttpState::Waiting { .. } => Step::Wait(0),
            // A peer that does not read its answers gets no more of them.
            HttpState::Head(_) if work.out.len() > OUT_BYTES_MAX => Step::Wait(0),
            HttpState::Head(_) => self.head_input(index, bytes),
            HttpState::Discard(decoder) => match decoder.decode(bytes) {
                Ok(decoded) => {
                    if decoder.is_done() {
                        work.http = HttpState::default();
                    }
                    Step::Used(decoded.consumed)
                }
                Err(error) => self.reject_body(index, error),
            },
            HttpState::Body(_) => self.body_input(index, bytes),
            HttpState::Lines(_) => self.lines_input(index, bytes),
        }
    }

    /// `bytes` begin with a head, whole or not.
    fn head_input(&mut self, index: u32, bytes: &[u8]) -> Step {
        let Some(mut space) = self.header_space.take() else { return Step::Wait(0) };
        let resumed = match self.slots[index as usize].work.as_deref_mut() {
            Some(work) => match &mut work.http {
                HttpState::Head(scan) if scan.has_begun() => Some(scan.advance(bytes)),
                _ => None,
            },
            None => None,
        };
        let parsed = match resumed {
            None => head::parse_prefix(bytes, &mut space),
            Some(Ok(Some(end))) => head::parse(&bytes[..end], &mut space).map(Parsed::Complete),
            Some(Ok(None)) => Ok(Parsed::Partial),
            Some(Err(error)) => Err(error),
        };
        let step = match parsed {
            Ok(Parsed::Complete(request))
                if self.check_has_to_wait(index, self.cost_of(&request)) =>
            {
                // It is read again from its beginning.
                self.work(index).http = HttpState::default();
                Step::Wait(0)
            }
            Ok(Parsed::Complete(request)) => {
                let length = request.head_len();
                self.begin_request(index);
                let body_used = self.request(index, &request, &bytes[length..]);
                Step::Used(length + body_used)
            }
            Ok(Parsed::Partial) => self.note_partial_head(index, bytes),
            Err(error) => {
                self.begin_request(index);
                self.reject_head(index, error)
            }
        };
        self.header_space = Some(space);
        step
    }

    fn begin_request(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.requests = slot.requests.wrapping_add(1);
        self.metrics.requests.add(1);
        if let Some(work) = &mut slot.work {
            work.http = HttpState::default();
            work.answer = Answer::default();
        }
    }

    fn note_partial_head(&mut self, index: u32, bytes: &[u8]) -> Step {
        let work = self.work(index);
        let HttpState::Head(scan) = &mut work.http else { return Step::Wait(0) };
        if scan.has_begun() {
            return Step::Wait(0);
        }
        match scan.advance(bytes) {
            Ok(_) => {
                if self.slots[index as usize].requests > 0 {
                    self.await_head(index);
                }
                Step::Wait(0)
            }
            Err(error) => self.reject_head(index, error),
        }
    }

    // --- requests ---

    /// Answers a request, or begins to. Tells how much of what follows the head it used.
    fn request(&mut self, index: u32, request: &Request<'_>, body: &[u8]) -> usize {
        let connection = request.connection();
        let mode = match request.method() {
            Method::Head => BodyMode::HeadOnly,
            _ => BodyMode::Whole,
        };
        let route = route(request);
        let to_event_source = mode == BodyMode::Whole && is_of_event_source(route, request);
        self.work(index).answer = Answer { connection, mode, to_event_source, ..Answer::default() };
        self.note_asked(index, Some(request));
        self.note_origin(index, request.header("origin"));
        if let Err(refused) = self.note_forwarded(index, request) {
            self.refuse_connection(index, refused);
            return 0;
        }
        if !self.admit_host(index, request) {
            return 0;
        }
        let draining = self.is_draining().then_some(Refused::Draining);
        if let Some(refused) = self.work(index).refused.or(draining) {
            self.refuse_connection(index, refused);
            return 0;
        }
        match route {
            Route::Publish(segment) => return self.publish(index, request, segment, body),
            Route::PublishLines => return self.publish_lines(index, request),
            _ => {}
        }
        self.leave_body(index, request, route);
        match route {
            Route::Greeting => self.greet(index, request),
            Route::Asset(asset) => self.send_asset(index, request, asset),
            Route::Describe(segment) => {
                if self.admit_request(index, request, Access::Http, None) {
                    self.describe(index, segment);
                }
            }
            Route::Sse => self.open_sse(index, request),
            Route::Ws => self.open_ws(index, request),
            Route::Options(allow) => self.preflight(index, allow),
            Route::MethodNotAllowed(allow) => {
                self.reject_with(index, METHOD_NOT_ALLOWED, &[("Allow", allow.as_bytes())]);
            }
            Route::NotImplemented => self.reject(index, HeadError::MethodUnsupported),
            Route::RefreshToken(target) => {
                if self.admit_request(index, request, Access::Http, None) {
                    self.refresh_token(index, target);
                }
            }
            Route::IllegalPath => self.reject_and_close(index, HeadError::TargetInvalid),
            Route::NotFound | Route::Publish(_) | Route::PublishLines => {
                self.reject(index, NOT_FOUND);
            }
        }
        0
    }

    /// The route wants no body: what comes of one is thrown away, or ends the connection. Whoever
    /// waits for the log has no room to remember how much there is to throw away, and whoever was
    /// to wait for `100 Continue` may not send it at all.
    fn leave_body(&mut self, index: u32, request: &Request<'_>, route: Route<'_>) {
        let waits =
            matches!(route, Route::Describe(_) | Route::Sse | Route::Ws | Route::RefreshToken(_));
        let certain = !waits && request.expectation() == Expectation::None;
        match request.framing() {
            Framing::None | Framing::Length(0) => {}
            Framing::Length(length) if length <= DISCARD_BYTES_MAX && certain => {
                let decoder = BodyDecoder::new(request.framing());
                self.work(index).http = HttpState::Discard(decoder);
            }
            Framing::Length(_) | Framing::Chunked => self.close_after_answer(index),
        }
    }

    /// The present request is at the log: nothing is read until it is answered, and then what is
    /// left of its body comes first.
    pub(super) fn await_log(&mut self, index: u32) {
        let http = &mut self.work(index).http;
        let unwanted = match std::mem::take(http) {
            HttpState::Discard(decoder) => Some(decoder),
            _ => None,
        };
        *http = HttpState::Waiting { unwanted };
    }

    fn greet(&mut self, index: u32, request: &Request<'_>) {
        let host = request.host().and_then(|host| std::str::from_utf8(host).ok());
        let host = host.unwrap_or("localhost:8080");
        let text = format!(
            "Pushline: publish over HTTP, subscribe over Server-Sent Events or WebSocket.\n\n\
             curl -N http://{host}/sse?channel=news\n\
             curl -d hello http://{host}/channels/news\n"
        );
        let content = Content { content_type: "text/plain; charset=utf-8", bytes: text.as_bytes() };
        self.respond(index, Status::Ok, &content, &[]);
    }

    /// Files for browsers are everybody's: pages of any origin load the client from here.
    fn send_asset(&mut self, index: u32, request: &Request<'_>, asset: &Asset) {
        self.work(index).answer.cors = Cow::Borrowed(CORS_ANYBODY);
        let known = request.header("if-none-match") == Some(asset.etag.as_bytes());
        let (status, body) = match known {
            true => (Status::NotModified, ""),
            false => (Status::Ok, asset.body.as_str()),
        };
        let content = Content { content_type: asset.content_type, bytes: body.as_bytes() };
        let cache: (&str, &[u8]) = ("Cache-Control", b"public, max-age=300");
        self.respond(index, status, &content, &[cache, ("ETag", asset.etag.as_bytes())]);
    }

    fn preflight(&mut self, index: u32, allow: &str) {
        let cors = &mut self.work(index).answer.cors;
        if !cors.is_empty() {
            cors.to_mut().extend_from_slice(CORS_PREFLIGHT);
        }
        let content = Content { content_type: "", bytes: b"" };
        self.respond(index, Status::NoContent, &content, &[("Allow", allow.as_bytes())]);
    }

    // --- ends ---

    /// It is decided why the connection ends; the first reason stays.
    pub(super) fn note_ending(&mut self, index: u32, reason: CloseReason) {
        self.slots[index as usize].ending.get_or_insert(reason);
    }

    /// The connection ends when own output is sent, in the way that loses it to nobody who still
    /// sends: closing at once would be a reset (RFC 9112 section 9.6, RFC 6455 section 7.1.1).
    pub(super) fn end_after_output(&mut self, index: u32) {
        let flags = &mut self.slots[index as usize].flags;
        flags.set(Flags::CLOSE_AFTER_OUT);
        flags.set(Flags::LINGER);
    }

    /// Own output is sent: an answered connection ends here if its answer said so.
    pub(super) fn finish_if_done(&mut self, index: u32) {
        let slot = &self.slots[index as usize];
        let sending = slot.work.as_ref().is_some_and(|work| work.has_output());
        if !slot.flags.has(Flags::CLOSE_AFTER_OUT) || sending || slot.phase == Phase::Lingering {
            return;
        }
        // Both close frames are sent, and it was not we who began.
        let closed = slot.phase == Phase::WsClosing;
        let reason = if closed { CloseReason::PeerClosed } else { CloseReason::Answered };
        if slot.flags.has(Flags::LINGER) && !slot.flags.has(Flags::EOF) {
            let token = self.token(index);
            self.note_ending(index, reason);
            self.leave_all(index);
            self.set_phase(index, Phase::Lingering);
            self.work(index).clear();
            self.set_deadline(index, super::deadline::Kind::Linger);
            self.batch.ops.push(Op::Shutdown(token));
            self.resume(index);
        } else {
            self.close(index, reason);
        }
    }

    /// The peer sends no more. What it has asked for it still gets.
    pub(super) fn peer_ended(&mut self, index: u32) {
        self.slots[index as usize].flags.set(Flags::EOF);
        if self.ws_peer_ended(index) {
            return;
        }
        let slot = &mut self.slots[index as usize];
        let sends = slot.work.as_ref().is_some_and(|work| work.has_output());
        let unread = slot.work.as_ref().is_some_and(|work| !work.carry.is_empty());
        if slot.phase == Phase::Http && unread && (sends || slot.flags.has(Flags::UNREAD)) {
            // Requests are left: they are read, and the end is looked at again, when the answers
            // before them are sent, or in the next turn.
            return;
        }
        let unanswered = slot.phase == Phase::Http
            && slot.work.as_ref().is_some_and(|work| {
                work.has_output() || work.outstanding > 0 || !work.http.is_idle()
            });
        let mid_body = slot.work.as_ref().is_some_and(|work| match &work.http {
            HttpState::Body(_) | HttpState::Discard(_) => true,
            HttpState::Lines(_) => work.outstanding == 0,
            HttpState::Head(_) | HttpState::Waiting { .. } => false,
        });
        if !unanswered || mid_body {
            self.close(index, CloseReason::PeerClosed);
        } else if !matches!(
            slot.work.as_ref().map(|work| &work.http),
            Some(HttpState::Waiting { .. } | HttpState::Lines(_))
        ) {
            slot.flags.set(Flags::CLOSE_AFTER_OUT);
        }
    }
}

/// Whether a stream is asked for in the way every EventSource does (WHATWG HTML 9.2.2). A probe or
/// a person with curl does not, and can be told the truth.
fn is_of_event_source(route: Route<'_>, request: &Request<'_>) -> bool {
    let wants_events = |accept: &[u8]| memmem::find(accept, b"text/event-stream").is_some();
    route == Route::Sse && request.headers_named("accept").any(wants_events)
}
