//! Tables by index, with something for each connection. Sockets come first, by their slots; HTTP/2
//! streams have the indices after the driver's last slot.

use std::ops::{Index, IndexMut};

/// One thing of each socket and of each stream.
#[derive(Debug)]
pub struct Table<T> {
    /// Index of the first stream.
    split: u32,
    sockets: Vec<T>,
    streams: Vec<T>,
}

impl<T> Table<T> {
    /// An empty one. `slots`: of the driver's table.
    pub fn new(slots: u32) -> Self {
        Self { split: slots, sockets: Vec::new(), streams: Vec::new() }
    }

    /// The same with room for every socket: only what is used takes memory, and growing by doubling
    /// would leave as much behind.
    pub fn with_room(slots: u32) -> Self {
        Self { sockets: Vec::with_capacity(slots as usize), ..Self::new(slots) }
    }

    /// Whether the index is a stream's.
    #[inline]
    pub fn is_stream(&self, index: u32) -> bool {
        index >= self.split
    }

    /// Index of the next stream that was never used.
    pub fn next_stream(&self) -> u32 {
        self.split + self.streams.len() as u32
    }

    /// Makes the table long enough for this index.
    pub fn reach(&mut self, index: u32, make: impl FnMut() -> T) {
        let (list, place) = match index.checked_sub(self.split) {
            None => (&mut self.sockets, index),
            Some(place) => (&mut self.streams, place),
        };
        let needed = place as usize + 1;
        if list.len() < needed {
            list.resize_with(needed, make);
        }
    }

    /// What is at the index.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        match index.checked_sub(self.split) {
            None => self.sockets.get(index as usize),
            Some(place) => self.streams.get(place as usize),
        }
    }

    /// The same, to be changed.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match index.checked_sub(self.split) {
            None => self.sockets.get_mut(index as usize),
            Some(place) => self.streams.get_mut(place as usize),
        }
    }

    /// How many indices there are.
    pub fn len(&self) -> u32 {
        (self.sockets.len() + self.streams.len()) as u32
    }

    /// The index at this place, counted over sockets and streams.
    pub fn index_at(&self, place: u32) -> u32 {
        let sockets = self.sockets.len() as u32;
        if place < sockets { place } else { self.split + (place - sockets) }
    }

    /// Those in use or once in use, from this one on.
    pub fn indices_from(&self, from: u32) -> impl Iterator<Item = u32> + use<T> {
        let streams = self.split.max(from)..self.next_stream();
        (from..self.sockets.len() as u32).chain(streams)
    }

    /// Those in use or once in use.
    pub fn indices(&self) -> impl Iterator<Item = u32> + use<T> {
        self.indices_from(0)
    }

    /// Everything, in the order of the indices.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.sockets.iter().chain(&self.streams)
    }
}

impl<T> Index<u32> for Table<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: u32) -> &T {
        match index.checked_sub(self.split) {
            None => &self.sockets[index as usize],
            Some(place) => &self.streams[place as usize],
        }
    }
}

impl<T> IndexMut<u32> for Table<T> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        match index.checked_sub(self.split) {
            None => &mut self.sockets[index as usize],
            Some(place) => &mut self.streams[place as usize],
        }
    }
}

/// What a connection's session may know of what its streams share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CarrierView {
    /// Bytes of DATA that its peer takes on all streams together.
    pub window: u32,
    /// Streams it has begun to carry and DATA frames it was sent for them, modulo 2^32.
    pub exchanges: u32,
}

/// What the connection's session may know of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamView {
    pub index: u32,
    /// Whether its peer sends no more.
    pub has_ended: bool,
    /// Whether its answer has begun.
    pub is_answered: bool,
    /// Bytes of DATA received for which its peer has not been given new window yet.
    pub received: u16,
    /// Bytes of DATA that its peer takes; negative after the peer has reduced it.
    pub window: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_streams_grow_apart_from_each_other() {
        let mut table = Table::new(100);
        table.reach(1, || 's');
        table.reach(table.next_stream(), || 'h');
        table.reach(table.next_stream(), || 'h');
        assert_eq!(table.indices().collect::<Vec<_>>(), [0, 1, 100, 101]);
        assert_eq!(table.indices_from(1).collect::<Vec<_>>(), [1, 100, 101]);
        assert_eq!(table.indices_from(101).collect::<Vec<_>>(), [101]);
        assert_eq!(
            (0..table.len()).map(|at| table.index_at(at)).collect::<Vec<_>>(),
            [0, 1, 100, 101]
        );
        assert_eq!((table[1], table[101], table.get(2), table.get(102)), ('s', 'h', None, None));
        assert!(!table.is_stream(99) && table.is_stream(100));
    }
}
