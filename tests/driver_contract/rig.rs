//! A driver under test, with what its worker would have around it.

use std::time::{Duration, Instant};

use pushline::ring::{Batch, BufferId, Completion, Driver, Op, Token, Wait};

use crate::worlds::{Sizes, World};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing may be heard before it counts as silence.
pub const SILENCE: Duration = Duration::from_millis(50);

/// A world, its worker's batch, and completions that no test has asked for yet.
pub struct Rig<W: World> {
    pub world: W,
    pub batch: Batch,
    pub heard: Vec<Completion>,
    generation: u32,
}

impl<W: World> Rig<W> {
    /// Accepting.
    pub fn new() -> Self {
        Self::of(W::of(Sizes::default()))
    }

    pub fn of(world: W) -> Self {
        let (batch, heard) = Default::default();
        let mut rig = Self { world, batch, heard, generation: 0 };
        assert_eq!(rig.turn(&[Op::AcceptStart]), []);
        rig
    }

    pub fn with_client() -> (Self, W::Client, Token) {
        Self::with_client_of(W::of(Sizes::default()))
    }

    pub fn with_client_of(world: W) -> (Self, W::Client, Token) {
        let mut rig = Self::of(world);
        let (client, token) = rig.connect();
        (rig, client, token)
    }

    pub fn connect(&mut self) -> (W::Client, Token) {
        let client = self.world.connect();
        let Completion::Accepted { slot, .. } = self.next() else { panic!("not accepted") };
        self.generation += 1;
        (client, Token { slot, generation: self.generation })
    }

    /// Two workers of one server, which can ring each other.
    pub fn neighbours() -> [Self; 2] {
        W::neighbours().map(Self::of)
    }

    /// One turn without sleep; returns what this very turn returned.
    pub fn turn(&mut self, ops: &[Op]) -> Vec<Completion> {
        self.batch.ops.extend(ops);
        self.turn_with(Wait::No)
    }

    pub fn turn_with(&mut self, wait: Wait) -> Vec<Completion> {
        let mut completions = Vec::new();
        let turned = self.world.driver().turn(&mut self.batch, wait, &mut completions);
        turned.expect("the driver is sound");
        assert!(self.batch.ops.is_empty());
        completions
    }

    /// Submits the ops; [`Self::next`] returns what comes of them.
    pub fn submit(&mut self, ops: &[Op]) {
        let completions = self.turn(ops);
        self.heard.extend(completions);
    }

    /// The next completion.
    pub fn next(&mut self) -> Completion {
        let start = Instant::now();
        while self.heard.is_empty() {
            assert!(start.elapsed() < PATIENCE, "nothing was heard");
            self.heard = self.turn_with(Wait::AtMost(PATIENCE));
        }
        self.heard.remove(0)
    }

    pub fn expect_silence(&mut self) {
        let heard = self.turn_with(Wait::AtMost(SILENCE));
        assert_eq!((&self.heard[..], &heard[..]), (&[][..], &[][..]));
    }

    pub fn send(&mut self, token: Token, bytes: &[u8]) -> Vec<Completion> {
        self.batch.arena.clear();
        self.batch.arena.extend(bytes);
        self.turn(&[Op::Send { token, from: 0, to: bytes.len() as u32 }])
    }

    /// Receives (already armed) until this many bytes have come.
    pub fn receive(&mut self, token: Token, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let Completion::Received { token: whose, buffer } = self.next() else {
                panic!("not bytes")
            };
            assert_eq!(whose, token);
            bytes.extend(self.take(buffer));
        }
        assert_eq!(bytes.len(), count, "more than was to come");
        bytes
    }

    /// The bytes received into this buffer, which is recycled.
    pub fn take(&mut self, buffer: BufferId) -> Vec<u8> {
        let bytes = self.world.driver().received(buffer).to_vec();
        self.world.driver().recycle(buffer);
        bytes
    }
}
