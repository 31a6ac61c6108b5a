//! The one hasher of all threads, so that a channel's name is hashed once per publication and the
//! number travels with the event.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// Hashes channel names, the same in every thread that holds a clone.
///
/// Names come from the network, so the hash is keyed: SipHash whose state has absorbed 128 secret
/// bits. The seed is an argument, so that a simulation can be repeated.
#[derive(Clone, Debug)]
pub struct SharedHasher {
    seeded: DefaultHasher,
}

impl SharedHasher {
    /// From 128 random bits, drawn once per process.
    pub fn from_seed(seed: u128) -> Self {
        let mut seeded = DefaultHasher::new();
        seeded.write(&seed.to_le_bytes());
        Self { seeded }
    }

    /// The hash of a channel's name, as in [`Event::channel_hash`](super::event::Event).
    pub fn channel(&self, name: &str) -> u64 {
        let mut hasher = self.seeded.clone();
        hasher.write(name.as_bytes());
        hasher.finish()
    }

    /// The hash of a client's address.
    pub fn address(&self, address: std::net::IpAddr) -> u64 {
        let mut hasher = self.seeded.clone();
        address.hash(&mut hasher);
        hasher.finish()
    }

    /// The hash of an idempotency key, which applies to one channel only.
    pub(super) fn key(&self, channel_hash: u64, key: &str) -> u64 {
        let mut hasher = self.seeded.clone();
        hasher.write_u64(channel_hash);
        hasher.write(key.as_bytes());
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_hashes_and_another_seed_gives_others() {
        let one = SharedHasher::from_seed(1);
        assert_eq!(one.channel("news"), SharedHasher::from_seed(1).channel("news"));
        assert_ne!(one.channel("news"), SharedHasher::from_seed(2).channel("news"));
        assert_ne!(one.channel("news"), one.channel("newt"));
        assert_ne!(one.key(1, "k"), one.key(2, "k"));
    }
}
