//! What a request shows of who sends it.

use crate::auth::{Credentials, Denied};
use crate::proto::http::head::Request;
use crate::proto::http::query;

pub(super) fn credentials<'a>(
    request: &'a Request<'_>,
    subprotocol_token: Option<&'a str>,
    query_token: Option<&'a str>,
) -> Credentials<'a> {
    Credentials {
        authorization: request.header("authorization"),
        api_key: request.header("x-api-key"),
        subprotocol_token,
        query_token,
        cookie: request.header("cookie"),
        certified: false,
    }
}

pub(super) fn query_token(request: &Request<'_>) -> Result<Option<String>, Denied> {
    let mut tokens = query::pairs(request.query())
        .filter_map(Result::ok)
        .filter(|(key, _)| key.as_ref() == b"access_token")
        .map(|(_, value)| String::from_utf8_lossy(&value).into_owned());
    let token = tokens.next();
    match tokens.next() {
        Some(_) => Err(Denied::MalformedCredentials),
        None => Ok(token),
    }
}
