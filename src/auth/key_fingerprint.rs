//! What a grant rests on, as a digest. When rules are reloaded, a connection stays only if the key
//! that let it in is still among them.

use std::fmt;

use sha2::{Digest, Sha256};

use super::grant::Grant;

/// The digest of a key, or of everybody's rights. It is short because each connection holds one; a
/// collision only helps an operator, who can write the keys anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyFingerprint(u64);

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl KeyFingerprint {
    /// The fingerprint of something of this kind, made of these parts.
    pub fn of(kind: &str, parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        digest.update(kind);
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let bytes: [u8; 32] = digest.finalize().into();
        let (first, _) = bytes.split_at(8);
        Self(first.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

/// The fingerprints of all keys and rights of one set of rules.
pub(super) struct KeyFingerprints(Box<[KeyFingerprint]>);

impl KeyFingerprints {
    pub fn new(mut fingerprints: Vec<KeyFingerprint>) -> Self {
        fingerprints.sort_unstable();
        Self(fingerprints.into())
    }

    /// Whether the grant would still be given, as far as keys and everybody's rights are concerned.
    pub fn cover(&self, grant: &Grant) -> bool {
        grant.fingerprints().all(|fingerprint| self.0.binary_search(&fingerprint).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_kind_or_another_cut_is_another_fingerprint() {
        let fingerprint = KeyFingerprint::of("key", &[b"ab", b"c"]);
        assert_eq!(fingerprint, KeyFingerprint::of("key", &[b"ab", b"c"]));
        assert_ne!(fingerprint, KeyFingerprint::of("rights", &[b"ab", b"c"]));
        assert_ne!(fingerprint, KeyFingerprint::of("key", &[b"a", b"bc"]));
    }
}
