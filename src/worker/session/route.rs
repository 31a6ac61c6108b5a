//! The table of the public listener's routes.

use crate::proto::http::head::{Method, Request};
use crate::web::{self, Asset};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'r> {
    /// `GET /`.
    Greeting,
    /// `POST /channels/{channel}`, with the segment as sent.
    Publish(&'r str),
    /// `GET /channels/{channel}`, with the segment as sent.
    Describe(&'r str),
    /// `POST /channels/{channel}/stream`: the segment as sent.
    Produce(&'r str),
    /// `GET /channels/{channel}/events`: the segment as sent.
    Events(&'r str),
    /// `GET /channels/{channel}/stream`: the segment as sent.
    View(&'r str),
    /// `POST /channels/{channel}/stream/cancel`: the segment as sent.
    CancelStream(&'r str),
    /// `GET /channels/{channel}/presence`: the segment as sent.
    Presence(&'r str),
    /// `POST /publish`.
    PublishNdjson,
    /// `GET /sse`.
    Sse,
    /// `GET /ws`.
    Ws,
    /// `GET` of a file for browsers.
    Asset(&'static Asset),
    /// `POST /sse/{connection}/token`: a new token for a stream.
    RefreshToken(&'r str),
    /// `OPTIONS` of any path, CORS preflights included, with the methods of the path.
    Options(&'static str),
    /// No such path, and its bytes are not even legal in one.
    IllegalPath,
    /// No such path.
    NotFound,
    /// The path exists, but not for this method; with the methods it has.
    MethodNotAllowed(&'static str),
    /// An unknown method, or `CONNECT`: this is not a proxy.
    NotImplemented,
}

impl Route<'_> {
    /// Whether rights decide about the answer. A path without a route may be mapped to a stream.
    pub fn needs_rights(self) -> bool {
        !matches!(
            self,
            Self::Greeting
                | Self::Asset(_)
                | Self::Options(_)
                | Self::IllegalPath
                | Self::MethodNotAllowed(_)
                | Self::NotImplemented
        )
    }
}

/// Finds a request's route.
pub fn route<'r>(request: &Request<'r>) -> Route<'r> {
    let method = match request.method() {
        Method::Options if is_legal(request.path()) => {
            return Route::Options(options_of(request.path()));
        }
        Method::Options => return Route::IllegalPath,
        Method::Head => Method::Get,
        method => method,
    };
    if let Method::Other(name) = method
        && !matches!(name, "PUT" | "PATCH" | "TRACE")
    {
        return Route::NotImplemented;
    }
    let routes = routes_of(request.path());
    match (method, routes) {
        (_, (None, None)) if !is_legal(request.path()) => Route::IllegalPath,
        (_, (None, None)) => Route::NotFound,
        (Method::Get, (Some(route), _)) | (Method::Post, (_, Some(route))) => route,
        _ => Route::MethodNotAllowed(allowed(routes)),
    }
}

/// Whether a path has only bytes of RFC 3986 section 3.3. The parser accepts some more, which
/// browsers leave bare in a query; no path of ours contains one.
fn is_legal(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&byte))
}

/// The methods of a path; `*` means the server as a whole (RFC 9110 section 9.3.7).
fn options_of(path: &str) -> &'static str {
    match path {
        "*" => "GET, HEAD, POST, OPTIONS",
        _ => allowed(routes_of(path)),
    }
}

fn allowed(routes: Routes<'_>) -> &'static str {
    match routes {
        (None, None) => "OPTIONS",
        (Some(_), None) => "GET, HEAD, OPTIONS",
        (None, Some(_)) => "POST, OPTIONS",
        (Some(_), Some(_)) => "GET, HEAD, POST, OPTIONS",
    }
}

/// What a path is for with `GET`, and with `POST`.
type Routes<'r> = (Option<Route<'r>>, Option<Route<'r>>);

fn routes_of(path: &str) -> Routes<'_> {
    match path {
        "/" => return (Some(Route::Greeting), None),
        "/sse" => return (Some(Route::Sse), None),
        "/ws" => return (Some(Route::Ws), None),
        "/publish" => return (None, Some(Route::PublishNdjson)),
        _ => {}
    }
    if let Some(rest) = path.strip_prefix("/channels/") {
        let end = rest.bytes().position(|byte| byte == b'/').unwrap_or(rest.len());
        match rest.split_at(end) {
            (channel, "") => {
                return (Some(Route::Describe(channel)), Some(Route::Publish(channel)));
            }
            (channel, "/stream") => {
                return (Some(Route::View(channel)), Some(Route::Produce(channel)));
            }
            (channel, "/events") => return (Some(Route::Events(channel)), None),
            (channel, "/stream/cancel") => return (None, Some(Route::CancelStream(channel))),
            (channel, "/presence") => return (Some(Route::Presence(channel)), None),
            _ => {}
        }
    }
    let connection = path.strip_prefix("/sse/").and_then(|rest| rest.strip_suffix("/token"));
    (web::find(path).map(Route::Asset), connection.map(Route::RefreshToken))
}
