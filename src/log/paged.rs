//! A slab in pages, addressed by `u32`. A plain slab doubles: at a million channels that copies
//! 80 MB in one go, which every publisher would feel, and holds both copies meanwhile.

use std::ops::{Index, IndexMut};

use slab::Slab;

/// No index.
pub(super) const NIL: u32 = u32::MAX;

const PAGE_BITS: u32 = 10;
const PAGE_LEN: usize = 1 << PAGE_BITS;
const PAGES_MAX: usize = 1 << (u32::BITS - PAGE_BITS);

#[derive(Debug)]
pub(super) struct Paged<T> {
    pages: Vec<Slab<T>>,
    /// Pages with room; new values go to the last of them.
    open: Vec<u32>,
    len: usize,
}

impl<T> Paged<T> {
    pub fn new() -> Self {
        Self { pages: Vec::new(), open: Vec::new(), len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// One past the highest index that may be in use.
    pub fn index_end(&self) -> u32 {
        (self.pages.len() << PAGE_BITS) as u32
    }

    pub fn insert(&mut self, value: T) -> u32 {
        let page_index = match self.open.last() {
            Some(&page) => page,
            None => self.open_page(),
        };
        let page = &mut self.pages[page_index as usize];
        let slot = page.insert(value) as u32;
        if page.len() == PAGE_LEN {
            self.open.pop();
        }
        self.len += 1;
        page_index << PAGE_BITS | slot
    }

    /// Takes out the value at an index, which must be in use.
    pub fn remove(&mut self, index: u32) -> T {
        let (page_index, slot) = split(index);
        let page = &mut self.pages[page_index];
        if page.len() == PAGE_LEN {
            self.open.push(page_index as u32);
        }
        self.len -= 1;
        page.remove(slot)
    }

    pub fn try_at(&self, index: u32) -> Option<&T> {
        let (page, slot) = split(index);
        self.pages.get(page)?.get(slot)
    }

    /// All values with their indices, in order of index.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let pages = (0..).zip(&self.pages);
        pages.flat_map(|(page, slab)| {
            slab.iter().map(move |(slot, value)| (join(page, slot), value))
        })
    }

    /// As [`Paged::iter`].
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        let pages = (0..).zip(&mut self.pages);
        pages.flat_map(|(page, slab)| {
            slab.iter_mut().map(move |(slot, value)| (join(page, slot), value))
        })
    }

    fn open_page(&mut self) -> u32 {
        // The very last index is `NIL`, so the last page stays unused.
        assert!(self.pages.len() + 1 < PAGES_MAX, "what the log holds is capped far below");
        let page = self.pages.len() as u32;
        self.pages.push(Slab::with_capacity(PAGE_LEN));
        self.open.push(page);
        page
    }
}

impl<T> Index<u32> for Paged<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: u32) -> &T {
        let (page, slot) = split(index);
        &self.pages[page][slot]
    }
}

impl<T> IndexMut<u32> for Paged<T> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        let (page, slot) = split(index);
        &mut self.pages[page][slot]
    }
}

fn split(index: u32) -> (usize, usize) {
    ((index >> PAGE_BITS) as usize, index as usize & (PAGE_LEN - 1))
}

fn join(page: u32, slot: usize) -> u32 {
    page << PAGE_BITS | slot as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain map, over several pages that fill and empty.
    #[test]
    fn values_stay_at_their_indices_while_others_come_and_go() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut paged, mut model) = (Paged::new(), std::collections::BTreeMap::new());
        for round in 0..40_000_u32 {
            let growing = (round / 10_000) % 2 == 0;
            if random.u8(..10) < if growing { 8 } else { 2 } {
                assert_eq!(model.insert(paged.insert(round), round), None);
            } else if let Some((&index, _)) = model.range(random.u32(0..4096)..).next() {
                assert_eq!(Some(paged.remove(index)), model.remove(&index));
            }
            assert_eq!(paged.len(), model.len());
        }
        assert!(paged.index_end() > 2 * PAGE_LEN as u32);
        let all: Vec<_> = model.iter().map(|(&index, &value)| (index, value)).collect();
        assert_eq!(paged.iter().map(|(index, &value)| (index, value)).collect::<Vec<_>>(), all);
        assert!(all.iter().all(|&(index, value)| paged[index] == value));
    }
}
