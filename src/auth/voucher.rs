//! Who vouches for a grant. Rules are read anew while connections go on; what they were allowed by
//! has to be found again, or they end.

use std::fmt;

use sha2::{Digest, Sha256};

use super::grant::Grant;

/// A key, or what everybody may do, by its digest. Grants hold it as long as their connection
/// lives, so it is short: nobody gains by making two keys collide, who can write keys at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Voucher(u64);

impl fmt::Display for Voucher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Voucher {
    /// Of a kind of thing, and what makes one of them what it is.
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

/// All that vouch under one set of rules.
pub(super) struct Vouchers(Box<[Voucher]>);

impl Vouchers {
    pub fn new(mut vouchers: Vec<Voucher>) -> Self {
        vouchers.sort_unstable();
        Self(vouchers.into())
    }

    /// Whether the grant would still be given, as far as keys and everybody's rights go.
    pub fn stand_by(&self, grant: &Grant) -> bool {
        grant.vouchers().all(|voucher| self.0.binary_search(&voucher).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_kind_or_another_cut_is_another_voucher() {
        let voucher = Voucher::of("key", &[b"ab", b"c"]);
        assert_eq!(voucher, Voucher::of("key", &[b"ab", b"c"]));
        assert_ne!(voucher, Voucher::of("rights", &[b"ab", b"c"]));
        assert_ne!(voucher, Voucher::of("key", &[b"a", b"bc"]));
    }
}
