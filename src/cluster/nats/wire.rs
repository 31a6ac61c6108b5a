//! NATS' client protocol: lines, and payloads whose length a line gives. Sans-IO.
//!
//! This is not taken from a crate, because a node needs only these few operations, and the crate for
//! them brings an async runtime and 54 more crates.

use std::io::Write;

/// Longest line of a server: an INFO with the addresses of a large cluster.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Most bytes of a message. A server's own bound is 64 MiB.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// What a server sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// What it says of itself, as JSON: at first, and when something changes.
    Info(&'a [u8]),
    /// A message of a subscription.
    Message(Message<'a>),
    /// To be answered by a pong.
    Ping,
    /// The answer to our ping.
    Pong,
    Ok,
    /// An error; after most of them the server closes the connection.
    Error(&'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Where it was sent.
    pub subject: &'a str,
    /// The subscription of ours by which it comes.
    pub subscription: u64,
    /// Where an answer goes.
    pub reply: Option<&'a str>,
    /// Its headers, if it has any.
    pub headers: Option<Headers<'a>>,
    pub payload: &'a [u8],
}

/// What was found at the front of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// An operation, and its length.
    Complete(Op<'a>, usize),
    /// The rest is still to come.
    Partial,
    /// No server says this.
    Malformed,
}

/// Reads the operation at the front.
pub fn parse(input: &[u8]) -> Parsed<'_> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return if input.len() > LINE_BYTES_MAX { Parsed::Malformed } else { Parsed::Partial };
    };
    let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    let length = end + 1;
    let (name, rest) = match memchr::memchr2(b' ', b'\t', line) {
        Some(place) => (&line[..place], line[place..].trim_ascii()),
        None => (line, &b""[..]),
    };
    let op = match name.to_ascii_uppercase().as_slice() {
        b"MSG" => return message(input, length, rest, Form::Plain).unwrap_or(Parsed::Malformed),
        b"HMSG" => return message(input, length, rest, Form::Headers).unwrap_or(Parsed::Malformed),
        b"PING" => Op::Ping,
        b"PONG" => Op::Pong,
        b"+OK" => Op::Ok,
        b"-ERR" => Op::Error(std::str::from_utf8(rest).unwrap_or("an error")),
        b"INFO" => Op::Info(rest),
        _ => return Parsed::Malformed,
    };
    Parsed::Complete(op, length)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Headers,
}

/// None: it is malformed.
fn message<'a>(
    input: &'a [u8],
    begin: usize,
    arguments: &'a [u8],
    form: Form,
) -> Option<Parsed<'a>> {
    let arguments = std::str::from_utf8(arguments).ok()?;
    let mut words = [""; 5];
    let mut count = 0;
    for word in arguments.split_ascii_whitespace() {
        *words.get_mut(count)? = word;
        count += 1;
    }
    let lengths = if form == Form::Headers { 2 } else { 1 };
    let reply = match count.checked_sub(lengths + 2)? {
        0 => None,
        1 => Some(words[2]),
        _ => return None,
    };
    let number = |place: usize| words[place].parse::<usize>().ok();
    let total = number(count - 1).filter(|&total| total <= MESSAGE_BYTES_MAX)?;
    let of_headers = if form == Form::Headers { number(count - 2)? } else { 0 };
    if of_headers > total {
        return None;
    }
    let end = begin + total;
    let Some(ends) = input.get(end..end + 2) else { return Some(Parsed::Partial) };
    if ends != b"\r\n" {
        return None;
    }
    let (headers, payload) = input[begin..end].split_at(of_headers);
    let headers = (form == Form::Headers).then_some(Headers(headers));
    let subscription = words[1].parse().ok()?;
    let message = Message { subject: words[0], subscription, reply, headers, payload };
    Some(Parsed::Complete(Op::Message(message), end + 2))
}

/// The headers of a message, as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a>(pub &'a [u8]);

/// What headers begin with.
const VERSION: &str = "NATS/1.0";

impl<'a> Headers<'a> {
    /// The number after the version: the status in a message without payload.
    pub fn status(&self) -> Option<u16> {
        let line = self.0.split(|&byte| byte == b'\n').next()?;
        let rest = line.strip_prefix(VERSION.as_bytes())?.trim_ascii();
        std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
    }

    /// The value of a header.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.lines().find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn lines(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let lines = self.0.split(|&byte| byte == b'\n').skip(1);
        lines.filter_map(|line| {
            let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
            Some((name, value.trim()))
        })
    }
}

