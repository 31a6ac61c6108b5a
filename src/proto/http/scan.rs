//! Finds the end of a run of ordinary bytes, 16 bytes at a time.
//!
//! A zero byte stops every run, so the end of the input needs no case of its own: the last block is
//! padded with zeros.

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, mask8x16, u8x16};

const BLOCK: usize = 16;

/// RFC 9110 section 5.6.2 `tchar`.
#[inline]
pub(in crate::proto) fn is_token(byte: u8) -> bool {
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
    let at = run_end::<RareInNames>(bytes, at);
    if bytes.get(at) == Some(&b':') { at } else { rare_token_end(bytes, at) }
}

#[cold]
fn rare_token_end(bytes: &[u8], at: usize) -> usize {
    at + bytes.iter().skip(at).take_while(|&&byte| is_token(byte)).count()
}

/// First byte at or after `at` that can't be in the name of a host.
#[inline(always)]
pub(super) fn host_end(bytes: &[u8], at: usize) -> usize {
    let at = run_end::<RareInHosts>(bytes, at);
    if matches!(bytes.get(at), None | Some(b':' | b'\r')) { at } else { rare_host_end(bytes, at) }
}

#[cold]
fn rare_host_end(bytes: &[u8], at: usize) -> usize {
    at + bytes.iter().skip(at).take_while(|&&byte| is_host(byte)).count()
}

/// First byte at or after `at` that can't be in a field value (RFC 9110 section 5.5): a control
/// byte other than TAB.
#[inline(always)]
pub(super) fn value_end(bytes: &[u8], at: usize) -> usize {
    run_end::<Controls>(bytes, at)
}

/// First byte at or after `at` that ends the path of a target: `?` or one that cannot be in a
/// target.
#[inline(always)]
pub(super) fn path_end(bytes: &[u8], at: usize) -> usize {
    run_end::<PathEnds>(bytes, at)
}

/// First byte at or after `at` that cannot be in a target. Target bytes are visible ASCII except
/// `"`, `#`, `<` and `>`: what a URL serializer (WHATWG URL) leaves bare in a query.
#[inline(always)]
pub(super) fn query_end(bytes: &[u8], at: usize) -> usize {
    run_end::<NoTargetBytes>(bytes, at)
}

#[inline(always)]
fn run_end<C: Class>(bytes: &[u8], at: usize) -> usize {
    let mut at = at;
    let mut rest = bytes.get(at..).unwrap_or(&[]);
    while let Some((block, tail)) = rest.split_first_chunk::<BLOCK>() {
        let marks = marks::<C>(block);
        if marks != 0 {
            return at + marks.trailing_zeros() as usize;
        }
        at += BLOCK;
        rest = tail;
    }
    // The zeros after the input stop the run at the latest.
    at + marks::<C>(&last_block(bytes, rest)).trailing_zeros() as usize
}

/// The last bytes of `bytes`, fewer than a block, padded with zeros.
#[inline(always)]
fn last_block(bytes: &[u8], rest: &[u8]) -> [u8; BLOCK] {
    match bytes.last_chunk() {
        // Shift the block that ends at the end of the input: no copy whose length is known only
        // now.
        Some(last) if !rest.is_empty() => {
            (u128::from_le_bytes(*last) >> (8 * (BLOCK - rest.len()))).to_le_bytes()
        }
        _ => short_block(rest),
    }
}

#[cold]
fn short_block(rest: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    block
}

/// One bit per byte that stops the run. The vectors are those that every processor of the kind has
/// (SSE2, NEON): wider ones would need a check at run time, and runs are short.
#[inline(always)]
fn marks<C: Class>(block: &[u8; BLOCK]) -> u64 {
    dispatch!(Level::baseline(), simd => C::stops(u8x16::from_slice(simd, block)).to_bitmask())
}

/// Bytes that stop a run.
trait Class {
    fn stops<S: Simd>(bytes: u8x16<S>) -> mask8x16<S>;
}

struct Controls;
struct NoTargetBytes;
struct PathEnds;
/// All but letters, digits, dots and dashes, which make up nearly all host names.
struct RareInHosts;
/// All but letters and dashes, which make up nearly all field names.
struct RareInNames;

impl Class for Controls {
    #[inline(always)]
    fn stops<S: Simd>(bytes: u8x16<S>) -> mask8x16<S> {
        (bytes.simd_lt(0x20) & !bytes.simd_eq(b'\t')) | bytes.simd_eq(0x7f)
    }
}

impl Class for NoTargetBytes {
    #[inline(always)]
    fn stops<S: Simd>(bytes: u8x16<S>) -> mask8x16<S> {
        let quote_or_hash = (bytes & 0xfe).simd_eq(b'"');
        let angle = (bytes & 0xfd).simd_eq(b'<');
        !within(bytes, b'!', b'~') | quote_or_hash | angle
    }
}

impl Class for PathEnds {
    #[inline(always)]
    fn stops<S: Simd>(bytes: u8x16<S>) -> mask8x16<S> {
        NoTargetBytes::stops(bytes) | bytes.simd_eq(b'?')
    }
}

impl Class for RareInHosts {
    #[inline(always)]
    fn stops<S: Simd>(bytes: u8x16<S>) -> mask8x16<S> {
        !(letters(bytes) | within(bytes, b'0', b'9') | within(bytes, b'-', b'.'))
    }
}

impl Class for RareInNames {
    #[inline(always)]
    fn stops<S: Simd>(bytes: u8x16<S>) -> mask8x16<S> {
        !(letters(bytes) | bytes.simd_eq(b'-'))
    }
}

#[inline(always)]
fn letters<S: Simd>(bytes: u8x16<S>) -> mask8x16<S> {
    within(bytes | 0x20, b'a', b'z')
}

#[inline(always)]
fn within<S: Simd>(bytes: u8x16<S>, first: u8, last: u8) -> mask8x16<S> {
    (bytes - first).simd_le(last - first)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Scan = fn(&[u8], usize) -> usize;
    type Predicate = fn(u8) -> bool;

    /// Each scan and its plain predicate.
    const CLASSES: [(Scan, Predicate); 5] = [
        (host_end, is_host),
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
                for length in 0..36 {
                    for place in 0..length {
                        let mut bytes = vec![b'a'; length];
                        bytes[place] = stop;
                        // A byte that differs by one, which would show a wrong borrow.
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
