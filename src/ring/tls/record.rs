//! TLS 1.3 records after the handshake (RFC 8446 section 5): sealing, opening, and the messages a peer
//! may send between its data. Sans-IO; bytes of a peer never panic.

use std::ops::{Range, RangeInclusive};

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::schedule::{self, Cipher};

/// Type, version, length.
pub(super) const HEADER_BYTES: usize = 5;
const TAG_BYTES: usize = 16;
/// By how much a record is longer than its data: header, type, tag.
const OVERHEAD_BYTES: usize = HEADER_BYTES + 1 + TAG_BYTES;

/// Most data in a record that we seal. It is much less than TLS allows, because we keep the rest of a
/// record that has left in part. The overhead is half a percent of it.
pub(super) const DATA_BYTES_MAX: usize = 4096;
const SEALED_BYTES_MAX: usize = DATA_BYTES_MAX + OVERHEAD_BYTES;

/// Most bytes after the header of a record that a peer may send, sealed (section 5.2).
pub(super) const RECORD_BYTES_MAX: usize = (1 << 14) + 256;
/// The same, opened: data, type and padding (section 5.4).
const INNER_BYTES_MAX: usize = (1 << 14) + 1;

/// Records sealed with one key, long before AES-GCM's 2^24.5 (section 5.5). Tests come to that, too.
pub(super) const RECORDS_PER_KEY: u64 = if cfg!(any(test, feature = "sim")) { 64 } else { 1 << 23 };

/// Records without data that a peer may send in one piece of input. Each costs us as much as one with
/// data.
const QUIET_RECORDS_MAX: u32 = 32;

/// Types of records, from `change_cipher_spec` on.
const KINDS: RangeInclusive<u8> = 20..=DATA;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// A `KeyUpdate` that asks for none in return (section 4.6.3), and one that does.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// A peer's mistake, with the code of the alert for it (section 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    UnexpectedMessage = 10,
    BadRecordMac = 20,
    RecordOverflow = 22,
    DecodeError = 50,
}

/// One direction of a connection.
pub(super) struct Part<'a> {
    pub cipher: Cipher,
    pub seq: &'a mut u64,
    pub key: &'a mut [u8],
    pub iv: &'a mut [u8; NONCE_LEN],
    pub secret: &'a mut [u8],
}

/// What a peer's records came to, besides data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Opened {
    /// Bytes of data, at the front of the input.
    pub data: usize,
    /// Bytes of whole records; what follows them is incomplete.
    pub used: usize,
    /// The peer has a new key, and wants us to take one, too.
    pub wants_update: bool,
    pub end: Option<End>,
}

/// How a peer's records end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The peer sent close_notify.
    Closed,
    /// The peer sent any other alert.
    Alert,
    /// The peer made a mistake, and must be told.
    Mistake(Mistake),
}

