//! The HTTP side of a connection: requests are read in order, each answered before the next is
//! read.

use std::borrow::Cow;

use memchr::memmem;

use super::answer::Content;
use super::route::{Route, route};
use super::state::{Answer, Flags, HttpState, Protocol};
use super::step::Step;
use super::{
    Cx, access, answer, backend, checks, client, closing, describe, history, http2, log_line,
    ndjson, presence, produce, publish, redirect, refresh, subscribe, view, websocket,
};
use crate::auth::{Access, CORS_ANYBODY, CORS_PREFLIGHT};
use crate::limits::OUT_BYTES_MAX;
use crate::proto::http::body::BodyDecoder;
use crate::proto::http::head::{self, Expectation, Framing, HeadError, Method, Parsed, Request};
use crate::proto::http::response::{BodyMode, Status};
use crate::proto::reject::Reject;
use crate::reason::{CloseReason, Refused};
use crate::web::Asset;
use crate::worker::clock::Why;
use crate::worker::effect::Ending;

const METHOD_NOT_ALLOWED: Reject = Reject::new(
    Status::MethodNotAllowed,
    "method_not_allowed",
    "this path does not support this method",
);

const NOT_FOUND: Reject = Reject::new(Status::NotFound, "not_found", "no such path");

/// A body no route wants is read to its end if it is no longer than this, so that the connection
/// can be reused; with a longer one the connection is closed.
const DISCARD_BYTES_MAX: u64 = 64 * 1024;

impl Cx<'_> {
    /// Stops reading until the log has answered the present request; what is left of its body is
    /// read first then.
    pub(super) fn await_log(&mut self) {
        let http = &mut self.work().http;
        let unwanted = match std::mem::take(http) {
            HttpState::Discard(decoder) => Some(decoder),
            _ => None,
        };
        *http = HttpState::Waiting { unwanted };
    }
}

/// Takes a piece of input: a request, a part of a body, a message.
pub fn input(cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
    match cx.session.protocol {
        _ if client::awaits_proxy_header(cx) => client::proxy_input(cx, bytes),
        Protocol::Ws => websocket::input(cx, bytes),
        Protocol::Http2 => http2::input(cx, bytes),
        Protocol::Http if http2::may_begin(cx, bytes) => http2::preface_input(cx, bytes),
        Protocol::Http => http_input(cx, bytes),
        Protocol::Sse | Protocol::WsClosing => Step::Wait(0),
    }
}

fn http_input(cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
    if cx.world.ends_after_output() {
        return Step::Used(bytes.len());
    }
    match cx.session.work().map(|work| &work.http) {
        // A peer that does not read its answers gets no more of them for now.
        Some(HttpState::Head(_)) if cx.out_len() > OUT_BYTES_MAX => Step::Wait(0),
        None | Some(HttpState::Head(_)) => head_input(cx, bytes),
        Some(HttpState::Body(_)) => publish::input(cx, bytes),
        Some(HttpState::Ndjson(_)) => ndjson::input(cx, bytes),
        Some(HttpState::Stream(_)) => produce::input(cx, bytes),
        Some(HttpState::Discard(_)) => discard(cx, bytes),
        Some(HttpState::Waiting { .. }) => Step::Wait(0),
    }
}

/// Reads past a body no route wants.
fn discard(cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
    let http = &mut cx.work().http;
    let HttpState::Discard(decoder) = http else { return Step::Wait(0) };
    match decoder.decode(bytes) {
        Ok(decoded) => {
            if decoder.is_done() {
                *http = HttpState::default();
            }
            Step::Used(decoded.consumed)
        }
        Err(error) => answer::reject_body(cx, error),
    }
}

/// Takes a head, complete or not.
fn head_input(cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
    let Some(mut space) = cx.shared.header_space.take() else { return Step::Wait(0) };
    let resumed = match cx.session.work.as_deref_mut() {
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
        Ok(Parsed::Complete(request)) => take_head(cx, &request, bytes),
        Ok(Parsed::Partial) => take_partial_head(cx, bytes),
        Err(error) => {
            begin_request(cx);
            answer::reject_head(cx, error)
        }
    };
    cx.shared.header_space = Some(space);
    step
}

/// Takes a whole head, at the beginning of `bytes`, unless something has to be done before: then the
/// head will be parsed again.
fn take_head(cx: &mut Cx<'_>, request: &Request<'_>, bytes: &[u8]) -> Step {
    let before = match client::other_client(cx, request) {
        Some(client) => Some(Step::Client(0, client)),
        None => {
            let waits = checks::has_to_wait(cx, access::cost_of(cx, request))
                || backend::has_to_ask(cx, request);
            waits.then_some(Step::Wait(0))
        }
    };
    if let Some(step) = before {
        if let Some(work) = &mut cx.session.work {
            work.http = HttpState::default();
        }
        return step;
    }
    begin_request(cx);
    let length = request.head_len();
    Step::Used(length + serve(cx, request, &bytes[length..]))
}

