//! What a completion is about, packed into the 64 bits the kernel carries there and back:
//! kind (8 bits), generation (32 bits), slot (24 bits).

use crate::ring::Token;

const SLOT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 32;
const KIND_SHIFT: u32 = SLOT_BITS + GENERATION_BITS;

/// How many slots fit the packing.
pub(super) const SLOTS_MAX: u32 = 1 << SLOT_BITS;

/// Which operation completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// The slot field is the index of the accept cell (0 for multishot).
    Accept = 1,
    Recv,
    Send,
    PollOut,
    Shutdown,
    Close,
    Cancel,
    Bell,
    /// The doorbell of another worker, whose number is in the slot field.
    Ring,
    /// Something can be received, bytes or the end.
    PollIn,
}

/// The doorbell's user data: the same on every ring, so that any thread can ring any worker.
pub(super) const BELL: u64 = pack(Kind::Bell, Token { slot: 0, generation: 0 });

/// Packs `kind` and `token`.
pub(super) const fn pack(kind: Kind, token: Token) -> u64 {
    debug_assert!(token.slot < SLOTS_MAX);
    (kind as u64) << KIND_SHIFT | (token.generation as u64) << SLOT_BITS | token.slot as u64
}

/// The reverse of [`pack`]; `None` for what this driver never packs.
pub(super) fn unpack(user_data: u64) -> Option<(Kind, Token)> {
    let kind = match user_data >> KIND_SHIFT {
        1 => Kind::Accept,
        2 => Kind::Recv,
        3 => Kind::Send,
        4 => Kind::PollOut,
        5 => Kind::Shutdown,
        6 => Kind::Close,
        7 => Kind::Cancel,
        8 => Kind::Bell,
        9 => Kind::Ring,
        10 => Kind::PollIn,
        _ => return None,
    };
    let slot = (user_data & u64::from(SLOTS_MAX - 1)) as u32;
    let generation = (user_data >> SLOT_BITS & u64::from(u32::MAX)) as u32;
    Some((kind, Token { slot, generation }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_slot_and_generation_survives_the_packing() {
        let kinds = [
            Kind::Accept,
            Kind::Recv,
            Kind::Send,
            Kind::PollOut,
            Kind::Shutdown,
            Kind::Close,
            Kind::Cancel,
            Kind::Bell,
            Kind::Ring,
            Kind::PollIn,
        ];
        for kind in kinds {
            for slot in [0, 1, SLOTS_MAX - 1] {
                for generation in [0, 1, u32::MAX] {
                    let token = Token { slot, generation };
                    assert_eq!(unpack(pack(kind, token)), Some((kind, token)));
                }
            }
        }
        assert_eq!(unpack(0), None);
        assert_eq!(unpack(u64::MAX), None);
    }
}
