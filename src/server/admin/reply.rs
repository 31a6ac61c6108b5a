//! An answer to an operator, before it is written.

use std::borrow::Cow;
use std::time::SystemTime;

use serde::Serialize;

use crate::proto::http::response::{self, BodyMode, Connection, Head, Status};
use crate::proto::reject::Reject;

#[derive(Debug)]
pub(super) struct Reply {
    status: Status,
    content_type: Option<&'static str>,
    body: Vec<u8>,
    /// An additional header: the allowed methods, or the kind of credentials wanted.
    header: Option<(&'static str, &'static str)>,
}

impl Reply {
    /// 200 with plain text.
    pub fn text(text: &str) -> Self {
        Self::ok("text/plain; charset=utf-8", text.as_bytes().to_vec())
    }

    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::ok("application/json", body),
            Err(_) => Self::error(Status::InternalServerError, "internal", "no JSON for this"),
        }
    }

    /// 200 with a body of any type.
    pub fn ok(content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status: Status::Ok, content_type: Some(content_type), body, header: None }
    }

    /// 200 with a page that may not be framed: another page could then borrow the operator's
    /// clicks.
    pub fn page(page: String) -> Self {
        let header = Some(("X-Frame-Options", "DENY"));
        Self { header, ..Self::ok("text/html; charset=utf-8", page.into_bytes()) }
    }

    /// 204: there is nothing to tell.
    pub fn done() -> Self {
        Self { status: Status::NoContent, content_type: None, body: Vec::new(), header: None }
    }

    /// An error with its JSON body.
    pub fn error(
        status: Status,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::reject(&Reject { status, code, message: message.into() })
    }

    /// The same from a [`Reject`].
    pub fn reject(reject: &Reject) -> Self {
        let mut body = Vec::new();
        reject.write_body(&mut body);
        Self { status: reject.status, content_type: Some("application/json"), body, header: None }
    }

    /// 405, with the allowed methods.
    pub fn not_allowed(allow: &'static str) -> Self {
        let message = "this path does not support this method";
        let error = Self::error(Status::MethodNotAllowed, "method_not_allowed", message);
        Self { header: Some(("Allow", allow)), ..error }
    }

    /// 401, and how to prove who asks.
    pub fn unauthorized() -> Self {
        let message = "this listener has a key: Authorization: Bearer KEY";
        let error = Self::error(Status::Unauthorized, "key", message);
        Self { header: Some(("WWW-Authenticate", "Bearer")), ..error }
    }

    /// As an HTTP response that ends the connection.
    pub fn into_bytes(self, mode: BodyMode) -> Vec<u8> {
        let cache: (&str, &[u8]) = ("Cache-Control", b"no-store");
        let own = self.header.map(|(name, value)| (name, value.as_bytes()));
        let headers: Vec<(&str, &[u8])> = [Some(cache), own].into_iter().flatten().collect();
        let date = httpdate::fmt_http_date(SystemTime::now()).into_bytes();
        let head = Head {
            content_type: self.content_type,
            date: date.first_chunk(),
            headers: &headers,
            ..Head::new(self.status, Connection::Close)
        };
        let mut out = Vec::new();
        response::write_response(&mut out, &head, &self.body, mode);
        out
    }
}
