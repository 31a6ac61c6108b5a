//! Many seeds: echo workers and unruly clients under random faults. What a client reads is always a
//! prefix of what it wrote, nothing is lost without a reset, everything adds up, and the same seed
//! gives the same run.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use rustix::io::Errno;

use crate::ring::sim::{Fault, Faults, SimClient, SimDriver, SimNet, SimSettings};
use crate::ring::{Batch, Bell, Completion, Driver, Op, RecvEnd, Token, Wait};

const SEEDS: u64 = 300;
const STEPS: u32 = 400;
/// Rounds after the chaos in which everything unfinished must get done.
const SETTLE_ROUNDS: u32 = 5_000;

const SETTINGS: SimSettings = SimSettings {
    workers: 2,
    slots_per_worker: 4,
    recv_buffers: 3,
    recv_buffer_bytes: 32,
    socket_buffer_bytes: 100,
};

/// What an echo worker knows about a connection.
#[derive(Default)]
struct Echo {
    generation: u32,
    unsent: Vec<u8>,
    /// This turn's batch has a send of `unsent`.
    sending: bool,
    /// A `Writable` must come first.
    full: bool,
    /// The client sends no more, or there is no peer to send to.
    finished: bool,
}

struct EchoWorker {
    driver: SimDriver,
    batch: Batch,
    echoes: BTreeMap<u32, Echo>,
    generation: u32,
    accepting: bool,
}

impl EchoWorker {
    fn new(driver: SimDriver) -> Self {
        let batch = Batch { ops: vec![Op::AcceptStart], ..Batch::default() };
        Self { driver, batch, echoes: BTreeMap::new(), generation: 0, accepting: true }
    }

    fn step(&mut self) {
        self.batch.arena.clear();
        for (slot, echo) in &mut self.echoes {
            if echo.full || echo.unsent.is_empty() {
                continue;
            }
            let from = self.batch.arena.len() as u32;
            self.batch.arena.extend(&echo.unsent);
            let (token, to) = (echo.token(*slot), self.batch.arena.len() as u32);
            self.batch.ops.push(Op::Send { token, from, to });
            echo.sending = true;
        }
        let mut completions = Vec::new();
        let wait = Wait::AtMost(Duration::from_millis(10));
        self.driver.turn(&mut self.batch, wait, &mut completions).expect("never fails");
        for completion in &completions {
            if matches!(completion, Completion::SendShort { .. } | Completion::SendFailed { .. }) {
                self.completed(*completion);
            }
        }
        for echo in self.echoes.values_mut() {
            // The send was not reported, so all of it was taken.
            if std::mem::take(&mut echo.sending) {
                echo.unsent.clear();
            }
        }
        for completion in completions {
            if !matches!(completion, Completion::SendShort { .. } | Completion::SendFailed { .. }) {
                self.completed(completion);
            }
        }
        self.close_finished();
    }

    fn completed(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted { slot, .. } => {
                self.generation += 1;
                let echo = Echo { generation: self.generation, ..Echo::default() };
                self.batch.ops.push(Op::RecvStart(echo.token(slot)));
                assert!(self.echoes.insert(slot, echo).is_none(), "slot {slot} handed out twice");
            }
            Completion::AcceptEnded { errno } => {
                self.accepting = errno == 0 || errno == Errno::CONNABORTED.raw_os_error();
                if self.accepting {
                    self.batch.ops.push(Op::AcceptStart);
                }
            }
            Completion::Received { token, buffer } => {
                let bytes = self.driver.received(buffer).to_vec();
                self.driver.recycle(buffer);
                self.echo(token).unsent.extend(bytes);
            }
            Completion::RecvEnded { token, why } => match why {
                RecvEnd::NoBuffers | RecvEnd::Disarmed => {
                    self.batch.ops.push(Op::RecvStart(token));
                }
                RecvEnd::Eof | RecvEnd::Failed(_) => self.echo(token).finished = true,
            },
            Completion::SendShort { token, taken } => {
                let echo = self.echo(token);
                echo.unsent.drain(..taken as usize);
                (echo.sending, echo.full) = (false, true);
                self.batch.ops.push(Op::PollOut(token));
            }
            Completion::SendFailed { token, .. } => {
                let echo = self.echo(token);
                echo.unsent.clear();
                (echo.sending, echo.finished) = (false, true);
            }
            Completion::Writable { token } => self.echo(token).full = false,
            Completion::Doorbell | Completion::Certified { .. } => {}
        }
    }

    /// Panics if the token is not, or no longer, one of the worker's: nothing may be reported for those.
    fn echo(&mut self, token: Token) -> &mut Echo {
        let echo = self.echoes.get_mut(&token.slot).expect("a completion of a closed token");
        assert_eq!(echo.generation, token.generation, "a completion of a former life");
        echo
    }

    fn close_finished(&mut self) {
        let ops = &mut self.batch.ops;
        let before = self.echoes.len();
        self.echoes.retain(|slot, echo| {
            let done = echo.finished && echo.unsent.is_empty();
            if done {
                ops.retain(|op| *op != Op::RecvStart(echo.token(*slot)));
                ops.push(Op::Close(echo.token(*slot)));
            }
            !done
        });
        if self.echoes.len() < before && !self.accepting {
            self.batch.ops.push(Op::AcceptStart);
            self.accepting = true;
        }
    }
}