impl Part<'_> {
    fn cipher_key(&self) -> LessSafeKey {
        let key = UnboundKey::new(self.cipher.aead(), self.key);
        LessSafeKey::new(key.expect("the key has its cipher's length"))
    }

    /// Every nonce of a direction is made here, and the record number makes each different.
    fn nonce(&mut self) -> Nonce {
        let mut nonce = *self.iv;
        let number = self.seq.to_be_bytes();
        nonce[NONCE_LEN - number.len()..].iter_mut().zip(number).for_each(|(n, s)| *n ^= s);
        *self.seq += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// Changes to the next key.
    pub fn update(&mut self) {
        schedule::next(self.cipher, self.secret, self.key, self.iv);
        *self.seq = 0;
    }

    // --- sending ---

    /// Seals bytes of the arena, and appends the records to it.
    pub fn seal(&mut self, arena: &mut Vec<u8>, data: Range<usize>) {
        let key = self.cipher_key();
        for from in data.clone().step_by(DATA_BYTES_MAX) {
            let to = data.end.min(from + DATA_BYTES_MAX);
            self.seal_record(&key, arena, DATA, |arena| arena.extend_from_within(from..to));
        }
    }

    fn seal_record(
        &mut self,
        key: &LessSafeKey,
        arena: &mut Vec<u8>,
        kind: u8,
        content: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = arena.len();
        arena.extend_from_slice(&[DATA, 3, 3, 0, 0]);
        content(arena);
        arena.push(kind);
        let inner = start + HEADER_BYTES;
        let length = ((arena.len() - inner + TAG_BYTES) as u16).to_be_bytes();
        arena[start + 3..inner].copy_from_slice(&length);
        let header: [u8; HEADER_BYTES] = [DATA, 3, 3, length[0], length[1]];
        let nonce = self.nonce();
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut arena[inner..]);
        arena.extend_from_slice(tag.expect("a record is shorter than any cipher's limit").as_ref());
    }

    pub fn seal_message(&mut self, to: &mut Vec<u8>, kind: u8, message: &[u8]) {
        let key = self.cipher_key();
        self.seal_record(&key, to, kind, |to| to.extend_from_slice(message));
    }

    /// Only the first `taken` bytes of what [`Part::seal`] made of `data` bytes have left. Returns how
    /// much data is in the records that have begun to leave, and where these end. The numbers of the
    /// other records are used again: no one else has seen anything sealed with them.
    pub fn unseal(&mut self, data: usize, taken: usize) -> (usize, usize) {
        let begun = taken.div_ceil(SEALED_BYTES_MAX);
        *self.seq -= (data.div_ceil(DATA_BYTES_MAX) - begun) as u64;
        let data_taken = data.min(begun * DATA_BYTES_MAX);
        (data_taken, data_taken + begun * OVERHEAD_BYTES)
    }

    /// Tells the peer that nothing follows.
    pub fn seal_close(&mut self, to: &mut Vec<u8>) {
        self.seal_message(to, ALERT, &[WARNING, CLOSE_NOTIFY]);
    }

    /// Tells the peer of its mistake.
    pub fn seal_mistake(&mut self, to: &mut Vec<u8>, mistake: Mistake) {
        self.seal_message(to, ALERT, &[FATAL, mistake as u8]);
    }

    /// Announces a new key and changes to it. The announcement must leave before anything that is
    /// sealed later.
    pub fn seal_update(&mut self, to: &mut Vec<u8>) {
        self.seal_message(to, HANDSHAKE, &KEY_UPDATE);
        self.update();
    }

    /// Whether the key has sealed as many records as it should.
    pub fn is_worn(&self) -> bool {
        *self.seq >= RECORDS_PER_KEY
    }

    // --- receiving ---

    /// Opens the whole records in `input`, and moves their data to its front.
    pub fn open(&mut self, input: &mut [u8]) -> Opened {
        let mut opened = Opened::default();
        let mut key = self.cipher_key();
        let mut quiet = 0;
        while opened.end.is_none() {
            let record = match whole_record(&input[opened.used..], DATA) {
                Ok(None) => break,
                Ok(Some(bytes)) => opened.used..opened.used + bytes,
                Err(mistake) => {
                    opened.end = Some(End::Mistake(mistake));
                    break;
                }
            };
            opened.used = record.end;
            let data_before = opened.data;
            match self.open_record(&key, &mut input[record.clone()]) {
                Ok((DATA, length)) => {
                    let from = record.start + HEADER_BYTES;
                    input.copy_within(from..from + length, opened.data);
                    opened.data += length;
                }
                Ok((kind, length)) => {
                    let from = record.start + HEADER_BYTES;
                    opened.end = self.take_message(kind, &input[from..from + length], &mut opened);
                    key = self.cipher_key();
                }
                Err(mistake) => opened.end = Some(End::Mistake(mistake)),
            }
            quiet += u32::from(opened.data == data_before);
            if quiet > QUIET_RECORDS_MAX {
                opened.end = opened.end.or(Some(End::Mistake(Mistake::UnexpectedMessage)));
            }
        }
        opened
    }

    /// Opens a record in place. Returns the type and length of its content, which follows the header.
    fn open_record(
        &mut self,
        key: &LessSafeKey,
        record: &mut [u8],
    ) -> Result<(u8, usize), Mistake> {
        let (header, sealed) = record.split_at_mut(HEADER_BYTES);
        let header: [u8; HEADER_BYTES] = header.try_into().expect("split there");
        let nonce = self.nonce();
        let inner = key.open_in_place(nonce, Aad::from(header), sealed);
        let inner = inner.map_err(|_| Mistake::BadRecordMac)?;
        if inner.len() > INNER_BYTES_MAX {
            return Err(Mistake::RecordOverflow);
        }
        // Padding is zeros after the type.
        let last = inner.iter().rposition(|&byte| byte != 0).ok_or(Mistake::UnexpectedMessage)?;
        Ok((inner[last], last))
    }

    fn take_message(&mut self, kind: u8, content: &[u8], opened: &mut Opened) -> Option<End> {
        match (kind, content) {
            (HANDSHAKE, content) if content == KEY_UPDATE => self.update(),
            (HANDSHAKE, content) if content == KEY_UPDATE_REQUESTED => {
                self.update();
                opened.wants_update = true;
            }
            (ALERT, [_, CLOSE_NOTIFY]) => return Some(End::Closed),
            (ALERT, [WARNING, USER_CANCELED]) => {}
            (ALERT, [_, _]) => return Some(End::Alert),
            (ALERT, _) => return Some(End::Mistake(Mistake::DecodeError)),
            _ => return Some(End::Mistake(Mistake::UnexpectedMessage)),
        }
        None
    }
}

/// The length of the record at the front, header included, if all of it is there.
pub(super) fn whole_record(bytes: &[u8], expected: u8) -> Result<Option<usize>, Mistake> {
    match bytes.first() {
        Some(&kind) if kind != expected => Err(Mistake::UnexpectedMessage),
        _ => record_bytes(bytes),
    }
}

/// The same of a record of any type.
pub(super) fn record_bytes(bytes: &[u8]) -> Result<Option<usize>, Mistake> {
    if bytes.first().is_some_and(|kind| !KINDS.contains(kind)) {
        return Err(Mistake::UnexpectedMessage);
    }
    let Some(header) = bytes.get(..HEADER_BYTES) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if length > RECORD_BYTES_MAX {
        return Err(Mistake::RecordOverflow);
    }
    let whole = HEADER_BYTES + length;
    Ok((bytes.len() >= whole).then_some(whole))
}
