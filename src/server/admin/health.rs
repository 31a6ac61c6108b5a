//! Whether the server should get traffic.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::reply::Reply;
use super::{STALL_TIME, State};
use crate::proto::http::response::Status;
use crate::ring::monotonic_now;
use crate::server::Shared;
use crate::server::clerk::LogCommand;

impl State {
    pub(super) fn readiness(&self) -> Reply {
        if self.draining.load(Ordering::Relaxed) {
            return unready("draining", "the server is going away");
        }
        let deadline = Instant::now() + STALL_TIME;
        let of_log = self.ask_log(LogCommand::Stats);
        if let Err(worker) = self.find_stalled(deadline) {
            return unready("worker_stalled", format!("worker {worker} does not turn"));
        }
        if of_log.is_err() || of_log.is_ok_and(|answer| answer.recv_deadline(deadline).is_err()) {
            return unready("log_stalled", "the log does not answer");
        }
        if let Some(unready) = self.find_behind() {
            return unready;
        }
        Reply::text("ready\n")
    }

    /// Why a node is not ready: it has been away from its stream, or behind it, for too long.
    fn find_behind(&self) -> Option<Reply> {
        let Shared { cluster, settings, .. } = &*self.shared;
        let allowed = settings.cluster.unready_after;
        let away_since = Duration::from_millis(cluster.away_since_ms.value());
        if !away_since.is_zero() && monotonic_now().saturating_sub(away_since) >= allowed {
            return Some(unready(
                "broker_away",
                "this node can't reach the stream that is its log",
            ));
        }
        let behind = Duration::from_millis(cluster.behind_ms.value());
        (behind >= allowed).then(|| unready("node_behind", "this node is behind its stream"))
    }

    /// Fails with a worker that does not respond. One that has turned within the last second does.
    /// Any other may be asleep, which an idle worker may be for ever, so it is woken and asked.
    pub(super) fn find_stalled(&self, deadline: Instant) -> Result<(), u16> {
        self.ping(&self.quiet_workers(), deadline)
    }

    /// Workers that have not turned for a while.
    fn quiet_workers(&self) -> Vec<u16> {
        let now = monotonic_now();
        let turned_at = |worker: u16| {
            Duration::from_millis(self.shared.metrics[usize::from(worker)].turned_at_ms.value())
        };
        let quiet = |worker: &u16| now.saturating_sub(turned_at(*worker)) >= STALL_TIME;
        (0..self.workers.count()).filter(quiet).collect()
    }
}

fn unready(code: &'static str, message: impl Into<Cow<'static, str>>) -> Reply {
    Reply::error(Status::ServiceUnavailable, code, message)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicBool;
    use std::sync::{Arc, Mutex};
    use std::thread;

    use crossbeam_channel::{Receiver, bounded};

    use super::*;
    use crate::auth::ProofKey;
    use crate::cluster::broker::Nodes;
    use crate::config::Settings;
    use crate::log::SharedHasher;
    use crate::mesh::{WorkerEnds, mesh};
    use crate::proto::cursor::Epoch;
    use crate::proto::http::response::BodyMode;
    use crate::ring::Ringer;
    use crate::server::ConnectionCount;
    use crate::server::clerk::LogReport;
    use crate::server::driver::DriverKind;
    use crate::server::to_workers::ToWorkers;
    use crate::worker::command::Command;

    /// A server whose threads are played by the test, which holds their ends.
    fn server_of_ends() -> (Arc<State>, Vec<WorkerEnds<Command>>, Receiver<LogCommand>) {
        let (ends, _, workers) = mesh(2, 16);
        let (log_commands, inbox) = bounded(16);
        let shared = Shared {
            settings: Arc::new(Settings::default()),
            epoch: Epoch::from_random(1),
            hasher: SharedHasher::from_seed(1),
            proof_key: ProofKey::new(&[1; 32]),
            connection_count: Arc::new(ConnectionCount::new(
                1,
                crate::worker::connection_count::ByAddress::Ignored,
            )),
            metrics: vec![Arc::default(), Arc::default()],
            journal: Arc::default(),
            cluster: Arc::default(),
            nodes: Nodes::default(),
            driver: DriverKind::Epoll,
        };
        let state = State {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            key: None,
            shared: Arc::new(shared),
            log_commands,
            // No thread here sleeps on a ring.
            workers: ToWorkers::new(ends, Ringer::new(Vec::new()).expect("no ring is needed")),
            revoked: Mutex::default(),
            to_nodes: None,
            started_unix_s: 0.0,
            draining: AtomicBool::new(false),
        };
        (Arc::new(state), workers, inbox)
    }

    fn answer_pings(ends: WorkerEnds<Command>, worker: u16) {
        thread::spawn(move || {
            for command in ends.commands.iter() {
                if let Command::Ping(reply) = command {
                    let _ = reply.send(worker);
                }
            }
        });
    }

    fn readiness(state: &State) -> String {
        let bytes = state.readiness().into_bytes(BodyMode::Whole);
        String::from_utf8(bytes).expect("text")
    }

    /// Checks that the answer begins like this, with these words, and that it comes before one could
    /// wait for two threads in turn. A machine that stands still delays some tries, but not all.
    fn assert_ever(mut ask: impl FnMut() -> String, begins: &str, words: &[&str]) {
        let mut answers = Vec::new();
        let found = (0..8).any(|_| {
            let asked = Instant::now();
            let answer = ask();
            let is_it =
                answer.starts_with(begins) && words.iter().all(|word| answer.contains(word));
            let in_time = asked.elapsed() < 2 * STALL_TIME;
            answers.push(answer);
            is_it && in_time
        });
        assert!(found, "{answers:?}");
    }

    #[test]
    fn a_worker_that_neither_turned_nor_answers_is_not_ready() {
        let (state, mut workers, inbox) = server_of_ends();
        thread::spawn(move || {
            for command in inbox.iter() {
                if let LogCommand::Stats(reply) = command {
                    let report = LogReport { stats: Default::default(), waiting: 0 };
                    let _ = reply.send(report);
                }
            }
        });
        let silent = workers.pop().expect("two workers");
        answer_pings(workers.remove(0), 0);
        assert_ever(|| readiness(&state), "HTTP/1.1 503 ", &["worker_stalled", "worker 1 "]);
        // It is busy, but it still turns.
        let turned = || {
            state.shared.metrics[1].turned_at_ms.set(monotonic_now().as_millis() as u64);
            readiness(&state)
        };
        assert_ever(turned, "HTTP/1.1 200 ", &[]);
        drop(silent);
    }

    #[test]
    fn a_log_that_does_not_answer_is_not_ready() {
        let (state, workers, inbox) = server_of_ends();
        for (worker, ends) in workers.into_iter().enumerate() {
            answer_pings(ends, worker as u16);
        }
        assert_ever(|| readiness(&state), "HTTP/1.1 503 ", &["log_stalled"]);
        // There are metrics all the same, without the log's.
        let metrics = String::from_utf8(state.metrics().into_bytes(BodyMode::Whole));
        let metrics = metrics.expect("text");
        assert!(metrics.contains("\npushline_log_up 0\n"), "{metrics}");
        assert!(!metrics.contains("pushline_head_seq"), "{metrics}");
        drop(inbox);
    }
}
