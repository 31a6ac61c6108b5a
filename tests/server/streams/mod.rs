//! Token streams: one body that stays open, readers who come late, and a way to stop it.

mod ends;
mod readers;
mod ws;

use std::net::SocketAddr;

use serde_json::Value;

use crate::common::http::Chunked;
use crate::common::sse::events;
use crate::common::{Conn, Response, await_that, describe, request};

/// A producer: a request whose body goes on.
pub struct Producer(Chunked);

impl Producer {
    /// Of an event stream.
    pub fn events(addr: SocketAddr, channel: &str, headers: &[(&str, &str)]) -> Self {
        Self::of(addr, channel, "text/event-stream", headers)
    }

    /// The log has the stream when this returns, unless it is to go on with one.
    pub fn of(addr: SocketAddr, channel: &str, media: &str, headers: &[(&str, &str)]) -> Self {
        let mut all = vec![("Content-Type", media)];
        all.extend_from_slice(headers);
        let producer = Self(Chunked::open(addr, &format!("/channels/{channel}/stream"), &all));
        if headers.iter().all(|(name, _)| *name != "Stream-Offset") {
            await_that("the stream is open", || stream_of(addr, channel)["state"] == "open");
        }
        producer
    }

    pub fn chunk(&mut self, bytes: &[u8]) {
        self.0.chunk(bytes);
    }

    /// A token of an event stream.
    pub fn token(&mut self, data: &str) {
        self.chunk(format!("data: {data}\n\n").as_bytes());
    }

    /// The end of the body; its answer.
    pub fn end(self) -> Value {
        let response = self.0.finish();
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    }

    /// The answer, whatever of the body is still to come.
    pub fn answer(&mut self) -> Response {
        self.0.conn.response()
    }
}

/// A plain reader.
pub struct View(Conn);

impl View {
    pub fn open(addr: SocketAddr, target: &str) -> Self {
        let mut conn = Conn::open(addr);
        conn.send(request("GET", target, &[], None));
        Self(conn)
    }

    /// All of it, up to the stream's end.
    pub fn read(mut self) -> Response {
        let mut response = self.0.response();
        if response.status == 200 {
            response.body = self.0.rest();
        }
        response
    }
}

/// What `GET /channels/{channel}` says of its stream.
pub fn stream_of(addr: SocketAddr, channel: &str) -> Value {
    describe(addr, channel)["stream"].clone()
}

/// Waits until the stream has this many tokens.
pub fn await_tokens(addr: SocketAddr, channel: &str, count: u64) {
    await_that("the tokens are there", || stream_of(addr, channel)["events"] == count);
}

/// What a plain reader gets.
pub fn read_view(addr: SocketAddr, target: &str) -> Response {
    View::open(addr, target).read()
}

/// The data of a plain reader's events.
pub fn datas(body: &str) -> Vec<String> {
    events(body.as_bytes()).map(|event| event.data).collect()
}
