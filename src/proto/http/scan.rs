//! Where a run of ordinary bytes ends, found a word (8 bytes) at a time.
//!
//! A class is a function from a word to marks: bit 7 of every byte that stops the run. Only the
//! lowest mark has to be right, as a borrow out of a byte that stops can only smear upwards.
//! A byte of zero stops every run, so the end of the input needs no case of its own: the last
//! word is filled up with zeros.

const WORD: usize = size_of::<u64>();
/// Bytes looked at together in a value.
const BLOCK: usize = 16;
const ONES: u64 = 0x0101_0101_0101_0101;
const MARKS: u64 = 0x80 * ONES;

/// RFC 9110 section 5.6.2 `tchar`.
#[inline]
pub(super) fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// RFC 3986 section 3.2.2: a byte of a registered name or an IPv4 address.
#[inline]
pub(super) fn is_host(byte: u8) -> bool {
    HOST[usize::from(byte)]
}

const TOKEN: [bool; 256] = alphanumeric_or(b"!#$%&'*+-.^_`|~");
const HOST: [bool; 256] = alphanumeric_or(b"-._~%!$&'()*+,;=");

const fn alphanumeric_or(symbols: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < symbols.len() {
        table[symbols[at] as usize] = true;
        at += 1;
    }
    table
}

/// First byte at or after `at` that can't be in a field name; the length if there is none.
#[inline(always)]
pub(super) fn token_end(bytes: &[u8], at: usize) -> usize {
    let at = run_end(bytes, at, rare_in_names);
    if bytes.get(at) == Some(&b':') { at } else { rare_token_end(bytes, at) }
}

/// The wide step knows only the letters and dashes that nearly all names are made of.
#[cold]
fn rare_token_end(bytes: &[u8], at: usize) -> usize {
    at + bytes.iter().skip(at).take_while(|&&byte| is_token(byte)).count()
}

/// First byte that can't be in the name of a host.
#[inline(always)]
pub(super) fn host_end(bytes: &[u8]) -> usize {
    let at = run_end(bytes, 0, rare_in_hosts);
    if matches!(bytes.get(at), None | Some(b':')) { at } else { rare_host_end(bytes, at) }
}

#[cold]
fn rare_host_end(bytes: &[u8], at: usize) -> usize {
    at + bytes.iter().skip(at).take_while(|&&byte| is_host(byte)).count()
}

/// First byte at or after `at` that can't be in a field value (RFC 9110 section 5.5): a control
/// byte other than TAB.
#[inline(always)]
pub(super) fn value_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at;
    loop {
        while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
            // Without branches, so that it becomes a few vector instructions.
            if block.iter().fold(false, |any, &byte| any | (byte < 0x20) | (byte == 0x7f)) {
                break;
            }
            at += BLOCK;
        }
        at = run_end(bytes, at, controls);
        if bytes.get(at) != Some(&b'\t') {
            return at;
        }
        at += 1;
    }
}

/// First byte at or after `at` that ends the path of a target: `?` or no target byte at all.
#[inline(always)]
pub(super) fn path_end(bytes: &[u8], at: usize) -> usize {
    run_end(bytes, at, |word| no_target_bytes(word) | equal_to(word, b'?'))
}

/// First byte at or after `at` that is no target byte. Target bytes are visible ASCII but for
/// `"`, `#`, `<` and `>`: what a URL serializer (WHATWG URL) leaves bare in a query.
#[inline(always)]
pub(super) fn query_end(bytes: &[u8], at: usize) -> usize {
    run_end(bytes, at, no_target_bytes)
}

#[inline(always)]
fn run_end(bytes: &[u8], at: usize, stops: impl Fn(u64) -> u64) -> usize {
    let mut at = at;
    let mut rest = bytes.get(at..).unwrap_or(&[]);
    while let Some((word, tail)) = rest.split_first_chunk::<WORD>() {
        let marks = stops(u64::from_le_bytes(*word)) & MARKS;
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += WORD;
        rest = tail;
    }
    // The zeros behind the input stop the run at the latest.
    let marks = stops(last_word(bytes, rest)) & MARKS;
    at + marks.trailing_zeros() as usize / 8
}