/// Appends a message to `out`. `headers` are names and values without line ends.
pub fn write_message(
    out: &mut Vec<u8>,
    subject: &str,
    reply: Option<&str>,
    headers: &[(&str, &str)],
    payload: &[u8],
) {
    let is_plain = headers.is_empty();
    let line_bytes = |(name, value): &(&str, &str)| name.len() + value.len() + 4;
    let of_headers = VERSION.len() + 4 + headers.iter().map(line_bytes).sum::<usize>();
    out.extend_from_slice(if is_plain { b"PUB " } else { b"HPUB " });
    out.extend_from_slice(subject.as_bytes());
    if let Some(reply) = reply {
        out.push(b' ');
        out.extend_from_slice(reply.as_bytes());
    }
    let mut write = |text: std::fmt::Arguments<'_>| out.write_fmt(text).unwrap_or_default();
    match is_plain {
        true => write(format_args!(" {}\r\n", payload.len())),
        false => {
            write(format_args!(" {of_headers} {}\r\n{VERSION}\r\n", of_headers + payload.len()));
            for (name, value) in headers {
                write(format_args!("{name}: {value}\r\n"));
            }
            write(format_args!("\r\n"));
        }
    }
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// Appends any other operation.
pub fn write_line(out: &mut Vec<u8>, line: std::fmt::Arguments<'_>) {
    out.write_fmt(line).unwrap_or_default();
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: &[u8] = b"INFO {\"a\":1}\r\nPING\r\n+OK\r\n-ERR 'Slow Consumer'\r\n\
        MSG a.b 7 5\r\nhello\r\nMSG a 1 re.ply 0\r\n\r\n\
        HMSG s 2 r 32 34\r\nNATS/1.0 100 Idle\r\nX-y: z \xc3\xbc\r\n\r\nab\r\nPONG\r\n";

    fn all(mut input: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        while let Parsed::Complete(op, length) = parse(input) {
            found.push(format!("{op:?}"));
            input = &input[length..];
        }
        found
    }

    #[test]
    fn every_operation_is_read_whole_and_not_before() {
        let found = all(INPUT);
        assert_eq!(found.len(), 8, "{found:?}");
        for cut in 0..INPUT.len() {
            let before = all(&INPUT[..cut]);
            assert_eq!(before, found[..before.len()]);
        }
    }

    #[test]
    fn a_message_says_where_it_is_from_and_what_it_has() {
        let at = INPUT.windows(4).position(|four| four == b"HMSG").expect("one");
        let Parsed::Complete(Op::Message(message), _) = parse(&INPUT[at..]) else { panic!() };
        assert_eq!((message.subject, message.subscription, message.reply), ("s", 2, Some("r")));
        let headers = message.headers.expect("it has some");
        assert_eq!((headers.status(), headers.get("x-Y")), (Some(100), Some("z ü")));
        assert_eq!(message.payload, b"ab");
    }

    #[test]
    fn what_no_server_says_is_malformed_and_never_a_panic() {
        for bad in [
            &b"MSG a 1\r\n"[..],
            b"MSG a 1 x\r\n",
            b"MSG a 1 2 3 4 5\r\n",
            b"MSG a 1 2\r\nabcd\r\n",
            b"MSG a 1 99999999999999999999\r\n",
            b"HMSG a 1 9 2\r\nab\r\n",
            b"HELLO\r\n",
            b"\xff\xff\r\n",
            b"MSG \xff 1 2\r\nab\r\n",
        ] {
            assert_eq!(parse(bad), Parsed::Malformed, "{bad:?}");
        }
        assert_eq!(parse(&[b'x'; LINE_BYTES_MAX + 1]), Parsed::Malformed);
    }

    #[test]
    fn what_is_written_is_what_a_server_would_send_on() {
        let mut out = Vec::new();
        write_message(&mut out, "a", Some("r"), &[("K", "v"), ("L", "w x")], b"data");
        write_message(&mut out, "a", None, &[], b"");
        let text = String::from_utf8(out).expect("text");
        let sent_on = text.replace("HPUB a r ", "HMSG a 1 r ").replace("PUB a 0", "MSG a 1 0");
        let Parsed::Complete(Op::Message(message), length) = parse(sent_on.as_bytes()) else {
            panic!("{sent_on}")
        };
        assert_eq!(message.payload, b"data");
        assert_eq!(message.headers.and_then(|headers| headers.get("L")), Some("w x"));
        let Parsed::Complete(Op::Message(message), _) = parse(&sent_on.as_bytes()[length..]) else {
            panic!("{sent_on}")
        };
        assert_eq!((message.payload, message.headers), (&b""[..], None));
    }
}
