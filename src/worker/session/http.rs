//! The HTTP side of a connection: requests are read in order, each answered before the next is
//! read.

use std::borrow::Cow;

use memchr::memmem;

use super::answer::{Answer, Content};
use super::http2::ForStream;
use super::ndjson::Ndjson;
use super::producer::Producer;
use super::publish::Body;
use super::route::{Route, route};
use super::{Cx, Flags, Protocol, Sessions};
use crate::auth::{Access, CORS_ANYBODY, CORS_PREFLIGHT};
use crate::limits::OUT_BYTES_MAX;
use crate::proto::http::body::BodyDecoder;
use crate::proto::http::head::{
    self, Expectation, Framing, HeadError, HeadScan, Method, Parsed, Request,
};
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

/// Where a connection is between and within requests.
#[derive(Debug)]
pub(super) enum HttpState {
    /// Between requests, or in the middle of a head.
    Head(HeadScan),
    /// The body of `POST /channels/{channel}` is coming.
    Body(Box<Body>),
    /// The body of `POST /publish` is coming.
    Ndjson(Box<Ndjson>),
    /// The body of `POST /channels/{channel}/stream` is coming.
    Stream(Box<Producer>),
    /// A body no route wants is coming.
    Discard(BodyDecoder),
    /// Waiting for the log. A body no route wants may be arriving meanwhile.
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
pub enum Step {
    /// This many bytes were used; go on with the rest.
    Used(usize),
    /// This many bytes were used; the rest waits for more input or for an answer.
    Wait(usize),
    /// So many bytes are done with; they are for one of the connection's streams.
    Stream(usize, ForStream),
}

impl Sessions {
    // --- input ---

    /// Notes that the peer was heard.
    pub fn heard(&mut self, index: u32) {
        self.of[index].flags.clear(Flags::PING_OUT | Flags::PING_LATE);
    }

    /// Takes a piece of input: a request, a part of a body, a message.
    pub fn input(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
        match self.protocol(cx.index()) {
            _ if self.awaits_proxy_header(cx) => self.proxy_input(cx, bytes),
            Protocol::Ws => self.ws_input(cx, bytes),
            Protocol::Http2 => self.http2_input(cx, bytes),
            Protocol::Http if self.may_be_http2(cx, bytes) => self.preface_input(cx, bytes),
            Protocol::Http => self.http_input(cx, bytes),
            Protocol::Sse | Protocol::WsClosing => Step::Wait(0),
        }
    }

    fn http_input(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
        if cx.world.ends_after_output() {
            return Step::Used(bytes.len());
        }
        let Some(work) = &mut self.of[cx.index()].work else {
            return self.head_input(cx, bytes);
        };
        match &mut work.http {
            HttpState::Waiting { .. } => Step::Wait(0),
            // A peer that does not read its answers gets no more of them for now.
            HttpState::Head(_) if cx.out_len() > OUT_BYTES_MAX => Step::Wait(0),
            HttpState::Head(_) => self.head_input(cx, bytes),
            HttpState::Discard(decoder) => match decoder.decode(bytes) {
                Ok(decoded) => {
                    if decoder.is_done() {
                        work.http = HttpState::default();
                    }
                    Step::Used(decoded.consumed)
                }
                Err(error) => self.reject_body(cx, error),
            },
            HttpState::Body(_) => self.body_input(cx, bytes),
            HttpState::Ndjson(_) => self.ndjson_input(cx, bytes),
            HttpState::Stream(_) => self.stream_input(cx, bytes),
        }
    }

    /// Takes a head, complete or not.
    fn head_input(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
        let index = cx.index();
        let Some(mut space) = self.header_space.take() else { return Step::Wait(0) };
        let resumed = match self.of[index].work.as_deref_mut() {
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
                if self.check_has_to_wait(cx, self.cost_of(&request))
                    || self.has_to_ask(cx, &request) =>
            {
                // The whole head is parsed again from its beginning.
                self.work(index).http = HttpState::default();
                Step::Wait(0)
            }
            Ok(Parsed::Complete(request)) => {
                let length = request.head_len();
                self.begin_request(index);
                let body_used = self.request(cx, &request, &bytes[length..]);
                Step::Used(length + body_used)
            }
            Ok(Parsed::Partial) => self.note_partial_head(cx, bytes),
            Err(error) => {
                self.begin_request(index);
                self.reject_head(cx, error)
            }
        };
        self.header_space = Some(space);
        step
    }

