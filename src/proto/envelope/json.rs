//! JSON text at the speed of memory: strings, embedded values, base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bytes looked at per step, by straight-line code that the compiler vectorises.
const BLOCK_BYTES: usize = 32;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends a JSON string; runs that need no escape are copied whole.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some((at, byte)) = find_special(rest) {
        out.extend_from_slice(&rest[..at]);
        write_escape(out, byte);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Appends a JSON value unchanged but on one line: outside tokens CR and LF mean the same as a
/// space, and inside them they are not allowed.
pub fn write_one_line(out: &mut Vec<u8>, value: &str) {
    let mut rest = value.as_bytes();
    while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
        out.extend_from_slice(&rest[..at]);
        out.push(b' ');
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Appends standard base64, padded.
pub fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]);
    debug_assert_eq!(written, Ok(out.len() - start));
}

fn is_special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// The first byte that must be escaped in a JSON string, and where it is (RFC 8259 section 7).
fn find_special(bytes: &[u8]) -> Option<(usize, u8)> {
    let mut start = 0;
    for block in bytes.chunks_exact(BLOCK_BYTES) {
        if block.iter().fold(false, |any, &byte| any | is_special(byte)) {
            break;
        }
        start += BLOCK_BYTES;
    }
    let at = start + bytes[start..].iter().position(|&byte| is_special(byte))?;
    Some((at, bytes[at]))
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let hex = |nibble: u8| HEX[usize::from(nibble)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}
