//! Hands on real threads.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::combine::Left;
use super::super::hand::{Hand, LogHand, SharedLog};
use super::super::*;
use crate::config::Settings;
use crate::log::event::{Kind, Publication};
use crate::log::message::{Answer, Ask, Counts, Share, Ticket};
use crate::log::{Sequencer, SharedHasher};
use crate::proto::cursor::Epoch;

const PATIENCE: Duration = Duration::from_secs(60);

fn log_of(workers: u16) -> (Arc<SharedLog>, LogEnds, Vec<WorkerEnds<()>>) {
    let (_, log_ends, ends) = mesh::<()>(workers, 64);
    let settings = Settings::default().log_settings();
    let hasher = SharedHasher::from_seed(7);
    let sequencer = Sequencer::new(settings, Epoch::from_random(7), workers, hasher);
    (SharedLog::new(sequencer, &log_ends), log_ends, ends)
}

fn question(worker: u16, ticket: u32) -> ToLog {
    let body = Ask::Describe { ticket: Ticket(ticket), channel: "any".into() };
    ToLog::Worker { worker, body }
}

fn answered(told: &FromLog) -> u32 {
    let FromLog::Answer { ticket, answer: Answer::Described(_) } = told else {
        panic!("no answer: {told:?}")
    };
    ticket.0
}

/// A worker that only asks, waits and listens.
struct Asker {
    ends: WorkerEnds<()>,
    hand: LogHand,
    worker: u16,
    rung: Receiver<()>,
    bells: Vec<Sender<()>>,
}

impl Asker {
    fn ask(&mut self, ticket: u32) {
        let request = question(self.worker, ticket);
        self.ends.requests.try_send(request).expect("the lane has room");
        let mut rings = Vec::new();
        while self.hand.run(Duration::ZERO, &mut rings) == Left::Work {}
        for worker in rings {
            let _ = self.bells[usize::from(worker)].try_send(());
        }
    }

    /// Sleeps as a worker does until it is sent something.
    fn hear(&mut self) -> u32 {
        loop {
            if let Ok(told) = self.ends.from_log.try_recv() {
                return answered(&told);
            }
            self.ends.asleep.announce();
            if !self.ends.has_mail() {
                self.rung.recv_timeout(PATIENCE).expect("a request was stranded");
            }
            self.ends.asleep.wake();
        }
    }
}

/// Both ask at the same moment, over and over, and no other thread runs the log: a missing answer
/// means that a request was stranded, or a doorbell not rung.
#[test]
fn no_request_is_stranded_between_two_hands() {
    const ROUNDS: u32 = 20_000;
    const HANDS: u16 = 2;
    let (log, log_ends, ends) = log_of(HANDS);
    let (bells, rung): (Vec<_>, Vec<_>) = (0..HANDS).map(|_| bounded(1)).unzip();
    let start = Arc::new(Barrier::new(usize::from(HANDS)));
    let threads = (0..).zip(ends.into_iter().zip(rung)).map(|(worker, (ends, rung))| {
        let hand = LogHand::new(log.clone(), &log_ends);
        let mut asker = Asker { ends, hand, worker, rung, bells: bells.clone() };
        let start = start.clone();
        std::thread::spawn(move || {
            for round in 0..ROUNDS {
                start.wait();
                asker.ask(round);
                assert_eq!(asker.hear(), round);
            }
        })
    });
    let threads: Vec<_> = threads.collect();
    for thread in threads {
        thread.join().expect("every request is answered");
    }
}

#[test]
fn a_hand_that_finds_the_log_taken_goes_on_and_the_holder_answers() {
    let (log, log_ends, ends) = log_of(1);
    let mut worker = LogHand::new(log.clone(), &log_ends);
    let mut clerk = LogHand::new(log, &log_ends);
    let mut rings = Vec::new();
    clerk.with(Duration::ZERO, &mut rings, |_| {
        ends[0].requests.try_send(question(0, 1)).expect("the lane has room");
        let began = Instant::now();
        assert_eq!(worker.run(Duration::ZERO, &mut Vec::new()), Left::Nothing);
        assert!(began.elapsed() < PATIENCE, "it waited for the lock");
        assert!(ends[0].from_log.is_empty());
        ends[0].asleep.announce();
    });
    assert_eq!(answered(&ends[0].from_log.try_recv().expect("an answer")), 1);
    assert_eq!(rings, [0], "the worker slept");
}

#[test]
fn a_hand_stops_at_its_budget_and_says_so() {
    let (log, log_ends, ends) = log_of(1);
    let mut hand = LogHand::new(log, &log_ends);
    hand.budget = 3;
    for ticket in 0..7 {
        ends[0].requests.try_send(question(0, ticket)).expect("the lane has room");
    }
    let mut told = Vec::new();
    for left in [Left::Work, Left::Work, Left::Nothing] {
        assert_eq!(hand.run(Duration::ZERO, &mut Vec::new()), left);
        told.push(ends[0].from_log.len());
    }
    assert_eq!(told, [3, 6, 7]);
}

/// Lines of a stream come in requests of some hundred events, which keep the log busy for a while.
#[test]
fn a_request_of_many_events_counts_as_many() {
    let (log, log_ends, ends) = log_of(1);
    let mut hand = LogHand::new(log, &log_ends);
    hand.budget = 10;
    for ticket in 0..3 {
        ends[0].requests.try_send(lines(ticket, 6)).expect("the lane has room");
    }
    for left in [Left::Work, Left::Nothing] {
        assert_eq!(hand.run(Duration::ZERO, &mut Vec::new()), left);
    }
    assert_eq!(ends[0].from_log.len(), 3);
}

fn lines(ticket: u32, count: usize) -> ToLog {
    let line = Publication {
        channel: "any".into(),
        kind: Kind::Text,
        data: Bytes::from_static(b"x"),
        event_type: None,
        key: None,
        attributes: None,
    };
    let publications = vec![line; count];
    let (ticket, share) = (Ticket(ticket), Share::Whole);
    ToLog::Worker {
        worker: 0,
        body: Ask::Publish { ticket, share, counts: Counts::Here, publications },
    }
}

/// A log whose holder panicked half-way must not be served.
#[test]
fn a_poisoned_lock_ends_the_process() {
    const CHILD: &str = "PUSHLINE_TEST_POISONED";
    if std::env::var_os(CHILD).is_some() {
        let (log, log_ends, ends) = log_of(1);
        let poisoner = log.clone();
        let _ = std::thread::spawn(move || {
            let _log = poisoner.lock();
            panic!("on purpose");
        })
        .join();
        ends[0].requests.try_send(question(0, 1)).expect("the lane has room");
        let _ = LogHand::new(log, &log_ends).run(Duration::ZERO, &mut Vec::new());
        return;
    }
    use std::os::unix::process::ExitStatusExt;
    let name = "mesh::tests::hands::a_poisoned_lock_ends_the_process";
    let child = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name])
        .env(CHILD, "1")
        .output()
        .expect("it starts");
    assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{child:?}");
}