fn begin_request(cx: &mut Cx<'_>) {
    let session = &mut cx.session;
    session.requests = session.requests.wrapping_add(1);
    cx.shared.metrics.requests.add(1);
    if let Some(work) = &mut session.work {
        work.http = HttpState::default();
        work.answer = Answer::default();
    }
}

fn take_partial_head(cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
    let work = cx.work();
    let HttpState::Head(scan) = &mut work.http else { return Step::Wait(0) };
    if scan.has_begun() {
        return Step::Wait(0);
    }
    match scan.advance(bytes) {
        Ok(_) => {
            if cx.session.has_begun() {
                cx.wait(Why::Head);
            }
            Step::Wait(0)
        }
        Err(error) => answer::reject_head(cx, error),
    }
}

// --- requests ---

/// Answers a request, or begins to. Returns how many of the bytes behind the head it used.
fn serve(cx: &mut Cx<'_>, request: &Request<'_>, body: &[u8]) -> usize {
    let route = route(request);
    begin_answer(cx, request, route);
    if !admit_connection(cx, request) {
        return 0;
    }
    match route {
        Route::Publish(segment) => publish::begin(cx, request, segment, body),
        Route::PublishNdjson => ndjson::begin(cx, request),
        Route::Produce(segment) => produce::begin(cx, request, segment),
        _ => {
            leave_body(cx, request, route);
            if !redirect::to_tls(cx, request) {
                answer_route(cx, request, route);
            }
            0
        }
    }
}

fn begin_answer(cx: &mut Cx<'_>, request: &Request<'_>, route: Route<'_>) {
    let connection = request.connection();
    let mode = match request.method() {
        Method::Head => BodyMode::HeadOnly,
        _ => BodyMode::Whole,
    };
    let to_event_source = mode == BodyMode::Whole && is_of_event_source(route, request);
    cx.work().answer = Answer { connection, mode, to_event_source, ..Answer::default() };
    log_line::log_asked(cx, Some(request));
    access::prepare_cors(cx, request.header("origin"));
}

/// Whether the request's connection and host are accepted. If not, the request is answered.
fn admit_connection(cx: &mut Cx<'_>, request: &Request<'_>) -> bool {
    if !access::admit_host(cx, request) {
        return false;
    }
    let draining = cx.shared.is_draining.then_some(Refused::Draining);
    if let Some(refused) = cx.work().refused.or(draining) {
        answer::refuse_connection(cx, refused);
        return false;
    }
    true
}

/// Answers a request whose body is not wanted.
fn answer_route(cx: &mut Cx<'_>, request: &Request<'_>, route: Route<'_>) {
    match route {
        Route::NotFound if view::begin_mapped(cx, request) => {}
        Route::NotFound | Route::Publish(_) | Route::PublishNdjson | Route::Produce(_) => {
            cx.reject(NOT_FOUND);
        }
        Route::IllegalPath => cx.reject_and_close(HeadError::TargetInvalid),
        Route::NotImplemented => cx.reject(HeadError::MethodUnsupported),
        Route::MethodNotAllowed(allow) => {
            cx.reject_with(METHOD_NOT_ALLOWED, &[("Allow", allow.as_bytes())]);
        }
        Route::Options(allow) => preflight(cx, allow),
        Route::Greeting => greet(cx, request),
        Route::Asset(asset) if asset.is_demo && !cx.shared.settings.shows_demos() => {
            cx.reject(NOT_FOUND);
        }
        Route::Asset(asset) => send_asset(cx, request, asset),
        Route::Sse => subscribe::open_sse(cx, request),
        Route::Ws => subscribe::open_ws(cx, request),
        _ if !access::admit_request(cx, request, Access::Http, None) => {}
        Route::Describe(segment) => describe::ask(cx, segment),
        Route::Events(segment) => history::ask(cx, request, segment),
        Route::View(segment) => view::begin(cx, request, segment),
        Route::CancelStream(segment) => produce::cancel_stream(cx, segment),
        Route::Presence(segment) => presence::ask(cx, segment),
        Route::RefreshToken(target) => refresh::begin(cx, target),
    }
}