    fn begin_request(&mut self, index: u32) {
        let session = &mut self.of[index];
        session.requests = session.requests.wrapping_add(1);
        self.metrics.requests.add(1);
        if let Some(work) = &mut session.work {
            work.http = HttpState::default();
            work.answer = Answer::default();
        }
    }

    fn note_partial_head(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
        let index = cx.index();
        let work = self.work(index);
        let HttpState::Head(scan) = &mut work.http else { return Step::Wait(0) };
        if scan.has_begun() {
            return Step::Wait(0);
        }
        match scan.advance(bytes) {
            Ok(_) => {
                if self.has_begun(index) {
                    cx.wait(Why::Head);
                }
                Step::Wait(0)
            }
            Err(error) => self.reject_head(cx, error),
        }
    }

    // --- requests ---

    /// Answers a request, or begins to. Returns how many of the bytes behind the head it used.
    fn request(&mut self, cx: &mut Cx<'_>, request: &Request<'_>, body: &[u8]) -> usize {
        let route = route(request);
        self.begin_answer(cx, request, route);
        if !self.admit_connection(cx, request) {
            return 0;
        }
        match route {
            Route::Publish(segment) => self.publish(cx, request, segment, body),
            Route::PublishNdjson => self.publish_ndjson(cx, request),
            Route::Produce(segment) => self.produce(cx, request, segment),
            _ => {
                self.leave_body(cx, request, route);
                if !self.redirect_to_tls(cx, request) {
                    self.answer_route(cx, request, route);
                }
                0
            }
        }
    }

    fn begin_answer(&mut self, cx: &mut Cx<'_>, request: &Request<'_>, route: Route<'_>) {
        let (index, connection) = (cx.index(), request.connection());
        let mode = match request.method() {
            Method::Head => BodyMode::HeadOnly,
            _ => BodyMode::Whole,
        };
        let to_event_source = mode == BodyMode::Whole && is_of_event_source(route, request);
        self.work(index).answer = Answer { connection, mode, to_event_source, ..Answer::default() };
        self.note_asked(cx, Some(request));
        self.note_origin(cx, request.header("origin"));
    }

