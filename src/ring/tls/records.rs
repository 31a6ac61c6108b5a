//! One end of a connection's records, in memory and without a driver: for the load generator, which
//! keeps no more of a connection, and for fuzzing, which compares it with rustls.

use super::keys::{Keys, OpeningKey};
use super::record::{End, record_bytes};

/// An end whose handshake is over, with AES-128-GCM.
pub struct Records {
    keys: Keys<16, 32>,
    opening: OpeningKey,
}

/// Whether and how a peer's records have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// More may come.
    Open,
    /// The peer said that nothing follows.
    Closed,
    /// The peer gave up, or made a mistake.
    Failed,
}

impl Records {
    /// From each direction's traffic secret, and the number of records already sealed with it. `None`
    /// if the secrets are for another cipher.
    #[must_use]
    pub fn new(send: (&[u8], u64), receive: (&[u8], u64)) -> Option<Self> {
        Keys::new(send, receive).map(|keys| Self { keys, opening: OpeningKey::default() })
    }

    /// Opens the whole records in `input` and removes them from it. Their data is appended to `data`.
    pub fn open(&mut self, input: &mut Vec<u8>, data: &mut Vec<u8>) -> Fate {
        let opened = self.keys.receive(0, &mut self.opening).open(input);
        data.extend_from_slice(&input[..opened.data]);
        input.drain(..opened.used);
        match opened.end {
            None => Fate::Open,
            Some(End::Closed) => Fate::Closed,
            Some(End::Alert | End::Mistake(_)) => Fate::Failed,
        }
    }

    /// Appends bytes as records of data.
    pub fn seal(&mut self, out: &mut Vec<u8>, data: &[u8]) {
        let from = out.len();
        out.extend_from_slice(data);
        let to = out.len();
        self.keys.send().seal(out, from..to);
        out.drain(from..to);
    }

    /// Appends a record of any type, with this many zeros after its content. No client sends these.
    pub fn seal_any(&mut self, out: &mut Vec<u8>, kind: u8, content: &[u8], padding: usize) {
        let mut inner = content.to_vec();
        inner.push(kind);
        inner.resize(inner.len() + padding, 0);
        let last = inner.pop().unwrap_or_default();
        self.keys.send().seal_message(out, last, &inner);
    }

    /// What it sends from now on is sealed with the next key.
    pub fn update(&mut self) {
        self.keys.send().update();
    }
}

/// How many of these bytes are whole records. Bytes that are no record count as whole, because waiting
/// for more of them would not help.
#[must_use]
pub(crate) fn whole_records(bytes: &[u8]) -> usize {
    let mut whole = 0;
    loop {
        match record_bytes(&bytes[whole..]) {
            Ok(Some(length)) => whole += length,
            Ok(None) => return whole,
            Err(_) => return bytes.len(),
        }
    }
}
