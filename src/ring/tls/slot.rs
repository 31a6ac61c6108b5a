//! A connection's state: its handshake, or its keys.

use super::handshake::{Handover, Outcome, Rustls};
use super::keys::Keys;
use super::record::{DATA_BYTES_MAX, Part};
use super::schedule::Cipher;

/// A slot of the driver below, as this layer sees it.
pub(super) enum Slot {
    /// Nothing, or a connection without TLS.
    Plain,
    Handshake(Box<Handshake>),
    Aes128(Box<Open<16, 32>>),
    Aes256(Box<Open<32, 48>>),
    ChaCha(Box<Open<32, 32>>),
    Tls12(Box<Tls12>),
}

const _: () = assert!(size_of::<Slot>() == 16, "every slot has one, with TLS or without");

/// A handshake under way.
#[derive(Default)]
pub(super) struct Handshake {
    pub common: Common,
    /// `None` before the first whole record, so that a silent peer costs little.
    pub rustls: Option<Rustls>,
    /// The generation in the token of the last completion.
    pub generation: u32,
    /// A record of it waits to be processed.
    pub is_queued: bool,
    /// Bytes of the records processed.
    pub taken: usize,
}

/// A connection whose records are ours.
pub(super) struct Open<const KEY: usize, const SECRET: usize> {
    keys: Keys<KEY, SECRET>,
    common: Common,
}

const _: () = assert!(size_of::<Open<16, 32>>() == 160, "an idle connection has no more than this");

/// A connection whose records are rustls'.
pub(super) struct Tls12 {
    pub rustls: Rustls,
    common: Common,
}

/// What all connections with TLS have.
#[derive(Default)]
pub(super) struct Common {
    more: Option<Box<More>>,
    /// The turn of the driver below in which it was last sent something, and the place among the
    /// sends of that turn.
    sent_turn: u32,
    sent_at: u32,
    pub flags: Flags,
}

/// What only a busy connection has.
#[derive(Default)]
pub(super) struct More {
    pub generation: u32,
    /// Received bytes that are not a whole record yet.
    pub carry: Vec<u8>,
    /// Sealed bytes that must leave before anything else.
    pub pending: Vec<u8>,
}

/// Facts about a connection, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(u8);

impl Flags {
    /// The worker waits for `Writable`.
    pub const WANTS_ROOM: u8 = 1 << 0;
    /// The socket was full.
    pub const BLOCKED: u8 = 1 << 1;
    /// Receiving has ended, and the worker knows.
    pub const ENDED: u8 = 1 << 2;
    /// The driver below has to be told to stop receiving.
    pub const STOP: u8 = 1 << 3;
    /// It has to be shut down when all bytes have left.
    pub const SHUT: u8 = 1 << 4;
    /// The peer was sent close_notify.
    pub const CLOSED: u8 = 1 << 5;
    /// The pending bytes announce a new key.
    pub const UPDATING: u8 = 1 << 6;
    /// It is in `Input::carriers`.
    pub const CARRIES: u8 = 1 << 7;

    pub fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    pub fn set(&mut self, bit: u8) {
        self.0 |= bit;
    }

    /// Clears the bit. Returns whether it was set.
    pub fn take(&mut self, bit: u8) -> bool {
        let was = self.has(bit);
        self.0 &= !bit;
        was
    }

    /// Sets the bit. Returns whether it was clear.
    pub fn raise(&mut self, bit: u8) -> bool {
        let was_clear = !self.has(bit);
        self.0 |= bit;
        was_clear
    }
}

impl Common {
    pub fn more(&mut self, generation: u32) -> &mut More {
        let more = self.more.get_or_insert_default();
        more.generation = generation;
        more
    }

    /// Whether there are carried or pending bytes, and they belong to this generation.
    pub fn is_of(&self, generation: u32) -> bool {
        self.more.as_ref().is_some_and(|more| more.generation == generation)
    }

    pub fn pending(&self) -> &[u8] {
        self.more.as_ref().map_or(&[], |more| &more.pending)
    }

    pub fn carried(&self) -> usize {
        self.more.as_ref().map_or(0, |more| more.carry.len())
    }

    pub fn take_carry(&mut self) -> Option<Vec<u8>> {
        self.more.as_mut().map(|more| std::mem::take(&mut more.carry)).filter(|it| !it.is_empty())
    }