    /// Whether the request's connection and host are accepted. If not, the request is answered.
    fn admit_connection(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> bool {
        if let Err(refused) = self.note_forwarded(cx, request) {
            self.refuse_connection(cx, refused);
            return false;
        }
        if !self.admit_host(cx, request) {
            return false;
        }
        let draining = self.is_draining.then_some(Refused::Draining);
        if let Some(refused) = self.work(cx.index()).refused.or(draining) {
            self.refuse_connection(cx, refused);
            return false;
        }
        true
    }

    /// Answers a request whose body is not wanted.
    fn answer_route(&mut self, cx: &mut Cx<'_>, request: &Request<'_>, route: Route<'_>) {
        match route {
            Route::NotFound if self.view_mapped(cx, request) => {}
            Route::NotFound | Route::Publish(_) | Route::PublishNdjson | Route::Produce(_) => {
                self.reject(cx, NOT_FOUND);
            }
            Route::IllegalPath => self.reject_and_close(cx, HeadError::TargetInvalid),
            Route::NotImplemented => self.reject(cx, HeadError::MethodUnsupported),
            Route::MethodNotAllowed(allow) => {
                self.reject_with(cx, METHOD_NOT_ALLOWED, &[("Allow", allow.as_bytes())]);
            }
            Route::Options(allow) => self.preflight(cx, allow),
            Route::Greeting => self.greet(cx, request),
            Route::Asset(asset) if asset.is_demo && !self.settings.shows_demos() => {
                self.reject(cx, NOT_FOUND);
            }
            Route::Asset(asset) => self.send_asset(cx, request, asset),
            Route::Sse => self.open_sse(cx, request),
            Route::Ws => self.open_ws(cx, request),
            _ if !self.admit_request(cx, request, Access::Http, None) => {}
            Route::Describe(segment) => self.describe(cx, segment),
            Route::Events(segment) => self.list_events(cx, request, segment),
            Route::View(segment) => self.view(cx, request, segment),
            Route::CancelStream(segment) => self.cancel_stream(cx, segment),
            Route::Presence(segment) => self.presence(cx, segment),
            Route::RefreshToken(target) => self.refresh_token(cx, target),
        }
    }

    /// Handles a body the route does not want: it is thrown away, or ends the connection. A request
    /// that waits for the log cannot also track a body to discard, and a peer that waits for `100
    /// Continue` may never send one.
    fn leave_body(&mut self, cx: &mut Cx<'_>, request: &Request<'_>, route: Route<'_>) {
        let waits = match route {
            Route::NotFound => !self.settings.stream_paths.is_empty(),
            _ => route.needs_rights(),
        };
        let certain = !waits && request.expectation() == Expectation::None;
        match request.framing() {
            Framing::None | Framing::Length(0) => {}
            Framing::Length(length) if length <= DISCARD_BYTES_MAX && certain => {
                let decoder = BodyDecoder::new(request.framing());
                self.work(cx.index()).http = HttpState::Discard(decoder);
            }
            Framing::Length(_) | Framing::Chunked => self.close_after_answer(cx.index()),
        }
    }

    /// Stops reading until the log has answered the present request; what is left of its body is
    /// read first then.
    pub(super) fn await_log(&mut self, index: u32) {
        let http = &mut self.work(index).http;
        let unwanted = match std::mem::take(http) {
            HttpState::Discard(decoder) => Some(decoder),
            _ => None,
        };
        *http = HttpState::Waiting { unwanted };
    }

    fn greet(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) {
        let host = request.host().and_then(|host| std::str::from_utf8(host).ok());
        let host = host.unwrap_or("localhost:8080");
        let mut text = format!(
            "Pushline: publish over HTTP, subscribe over Server-Sent Events or WebSocket.\n\n\
             curl -N http://{host}/sse?channel=news\n\
             curl -d hello http://{host}/channels/news\n"
        );
        if self.settings.shows_demos() {
            text += &format!("\nIn a browser: http://{host}/demo\n");
        }
        let content = Content { content_type: "text/plain; charset=utf-8", bytes: text.as_bytes() };
        self.respond(cx, Status::Ok, &content, &[]);
    }

    /// Serves a file for browsers. These are public: pages of any origin load the client from here.
    fn send_asset(&mut self, cx: &mut Cx<'_>, request: &Request<'_>, asset: &Asset) {
        self.work(cx.index()).answer.cors = Cow::Borrowed(CORS_ANYBODY);
        let known = request.header("if-none-match") == Some(asset.etag.as_bytes());
        let (status, body) = match known {
            true => (Status::NotModified, ""),
            false => (Status::Ok, asset.body.as_str()),
        };
        let content = Content { content_type: asset.content_type, bytes: body.as_bytes() };
        let cache: (&str, &[u8]) = ("Cache-Control", b"public, max-age=300");
        self.respond(cx, status, &content, &[cache, ("ETag", asset.etag.as_bytes())]);
    }

    fn preflight(&mut self, cx: &mut Cx<'_>, allow: &str) {
        let cors = &mut self.work(cx.index()).answer.cors;
        if !cors.is_empty() {
            cors.to_mut().extend_from_slice(CORS_PREFLIGHT);
        }
        let content = Content { content_type: "", bytes: b"" };
        self.respond(cx, Status::NoContent, &content, &[("Allow", allow.as_bytes())]);
    }

    // --- ends ---

    /// The peer sends no more, but still gets answers to what it has asked. `sends`: whether
    /// something is still being sent to it.
    pub fn peer_ended(&mut self, cx: &mut Cx<'_>, sends: bool) {
        let index = cx.index();
        if self.ws_peer_ended(cx, sends) {
            return;
        }
        let kind = self.protocol(index);
        if kind == Protocol::Http2 && cx.world.stream_count() == 0 && sends {
            return cx.end(Ending::AfterOutput(None));
        }
        let is_unread = self.of[index].flags.has(Flags::UNREAD);
        let work = self.work_of(index);
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
            matches!(
                work.http,
                HttpState::Waiting { .. } | HttpState::Ndjson(_) | HttpState::Stream(_)
            )
        });
        if !unanswered || mid_body {
            cx.end(Ending::Now(CloseReason::PeerClosed));
        } else if !is_asking {
            cx.end(Ending::AfterOutput(None));
        }
    }
}

/// Whether a stream is asked for the way every EventSource does (WHATWG HTML 9.2.2). A probe or a
/// person with curl does not, and can be told the truth.
fn is_of_event_source(route: Route<'_>, request: &Request<'_>) -> bool {
    let wants_events = |accept: &[u8]| memmem::find(accept, b"text/event-stream").is_some();
    route == Route::Sse && request.headers_named("accept").any(wants_events)
}
