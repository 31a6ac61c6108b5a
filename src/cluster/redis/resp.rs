//! Redis' protocol, RESP 2: commands are lists of byte strings, and what comes back is one of five
//! kinds. Sans-IO.
//!
//! This is not taken from a crate, because a node needs no more of it than this page.

use std::io::Write;

/// Longest line: a number, or an error in words.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Most bytes of a string, and entries of a list.
const STRING_BYTES_MAX: usize = 64 << 20;
const LIST_MAX: usize = 1 << 20;

/// Deepest nesting of lists: XREAD's answer has four levels.
const DEPTH_MAX: usize = 8;

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// A simple string, such as `OK`.
    Word(&'a str),
    /// The command was refused.
    Error(&'a str),
    Number(i64),
    /// A bulk string.
    Bytes(&'a [u8]),
    /// A null of any kind.
    Nothing,
    List(Vec<Reply<'a>>),
}

/// What was found at the front of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A reply, and its length.
    Complete(Reply<'a>, usize),
    /// The rest is still to come.
    Partial,
    /// No server says this.
    Malformed,
}

impl<'a> Reply<'a> {
    /// As text, if it is some.
    pub fn text(&self) -> Option<&'a str> {
        match self {
            Self::Word(text) => Some(text),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// As a number, or text that is one.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => u64::try_from(*number).ok(),
            _ => self.text()?.parse().ok(),
        }
    }

    /// The entries of a list; of anything else there are none.
    pub fn list(&self) -> &[Reply<'a>] {
        match self {
            Self::List(list) => list,
            _ => &[],
        }
    }
}

/// Reads the reply at the front.
pub fn parse(input: &[u8]) -> Parsed<'_> {
    let mut reader = Reader { input, at: 0 };
    match reader.reply(DEPTH_MAX) {
        Ok(reply) => Parsed::Complete(reply, reader.at),
        Err(Stop::Partial) => Parsed::Partial,
        Err(Stop::Malformed) => Parsed::Malformed,
    }
}

enum Stop {
    Partial,
    Malformed,
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn reply(&mut self, depth: usize) -> Result<Reply<'a>, Stop> {
        let line = self.line()?;
        let (&kind, rest) = line.split_first().ok_or(Stop::Malformed)?;
        let text = std::str::from_utf8(rest).map_err(|_| Stop::Malformed)?;
        match kind {
            b'+' => Ok(Reply::Word(text)),
            b'-' => Ok(Reply::Error(text)),
            b':' => text.parse().map(Reply::Number).map_err(|_| Stop::Malformed),
            b'$' | b'*' if text == "-1" => Ok(Reply::Nothing),
            b'$' => self.bytes(length(text, STRING_BYTES_MAX)?),
            b'*' if depth > 0 => {
                let count = length(text, LIST_MAX)?;
                let mut list = Vec::with_capacity(count.min(1024));
                for _ in 0..count {
                    list.push(self.reply(depth - 1)?);
                }
                Ok(Reply::List(list))
            }
            _ => Err(Stop::Malformed),
        }
    }

    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.input[self.at..];
        let end = match memchr::memchr(b'\n', rest) {
            Some(end) => end,
            None if rest.len() > LINE_BYTES_MAX => return Err(Stop::Malformed),
            None => return Err(Stop::Partial),
        };
        self.at += end + 1;
        rest[..end].strip_suffix(b"\r").ok_or(Stop::Malformed)
    }

    fn bytes(&mut self, length: usize) -> Result<Reply<'a>, Stop> {
        let rest = &self.input[self.at..];
        let bytes = rest.get(..length).ok_or(Stop::Partial)?;
        match rest.get(length..length + 2) {
            Some(b"\r\n") => self.at += length + 2,
            Some(_) => return Err(Stop::Malformed),
            None => return Err(Stop::Partial),
        }
        Ok(Reply::Bytes(bytes))
    }
}

fn length(text: &str, most: usize) -> Result<usize, Stop> {
    text.parse().ok().filter(|&length| length <= most).ok_or(Stop::Malformed)
}

/// An array of bulk strings: the command and its arguments.
pub fn write_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    // Writing into memory can't fail.
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n", word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[u8] = b"*5\r\n+OK\r\n-ERR no\r\n:-7\r\n$3\r\na\r\n\r\n*2\r\n$-1\r\n*0\r\n";

    #[test]
    fn a_reply_is_read_whole_and_not_before() {
        let Parsed::Complete(reply, length) = parse(ALL) else { panic!() };
        assert_eq!(length, ALL.len());
        let inner = Reply::List(vec![Reply::Nothing, Reply::List(Vec::new())]);
        let wanted = vec![
            Reply::Word("OK"),
            Reply::Error("ERR no"),
            Reply::Number(-7),
            Reply::Bytes(b"a\r\n"),
            inner,
        ];
        assert_eq!(reply, Reply::List(wanted));
        for end in 0..ALL.len() {
            assert_eq!(parse(&ALL[..end]), Parsed::Partial, "{end}");
        }
    }

    #[test]
    fn what_no_server_says_is_refused() {
        let deep = "*1\r\n".repeat(DEPTH_MAX + 2);
        for bad in
            ["x\r\n", "\r\n", "+OK\n", ":x\r\n", "$-2\r\n", "$1\r\nabc", "*99999999\r\n", &deep]
        {
            assert_eq!(parse(bad.as_bytes()), Parsed::Malformed, "{bad:?}");
        }
    }

    #[test]
    fn a_command_is_a_list_of_strings() {
        let mut out = Vec::new();
        write_command(&mut out, &[b"GET", b"a\r\nb"]);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n");
    }
}