/// Fewer bytes than a word, the last ones of `bytes`, with zeros behind them.
#[inline(always)]
fn last_word(bytes: &[u8], rest: &[u8]) -> u64 {
    match bytes.last_chunk() {
        // Shift the word that ends where the input ends: no copy of a length known only now.
        Some(last) if !rest.is_empty() => u64::from_le_bytes(*last) >> (8 * (WORD - rest.len())),
        _ => short_word(rest),
    }
}

#[cold]
fn short_word(rest: &[u8]) -> u64 {
    rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// Marks bytes below `limit` (at most 0x80).
#[inline(always)]
fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(u64::from(limit) * ONES) & !word
}

/// Marks bytes equal to `byte`.
#[inline(always)]
fn equal_to(word: u64, byte: u8) -> u64 {
    below(word ^ (u64::from(byte) * ONES), 1)
}

/// Marks bytes from `first` to `last`, and maybe bytes from 0x80 on.
#[inline(always)]
fn within(word: u64, first: u8, last: u8) -> u64 {
    let word = word & !MARKS;
    let from_first = word + u64::from(0x80 - first) * ONES;
    let past_last = word + u64::from(0x7f - last) * ONES;
    from_first & !past_last
}

/// Marks what is no letter and no dash.
#[inline(always)]
fn rare_in_names(word: u64) -> u64 {
    word | !(within(word | (0x20 * ONES), b'a', b'z') | within(word, b'-', b'-'))
}

/// Marks what is no letter, digit, dot or dash.
#[inline(always)]
fn rare_in_hosts(word: u64) -> u64 {
    let letters = within(word | (0x20 * ONES), b'a', b'z');
    let others = within(word, b'-', b'.') | within(word, b'0', b'9');
    word | !(letters | others)
}

/// Marks control bytes.
#[inline(always)]
fn controls(word: u64) -> u64 {
    below(word, 0x20) | equal_to(word, 0x7f)
}

#[inline(always)]
fn no_target_bytes(word: u64) -> u64 {
    let quote_or_hash = equal_to(word & (0xfe * ONES), b'"');
    let angle = equal_to(word & (0xfd * ONES), b'<');
    word | below(word, 0x21) | equal_to(word, 0x7f) | quote_or_hash | angle
}

#[cfg(test)]
mod tests {
    use super::*;

    type Scan = fn(&[u8], usize) -> usize;
    type Predicate = fn(u8) -> bool;

    /// Each scan and the plain predicate it stands for.
    const CLASSES: [(Scan, Predicate); 5] = [
        (|bytes, at| at + host_end(&bytes[at..]), is_host),
        (token_end, is_token),
        (value_end, |byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f)),
        (path_end, |byte| is_target(byte) && byte != b'?'),
        (query_end, is_target),
    ];

    fn is_target(byte: u8) -> bool {
        byte.is_ascii_graphic() && !b"\"#<>".contains(&byte)
    }

    #[test]
    fn every_scan_stops_where_its_plain_predicate_does() {
        for (scan, belongs) in CLASSES {
            for stop in 0..=u8::MAX {
                for length in 0..27 {
                    for place in 0..length {
                        let mut bytes = vec![b'a'; length];
                        bytes[place] = stop;
                        // A byte that differs from it by one, where a borrow would show.
                        if let Some(next) = bytes.get_mut(place + 1) {
                            *next = stop.wrapping_add(1);
                        }
                        for start in [0, 1, place] {
                            let run = bytes.iter().skip(start).take_while(|&&b| belongs(b));
                            let expected = start + run.count();
                            assert_eq!(scan(&bytes, start), expected, "{bytes:?} from {start}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_scan_from_the_end_stays_there() {
        for (scan, _) in CLASSES {
            assert_eq!(scan(b"", 0), 0);
            assert_eq!(scan(b"aaaaaaaaaaaaaaaaaaaa", 20), 20);
        }
    }
}
