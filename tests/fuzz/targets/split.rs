//! How the input says where its bytes are cut: the first line has a letter for each piece, repeated
//! until the bytes end. `a` to `z` are 1 to 26 bytes, `A` to `Z` 32 to 832; without a letter
//! everything is one piece. It is text so that a corpus file can be written and read.

/// Longest list of pieces; the rest comes at once. Bounds the time one input takes.
const PIECES_MAX: usize = 512;

/// The bytes after the first line, whole and cut.
pub struct Split<'a> {
    pub whole: &'a [u8],
    pub pieces: Vec<&'a [u8]>,
}

/// Reads the first line. Input without one is not a test.
pub fn split(input: &[u8]) -> Option<Split<'_>> {
    let end = input.iter().position(|&byte| byte == b'\n')?;
    let (letters, whole) = (&input[..end], &input[end + 1..]);
    let mut pieces = Vec::new();
    let mut rest = whole;
    for letter in letters.iter().cycle().take(PIECES_MAX) {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(length(*letter).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    Some(Split { whole, pieces })
}

fn length(letter: u8) -> usize {
    let number = usize::from(letter & 31).max(1);
    if letter.is_ascii_uppercase() { number * 32 } else { number }
}
