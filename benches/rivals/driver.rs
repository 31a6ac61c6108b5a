//! The bare loop again, on our own driver: the difference to `bare_uring` is the price of the
//! driver, and the difference to the server is the price of everything above it.
//!
//! The bell is a thread per worker that waits for mail and rings the ring.

use std::io::{self, Read};

use bytes::Bytes;
use pushline::ring::uring::{UringDriver, UringSettings, slots_max};
use pushline::ring::{
    Batch, Bell, Completion, Doorbells, Driver, Op, RecvEnd, Ringer, Token, Wait,
};

use crate::job::{PUBLISHED, Post, Request, Seat, request, stream_head};

/// Not in the list of subscribers.
const NOWHERE: u32 = u32::MAX;

struct Worker {
    driver: UringDriver,
    batch: Batch,
    /// By slot.
    connections: Vec<Connection>,
    /// Slots.
    subscribers: Vec<u32>,
    head: Vec<u8>,
    post: Post,
    /// Events still to be fanned out.
    events: Vec<Bytes>,
}

#[derive(Clone)]
struct Connection {
    generation: u32,
    /// Among the subscribers.
    place: u32,
}

pub fn serve(seat: Seat) -> io::Result<()> {
    let Seat { listener, mut bell, post } = seat;
    let slots = slots_max().map_err(io::Error::other)?;
    let doorbells = Doorbells::MsgRing;
    let settings = UringSettings { slots, doorbells, ..UringSettings::default() };
    let (driver, target) = UringDriver::new(&settings, [listener]).map_err(io::Error::other)?;
    std::thread::spawn(move || -> io::Result<()> {
        let mut ringer = Ringer::new(vec![target])?;
        while bell.read(&mut [0; 64])? > 0 {
            ringer.ring(0);
            ringer.flush();
        }
        Ok(())
    });
    let mut worker = Worker {
        driver,
        batch: Batch::default(),
        connections: vec![Connection { generation: 0, place: NOWHERE }; slots as usize],
        subscribers: Vec::new(),
        head: stream_head(),
        post,
        events: Vec::new(),
    };
    worker.batch.ops.push(Op::AcceptStart);
    let mut completions = Vec::new();
    loop {
        let wait = if worker.events.is_empty() { Wait::Forever } else { Wait::No };
        completions.clear();
        worker.driver.turn(&mut worker.batch, wait, &mut completions)?;
        worker.batch.arena.clear();
        worker.fan_out();
        for &completion in &completions {
            worker.completed(completion)?;
        }
    }
}

impl Worker {
    fn completed(&mut self, completion: Completion) -> io::Result<()> {
        match completion {
            Completion::Accepted { slot, .. } => {
                self.connections[slot as usize].generation += 1;
                let token = self.token(slot);
                self.batch.ops.push(Op::RecvStart(token));
            }
            Completion::Received { token, buffer } => {
                let (post, bytes) = (&self.post, self.driver.received(buffer));
                let event = match request(bytes) {
                    Request::Partial | Request::Subscribe => None,
                    Request::Publish { body, .. } => Some(post.publish(body)?),
                };
                self.driver.recycle(buffer);
                match event {
                    Some(event) => {
                        self.send(token, PUBLISHED);
                        self.events.push(event);
                    }
                    None => self.subscribe(token),
                }
            }
            Completion::RecvEnded { token, why: RecvEnd::NoBuffers } => {
                self.batch.ops.push(Op::RecvStart(token));
            }
            Completion::RecvEnded { token, .. } => self.close(token),
            Completion::Doorbell => self.events.extend(self.post.collect()),
            Completion::AcceptEnded { .. } => self.batch.ops.push(Op::AcceptStart),
            // A send fell short or failed: the receive will report it if the connection is gone.
            _ => {}
        }
        Ok(())
    }

    fn subscribe(&mut self, token: Token) {
        self.connections[token.slot as usize].place = self.subscribers.len() as u32;
        self.subscribers.push(token.slot);
        let head = std::mem::take(&mut self.head);
        self.send(token, &head);
        self.head = head;
    }

    fn send(&mut self, token: Token, bytes: &[u8]) {
        let from = self.batch.arena.len() as u32;
        self.batch.arena.extend_from_slice(bytes);
        let to = self.batch.arena.len() as u32;
        self.batch.ops.push(Op::Send { token, from, to });
    }

    /// All events that arrived together go out in one send to each subscriber.
    fn fan_out(&mut self) {
        let from = self.batch.arena.len() as u32;
        for event in self.events.drain(..) {
            self.batch.arena.extend_from_slice(&event);
        }
        let to = self.batch.arena.len() as u32;
        if from == to {
            return;
        }
        for &slot in &self.subscribers {
            let token = Token { slot, generation: self.connections[slot as usize].generation };
            self.batch.ops.push(Op::Send { token, from, to });
        }
    }

    fn close(&mut self, token: Token) {
        let connection = &mut self.connections[token.slot as usize];
        let place = std::mem::replace(&mut connection.place, NOWHERE);
        if place != NOWHERE {
            self.subscribers.swap_remove(place as usize);
            if let Some(&moved) = self.subscribers.get(place as usize) {
                self.connections[moved as usize].place = place;
            }
        }
        self.batch.ops.push(Op::Close(token));
    }

    fn token(&self, slot: u32) -> Token {
        Token { slot, generation: self.connections[slot as usize].generation }
    }
}
