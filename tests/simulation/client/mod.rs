//! What clients share. Each is an actor that the scheduler lets act when its time has come or
//! something has arrived for it.

pub mod conn;
pub mod content;
pub mod http2;
pub mod member;
pub mod pipeliner;
pub mod poster;
pub mod prankster;
pub mod streamer;
pub mod subscriber;
pub mod teller;
pub mod tls;
pub mod transport;
pub mod watcher;

use std::time::Duration;

use fastrand::Rng;
use pushline::ring::sim::SimNet;

use crate::plan::{Plan, Role};
use crate::truth::Truth;

/// What clients are meant to do at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Season {
    /// Whatever they like.
    Active,
    /// They read, come back, finish what they began, and begin nothing.
    Settling,
    /// The server shuts down; they do not come back.
    Leaving,
}

/// What a client sees of the world.
pub struct Ctx<'a> {
    pub net: &'a SimNet,
    pub rng: &'a mut Rng,
    pub truth: &'a mut Truth,
    pub plan: &'a Plan,
    pub season: Season,
}

impl Ctx<'_> {
    pub fn now(&self) -> Duration {
        self.net.now()
    }

    pub fn channel(&mut self) -> String {
        self.plan.channels[self.rng.usize(0..self.plan.channels.len())].clone()
    }

    /// A time to think.
    pub fn think(&mut self) -> Duration {
        let longest = match self.season {
            Season::Active => 1 << self.rng.u32(1..10),
            Season::Settling | Season::Leaving => 20,
        };
        self.now() + Duration::from_millis(self.rng.u64(1..=longest))
    }
}

/// A client.
pub trait Actor {
    /// When it acts next, if nothing arrives.
    fn due_at(&self, now: Duration) -> Option<Duration>;

    fn act(&mut self, ctx: &mut Ctx<'_>);

    /// What it still waits for; `None` once it has all it was promised.
    fn unsettled(&self, truth: &Truth) -> Option<String>;
}

pub fn actor(role: Role, rng: &mut Rng) -> Box<dyn Actor> {
    match role {
        Role::Sse | Role::WsBare | Role::WsEnvelope => {
            Box::new(subscriber::Subscriber::new(role, rng))
        }
        Role::Member => Box::new(member::Member::new(rng)),
        Role::Poster => Box::new(poster::Poster::default()),
        Role::Streamer => Box::new(streamer::Streamer::default()),
        Role::Teller => Box::new(teller::Teller::new(rng)),
        Role::Pipeliner => Box::new(pipeliner::Pipeliner::default()),
        Role::Watcher => Box::new(watcher::Watcher::new(rng)),
        Role::Prankster => Box::new(prankster::Prankster::default()),
    }
}
