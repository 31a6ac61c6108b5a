//! Many clients that shake hands at once.

use super::*;
use crate::ring::tls::newcomers::FIRST_RECORDS_MAX;

/// Clients that all connect and say their first words before the worker's next turn.
struct Storm {
    host: Host,
    peers: Vec<Peer>,
    /// Before the last turn.
    before: Handshakes,
}

/// What has become of a storm's handshakes.
#[derive(Clone, Copy, Default)]
struct Handshakes {
    /// Connections the worker has heard of.
    heard: usize,
    /// Handshakes that hold memory of rustls.
    under_way: usize,
    over: usize,
}

impl Handshakes {
    fn begun(self) -> usize {
        self.under_way + self.over
    }
}

impl Storm {
    fn of(clients: usize) -> Self {
        let identity = Identity::new();
        let settings = SimSettings {
            slots_per_worker: 128,
            recv_buffers: 128,
            recv_buffer_bytes: 4096,
            ..SETTINGS
        };
        let host = Host::on(SimNet::new(settings, Faults::none(), 8), &identity);
        let peers = (0..clients).map(|_| Peer::of(&host, &identity, &version::TLS13)).collect();
        Self { host, peers, before: Handshakes::default() }
    }

    fn handshakes(&self) -> Handshakes {
        let driver = &self.host.driver;
        Handshakes {
            heard: self.host.accepted as usize,
            under_way: driver.holding,
            over: driver.stats().tls.handshakes_full as usize,
        }
    }

    /// Takes turns until all handshakes are over, and looks after each.
    fn pass(&mut self, mut look: impl FnMut(&Self)) {
        for _ in 0..ROUNDS_MAX {
            self.before = self.handshakes();
            self.peers.iter_mut().for_each(Peer::turn);
            self.host.turn();
            look(self);
            if self.handshakes().over == self.peers.len() {
                return;
            }
        }
        panic!("{} of {} are over", self.handshakes().over, self.peers.len());
    }
}

/// A storm would otherwise hold memory of rustls for each client that waits.
#[test]
fn handshakes_that_have_begun_are_over_before_all_others_begin() {
    let mut held_max = 0;
    Storm::of(24).pass(|storm| held_max = held_max.max(storm.handshakes().under_way));
    assert!(held_max <= 8, "{held_max} at once");
}

/// An event that comes during a turn waits until the turn is over.
#[test]
fn a_turn_begins_one_handshake_however_many_wait() {
    let mut storm = Storm::of(24);
    storm.host.wait = Wait::Forever;
    let mut turns = 0;
    storm.pass(|storm| {
        let begun = storm.handshakes().begun() - storm.before.begun();
        assert!(begun <= 1, "{begun} in one turn");
        turns += 1;
    });
    assert!(turns < 2 * 24, "{turns} turns, though the worker has nothing else to do");
}

/// The next slice of an event leaves before the next handshake, but handshakes go on.
#[test]
fn work_that_the_worker_has_left_takes_turns_with_handshakes() {
    let mut storm = Storm::of(24);
    storm.host.wait = Wait::No;
    let mut began = false;
    storm.pass(|storm| {
        let begins = storm.handshakes().begun() > storm.before.begun();
        assert!(!(began && begins), "in two turns in a row");
        began = begins;
    });
}

/// The worker counts a connection's time for its request from when it hears of it.
#[test]
fn the_worker_hears_of_a_connection_when_its_handshake_is_near() {
    let mut storm = Storm::of(100);
    storm.pass(|storm| {
        let now = storm.handshakes();
        let ahead = now.heard - now.begun();
        // Those who were let in last may not have been heard yet.
        assert!(ahead <= 2 * FIRST_RECORDS_MAX, "{ahead} wait within");
        let waiting = storm.host.driver.stats().tls.waiting as usize;
        assert!(waiting <= storm.peers.len() - now.begun(), "{waiting} wait");
    });
    assert_eq!(storm.host.driver.stats().tls.waiting, 0);
}

/// Else it would leave them behind when it ends.
#[test]
fn a_worker_that_accepts_no_more_has_heard_of_all_connections() {
    let mut storm = Storm::of(100);
    storm.host.turn();
    assert!(storm.handshakes().heard < 100);
    storm.host.batch.ops.push(Op::AcceptStop);
    storm.host.turn();
    assert_eq!(storm.handshakes().heard, 100);
}
