//! Session tickets that several nodes understand. Their keys are derived from a shared secret and the
//! time, so all nodes change them without talking to each other.

use std::fmt;
use std::fs;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use super::TlsError;
use crate::ring::unix_now;

/// As long as the keys that are derived from it.
pub(super) const SECRET_BYTES_MIN: usize = 32;

/// How long a key seals tickets, in seconds. It opens them for as long again.
const PERIOD_S: u64 = 6 * 3600;

const KEY_BYTES: usize = 32;
const PERIOD_BYTES: usize = size_of::<u64>();

pub(super) struct SharedTickets {
    secret: Prk,
}

impl SharedTickets {
    pub fn read(path: &Path) -> Result<Self, TlsError> {
        let text = fs::read(path).map(Zeroizing::new);
        let text = text.map_err(|error| TlsError::unreadable(path, &error))?;
        let secret = text.trim_ascii();
        if secret.len() < SECRET_BYTES_MIN {
            return Err(TlsError::ShortSecret(path.to_owned()));
        }
        Ok(Self::of(secret))
    }

    fn of(secret: &[u8]) -> Self {
        Self { secret: Salt::new(HKDF_SHA256, b"pushline session tickets").extract(secret) }
    }

    fn key(&self, period: u64) -> Option<RandomizedNonceKey> {
        struct Length;
        impl KeyType for Length {
            fn len(&self) -> usize {
                KEY_BYTES
            }
        }
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let info = period.to_be_bytes();
        self.secret.expand(&[&info], Length).and_then(|made| made.fill(&mut *key)).ok()?;
        RandomizedNonceKey::new(&AES_256_GCM, &*key).ok()
    }

    fn seal(&self, text: &[u8], now_s: u64) -> Option<Vec<u8>> {
        let period = now_s / PERIOD_S;
        // With room for the tag: growing would leave the text behind.
        let mut sealed = Vec::with_capacity(text.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(text);
        let key = self.key(period)?;
        let nonce =
            key.seal_in_place_append_tag(Aad::from(period.to_be_bytes()), &mut sealed).ok()?;
        Some([&period.to_be_bytes()[..], nonce.as_ref(), &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now_s: u64) -> Option<Vec<u8>> {
        let (period, rest) = ticket.split_first_chunk::<PERIOD_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (of_ticket, present) = (u64::from_be_bytes(*period), now_s / PERIOD_S);
        // Another node's clock may be ahead of this one's.
        if of_ticket.abs_diff(present) > 1 {
            return None;
        }
        let mut text = sealed.to_vec();
        let key = self.key(of_ticket)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.open_in_place(nonce, Aad::from(*period), &mut text).ok()?.len();
        text.truncate(opened);
        Some(text)
    }
}

impl ProducesTickets for SharedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD_S as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, unix_now().as_secs())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, unix_now().as_secs())
    }
}

impl fmt::Debug for SharedTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedTickets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_with_one_secret_open_each_others_tickets_for_two_periods() {
        let [here, there, other] =
            ["a secret", "a secret", "no secret"].map(|text| SharedTickets::of(text.as_bytes()));
        let ticket = here.seal(b"session", 10 * PERIOD_S).expect("sealed");
        assert_eq!(there.open(&ticket, 10 * PERIOD_S).as_deref(), Some(&b"session"[..]));
        assert_eq!(there.open(&ticket, 12 * PERIOD_S - 1).as_deref(), Some(&b"session"[..]));
        assert_eq!(there.open(&ticket, 12 * PERIOD_S), None);
        assert_eq!(other.open(&ticket, 10 * PERIOD_S), None);
        for cut in 0..ticket.len() {
            assert_eq!(there.open(&ticket[..cut], 10 * PERIOD_S), None);
        }
    }
}