    /// The first `left` pending bytes have left.
    pub fn drop_pending(&mut self, left: usize) {
        if let Some(more) = &mut self.more {
            more.pending.drain(..left);
            if more.pending.is_empty() {
                self.flags.take(Flags::UPDATING);
            }
        }
        self.free_idle();
    }

    /// Frees what an idle connection does not need.
    pub fn free_idle(&mut self) {
        self.more.take_if(|more| more.carry.is_empty() && more.pending.is_empty());
    }

    /// Its place among the sends of this turn, if it was sent something.
    pub fn sent_at(&self, turn: u32) -> Option<usize> {
        (self.sent_turn == turn).then_some(self.sent_at as usize)
    }

    pub fn note_sent(&mut self, turn: u32, at: usize) {
        (self.sent_turn, self.sent_at) = (turn, at as u32);
    }
}

impl Slot {
    /// The slot after a handshake; `None` if it agreed on a cipher we do not know.
    pub fn after_handshake(common: Common, rustls: Rustls, outcome: Outcome) -> Option<Self> {
        if outcome.is_tls12 {
            return Some(Self::Tls12(Box::new(Tls12 { rustls, common })));
        }
        let handover = rustls.hand_over().ok()?;
        Some(match handover.cipher {
            Cipher::Aes128 => Self::Aes128(Open::new(&handover, common)?),
            Cipher::Aes256 => Self::Aes256(Open::new(&handover, common)?),
            Cipher::ChaCha => Self::ChaCha(Open::new(&handover, common)?),
        })
    }

    pub fn common(&mut self) -> Option<&mut Common> {
        Some(match self {
            Self::Plain => return None,
            Self::Handshake(of) => &mut of.common,
            Self::Aes128(of) => &mut of.common,
            Self::Aes256(of) => &mut of.common,
            Self::ChaCha(of) => &mut of.common,
            Self::Tls12(of) => &mut of.common,
        })
    }

    /// Seals its records, if they are ours.
    pub fn sender(&mut self) -> Option<Part<'_>> {
        match self {
            Self::Aes128(of) => Some(of.keys.send()),
            Self::Aes256(of) => Some(of.keys.send()),
            Self::ChaCha(of) => Some(of.keys.send()),
            Self::Plain | Self::Handshake(_) | Self::Tls12(_) => None,
        }
    }

    /// Opens its records, if they are ours.
    pub fn receiver(&mut self) -> Option<Part<'_>> {
        match self {
            Self::Aes128(of) => Some(of.keys.receive()),
            Self::Aes256(of) => Some(of.keys.receive()),
            Self::ChaCha(of) => Some(of.keys.receive()),
            Self::Plain | Self::Handshake(_) | Self::Tls12(_) => None,
        }
    }

    /// Seals bytes of the arena, and appends the records to it. Returns how many bytes were sealed.
    /// For TLS 1.2 that is one record at most, because rustls can't take back what it has sealed.
    pub fn seal(&mut self, arena: &mut Vec<u8>, from: usize, to: usize) -> usize {
        if let Self::Tls12(of) = self {
            let data = arena[from..to.min(from + DATA_BYTES_MAX)].to_vec();
            let sealed = of.rustls.seal(&data, arena).is_ok();
            return if sealed { data.len() } else { 0 };
        }
        if let Some(mut sender) = self.sender() {
            sender.seal(arena, from..to);
        }
        to - from
    }

    /// Tells the peer that nothing follows, once.
    pub fn seal_close(&mut self, to: &mut Vec<u8>) {
        let is_open = !matches!(self, Self::Plain | Self::Handshake(_));
        let is_first = self.common().is_some_and(|common| common.flags.raise(Flags::CLOSED));
        if !is_open || !is_first {
            return;
        }
        match self {
            // If it fails, the connection is closed without it.
            Self::Tls12(of) => drop(of.rustls.seal_close(to)),
            _ => drop(self.sender().map(|mut sender| sender.seal_close(to))),
        }
    }
}

impl<const KEY: usize, const SECRET: usize> Open<KEY, SECRET> {
    fn new(handover: &Handover, common: Common) -> Option<Box<Self>> {
        let Handover { send, receive, .. } = handover;
        let keys = Keys::new((&send.0, send.1), (&receive.0, receive.1))?;
        Some(Box::new(Self { keys, common }))
    }
}
