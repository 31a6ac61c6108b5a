//! The keys a connection keeps after its handshake. An idle one hears nothing for hours, so the key that
//! opens records is derived when something arrives; those of busy connections are kept apart.

use aws_lc_rs::aead::NONCE_LEN;
use zeroize::Zeroize;

use super::record::Part;
use super::schedule::{self, Cipher};

/// Numbers and traffic secrets of both directions, and the key of what is sent: 112 bytes with a key of
/// 16.
pub(super) struct Keys<const KEY: usize, const SECRET: usize> {
    send_seq: u64,
    receive_seq: u64,
    send_key: [u8; KEY],
    send_iv: [u8; NONCE_LEN],
    send_secret: [u8; SECRET],
    receive_secret: [u8; SECRET],
}

const _: () = assert!(size_of::<Keys<16, 32>>() == 112);

/// What opens the records of a connection.
#[derive(Default)]
pub(super) struct OpeningKey {
    /// The slot of that connection; none: it is of no connection.
    owner: Option<u32>,
    key: [u8; KEY_BYTES_MAX],
    iv: [u8; NONCE_LEN],
}

/// Of AES-256 and ChaCha20.
const KEY_BYTES_MAX: usize = 32;

/// Opening keys a worker keeps: deriving one takes about as long as opening a short record.
const OPENING_KEYS: usize = 128;

/// Those of the connections that were heard last, by their slots.
#[derive(Default)]
pub(super) struct OpeningKeys(Vec<OpeningKey>);

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
        let mut made = Self {
            send_seq: send.1,
            receive_seq: receive.1,
            send_key: [0; KEY],
            send_iv: [0; NONCE_LEN],
            send_secret: send.0.try_into().ok()?,
            receive_secret: receive.0.try_into().ok()?,
        };
        let Self { send_key, send_iv, send_secret, .. } = &mut made;
        schedule::derive(Self::CIPHER, send_secret, send_key, send_iv);
        Some(made)
    }

    pub fn send(&mut self) -> Part<'_> {
        Part {
            cipher: Self::CIPHER,
            seq: &mut self.send_seq,
            key: &mut self.send_key,
            iv: &mut self.send_iv,
            secret: &mut self.send_secret,
        }
    }

    /// With the place where the key of this slot's connection is, or is to be.
    pub fn receive<'a>(&'a mut self, slot: u32, opening: &'a mut OpeningKey) -> Part<'a> {
        let OpeningKey { owner, key, iv } = opening;
        let key = &mut key[..KEY];
        if *owner != Some(slot) {
            *owner = Some(slot);
            schedule::derive(Self::CIPHER, &self.receive_secret, key, iv);
        }
        let (seq, secret) = (&mut self.receive_seq, &mut self.receive_secret);
        Part { cipher: Self::CIPHER, seq, key, iv, secret }
    }
}

impl OpeningKeys {
    /// The place of this slot's key, in which there may be another one's.
    pub fn of(&mut self, slot: u32) -> &mut OpeningKey {
        if self.0.is_empty() {
            self.0.resize_with(OPENING_KEYS, OpeningKey::default);
        }
        &mut self.0[slot as usize % OPENING_KEYS]
    }

    /// The connection in this slot is over.
    pub fn forget(&mut self, slot: u32) {
        if let Some(opening) = self.0.get_mut(slot as usize % OPENING_KEYS)
            && opening.owner == Some(slot)
        {
            *opening = OpeningKey::default();
        }
    }
}

impl<const KEY: usize, const SECRET: usize> Drop for Keys<KEY, SECRET> {
    fn drop(&mut self) {
        self.send_key.zeroize();
        self.send_iv.zeroize();
        self.send_secret.zeroize();
        self.receive_secret.zeroize();
    }
}

impl Drop for OpeningKey {
    fn drop(&mut self) {
        self.key.zeroize();
        self.iv.zeroize();
    }
}
