//! The part of TLS 1.3's key schedule that outlives a handshake (RFC 8446 section 7).

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Algorithm, CHACHA20_POLY1305};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, HKDF_SHA384, KeyType, Prk};

/// What a connection's records are sealed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cipher {
    Aes128,
    Aes256,
    ChaCha,
}

impl Cipher {
    pub fn aead(self) -> &'static Algorithm {
        match self {
            Self::Aes128 => &AES_128_GCM,
            Self::Aes256 => &AES_256_GCM,
            Self::ChaCha => &CHACHA20_POLY1305,
        }
    }

    fn hkdf(self) -> hkdf::Algorithm {
        match self {
            Self::Aes128 | Self::ChaCha => HKDF_SHA256,
            Self::Aes256 => HKDF_SHA384,
        }
    }
}

/// The secret that follows a traffic secret, and the key and IV that go with it (section 7.2).
pub(super) fn next(cipher: Cipher, secret: &mut [u8], key: &mut [u8], iv: &mut [u8]) {
    let present = Prk::new_less_safe(cipher.hkdf(), secret);
    expand_label(&present, b"traffic upd", secret);
    derive(cipher, secret, key, iv);
}

/// The key and IV of a traffic secret (section 7.3).
pub(super) fn derive(cipher: Cipher, secret: &[u8], key: &mut [u8], iv: &mut [u8]) {
    let secret = Prk::new_less_safe(cipher.hkdf(), secret);
    expand_label(&secret, b"key", key);
    expand_label(&secret, b"iv", iv);
}

/// `HKDF-Expand-Label` without a context (section 7.1).
fn expand_label(secret: &Prk, label: &[u8], out: &mut [u8]) {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    const PREFIX: &[u8] = b"tls13 ";
    let length = (out.len() as u16).to_be_bytes();
    let label_bytes = [(PREFIX.len() + label.len()) as u8];
    let info: [&[u8]; 5] = [&length, &label_bytes, PREFIX, label, &[0]];
    let expanded = secret.expand(&info, Length(out.len()));
    let filled = expanded.and_then(|material| material.fill(out));
    filled.expect("a key is shorter than HKDF can make");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"))
    }

    /// RFC 8448 section 3: the server's application traffic secret, and what is derived from it.
    #[test]
    fn keys_are_those_of_the_example_trace() {
        let secret: [u8; 32] =
            bytes("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643");
        let (mut key, mut iv) = ([0; 16], [0; 12]);
        derive(Cipher::Aes128, &secret, &mut key, &mut iv);
        assert_eq!(key, bytes("9f02283b6c9c07efc26bb9f2ac92e356"));
        assert_eq!(iv, bytes("cf782b88dd83549aadf1e984"));
    }
}
