//! The decoder.

use super::table::{Dynamic, STATIC};
use super::{HpackError, huffman};

/// The largest table: every encoder may use it before it knows our settings (RFC 9113 section 6.5.2).
const TABLE_BYTES_MAX: usize = 4096;

/// Bits of the largest number: no length or index here needs more.
const INTEGER_BITS_MAX: u32 = 28;

/// The state of one connection's decoder.
#[derive(Debug)]
pub struct Decoder {
    table: Dynamic,
}

/// Room for the strings of one field: one per worker, used again for every block.
#[derive(Debug, Default)]
pub struct Scratch {
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: Dynamic::new(TABLE_BYTES_MAX) }
    }
}

impl Decoder {
    /// The peer has acknowledged that it may have no table: frees its memory. The peer's next block
    /// must say so, too (RFC 7541 section 4.2). A peer that goes on with a table instead is still
    /// served.
    pub fn drop_table(&mut self) {
        self.table = Dynamic::new(TABLE_BYTES_MAX);
    }

    /// Decodes a field block, and hands on each field, name and value.
    ///
    /// # Errors
    /// A malformed block, or an error of `take`. Both end the connection.
    pub fn decode<E: From<HpackError>>(
        &mut self,
        block: &[u8],
        scratch: &mut Scratch,
        mut take: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut input = Input(block);
        while let Some(size) = input.size_update()? {
            if size > TABLE_BYTES_MAX {
                return Err(HpackError::TableSize.into());
            }
            self.table.set_max(size);
        }
        while let Some(first) = input.peek() {
            match first {
                0x80.. => {
                    let (name, value) = self.entry(input.integer(7)?)?;
                    take(name, value)?;
                }
                0x40..0x80 => {
                    let (name, value) = self.literal(&mut input, 6, scratch)?;
                    take(name, value)?;
                    self.table.add(&scratch.name, &scratch.value);
                }
                0x20..0x40 => return Err(HpackError::TableSize.into()),
                0x00..0x20 => {
                    let (name, value) = self.literal(&mut input, 4, scratch)?;
                    take(name, value)?;
                }
            }
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        let place = index.checked_sub(1).ok_or(HpackError::Index)?;
        if let Some((name, value)) = STATIC.get(place) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        self.table.get(place - STATIC.len()).ok_or(HpackError::Index)
    }

    /// A field whose value, and perhaps its name, is spelled out.
    fn literal<'s>(
        &self,
        input: &mut Input<'_>,
        prefix: u32,
        scratch: &'s mut Scratch,
    ) -> Result<(&'s [u8], &'s [u8]), HpackError> {
        let Scratch { name, value } = scratch;
        name.clear();
        value.clear();
        match input.integer(prefix)? {
            0 => input.string(name)?,
            index => name.extend_from_slice(self.entry(index)?.0),
        }
        input.string(value)?;
        Ok((name, value))
    }
}

