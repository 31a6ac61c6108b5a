//! A connection's state: its handshake, or its keys.

use std::ops::Range;

use bitflags::bitflags;

use super::handshake::{Handover, Outcome, Rustls};
use super::keys::{Keys, OpeningKey};
use super::record::{DATA_BYTES_MAX, Part};
use super::schedule::Cipher;
use crate::bits::Change;

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
    /// `None` before the first whole record is processed, so that a silent or waiting peer costs little.
    pub rustls: Option<Box<Rustls>>,
    /// The generation in the token of the last completion.
    pub generation: u32,
    /// A record of it waits to be processed.
    pub is_queued: bool,
    /// The peer has sent its last byte, of which the worker hears once that record is processed.
    pub is_at_end: bool,
    /// Bytes of the records processed.
    pub taken: usize,
}

const _: () = assert!(size_of::<Handshake>() <= 40, "a storm brings thousands at once");

/// A connection whose records are ours.
pub(super) struct Open<const KEY: usize, const SECRET: usize> {
    keys: Keys<KEY, SECRET>,
    common: Common,
}

const _: () = assert!(size_of::<Open<16, 32>>() == 128, "an idle connection has no more than this");

/// A connection whose records are rustls'.
pub(super) struct Tls12 {
    pub rustls: Box<Rustls>,
    common: Common,
}

/// What all connections with TLS have.
#[derive(Default)]
pub(super) struct Common {
    more: Option<Box<More>>,
    /// The place among the sends of a turn of the driver below, when it was last sent something.
    pub sent_at: u32,
    pub flags: Flags,
}

/// What only a busy connection has.
#[derive(Default)]
pub(super) struct More {
    generation: u32,
    /// The place in `Carriers`; 0: none.
    place: u32,
    /// Received bytes that are not a whole record yet.
    carry: Box<[u8]>,
    /// Sealed bytes that must leave before anything else.
    pub pending: Vec<u8>,
}

bitflags! {
    /// Facts about a connection.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct Flags: u8 {
        /// The worker waits for `Writable`.
        const WANTS_ROOM = 1 << 0;
        /// The socket was full.
        const BLOCKED = 1 << 1;
        /// Receiving has ended, and the worker knows.
        const ENDED = 1 << 2;
        /// The driver below has to be told to stop receiving.
        const STOP = 1 << 3;
        /// It has to be shut down when all bytes have left.
        const SHUT = 1 << 4;
        /// The peer was sent close_notify.
        const CLOSED = 1 << 5;
        /// The pending bytes announce a new key.
        const UPDATING = 1 << 6;
        /// The worker believes that the last byte of its data has not left: it is told once the record that
        /// ends with it has left whole.
        const OWES_REPORT = 1 << 7;
    }
}

impl Common {
    pub fn more(&mut self, generation: u32) -> &mut More {
        let more = self.more.get_or_insert_default();
        more.generation = generation;
        more
    }

    /// The place in `Carriers`, if it has one and is of this generation.
    pub fn place(&self, generation: u32) -> Option<u32> {
        let more = self.more.as_ref().filter(|more| more.generation == generation);
        more.map(|more| more.place).filter(|place| *place > 0)
    }

    pub fn pending(&self) -> &[u8] {
        self.more.as_ref().map_or(&[], |more| &more.pending)
    }

    pub fn carried(&self) -> usize {
        self.more.as_ref().map_or(0, |more| more.carry.len())
    }

    pub fn take_carry(&mut self) -> Box<[u8]> {
        self.more.as_mut().map(|more| std::mem::take(&mut more.carry)).unwrap_or_default()
    }

    /// Carries these bytes, at this place of the line.
    pub fn carry(&mut self, generation: u32, bytes: Box<[u8]>, place: u32) {
        let more = self.more(generation);
        (more.carry, more.place) = (bytes, place);
    }

    /// Carries nothing any more, and leaves the line.
    pub fn carry_nothing(&mut self) {
        if let Some(more) = &mut self.more {
            more.place = 0;
        }
    }

    /// The first `left` pending bytes have left.
    pub fn drop_pending(&mut self, left: usize) {
        if let Some(more) = &mut self.more {
            more.pending.drain(..left);
            if more.pending.is_empty() {
                self.flags.remove(Flags::UPDATING);
            }
        }
        self.free_idle();
    }

    /// Frees what an idle connection does not need.
    pub fn free_idle(&mut self) {
        self.more.take_if(|more| more.carry.is_empty() && more.pending.is_empty());
    }
}

impl Slot {
    /// The slot after a handshake; `None` if it agreed on a cipher we do not know.
    pub fn after_handshake(common: Common, rustls: Box<Rustls>, outcome: Outcome) -> Option<Self> {
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

    /// Opens its records, if they are ours, with the place for its key.
    pub fn receiver<'a>(&'a mut self, at: u32, opening: &'a mut OpeningKey) -> Option<Part<'a>> {
        match self {
            Self::Aes128(of) => Some(of.keys.receive(at, opening)),
            Self::Aes256(of) => Some(of.keys.receive(at, opening)),
            Self::ChaCha(of) => Some(of.keys.receive(at, opening)),
            Self::Plain | Self::Handshake(_) | Self::Tls12(_) => None,
        }
    }

    /// Seals bytes of the arena, and appends the records to it. Returns how many bytes were sealed;
    /// `None` if the key may seal no more. For TLS 1.2 it is one record at most, because rustls can't
    /// take back what it has sealed.
    pub fn seal(&mut self, arena: &mut Vec<u8>, data: Range<usize>) -> Option<usize> {
        if let Self::Tls12(of) = self {
            let data = arena[data.start..data.end.min(data.start + DATA_BYTES_MAX)].to_vec();
            return of.rustls.seal(&data, arena).is_ok().then_some(data.len());
        }
        if let Some(mut sender) = self.sender() {
            sender.seal(arena, data.clone());
        }
        Some(data.len())
    }

    /// The last that the peer is sent: that nothing follows.
    pub fn add_close(&mut self, generation: u32) {
        let mut close = Vec::new();
        self.seal_close(&mut close);
        if let Some(common) = self.common().filter(|_| !close.is_empty()) {
            common.more(generation).pending.extend(close);
        }
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
