//! The keys a connection keeps after its handshake.

use aws_lc_rs::aead::NONCE_LEN;
use zeroize::Zeroize;

use super::record::Part;
use super::schedule::{self, Cipher};

/// Keys, numbers and traffic secrets of both directions: 136 bytes with a key of 16.
pub(super) struct Keys<const KEY: usize, const SECRET: usize> {
    send_seq: u64,
    receive_seq: u64,
    send: Direction<KEY, SECRET>,
    receive: Direction<KEY, SECRET>,
}

struct Direction<const KEY: usize, const SECRET: usize> {
    key: [u8; KEY],
    iv: [u8; NONCE_LEN],
    secret: [u8; SECRET],
}

const _: () = assert!(size_of::<Keys<16, 32>>() == 136);

impl<const KEY: usize, const SECRET: usize> Keys<KEY, SECRET> {
    /// The cipher, which the lengths determine.
    const CIPHER: Cipher = match (KEY, SECRET) {
        (16, 32) => Cipher::Aes128,
        (32, 48) => Cipher::Aes256,
        (32, 32) => Cipher::ChaCha,
        _ => panic!("no cipher has keys and secrets of these lengths"),
    };

    /// From each direction's traffic secret, and the number of records already sealed with it. `None`
    /// if a secret does not have the cipher's length.
    pub fn new(send: (&[u8], u64), receive: (&[u8], u64)) -> Option<Self> {
        Some(Self {
            send_seq: send.1,
            receive_seq: receive.1,
            send: Direction::new(Self::CIPHER, send.0)?,
            receive: Direction::new(Self::CIPHER, receive.0)?,
        })
    }

    pub fn send(&mut self) -> Part<'_> {
        self.send.part(Self::CIPHER, &mut self.send_seq)
    }

    pub fn receive(&mut self) -> Part<'_> {
        self.receive.part(Self::CIPHER, &mut self.receive_seq)
    }
}

impl<const KEY: usize, const SECRET: usize> Direction<KEY, SECRET> {
    fn new(cipher: Cipher, secret: &[u8]) -> Option<Self> {
        let secret = secret.try_into().ok()?;
        let mut made = Self { key: [0; KEY], iv: [0; NONCE_LEN], secret };
        schedule::derive(cipher, &made.secret, &mut made.key, &mut made.iv);
        Some(made)
    }

    fn part<'a>(&'a mut self, cipher: Cipher, seq: &'a mut u64) -> Part<'a> {
        let Self { key, iv, secret } = self;
        Part { cipher, seq, key, iv, secret }
    }
}

impl<const KEY: usize, const SECRET: usize> Drop for Direction<KEY, SECRET> {
    fn drop(&mut self) {
        self.key.zeroize();
        self.iv.zeroize();
        self.secret.zeroize();
    }
}
