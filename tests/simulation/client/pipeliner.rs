//! Sends many requests at once and reads the answers when it likes: each must be answered, in
//! order.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use super::conn::Conn;
use super::{Actor, Ctx, Season};
use crate::parse::{Response, Responses};
use crate::truth::Truth;

#[derive(Default)]
pub struct Pipeliner {
    conn: Option<Conn>,
    responses: Responses,
    expected: VecDeque<Expected>,
    act_at: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Greeting,
    NotFound,
    Description(String),
}

impl Pipeliner {
    fn send(&mut self, ctx: &mut Ctx<'_>) {
        let many = if ctx.rng.u8(0..8) == 0 { 400 } else { 12 };
        let conn = self.conn.get_or_insert_with(|| Conn::open(ctx.net, ctx.rng));
        for _ in 0..ctx.rng.usize(1..=many) {
            let (path, expected) = match ctx.rng.u8(0..6) {
                0 => ("/nothing".into(), Expected::NotFound),
                1 => {
                    let channel = ctx.plan.channels[0].clone();
                    (format!("/channels/{channel}"), Expected::Description(channel))
                }
                _ => ("/".into(), Expected::Greeting),
            };
            // A body no route wants; it looks like a request.
            let body = match ctx.rng.u8(0..10) {
                0 => "Content-Length: 33\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: s\r\n",
                _ => "\r\n",
            };
            conn.send(format!("GET {path} HTTP/1.1\r\nHost: sim\r\n{body}").as_bytes());
            self.expected.push_back(expected);
        }
    }

    fn answered(&mut self, response: &Response) {
        let status = response.head.status;
        let Some(expected) = self.expected.pop_front() else {
            assert!(matches!(status, 408 | 503), "an answer nobody asked for: {response:?}");
            return;
        };
        if matches!(status, 408 | 503) && response.head.closes() {
            return;
        }
        match expected {
            Expected::Greeting => assert_eq!(status, 200),
            Expected::NotFound => assert_eq!(status, 404),
            Expected::Description(channel) => {
                assert_eq!(status, 200);
                let body: Value = serde_json::from_slice(&response.body).expect("JSON");
                assert_eq!(body["channel"], channel[..]);
            }
        }
    }
}

impl Actor for Pipeliner {
    fn due_at(&self, now: Duration) -> Option<Duration> {
        let conn = self.conn.as_ref().and_then(|conn| conn.due_at(now));
        [conn, Some(self.act_at)].into_iter().flatten().min()
    }

    fn act(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(mut conn) = self.conn.take() {
            conn.pump(ctx);
            let mut last = false;
            while let Some(response) = self.responses.take(&mut conn.input) {
                last |= response.head.closes();
                self.answered(&response);
            }
            self.conn = (!last && conn.ended().is_none()).then_some(conn);
            if self.conn.is_none() {
                self.responses = Responses::default();
                self.expected.clear();
            }
        }
        if self.act_at > ctx.now() {
            return;
        }
        self.act_at = ctx.think();
        if ctx.season != Season::Active {
            self.act_at = Duration::MAX;
            return;
        }
        match (&mut self.conn, ctx.rng.u8(0..20)) {
            (Some(_), 0) => {
                self.conn = None;
                self.responses = Responses::default();
                self.expected.clear();
            }
            (Some(conn), 1..5) => {
                let until = ctx.now() + Duration::from_millis(ctx.rng.u64(0..3000));
                conn.stall_until(until);
            }
            (Some(conn), _) if conn.has_unwritten() => {}
            _ => self.send(ctx),
        }
    }

    fn unsettled(&self, _: &Truth) -> Option<String> {
        let waits = !self.expected.is_empty();
        waits.then(|| format!("{} pipelined requests have no answer", self.expected.len()))
    }
}