/// The unread rest of a block.
struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn byte(&mut self) -> Result<u8, HpackError> {
        let (&byte, rest) = self.0.split_first().ok_or(HpackError::Truncated)?;
        self.0 = rest;
        Ok(byte)
    }

    /// A new size for the table; only at the beginning of a block (RFC 7541 section 4.2).
    fn size_update(&mut self) -> Result<Option<usize>, HpackError> {
        match self.peek() {
            Some(0x20..0x40) => self.integer(5).map(Some),
            _ => Ok(None),
        }
    }

    /// A number that begins in the low `prefix` bits of the next byte (RFC 7541 section 5.1).
    fn integer(&mut self, prefix: u32) -> Result<usize, HpackError> {
        let full = (1 << prefix) - 1;
        let mut value = usize::from(self.byte()?) & full;
        if value < full {
            return Ok(value);
        }
        for shift in (0..INTEGER_BITS_MAX).step_by(7) {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(HpackError::IntegerTooLarge)
    }

    /// Appends a string (RFC 7541 section 5.2).
    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), HpackError> {
        let is_huffman = self.peek().is_some_and(|byte| byte & 0x80 != 0);
        let length = self.integer(7)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(HpackError::Truncated)?;
        self.0 = rest;
        if is_huffman {
            return huffman::decode(bytes, out);
        }
        out.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Field = (String, String);

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Field>, HpackError> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        decoder.decode(block, &mut Scratch::default(), |name, value| {
            fields.push((text(name), text(value)));
            Ok::<(), HpackError>(())
        })?;
        Ok(fields)
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
        let byte = |pair: &[u8]| {
            u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("two digits")
        };
        digits.chunks(2).map(byte).collect()
    }

    fn fields(text: &[(&str, &str)]) -> Vec<Field> {
        text.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    const FIRST: &[(&str, &str)] = &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
    ];
    const SECOND: &[(&str, &str)] = &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ];
    const THIRD: &[(&str, &str)] = &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ];

    /// RFC 7541 appendix C.2.
    #[test]
    fn each_representation_of_a_field_is_decoded() {
        let table_sizes = [
            (
                "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
                "custom-key",
                "custom-header",
                55,
            ),
            ("040c 2f73 616d 706c 652f 7061 7468", ":path", "/sample/path", 0),
            ("1008 7061 7373 776f 7264 0673 6563 7265 74", "password", "secret", 0),
            ("82", ":method", "GET", 0),
        ];
        for (hex, name, value, size) in table_sizes {
            let mut decoder = Decoder::default();
            assert_eq!(decode(&mut decoder, &bytes(hex)), Ok(fields(&[(name, value)])));
            assert_eq!(decoder.table.size(), size, "{name}");
        }
    }

    /// RFC 7541 appendices C.3 and C.4: three requests of one connection.
    #[test]
    fn requests_of_one_connection_share_a_table() {
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let huffman = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        for blocks in [plain, huffman] {
            let mut decoder = Decoder::default();
            for (hex, (expected, size)) in
                blocks.iter().zip([(FIRST, 57), (SECOND, 110), (THIRD, 164)])
            {
                assert_eq!(decode(&mut decoder, &bytes(hex)), Ok(fields(expected)));
                assert_eq!(decoder.table.size(), size);
            }
        }
    }

    /// RFC 7541 appendix C.5: a table of 256 bytes, from which entries are evicted.
    #[test]
    fn a_full_table_loses_its_oldest_entries() {
        let mut decoder = Decoder::default();
        decoder.table.set_max(256);
        let blocks = [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 \
             2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 \
             6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d \
             54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 \
             5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e \
             3d31",
        ];
        let sizes = [222, 222, 215];
        let mut last = Vec::new();
        for (hex, size) in blocks.iter().zip(sizes) {
            last = decode(&mut decoder, &bytes(hex)).expect("a block");
            assert_eq!(decoder.table.size(), size);
        }
        let cookie = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
        let expected = [
            (":status", "200"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
            ("location", "https://www.example.com"),
            ("content-encoding", "gzip"),
            ("set-cookie", cookie),
        ];
        assert_eq!(last, fields(&expected));
    }

    #[test]
    fn what_is_no_field_block_is_refused() {
        for (hex, error) in [
            ("80", HpackError::Index),
            ("be", HpackError::Index),
            ("ff ff ff ff ff 7f", HpackError::IntegerTooLarge),
            ("40 05 61", HpackError::Truncated),
            ("40", HpackError::Truncated),
            ("3f e2 1f", HpackError::TableSize),
            ("82 20", HpackError::TableSize),
            ("04 84 ff ff ff ff", HpackError::Huffman),
        ] {
            assert_eq!(decode(&mut Decoder::default(), &bytes(hex)), Err(error), "{hex}");
        }
    }

    #[test]
    fn a_table_that_was_given_up_is_empty_and_stays_so() {
        let mut decoder = Decoder::default();
        let first = "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d";
        assert_eq!(decode(&mut decoder, &bytes(first)), Ok(fields(FIRST)));
        decoder.drop_table();
        assert_eq!(decode(&mut decoder, &bytes("be")), Err(HpackError::Index));
        // An encoder that overlooks the setting goes on.
        assert_eq!(decode(&mut decoder, &bytes(first)), Ok(fields(FIRST)));
        assert_eq!(decode(&mut decoder, &bytes("be")), Ok(fields(&FIRST[3..])));
        // An encoder says that it has none, and may go on to ask for what has no place.
        assert_eq!(decode(&mut decoder, &bytes(&format!("20 {first}"))), Ok(fields(FIRST)));
        assert_eq!(decoder.table.size(), 0);
    }
}
