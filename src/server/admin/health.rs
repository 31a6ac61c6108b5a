//! Whether the server should get traffic.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::reply::Reply;
use super::{STALL_TIME, State};
use crate::proto::http::response::Status;
use crate::ring::uring::monotonic_now;
use crate::server::log_thread::LogOrder;

impl State {
    /// `/readyz`. A worker that has turned within the last second turns. One that has not may
    /// sleep, as an idle worker does for ever: it is woken and asked, and has a second to answer.
    pub(super) fn readiness(&self) -> Reply {
        if self.draining.load(Ordering::Relaxed) {
            return unready("draining", "the server is going away");
        }
        let deadline = Instant::now() + STALL_TIME;
        let of_log = self.ask_log(LogOrder::Stats);
        if let Err(worker) = self.ping(&self.quiet_workers(), deadline) {
            return unready("worker_stalled", &format!("worker {worker} does not turn"));
        }
        if of_log.is_err() || of_log.is_ok_and(|answer| answer.recv_deadline(deadline).is_err()) {
            return unready("log_stalled", "the log does not answer");
        }
        Reply::text("ready\n")
    }

    /// Workers that have not turned for a while.
    fn quiet_workers(&self) -> Vec<u16> {
        let now = monotonic_now();
        let turned_at = |worker: u16| {
            Duration::from_millis(self.shared.metrics[usize::from(worker)].turned_at_ms.value())
        };
        let quiet = |worker: &u16| now.saturating_sub(turned_at(*worker)) >= STALL_TIME;
        (0..self.workers()).filter(quiet).collect()
    }
}

fn unready(code: &str, message: &str) -> Reply {
    Reply::error(Status::ServiceUnavailable, code, message)
}