/// Handles a body the route does not want: it is thrown away, or ends the connection. A request
/// that waits for the log cannot also track a body to discard, and a peer that waits for `100
/// Continue` may never send one.
fn leave_body(cx: &mut Cx<'_>, request: &Request<'_>, route: Route<'_>) {
    let waits = match route {
        Route::NotFound => !cx.shared.settings.stream_paths.is_empty(),
        _ => route.needs_rights(),
    };
    let certain = !waits && request.expectation() == Expectation::None;
    match request.framing() {
        Framing::None | Framing::Length(0) => {}
        Framing::Length(length) if length <= DISCARD_BYTES_MAX && certain => {
            let decoder = BodyDecoder::new(request.framing());
            cx.work().http = HttpState::Discard(decoder);
        }
        Framing::Length(_) | Framing::Chunked => cx.close_after_answer(),
    }
}

fn greet(cx: &mut Cx<'_>, request: &Request<'_>) {
    let host = request.host().and_then(|host| std::str::from_utf8(host).ok());
    let host = host.unwrap_or("localhost:8080");
    let mut text = format!(
        "Pushline: publish over HTTP, subscribe over Server-Sent Events or WebSocket.\n\n\
         curl -N http://{host}/sse?channel=news\n\
         curl -d hello http://{host}/channels/news\n"
    );
    if cx.shared.settings.shows_demos() {
        text += &format!("\nIn a browser: http://{host}/demo\n");
    }
    let content = Content { content_type: "text/plain; charset=utf-8", bytes: text.as_bytes() };
    cx.respond(Status::Ok, &content, &[]);
}

/// Serves a file for browsers. These are public: pages of any origin load the client from here.
fn send_asset(cx: &mut Cx<'_>, request: &Request<'_>, asset: &Asset) {
    cx.work().answer.cors = Cow::Borrowed(CORS_ANYBODY);
    let known = request.header("if-none-match") == Some(asset.etag.as_bytes());
    let (status, body) = match known {
        true => (Status::NotModified, ""),
        false => (Status::Ok, asset.body.as_str()),
    };
    let content = Content { content_type: asset.content_type, bytes: body.as_bytes() };
    let cache: (&str, &[u8]) = ("Cache-Control", b"public, max-age=300");
    cx.respond(status, &content, &[cache, ("ETag", asset.etag.as_bytes())]);
}

fn preflight(cx: &mut Cx<'_>, allow: &str) {
    let cors = &mut cx.work().answer.cors;
    if !cors.is_empty() {
        cors.to_mut().extend_from_slice(CORS_PREFLIGHT);
    }
    let content = Content { content_type: "", bytes: b"" };
    cx.respond(Status::NoContent, &content, &[("Allow", allow.as_bytes())]);
}

// --- ends ---

/// The peer sends no more, but still gets answers to what it has asked. `sends`: whether
/// something is still being sent to it.
pub fn peer_ended(cx: &mut Cx<'_>, sends: bool) {
    if closing::ws_peer_ended(cx, sends) {
        return;
    }
    let kind = cx.session.protocol;
    if kind == Protocol::Http2 && cx.world.stream_count() == 0 && sends {
        return cx.end(Ending::AfterOutput(None));
    }
    let is_unread = cx.session.flags.contains(Flags::UNREAD);
    let work = cx.session.work();
    let carries = work.is_some_and(|work| !work.carry.is_empty());
    if kind == Protocol::Http && carries && (sends || is_unread) {
        // Requests are left. They are read once the answers before them are sent, or in the
        // next turn; then this is called again.
        return;
    }
    let waits = work.is_some_and(|work| work.outstanding > 0 || !work.http.is_idle());
    let unanswered = kind == Protocol::Http && (sends || waits);
    let mid_body = work.is_some_and(|work| match &work.http {
        HttpState::Body(_) | HttpState::Discard(_) => true,
        HttpState::Stream(producer) => producer.awaits_peer(),
        HttpState::Ndjson(_) => work.outstanding == 0,
        HttpState::Head(_) | HttpState::Waiting { .. } => false,
    });
    let is_asking = work.is_some_and(|work| {
        matches!(work.http, HttpState::Waiting { .. } | HttpState::Ndjson(_) | HttpState::Stream(_))
    });
    if !unanswered || mid_body {
        cx.end(Ending::Now(CloseReason::PeerClosed));
    } else if !is_asking {
        cx.end(Ending::AfterOutput(None));
    }
}

/// Whether a stream is asked for the way every EventSource does (WHATWG HTML 9.2.2). A probe or a
/// person with curl does not, and can be told the truth.
fn is_of_event_source(route: Route<'_>, request: &Request<'_>) -> bool {
    let wants_events = |accept: &[u8]| memmem::find(accept, b"text/event-stream").is_some();
    route == Route::Sse && request.headers_named("accept").any(wants_events)
}
