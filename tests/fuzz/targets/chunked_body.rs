//! Request bodies in the chunked coding.

use pushline::proto::http::body::{
    BodyDecoder, CHUNK_LINE_BYTES_MAX, Progress, TRAILERS_BYTES_MAX,
};
use pushline::proto::http::head::Framing;

use super::split::split;

/// The outcome of a body.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    payload: Vec<u8>,
    end: End,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum End {
    /// More is to come.
    #[default]
    Open,
    /// How many of the bytes after it belong to the next request.
    Done(usize),
    Broken,
}

/// Cuts make no difference, and the payload is what a plain reading of RFC 9112 section 7.1 finds
/// in all the bytes.
pub fn check(input: &[u8]) {
    let Some(split) = split(input) else { return };
    let whole = decode(&[split.whole]);
    assert_eq!(decode(&split.pieces), whole);
    assert_eq!(plainly(split.whole), whole);
}

fn decode(pieces: &[&[u8]]) -> Outcome {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let mut outcome = Outcome::default();
    for (place, piece) in pieces.iter().enumerate() {
        let mut rest = *piece;
        while !rest.is_empty() {
            let Ok(decoded) = decoder.decode(rest) else {
                outcome.end = End::Broken;
                return outcome;
            };
            outcome.payload.extend_from_slice(decoded.payload);
            rest = &rest[decoded.consumed..];
            assert_eq!(decoded.progress == Progress::Done, decoder.is_done());
            if decoder.is_done() {
                let behind = pieces[place + 1..].iter().map(|piece| piece.len()).sum::<usize>();
                outcome.end = End::Done(rest.len() + behind);
                return outcome;
            }
            assert!(decoded.consumed > 0, "no step, no end");
        }
    }
    outcome
}

/// What follows a chunked body, if it has an end.
pub fn skip_chunked(body: &[u8]) -> Option<&[u8]> {
    chunks(body, &mut Vec::new()).ok()
}

fn plainly(body: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.end = match chunks(body, &mut outcome.payload) {
        Ok(rest) => End::Done(rest.len()),
        Err(end) => end,
    };
    outcome
}

/// Appends all payload and returns what follows the body.
fn chunks<'b>(mut rest: &'b [u8], payload: &mut Vec<u8>) -> Result<&'b [u8], End> {
    loop {
        let (line, after) = line(rest, usize::from(CHUNK_LINE_BYTES_MAX), LineKind::Size)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let text = std::str::from_utf8(&line[..digits]).map_err(|_| End::Broken)?;
        let size = u64::from_str_radix(text, 16).map_err(|_| End::Broken)?;
        if size == 0 {
            return trailers(after);
        }
        let here = usize::try_from(size).map_or(after.len(), |size| size.min(after.len()));
        payload.extend_from_slice(&after[..here]);
        rest = match &after[here..] {
            [] | [b'\r'] => return Err(End::Open),
            [b'\r', b'\n', rest @ ..] => rest,
            _ => return Err(End::Broken),
        };
    }
}

fn trailers(mut rest: &[u8]) -> Result<&[u8], End> {
    let mut room = usize::from(TRAILERS_BYTES_MAX);
    loop {
        // The CR of the empty line counts, its LF does not.
        if let [b'\r', behind @ ..] = rest {
            return match behind {
                _ if room == 0 => Err(End::Broken),
                [] => Err(End::Open),
                [b'\n', after @ ..] => Ok(after),
                _ => Err(End::Broken),
            };
        }
        let (line, after) = line(rest, room, LineKind::Trailer)?;
        if !line.contains(&b':') || line.len() + 2 > room {
            return Err(End::Broken);
        }
        room -= line.len() + 2;
        rest = after;
    }
}

/// A line without its CRLF, and what follows it.
fn line(bytes: &[u8], bytes_max: usize, kind: LineKind) -> Result<(&[u8], &[u8]), End> {
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let text = &bytes[..end];
    // The CR counts too.
    if !kind.may_begin(text) || text.len() + usize::from(end < bytes.len()) > bytes_max {
        return Err(End::Broken);
    }
    match &bytes[end..] {
        [] => Err(End::Open),
        [b'\r'] if kind.may_end(text) => Err(End::Open),
        [b'\r', b'\n', rest @ ..] if kind.may_end(text) => Ok((text, rest)),
        _ => Err(End::Broken),
    }
}

#[derive(Clone, Copy)]
enum LineKind {
    Size,
    Trailer,
}

impl LineKind {
    /// Whether a line of this kind can begin with `text`.
    fn may_begin(self, text: &[u8]) -> bool {
        match self {
            Self::Size => is_size_prefix(text),
            Self::Trailer => is_trailer_prefix(text),
        }
    }

    /// Whether it can end there.
    fn may_end(self, text: &[u8]) -> bool {
        match self {
            Self::Size => !text.is_empty() && extensions(after_digits(text)) == Fit::Whole,
            Self::Trailer => text.contains(&b':'),
        }
    }
}

fn is_size_prefix(text: &[u8]) -> bool {
    let behind = after_digits(text);
    let digits = &text[..text.len() - behind.len()];
    let significant = digits.iter().skip_while(|&&digit| digit == b'0').count();
    let begun = text.is_empty() || !digits.is_empty();
    begun && significant <= 16 && extensions(behind) != Fit::Wrong
}

fn after_digits(text: &[u8]) -> &[u8] {
    let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    &text[digits..]
}

/// How a text fits a grammar.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    Whole,
    /// More is needed.
    Prefix,
    Wrong,
}

/// `*( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )` (RFC 9112 section 7.1.1).
fn extensions(mut text: &[u8]) -> Fit {
    while !text.is_empty() {
        let name = match skip_blanks(text) {
            [] => return Fit::Prefix,
            [b';', rest @ ..] => skip_blanks(rest),
            _ => return Fit::Wrong,
        };
        let behind = skip_token(name);
        if behind.len() == name.len() {
            return if name.is_empty() { Fit::Prefix } else { Fit::Wrong };
        }
        text = match skip_blanks(behind) {
            [b'=', value @ ..] => match skip_value(skip_blanks(value)) {
                Ok(rest) => rest,
                Err(fit) => return fit,
            },
            _ => behind,
        };
    }
    Fit::Whole
}

/// What follows a token or a quoted string.
fn skip_value(value: &[u8]) -> Result<&[u8], Fit> {
    let Some(mut quoted) = value.strip_prefix(b"\"") else {
        let rest = skip_token(value);
        return match value {
            [] => Err(Fit::Prefix),
            _ if rest.len() == value.len() => Err(Fit::Wrong),
            _ => Ok(rest),
        };
    };
    loop {
        quoted = match quoted {
            [b'"', rest @ ..] => return Ok(rest),
            [b'\\', escaped, rest @ ..] if is_text(*escaped) => rest,
            [] | [b'\\'] => return Err(Fit::Prefix),
            [byte, rest @ ..] if *byte != b'\\' && is_text(*byte) => rest,
            _ => return Err(Fit::Wrong),
        };
    }
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &text[blanks..]
}

fn skip_token(text: &[u8]) -> &[u8] {
    let token = text.iter().take_while(|byte| is_token(byte)).count();
    &text[token..]
}

fn is_trailer_prefix(text: &[u8]) -> bool {
    let name_end = text.iter().position(|&byte| byte == b':').unwrap_or(text.len());
    let name = &text[..name_end];
    let named = name_end == text.len() || !name.is_empty();
    named && name.iter().all(is_token) && text[name_end..].iter().all(|&byte| is_text(byte))
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}
