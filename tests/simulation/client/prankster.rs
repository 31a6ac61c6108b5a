//! Sends nonsense, half of things, or nothing, and leaves at the worst moment. Nothing it does may
//! hurt another client; how it is answered does not matter.

use std::time::Duration;

use super::conn::Conn;
use super::{Actor, Ctx, Season};
use crate::parse::frame;
use crate::truth::Truth;

const BEGINNINGS: [&str; 12] = [
    "",
    "GET / HT",
    "\0\0\0\0 nonsense\r\n\r\n",
    "POST /channels/pranks HTTP/1.1\r\nHost: sim\r\nContent-Length: 10\r\n\r\nhalf",
    "POST /publish HTTP/1.1\r\nHost: sim\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal",
    "POST /publish HTTP/1.1\r\nHost: sim\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "GET /sse HTTP/1.1\r\nHost: sim\r\n\r\n",
    "GET /sse?channel=pranks HTTP/1.1\r\nHost: sim\r\nContent-Length: 5\r\n\r\nhello",
    "HEAD /sse?channel=pranks HTTP/1.1\r\nHost: sim\r\n\r\n",
    "OPTIONS /channels/c0 HTTP/1.0\r\n\r\n",
    "GET /ws?channel=pranks HTTP/1.1\r\nHost: sim\r\n\r\n",
    "GET /ws?channel=pranks HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\n\
     Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
];

#[derive(Default)]
pub struct Prankster {
    conn: Option<Conn>,
    act_at: Duration,
    has_finished: bool,
}

impl Actor for Prankster {
    fn due_at(&self, now: Duration) -> Option<Duration> {
        let conn = self.conn.as_ref().and_then(|conn| conn.due_at(now));
        [conn, Some(self.act_at)].into_iter().flatten().min()
    }

    fn act(&mut self, ctx: &mut Ctx<'_>) {
        if ctx.season != Season::Active {
            self.conn = None;
            self.act_at = Duration::MAX;
            return;
        }
        if let Some(conn) = &mut self.conn {
            conn.pump(ctx);
            conn.input.clear();
            if conn.ended().is_some() {
                self.conn = None;
            }
        }
        if self.act_at > ctx.now() {
            return;
        }
        self.act_at = ctx.think();
        let Some(conn) = &mut self.conn else {
            let mut conn = Conn::open(ctx.net, ctx.rng);
            conn.send(BEGINNINGS[ctx.rng.usize(0..BEGINNINGS.len())].as_bytes());
            self.conn = Some(conn);
            self.has_finished = false;
            return;
        };
        if self.has_finished {
            return;
        }
        match ctx.rng.u8(0..12) {
            0 => {
                conn.reset();
                self.conn = None;
            }
            1 => self.conn = None,
            2 => {
                conn.finish();
                self.has_finished = true;
            }
            3 => conn.send(&vec![b'x'; ctx.rng.usize(1..3000)]),
            4 => conn.send(&vec![b'\n'; ctx.rng.usize(1..100_000)]),
            5 => conn.send(&frame(ctx.rng.u8(0..16), [7; 4], &[b'z'; 130])),
            6 => conn.send(&frame(9, [7; 4], b"are you there?").repeat(ctx.rng.usize(1..4000))),
            7 => conn.send(b"GET /channels/c0 HTTP/1.1\r\nHost: sim\r\n\r\n"),
            _ => {}
        }
    }

    fn unsettled(&self, _: &Truth) -> Option<String> {
        None
    }
}
