//! The Huffman code of RFC 7541 appendix B. It is canonical: the codes of one length are
//! consecutive, in the order of their symbols, and each length continues where the one before it
//! ended. So the lengths define all of it.

use super::HpackError;

/// The symbol for the end of a string. Its code must not be in a string.
const EOS: u16 = 256;

const SYMBOLS: usize = 257;
const SHORTEST: usize = 5;
const LONGEST: usize = 30;

/// The length of each symbol's code, in bits.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// The codes of one length, and of all shorter ones.
#[derive(Clone, Copy)]
struct Row {
    /// The first 32 bits of any such code are below this.
    end: u64,
    /// The first of them, as a number.
    first: u32,
    /// Where its symbol is among [`BY_CODE`].
    place: u32,
}

/// By length.
static ROWS: [Row; LONGEST + 1] = tables().0;
/// All symbols in the order of their codes.
static BY_CODE: [u16; SYMBOLS] = tables().1;

const fn tables() -> ([Row; LONGEST + 1], [u16; SYMBOLS]) {
    let mut rows = [Row { end: 0, first: 0, place: 0 }; LONGEST + 1];
    let mut by_code = [0; SYMBOLS];
    let (mut code, mut place, mut length) = (0_u64, 0, SHORTEST);
    while length <= LONGEST {
        rows[length].first = code as u32;
        rows[length].place = place as u32;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                by_code[place] = symbol as u16;
                place += 1;
                code += 1;
            }
            symbol += 1;
        }
        rows[length].end = code << (32 - length);
        code <<= 1;
        length += 1;
    }
    (rows, by_code)
}

/// Appends what `bytes` encode: at most eight fifths of their length.
///
/// # Errors
/// The string contains the code of the end, or its padding is not the beginning of that (RFC 7541
/// section 5.2).
pub fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    let mut bytes = bytes.iter();
    // Bits that are not decoded yet, from the highest on, and how many they are.
    let (mut bits, mut count) = (0_u64, 0_usize);
    loop {
        while count <= 32
            && let Some(&byte) = bytes.next()
        {
            bits |= u64::from(byte) << (56 - count);
            count += 8;
        }
        if count == 0 {
            return Ok(());
        }
        // Behind the end is what a padding goes on with.
        let window = (bits >> 32) as u32 | u32::MAX.checked_shr(count as u32).unwrap_or(0);
        let length = (SHORTEST..LONGEST).find(|&length| u64::from(window) < ROWS[length].end);
        let length = length.unwrap_or(LONGEST);
        if length > count {
            let is_padding = count < 8 && window == u32::MAX;
            return if is_padding { Ok(()) } else { Err(HpackError::Huffman) };
        }
        let row = ROWS[length];
        let symbol = BY_CODE[((window >> (32 - length)) - row.first + row.place) as usize];
        if symbol == EOS {
            return Err(HpackError::Huffman);
        }
        out.push(symbol as u8);
        bits <<= length;
        count -= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = Vec::new();
        decode(bytes, &mut out).map(|()| out)
    }

    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for &byte in text {
            let length = usize::from(LENGTHS[usize::from(byte)]);
            let row = ROWS[length];
            let place = BY_CODE.iter().position(|&symbol| symbol == u16::from(byte));
            let code = row.first + place.expect("each byte has a code") as u32 - row.place;
            bits += &format!("{code:0length$b}");
        }
        bits += &"1".repeat((8 - bits.len() % 8) % 8);
        let byte = |digits: &[u8]| digits.iter().fold(0, |byte, digit| byte << 1 | (digit - b'0'));
        bits.as_bytes().chunks(8).map(byte).collect()
    }

    #[test]
    fn the_examples_of_the_rfc_are_decoded() {
        for (hex, text) in [
            (
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..],
                "www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x64, 0x02], "302"),
            (&[], ""),
        ] {
            assert_eq!(decoded(hex).as_deref(), Ok(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn every_byte_survives_the_round_trip() {
        let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        assert_eq!(decoded(&encoded(&all)), Ok(all.clone()));
        for byte in all {
            assert_eq!(decoded(&encoded(&[byte])), Ok(vec![byte]), "{byte}");
        }
    }

    #[test]
    fn a_padding_that_is_too_long_or_no_ones_and_the_end_itself_are_refused() {
        assert_eq!(decoded(&[0b0001_1111]), Ok(b"a".to_vec()));
        assert_eq!(decoded(&[0b0001_1110]), Err(HpackError::Huffman), "a zero");
        assert_eq!(decoded(&[0b0001_1111, 0xff]), Err(HpackError::Huffman), "eleven bits");
        assert_eq!(decoded(&[0xff]), Err(HpackError::Huffman), "eight bits");
        assert_eq!(decoded(&[0xff; 4]), Err(HpackError::Huffman), "the end");
    }
}
