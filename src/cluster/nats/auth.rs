//! Who we are to the broker: a user in the address, or a `.creds` file.

use std::fs;
use std::io;
use std::path::Path;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A JWT, and the key its bearer signs with.
#[derive(Debug)]
pub struct Credentials {
    jwt: String,
    key: Ed25519KeyPair,
}

/// Bytes before the seed in its encoding: they say what the key is for.
const SEED_PREFIX_BYTES: usize = 2;
const SEED_BYTES: usize = 32;

impl Credentials {
    /// Reads a `.creds` file: a JWT and a seed, each between lines of dashes.
    ///
    /// # Errors
    /// The file can't be read, or is no `.creds` file.
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::parse(&fs::read_to_string(path)?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is not a .creds file"))
    }

    fn parse(text: &str) -> Option<Self> {
        let is_marker = |line: &&str| line.starts_with("---");
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut after_marker = || {
            lines.by_ref().find(is_marker)?;
            let found = lines.next()?.to_owned();
            // Skip the marker that ends this part.
            lines.by_ref().find(is_marker)?;
            Some(found)
        };
        let (jwt, seed) = (after_marker()?, after_marker()?);
        let bytes = base32(&seed)?;
        let seed = bytes.get(SEED_PREFIX_BYTES..SEED_PREFIX_BYTES + SEED_BYTES)?;
        Some(Self { jwt, key: Ed25519KeyPair::from_seed_unchecked(seed).ok()? })
    }

    /// The JWT.
    pub fn jwt(&self) -> &str {
        &self.jwt
    }

    /// Signs the server's nonce, which proves that we have the key.
    pub fn sign(&self, nonce: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.key.sign(nonce.as_bytes()))
    }
}

/// RFC 4648 section 6, without padding.
fn base32(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return None,
        };
        bits = bits << 5 | u32::from(value);
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_credentials_has_a_token_and_a_key() {
        // Made for this test: the seed is 32 zeros behind the prefix of a user.
        let seed = format!("SUAA{}", "A".repeat(54));
        let text = format!(
            "-----BEGIN NATS USER JWT-----\nhead.body.sig\n------END NATS USER JWT------\n\n\
             ************* IMPORTANT *************\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let read = Credentials::parse(&text).expect("credentials");
        assert_eq!(read.jwt(), "head.body.sig");
        assert_eq!(read.sign("nonce").len(), 86);
        for bad in ["", "-----BEGIN\njwt\n-----END\n", &text.replace("SUAA", "su!!")] {
            assert!(Credentials::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn base32_is_that_of_the_rfc() {
        assert_eq!(base32("MZXW6YTBOI").as_deref(), Some(&b"foobar"[..]));
        assert_eq!(base32("mzxw"), None);
    }
}
