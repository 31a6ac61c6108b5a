//! Bytes of unfinished records: how many a worker holds, and which connection is to end when they are
//! too many.

use std::collections::VecDeque;

use super::Token;
use super::slot::Slot;

/// Bytes of unfinished records a worker holds. Over it, who began one first ends.
const CARRIED_BYTES_MAX: usize = 32 << 20;

/// Places a line has before it is looked through for those that were left.
pub(super) const LINE_LOOKED_AT: usize = 64;

/// All connections that have part of a record.
#[derive(Default)]
pub(super) struct Carriers {
    /// Bytes they hold.
    bytes: usize,
    /// In the order in which they began, with the place of each. Most leave theirs soon.
    line: VecDeque<(Token, u32)>,
    /// The last place that was given. None is 0.
    last_place: u32,
    /// The length at which the line is looked through.
    looked_at: usize,
}

impl Carriers {
    /// These bytes are carried no more.
    pub fn let_go(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// These are.
    pub fn hold(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub fn are_too_many(&self) -> bool {
        self.bytes > CARRIED_BYTES_MAX
    }

    /// A place behind all others.
    pub fn queue(&mut self, token: Token, slots: &mut [Slot]) -> u32 {
        if self.line.len() >= self.looked_at.max(LINE_LOOKED_AT) {
            self.line.retain(|&(token, place)| has_place(slots, token, place));
            self.looked_at = 2 * self.line.len();
        }
        self.last_place = self.last_place.wrapping_add(1).max(1);
        self.line.push_back((token, self.last_place));
        self.last_place
    }

    /// The one that began first, which leaves the line.
    pub fn pop(&mut self, slots: &mut [Slot]) -> Option<Token> {
        loop {
            let (token, place) = self.line.pop_front()?;
            if has_place(slots, token, place) {
                return Some(token);
            }
        }
    }

    #[cfg(test)]
    pub fn line_length(&self) -> usize {
        self.line.len()
    }
}

fn has_place(slots: &mut [Slot], token: Token, place: u32) -> bool {
    let common = slots.get_mut(token.slot as usize).and_then(Slot::common);
    common.is_some_and(|common| common.place(token.generation) == Some(place))
}
