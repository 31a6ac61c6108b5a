//! The encoder: it has no table, so that an idle connection costs nothing and each block is good
//! for any connection.

use super::table::STATIC;

/// Appends a field. `name` is in lower case.
pub fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let named = |entry: &(&str, &str)| entry.0.as_bytes() == name;
    match STATIC.iter().position(named) {
        None => {
            out.push(0x00);
            write_string(out, name);
        }
        Some(first) => {
            // Entries of one name follow each other.
            let mut of_name = STATIC[first..].iter().take_while(|entry| named(entry));
            let whole = of_name.position(|entry| entry.1.as_bytes() == value);
            if let Some(place) = whole.filter(|_| !value.is_empty()) {
                return write_integer(out, 0x80, 7, first + place + 1);
            }
            write_integer(out, 0x00, 4, first + 1);
        }
    }
    write_string(out, value);
}

fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    write_integer(out, 0x00, 7, bytes.len());
    out.extend_from_slice(bytes);
}

/// RFC 7541 section 5.1. `bits`: what is in the byte before the number.
fn write_integer(out: &mut Vec<u8>, bits: u8, prefix: u32, value: usize) {
    let full = (1 << prefix) - 1;
    if value < full {
        out.push(bits | value as u8);
        return;
    }
    out.push(bits | full as u8);
    let mut rest = value - full;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, HpackError, Scratch};
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_again() {
        let long = [b'x'; 20_000];
        let fields: [(&[u8], &[u8]); 6] = [
            (b":status", b"200"),
            (b":status", b"418"),
            (b"content-type", b"text/event-stream"),
            (b"x-content-type-options", b"nosniff"),
            (b"x-empty", b""),
            (b"www-authenticate", &long),
        ];
        let mut block = Vec::new();
        fields.iter().for_each(|(name, value)| write_field(&mut block, name, value));
        assert_eq!(block[0], 0x88, "one byte for what the table has");
        let mut left = fields.iter();
        let decoded = Decoder::default().decode(&block, &mut Scratch::default(), |name, value| {
            assert_eq!(left.next(), Some(&(name, value)));
            Ok::<(), HpackError>(())
        });
        assert_eq!((decoded, left.next()), (Ok(()), None));
    }
}
