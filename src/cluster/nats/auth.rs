//! Who we are to the broker: a user in the address, or a file that has a key. The server sends a nonce,
//! which is signed with it.
//!
//! | file | what it has |
//! |---|---|
//! | `.creds` | a JWT, which names a public key, and the seed of that key, each between lines of dashes |
//! | an nkey | the seed alone; the server's configuration names the public key |
//!
//! Keys are written in base32: a prefix that says what it is (two bytes of a seed, one of a public key),
//! the 32 bytes of Ed25519, and a checksum.

use std::fs;
use std::io;
use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::BASE32_NOPAD;
use serde_json::{Value, json};

/// A user's key, and the JWT that names it, if one does.
#[derive(Debug)]
pub struct Credentials {
    jwt: Option<String>,
    key: Ed25519KeyPair,
}

/// The five bits in front of every seed: its text begins with an `S`.
const SEED: u8 = 18 << 3;

/// The prefix of a user's keys, in the seed and in front of the public key: `U`.
const USER: u8 = 20 << 3;

impl Credentials {
    /// Reads a file of either kind.
    ///
    /// # Errors
    /// The file can't be read, or is of neither kind.
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::parse(&fs::read_to_string(path)?).ok_or_else(|| {
            let why = "this is neither a .creds file nor the seed of a user's nkey (SU...)";
            io::Error::new(io::ErrorKind::InvalidData, why)
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        if !text.contains("-----BEGIN") {
            let seed = lines.find(|line| !line.starts_with('#'))?;
            return Some(Self { jwt: None, key: user_key(seed)? });
        }
        let is_marker = |line: &&str| line.starts_with("---");
        let mut after_marker = || {
            lines.by_ref().find(is_marker)?;
            let found = lines.next()?;
            // Skip the marker that ends this part.
            lines.by_ref().find(is_marker)?;
            Some(found)
        };
        let (jwt, seed) = (after_marker()?.to_owned(), after_marker()?);
        Some(Self { jwt: Some(jwt), key: user_key(seed)? })
    }

    /// Adds to what is said to a server that has sent this nonce: who we are, and that we have the key.
    pub fn prove(&self, nonce: &str, said: &mut Value) {
        match &self.jwt {
            Some(jwt) => said["jwt"] = json!(jwt),
            None => said["nkey"] = json!(public_text(&self.key)),
        }
        said["sig"] = json!(URL_SAFE_NO_PAD.encode(self.key.sign(nonce.as_bytes())));
    }
}

/// The key of a user's seed; none: this is no such seed, or a letter of it is wrong.
fn user_key(seed: &str) -> Option<Ed25519KeyPair> {
    let bytes = BASE32_NOPAD.decode(seed.as_bytes()).ok()?;
    let (said, sum) = bytes.split_last_chunk()?;
    let (prefix, seed) = said.split_first_chunk()?;
    let is_user = *prefix == [SEED | USER >> 5, (USER & 31) << 3];
    let is_whole = *sum == checksum(said).to_le_bytes();
    let key = || Ed25519KeyPair::from_seed_unchecked(seed).ok();
    (is_user && is_whole).then(key)?
}

fn public_text(key: &Ed25519KeyPair) -> String {
    let mut bytes = vec![USER];
    bytes.extend_from_slice(key.public_key().as_ref());
    bytes.extend(checksum(&bytes).to_le_bytes());
    BASE32_NOPAD.encode(&bytes)
}

/// CRC-16 as in XMODEM: polynomial 0x1021, initial value 0.
fn checksum(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum: u16, &byte| {
        (0..8).fold(sum ^ u16::from(byte) << 8, |sum, _| {
            let carried = if sum & 0x8000 == 0 { 0 } else { 0x1021 };
            sum << 1 ^ carried
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A seed and its public key, made by NATS' own tools.
    const SEED_TEXT: &str = "SUABHP6WXEDHJRHTYNHM2EDSIYES5IHS63B52BQGFRU2GCKLIKFS55TXKM";
    const PUBLIC_TEXT: &str = "UAHBPZQJWVT762GBLPTKNDMKN26PXZGKT2RA3GTZUY4GO5ZKK5423IJY";

    fn said(credentials: &Credentials) -> Value {
        let mut said = json!({});
        credentials.prove("nonce", &mut said);
        said
    }

    #[test]
    fn a_file_of_credentials_has_a_token_and_a_key() {
        let text = format!(
            "-----BEGIN NATS USER JWT-----\nhead.body.sig\n------END NATS USER JWT------\n\n\
             ************* IMPORTANT *************\n\n\
             -----BEGIN USER NKEY SEED-----\n{SEED_TEXT}\n------END USER NKEY SEED------\n"
        );
        let said = said(&Credentials::parse(&text).expect("credentials"));
        assert_eq!((said["jwt"].as_str(), said.get("nkey")), (Some("head.body.sig"), None));
        assert_eq!(said["sig"].as_str().map(str::len), Some(86));
        for bad in ["", "-----BEGIN\njwt\n-----END\n", &text.replace("SUAB", "su!!")] {
            assert!(Credentials::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_seed_alone_is_an_nkey_and_a_wrong_letter_in_it_is_found() {
        let said = said(&Credentials::parse(&format!("# ours\n{SEED_TEXT}\n")).expect("a seed"));
        assert_eq!((said["nkey"].as_str(), said.get("jwt")), (Some(PUBLIC_TEXT), None));
        for place in 0..SEED_TEXT.len() {
            let mut bad = SEED_TEXT.as_bytes().to_vec();
            bad[place] = if bad[place] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bad).expect("text");
            assert!(Credentials::parse(&bad).is_none(), "{bad}");
        }
        assert!(Credentials::parse(PUBLIC_TEXT).is_none(), "a public key is no seed");
    }

    #[test]
    fn the_checksum_is_that_of_xmodem() {
        assert_eq!(checksum(b"123456789"), 0x31c3);
    }
}