impl Echo {
    fn token(&self, slot: u32) -> Token {
        Token { slot, generation: self.generation }
    }
}

/// A client, with what it has written and read.
struct Speaker {
    client: SimClient,
    written: Vec<u8>,
    read: Vec<u8>,
    finished: bool,
}

impl Speaker {
    fn write(&mut self, rng: &mut Rng) {
        let bytes: Vec<u8> = (0..rng.usize(1..150)).map(|_| rng.u8(..)).collect();
        let taken = self.client.write(&bytes);
        self.written.extend(&bytes[..taken]);
    }

    fn read(&mut self, count_max: usize) {
        self.client.read_at_most(count_max, &mut self.read);
        assert!(self.written.starts_with(&self.read), "an echo of something else");
    }

    fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            self.client.finish();
        }
    }
}

struct Run {
    net: SimNet,
    workers: Vec<EchoWorker>,
    speakers: Vec<Speaker>,
    rng: Rng,
    echoed: usize,
}

impl Run {
    fn new(faults: Faults, seed: u64) -> Self {
        let net = SimNet::new(SETTINGS, faults, seed);
        let workers = (0..SETTINGS.workers).map(|worker| EchoWorker::new(net.driver(worker)));
        let workers = workers.collect();
        Self { net, workers, speakers: Vec::new(), rng: Rng::with_seed(seed), echoed: 0 }
    }

    fn step(&mut self) {
        let some = match self.speakers.len() {
            0 => 0,
            count => self.rng.usize(0..count),
        };
        match (self.rng.u8(0..100), self.speakers.get_mut(some)) {
            (0..8, _) | (_, None) => self.connect(),
            (8..40, Some(speaker)) if !speaker.finished => speaker.write(&mut self.rng),
            (40..60, Some(speaker)) => speaker.read(self.rng.usize(0..100)),
            (60..63, Some(speaker)) => speaker.finish(),
            (63, Some(_)) => {
                self.speakers[some].client.reset();
                self.speakers.swap_remove(some);
            }
            (64, Some(_)) => drop(self.speakers.swap_remove(some)),
            (65..70, _) => {
                let mut bell = self.net.bell();
                bell.ring(self.rng.u16(0..SETTINGS.workers));
                bell.flush();
            }
            (70..80, _) => self.net.advance(Duration::from_micros(self.rng.u64(0..20_000))),
            _ => {
                let worker = self.rng.u16(0..SETTINGS.workers);
                if self.net.is_due(worker) {
                    self.workers[usize::from(worker)].step();
                }
            }
        }
        self.net.check_conservation();
    }

    fn connect(&mut self) {
        let client = self.net.connect();
        let speaker = Speaker { client, written: vec![], read: vec![], finished: false };
        self.speakers.push(speaker);
    }

    /// No more chaos: all clients finish, and all that was written must come back.
    fn settle(&mut self) {
        for _ in 0..SETTLE_ROUNDS {
            for (worker, echo) in (0..).zip(&mut self.workers) {
                if self.net.is_due(worker) {
                    echo.step();
                }
            }
            for speaker in &mut self.speakers {
                speaker.finish();
                speaker.read(usize::MAX);
            }
            let echoed = &mut self.echoed;
            self.speakers.retain(|speaker| {
                let (eof, reset) = (speaker.client.eof_seen(), speaker.client.reset_seen());
                if !(eof || reset) {
                    return true;
                }
                let lost = speaker.written.len() - speaker.read.len();
                assert!(reset || lost == 0, "{lost} bytes lost without a reset");
                *echoed += speaker.read.len();
                false
            });
            if self.speakers.is_empty() && self.workers.iter().all(|w| w.echoes.is_empty()) {
                return;
            }
            self.net.advance_to_next_wakeup();
        }
        panic!("{} clients never heard the end", self.speakers.len());
    }
}

/// Runs a seed to its end; returns the hash of its trace and how many bytes came back.
fn run(faults: Faults, seed: u64) -> (u64, usize) {
    let mut run = Run::new(faults, seed);
    for _ in 0..STEPS {
        run.step();
    }
    run.settle();
    // The closes of the last turn must still be submitted.
    run.workers.iter_mut().for_each(EchoWorker::step);
    run.net.check_conservation();
    for worker in 0..SETTINGS.workers {
        assert_eq!((run.net.slots_used(worker), run.net.buffers_lent(worker)), (0, 0));
    }
    (run.net.trace(), run.echoed)
}

#[test]
fn echoes_survive_every_mixture_of_faults() {
    let mut echoed = 0;
    for seed in 0..SEEDS {
        let faults = Faults::from_seed(seed);
        let named = std::panic::catch_unwind(|| run(faults, seed).1);
        echoed += named.unwrap_or_else(|_| {
            panic!("seed {seed} with {:?}", faults.enabled().collect::<Vec<_>>());
        });
    }
    assert!(echoed > 100_000, "the runs did nothing: {echoed} bytes");
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    for seed in 0..20 {
        let faults = Faults::from_seed(seed);
        assert_eq!(run(faults, seed), run(faults, seed));
        assert_ne!(run(faults, seed).0, run(faults, seed + 1).0);
    }
}

#[test]
fn every_fault_alone_and_as_often_as_bearable_leaves_the_books_balanced() {
    for fault in Fault::ALL {
        for seed in 0..10 {
            run(Faults::none().with(fault, 500_000), seed);
        }
    }
}
