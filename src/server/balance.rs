//! Keeps `--steer cpu` from filling one worker: if all packets arrived on one core, one worker of
//! many would get all connections.

use socket2::Socket;
use tracing::{info, warn};

use crate::ring::{steer_by_cpu, stop_steering};

/// A worker has too many connections if it has this many more than one and a half times the mean:
/// with few connections, shares mean nothing.
const SURPLUS_MAX: u64 = 1000;

/// Workers count as even again once the fullest one's surplus is this fraction of what made them
/// uneven, so that they do not switch back and forth.
const EVEN_AGAIN: u64 = 4;

/// How new connections find their worker at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ByCpu,
    ByHash,
}

/// Watches a group of listeners that is steered by core.
#[derive(Debug)]
pub(super) struct Balance {
    listener: Socket,
    workers: u16,
    way: Way,
}

impl Balance {
    /// `listener`: any listener of the group, which must be steered by core now.
    pub fn new(listener: Socket, workers: u16) -> Self {
        Self { listener, workers, way: Way::ByCpu }
    }

    /// Looks at how many connections each worker has; call it about once a second.
    pub fn look(&mut self, open: &[u64]) {
        let way = choose(self.way, open);
        if way == self.way {
            return;
        }
        let most = open.iter().max().copied().unwrap_or(0);
        let done = match way {
            Way::ByCpu => steer_by_cpu(&self.listener, self.workers),
            Way::ByHash => stop_steering(&self.listener),
        };
        match (way, done) {
            (Way::ByCpu, Ok(())) => {
                info!(most, "workers are even: steering connections by core again")
            }
            (Way::ByHash, Ok(())) => {
                warn!(most, "workers are uneven: new connections are spread by hash for now");
            }
            // The listener is closed, as in a drain: nothing is left to spread.
            (_, Err(_)) => return,
        }
        self.way = way;
    }
}

fn choose(way: Way, open: &[u64]) -> Way {
    let most = open.iter().max().copied().unwrap_or(0);
    let mean = open.iter().sum::<u64>() / open.len().max(1) as u64;
    let (surplus, surplus_max) = (most - mean, mean / 2 + SURPLUS_MAX);
    match way {
        Way::ByCpu if surplus > surplus_max => Way::ByHash,
        Way::ByHash if surplus <= surplus_max / EVEN_AGAIN => Way::ByCpu,
        kept => kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_with_far_more_than_its_share_ends_steering_until_all_are_even() {
        assert_eq!(choose(Way::ByCpu, &[900, 0]), Way::ByCpu, "among few it means nothing");
        assert_eq!(choose(Way::ByCpu, &[4000, 0]), Way::ByCpu);
        assert_eq!(choose(Way::ByCpu, &[4004, 0]), Way::ByHash);
        assert_eq!(choose(Way::ByHash, &[4004, 2000]), Way::ByHash, "not at the first relief");
        assert_eq!(choose(Way::ByHash, &[4004, 3000]), Way::ByCpu);
        assert_eq!(choose(Way::ByCpu, &[50_000, 50_000, 50_000]), Way::ByCpu);
        assert_eq!(choose(Way::ByCpu, &[]), Way::ByCpu);
    }
}
