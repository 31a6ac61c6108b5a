//! A client's end of a connection: writes in pieces, reads at its own pace.

use std::time::Duration;

use fastrand::Rng;
use pushline::ring::sim::{SimClient, SimNet};

use super::http2::Tunnel;
use super::tls::Tls;
use super::{Ctx, Season};
use crate::plan::pick;

#[derive(Debug)]
pub struct Conn {
    sim: SimClient,
    /// Over TLS.
    tls: Option<Box<Tls>>,
    /// Over a stream of HTTP/2.
    tunnel: Option<Box<Tunnel>>,
    to_write: Vec<u8>,
    piece_max: usize,
    read_max: usize,
    pub input: Vec<u8>,
    /// It does not read before this time.
    read_at: Duration,
    write_at: Duration,
    finished: bool,
    /// It has not always read at once what had arrived.
    pub was_slow: bool,
    /// Nothing arrives any more, and no error tells.
    pub is_dead: bool,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Eof,
    Reset,
}

impl Conn {
    pub fn open(net: &SimNet, rng: &mut Rng) -> Self {
        Self::over(net.connect(), rng)
    }

    /// To the listener that speaks TLS.
    pub fn open_tls(net: &SimNet, rng: &mut Rng) -> Self {
        let tls = Some(Box::new(Tls::new(rng)));
        Self { tls, ..Self::over(net.connect_tls(), rng) }
    }

    fn over(sim: SimClient, rng: &mut Rng) -> Self {
        let read_max = pick(rng, &[usize::MAX, usize::MAX, usize::MAX, 3000, 100]);
        Self {
            sim,
            tls: None,
            tunnel: None,
            to_write: Vec::new(),
            piece_max: pick(rng, &[7, 100, usize::MAX, usize::MAX]),
            read_max,
            input: Vec::new(),
            read_at: Duration::ZERO,
            write_at: Duration::ZERO,
            finished: false,
            was_slow: read_max < usize::MAX,
            is_dead: false,
        }
    }

    /// The same over a stream of HTTP/2.
    pub fn through(self, tunnel: Tunnel) -> Self {
        Self { tunnel: Some(Box::new(tunnel)), was_slow: true, ..self }
    }

    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        match &mut self.tunnel {
            Some(tunnel) => {
                let framed = tunnel.send(bytes);
                self.queue(&framed);
            }
            None => self.queue(bytes),
        }
    }

    /// What goes over TLS, or as it is.
    fn queue(&mut self, bytes: &[u8]) {
        // After our FIN nothing can be sent.
        if self.finished || bytes.is_empty() {
            return;
        }
        match &mut self.tls {
            Some(tls) => tls.seal(bytes, &mut self.to_write),
            None => self.to_write.extend_from_slice(bytes),
        }
    }

    /// When it has something to do.
    pub fn due_at(&self, now: Duration) -> Option<Duration> {
        if self.is_dead {
            return None;
        }
        let read = self.sim.unread() > 0 || self.ended().is_some();
        let write = !self.to_write.is_empty() && self.sim.room() > 0 && !self.sim.reset_seen();
        let read = read.then(|| self.read_at.max(now));
        let write = write.then(|| self.write_at.max(now));
        let credit = self.tunnel.as_ref().and_then(|tunnel| tunnel.due_at());
        let credit =
            credit.map(|at| at.max(now)).filter(|_| !self.finished && !self.sim.reset_seen());
        [read, write, credit].into_iter().flatten().min()
    }

    /// Reads and writes as much as it would now.
    pub fn pump(&mut self, ctx: &mut Ctx<'_>) {
        if self.is_dead {
            return;
        }
        let now = ctx.now();
        let hurry = ctx.season != Season::Active;
        if hurry {
            (self.read_at, self.write_at) = (Duration::ZERO, Duration::ZERO);
        }
        if now >= self.read_at {
            let count_max = if hurry { usize::MAX } else { self.read_max };
            self.read(count_max);
            if count_max < usize::MAX {
                self.read_at = now + Duration::from_millis(ctx.rng.u64(1..40));
            }
        }
        if let Some(tunnel) = &mut self.tunnel
            && !self.finished
        {
            let mut credit = Vec::new();
            tunnel.credit(now, hurry, ctx.rng, &mut credit);
            self.queue(&credit);
        }
        if now >= self.write_at && !self.to_write.is_empty() && !self.sim.reset_seen() {
            let large = self.to_write.len() > 4000;
            let piece = if hurry || large { usize::MAX } else { self.piece_max };
            let length = self.to_write.len().min(piece);
            let taken = self.sim.write(&self.to_write[..length]);
            self.to_write.drain(..taken);
            if piece < usize::MAX {
                self.write_at = now + Duration::from_millis(ctx.rng.u64(0..10));
            }
        }
    }

    fn read(&mut self, count_max: usize) {
        let mut arrived = Vec::new();
        self.sim.read_at_most(count_max, &mut arrived);
        if let Some(tls) = &mut self.tls {
            let (sealed, mut reply) = (std::mem::take(&mut arrived), Vec::new());
            tls.open(&sealed, &mut arrived, &mut reply);
            if !self.finished {
                self.to_write.append(&mut reply);
            }
        }
        let Some(tunnel) = &mut self.tunnel else { return self.input.append(&mut arrived) };
        let mut reply = Vec::new();
        tunnel.receive(&mut arrived, &mut self.input, &mut reply);
        self.queue(&reply);
    }

    /// Reads nothing for a while.
    pub fn stall_until(&mut self, until: Duration) {
        self.read_at = self.read_at.max(until);
        self.was_slow = true;
    }

    /// Everything was read, and no more will come. What was not read before a reset may or may not
    /// be lost.
    pub fn ended(&self) -> Option<End> {
        if self.is_dead || self.sim.unread() > 0 {
            return None;
        }
        if let Some(end) = self.tunnel.as_ref().and_then(|tunnel| tunnel.end) {
            return Some(end);
        }
        if self.tls.as_ref().is_some_and(|tls| tls.is_over) {
            return Some(End::Eof);
        }
        let reset = self.sim.reset_seen();
        reset.then_some(End::Reset).or_else(|| self.sim.eof_seen().then_some(End::Eof))
    }

    pub fn has_unwritten(&self) -> bool {
        !self.to_write.is_empty()
    }

    /// Sends FIN after what was written so far, and keeps reading. Behind the first part of a record
    /// there is no place for a goodbye.
    pub fn finish(&mut self) {
        let may_say_so = !self.finished && self.to_write.is_empty();
        if let Some(tls) = self.tls.as_mut().filter(|_| may_say_so) {
            self.sim.write(&tls.close());
        }
        self.to_write.clear();
        self.sim.finish();
        self.finished = true;
    }

    pub fn reset(&mut self) {
        self.sim.reset();
    }

    /// Its machine is gone.
    pub fn die(&mut self) {
        self.sim.drop_packets();
        self.is_dead = true;
    }

    /// The server's kernel notices.
    pub fn time_out(&mut self) {
        self.sim.time_out();
    }
}
