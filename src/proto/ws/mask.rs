//! Masking (RFC 6455 section 5.3): XOR with a four-byte key that repeats.

use std::sync::LazyLock;

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch};

/// Size from which vectors wider than every x86-64 has are faster; below it, choosing them costs
/// more than they save.
const WIDE_BYTES_MIN: usize = 256;
/// Vectors per step: enough that loads and stores overlap.
const VECTORS: usize = 4;
/// Bytes masked per step without them. One step is straight-line code on words, which the compiler
/// vectorises; longer blocks gain nothing, and shorter ones lose at 256 bytes and more.
const BLOCK_BYTES: usize = 128;
const WORD_BYTES: usize = size_of::<u64>();

/// What this processor can do.
static LEVEL: LazyLock<Level> = LazyLock::new(Level::new);

/// Removes (or applies) the mask in place. `key` is the key as of the first byte: see [`advance`].
pub fn unmask(bytes: &mut [u8], key: [u8; 4]) {
    if bytes.len() < WIDE_BYTES_MIN {
        by_words(bytes, key);
    } else {
        dispatch!(*LEVEL, simd => by_vectors(simd, bytes, key));
    }
}

#[inline(always)]
fn by_vectors<S: Simd>(simd: S, bytes: &mut [u8], key: [u8; 4]) {
    simd.vectorize(
        #[inline(always)]
        || {
            let wide: S::u8s = S::u32s::splat(simd, u32::from_ne_bytes(key)).bitcast();
            let mut blocks = bytes.chunks_exact_mut(VECTORS * S::u8s::LEN);
            for block in &mut blocks {
                for vector in block.chunks_exact_mut(S::u8s::LEN) {
                    (S::u8s::from_slice(simd, vector) ^ wide).store_slice(vector);
                }
            }
            by_words(blocks.into_remainder(), key);
        },
    );
}

#[inline(always)]
fn by_words(bytes: &mut [u8], key: [u8; 4]) {
    let half = u64::from(u32::from_ne_bytes(key));
    let wide = half << 32 | half;
    let mut blocks = bytes.chunks_exact_mut(BLOCK_BYTES);
    for block in &mut blocks {
        for word in block.chunks_exact_mut(WORD_BYTES) {
            xor(word, wide);
        }
    }
    let mut words = blocks.into_remainder().chunks_exact_mut(WORD_BYTES);
    for word in &mut words {
        xor(word, wide);
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= key;
    }
}

/// Appends `masked` without its mask, because what a peer sends is in a buffer that soon goes back
/// to the kernel. A copy followed by [`unmask`], while the copy is in the first cache, was measured
/// to be faster than one pass block by block.
pub fn unmask_into(out: &mut Vec<u8>, masked: &[u8], key: [u8; 4]) {
    let start = out.len();
    out.extend_from_slice(masked);
    unmask(&mut out[start..], key);
}

/// The key as of `bytes` later: payload byte `i` takes key byte `i mod 4`.
pub fn advance(mut key: [u8; 4], bytes: usize) -> [u8; 4] {
    key.rotate_left(bytes % 4);
    key
}

fn xor(word: &mut [u8], wide: u64) {
    let mut bytes = [0; WORD_BYTES];
    bytes.copy_from_slice(word);
    word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x11, 0x22, 0x44, 0x88];

    /// Section 5.3, word for word.
    fn naively(bytes: &[u8], key: [u8; 4]) -> Vec<u8> {
        bytes.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect()
    }

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 + i / 7) as u8).collect()
    }

    #[test]
    fn every_length_is_unmasked_as_the_rfc_says() {
        let wide = WIDE_BYTES_MIN..WIDE_BYTES_MIN + 3 * BLOCK_BYTES;
        for len in (0..3 * BLOCK_BYTES).chain(wide) {
            let masked = sample(len);
            let expected = naively(&masked, KEY);
            let mut in_place = masked.clone();
            unmask(&mut in_place, KEY);
            assert_eq!(in_place, expected, "{len} in place");
            let mut appended = b"before".to_vec();
            unmask_into(&mut appended, &masked, KEY);
            assert_eq!(appended.strip_prefix(b"before"), Some(expected.as_slice()), "{len}");
        }
    }

    #[test]
    fn a_payload_in_pieces_takes_the_key_where_it_stopped() {
        let masked = sample(300);
        for piece_bytes in 1..100 {
            let (mut plain, mut key) = (Vec::new(), KEY);
            for piece in masked.chunks(piece_bytes) {
                unmask_into(&mut plain, piece, key);
                key = advance(key, piece.len());
            }
            assert_eq!(plain, naively(&masked, KEY), "{piece_bytes} at a time");
        }
    }
}
