//! Which request is which: the table of the public listener.

use crate::proto::http::head::{Method, Request};
use crate::web::{self, Asset};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'r> {
    /// `GET /`.
    Greeting,
    /// `POST /channels/{channel}`: the segment as sent.
    Publish(&'r str),
    /// `GET /channels/{channel}`: the segment as sent.
    Describe(&'r str),
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
    /// `OPTIONS` of anything, a CORS preflight among them: the methods it is there for.
    Options(&'static str),
    /// No such thing, and with these bytes there can't be.
    IllegalPath,
    /// No such thing.
    NotFound,
    /// It is there, but not for this method: the methods it is there for.
    MethodNotAllowed(&'static str),
    /// An unknown method, or `CONNECT`: this is no proxy.
    NotImplemented,
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

/// Whether a path has only bytes of RFC 3986 section 3.3. The parser takes some more, as browsers
/// leave them bare in a query; no path of ours has one of them.
fn is_legal(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&byte))
}

/// The methods of a path; `*` is the server as a whole (RFC 9110 section 9.3.7).
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

/// What a path is for when it is got, and when it is posted to.
type Routes<'r> = (Option<Route<'r>>, Option<Route<'r>>);

fn routes_of(path: &str) -> Routes<'_> {
    match path {
        "/" => return (Some(Route::Greeting), None),
        "/sse" => return (Some(Route::Sse), None),
        "/ws" => return (Some(Route::Ws), None),
        "/publish" => return (None, Some(Route::PublishNdjson)),
        _ => {}
    }
    if let Some(channel) = path.strip_prefix("/channels/")
        && !channel.contains('/')
    {
        return (Some(Route::Describe(channel)), Some(Route::Publish(channel)));
    }
    let connection = path.strip_prefix("/sse/").and_then(|rest| rest.strip_suffix("/token"));
    (web::find(path).map(Route::Asset), connection.map(Route::RefreshToken))
}
