//! Which request is which: the table of the public listener.

use crate::proto::http::head::{Method, Request};

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
    PublishLines,
    /// `GET /sse`.
    Sse,
    /// `GET /ws`.
    Ws,
    /// `POST /sse/{connection}/token`: a new token for a stream.
    RefreshToken(&'r str),
    /// `OPTIONS` of anything: CORS preflight.
    Options,
    /// No such thing.
    NotFound,
    /// It is there, but not for this method: the methods it is there for.
    MethodNotAllowed(&'static str),
    /// A method nobody has heard of.
    NotImplemented,
}

/// Finds a request's route.
pub fn route<'r>(request: &Request<'r>) -> Route<'r> {
    let method = match request.method() {
        Method::Options => return Route::Options,
        Method::Head => Method::Get,
        method => method,
    };
    if let Method::Other(name) = method
        && !matches!(name, "PUT" | "PATCH" | "TRACE" | "CONNECT")
    {
        return Route::NotImplemented;
    }
    let (get, post) = routes_of(request.path());
    match (method, get, post) {
        (_, None, None) => Route::NotFound,
        (Method::Get, Some(route), _) | (Method::Post, _, Some(route)) => route,
        (_, Some(_), None) => Route::MethodNotAllowed("GET, HEAD, OPTIONS"),
        (_, None, Some(_)) => Route::MethodNotAllowed("POST, OPTIONS"),
        (_, Some(_), Some(_)) => Route::MethodNotAllowed("GET, HEAD, POST, OPTIONS"),
    }
}

/// What a path is for when it is got, and when it is posted to.
fn routes_of(path: &str) -> (Option<Route<'_>>, Option<Route<'_>>) {
    match path {
        "/" => return (Some(Route::Greeting), None),
        "/sse" => return (Some(Route::Sse), None),
        "/ws" => return (Some(Route::Ws), None),
        "/publish" => return (None, Some(Route::PublishLines)),
        _ => {}
    }
    if let Some(channel) = path.strip_prefix("/channels/")
        && !channel.contains('/')
    {
        return (Some(Route::Describe(channel)), Some(Route::Publish(channel)));
    }
    let connection = path.strip_prefix("/sse/").and_then(|rest| rest.strip_suffix("/token"));
    (None, connection.map(Route::RefreshToken))
}
