//! A doubly linked list through the entries of a slab, oldest to newest, which any member leaves in
//! O(1). An entry may be in several lists, with its own [`Links`] for each.

use super::paged::{NIL, Paged};

/// An entry's neighbours in one list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    pub older: u32,
    pub newer: u32,
}

impl Links {
    pub const ALONE: Self = Self { older: NIL, newer: NIL };
}

/// The two ends of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub oldest: u32,
    pub newest: u32,
}

impl List {
    pub const EMPTY: Self = Self { oldest: NIL, newest: NIL };

    /// The oldest entry's key.
    pub fn first(&self) -> Option<u32> {
        (self.oldest != NIL).then_some(self.oldest)
    }

    /// Makes `key` the newest. `links` picks the entry's links in this list.
    #[inline]
    pub fn push<T>(&mut self, key: u32, slab: &mut Paged<T>, links: impl Fn(&mut T) -> &mut Links) {
        *links(&mut slab[key]) = Links { older: self.newest, newer: NIL };
        match self.newest {
            NIL => self.oldest = key,
            newest => links(&mut slab[newest]).newer = key,
        }
        self.newest = key;
    }

    /// Takes `key` out. It must be in this list.
    #[inline]
    pub fn unlink<T>(
        &mut self,
        key: u32,
        slab: &mut Paged<T>,
        links: impl Fn(&mut T) -> &mut Links,
    ) {
        let Links { older, newer } = *links(&mut slab[key]);
        match older {
            NIL => self.oldest = newer,
            older => links(&mut slab[older]).newer = newer,
        }
        match newer {
            NIL => self.newest = older,
            newer => links(&mut slab[newer]).older = older,
        }
    }
}
