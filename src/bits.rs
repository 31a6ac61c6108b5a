//! What changing one of a set of flags says about it.

/// For every set of flags.
pub(crate) trait Change: bitflags::Flags {
    /// Sets the flag. Returns whether it was clear.
    #[inline]
    fn raise(&mut self, flag: Self) -> bool
    where
        Self: Copy,
    {
        let was_clear = !self.contains(flag);
        self.insert(flag);
        was_clear
    }

    /// Clears the flag. Returns whether it was set.
    #[inline]
    fn take(&mut self, flag: Self) -> bool
    where
        Self: Copy,
    {
        let was_set = self.contains(flag);
        self.remove(flag);
        was_set
    }
}

impl<F: bitflags::Flags> Change for F {}

#[cfg(test)]
mod tests {
    use super::*;

    bitflags::bitflags! {
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        struct Flags: u8 {
            const A = 1 << 0;
            const B = 1 << 1;
        }
    }

    #[test]
    fn a_change_tells_what_was_before_and_leaves_the_others() {
        let mut flags = Flags::B;
        assert_eq!([flags.raise(Flags::A), flags.raise(Flags::A)], [true, false]);
        assert_eq!(flags, Flags::A | Flags::B);
        assert_eq!([flags.take(Flags::A), flags.take(Flags::A)], [true, false]);
        assert_eq!(flags, Flags::B);
    }
}
