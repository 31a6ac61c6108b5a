//! Proofs that a name was issued by this process.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Bytes of a proof: a guess is right once in 2^128.
const PROOF_BYTES: usize = 16;

/// Makes and checks proofs: HMAC-SHA-256 (RFC 2104), cut to 128 bits. Its key has no other use, so
/// collected proofs tell nothing about how the tables hash.
#[derive(Clone)]
pub struct ProofKey(Hmac<Sha256>);

impl ProofKey {
    /// From 256 random bits, drawn once per process.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes a key of any length"))
    }

    /// A number of this process: no other has the same.
    pub fn process(&self) -> u64 {
        let tag = self.0.clone().chain_update("process").finalize().into_bytes();
        tag.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// The proof of a name, in hexadecimal digits.
    pub fn prove(&self, name: &str) -> String {
        let tag = self.0.clone().chain_update(name).finalize().into_bytes();
        tag[..PROOF_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether the text is the proof of the name; takes equally long whichever digit is wrong.
    pub fn is_proven(&self, name: &str, proof: &str) -> bool {
        self.prove(name).as_bytes().ct_eq(proof.as_bytes()).into()
    }
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_of_one_name_and_one_key() {
        let (key, other) = (ProofKey::new(&[1; 32]), ProofKey::new(&[2; 32]));
        let proof = key.prove("0-1-2");
        assert_eq!(proof.len(), 2 * PROOF_BYTES);
        assert!(key.is_proven("0-1-2", &proof));
        assert!(!key.is_proven("0-1-3", &proof) && !other.is_proven("0-1-2", &proof));
        for bad in ["", "0", &proof[2..], &proof.to_uppercase(), &proof.replace('0', "+")] {
            assert!(bad == proof || !key.is_proven("0-1-2", bad), "{bad}");
        }
    }
}
