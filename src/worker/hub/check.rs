//! What must hold between two turns, for the simulation and the tests. Walks everything.

use super::Hub;
use super::replica::Replica;
use super::subscriber::Subscriber;

impl Hub {
    /// Whether nothing is left to fan out.
    pub fn is_quiet(&self) -> bool {
        self.scheduled.is_empty() && self.leaves.is_empty() && self.too_slow.is_empty()
    }

    /// Panics if subscribers and replicas contradict each other. `joins`: joins on their way.
    pub fn check_invariants(&self, joins: usize) {
        assert_eq!(self.metrics.subscriptions.value(), self.subscriptions() as u64);
        let live: usize = self.channels.iter().map(|of| of.live_len()).sum();
        assert_eq!(self.metrics.live.value(), live as u64);
        for index in self.subscribers.indices() {
            self.check_subscriber(index);
        }
        let held: usize = self.channels.iter().map(Replica::ring_bytes).sum();
        assert_eq!(self.channels.held_bytes(), held, "what replicas hold");
        for (index, replica) in self.channels.entries() {
            self.check_replica(index, replica);
        }
        let pending: u32 = self.channels.iter().map(Replica::pending_joins).sum();
        assert_eq!(pending as usize, joins, "joins on their way");
    }

    fn check_subscriber(&self, index: u32) {
        match self.subscriber(index) {
            Subscriber::None => {}
            &Subscriber::Live { dialect, replica, place } => {
                let own = self.channels[replica].live_slot(place);
                assert_eq!(own, Some((index, dialect as usize)), "slot {index}");
            }
            Subscriber::Explicit(_, explicit) => {
                for (place, sub) in explicit.subs.iter().enumerate() {
                    let followers = self.channels[sub.replica].followers();
                    assert_eq!(followers.get(sub.place as usize), Some(&index), "{sub:?}");
                    let others = &explicit.subs[..place];
                    assert!(others.iter().all(|other| other.replica != sub.replica), "twice");
                }
            }
        }
    }

    fn check_replica(&self, index: u32, replica: &Replica) {
        replica.check_invariants(self.scheduled.contains(&index));
        let name = &replica.name()[..];
        assert_eq!(self.channels.find(replica.hash(), name), Some(index));
        for at in 0..replica.live_len() as u32 {
            let (slot, _) = replica.live_slot(at).expect("one of them");
            let is_here = |replica, place| replica == index && place == at;
            let subscriber = self.subscriber(slot);
            assert!(
                matches!(*subscriber, Subscriber::Live { replica, place, .. } if is_here(replica, place)),
                "{name}: {subscriber:?}"
            );
        }
        for &slot in replica.followers() {
            assert!(
                self.explicit(slot).is_some_and(|explicit| {
                    explicit.subs.iter().any(|sub| sub.replica == index)
                })
            );
        }
    }
}
