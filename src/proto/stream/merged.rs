//! Tokens of a stream that has ended, merged into one event. Its data is theirs in order, and it knows
//! where each of them was, so that a reader with a cursor in its middle gets the text after it.

/// Where the tokens of a merged event were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The place in the log of the first one.
    first_seq: u64,
    tokens: Box<[Token]>,
}

/// Where one of the tokens lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token {
    /// Its place in the log, relative to that of the first one.
    place: u32,
    /// Where it ends in the data.
    end: u32,
}

impl Merged {
    /// Tokens with these places in the log and lengths. `None` if they are too far apart.
    pub fn new(tokens: impl Iterator<Item = (u64, usize)>) -> Option<Self> {
        let mut tokens = tokens.peekable();
        let first_seq = tokens.peek()?.0;
        let mut end = 0;
        let of = |(seq, length): (u64, usize)| {
            end += length;
            let place = u32::try_from(seq.checked_sub(first_seq)?).ok()?;
            Some(Token { place, end: u32::try_from(end).ok()? })
        };
        Some(Self { first_seq, tokens: tokens.map(of).collect::<Option<_>>()? })
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.tokens.len() as u64
    }

    /// The place in the log of the first one.
    pub fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// The place in the log of one of them, by its number from 0.
    pub fn seq_of(&self, number: u64) -> Option<u64> {
        let token = self.tokens.get(usize::try_from(number).ok()?)?;
        Some(self.first_seq + u64::from(token.place))
    }

    /// Each token's place in the log and length.
    pub fn tokens(&self) -> impl Iterator<Item = (u64, usize)> {
        let begins = std::iter::once(0).chain(self.tokens.iter().map(|token| token.end));
        let of = |(token, begin): (&Token, u32)| {
            (self.first_seq + u64::from(token.place), (token.end - begin) as usize)
        };
        self.tokens.iter().zip(begins).map(of)
    }

    /// How many tokens, and how many bytes, a reader has that has read up to this place in the log.
    pub(crate) fn read_by(&self, seq: u64) -> (usize, usize) {
        let count =
            self.tokens.partition_point(|token| self.first_seq + u64::from(token.place) <= seq);
        let bytes = count.checked_sub(1).map_or(0, |last| self.tokens[last].end as usize);
        (count, bytes)
    }

    /// Bytes it takes in memory.
    pub(crate) fn held_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_has_read_the_tokens_up_to_it() {
        let tokens = [(10, 3), (12, 0), (13, 2)];
        let merged = Merged::new(tokens.into_iter()).expect("near enough");
        assert_eq!(merged.tokens().collect::<Vec<_>>(), tokens);
        let read = |seq| merged.read_by(seq);
        assert_eq!(
            [9, 10, 11, 12, 13, 99].map(read),
            [(0, 0), (1, 3), (1, 3), (2, 3), (3, 5), (3, 5)]
        );
        assert_eq!([0, 2, 3].map(|number| merged.seq_of(number)), [Some(10), Some(13), None]);
        assert_eq!(Merged::new([(1, 1), (1 + (1 << 32), 1)].into_iter()), None);
    }
}
