//! An answer's head, made from one of HTTP/1.1.

use memchr::memmem;

use super::hpack::encode::write_field;

/// What was found at the beginning of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its length in the form of HTTP/1.1.
    pub length: usize,
    /// Whether it is the answer's own head, and not that of a `100 Continue`.
    pub is_final: bool,
}

/// Fields about the connection, which HTTP/2 does not have (RFC 9113 section 8.2.2, RFC 8441 section
/// 5).
const OF_HTTP_1: [&str; 4] = ["connection", "upgrade", "transfer-encoding", "sec-websocket-accept"];

/// Where the digits of a status are in a status line.
const STATUS: std::ops::Range<usize> = 9..12;

/// Appends the field block of the head that `answer` begins with; `None` if it is not whole.
pub(crate) fn write_block(block: &mut Vec<u8>, answer: &[u8]) -> Option<Head> {
    let length = memmem::find(answer, b"\r\n\r\n")? + 4;
    let head = &answer[..length - 4];
    let line_end = memmem::find(head, b"\r\n").unwrap_or(head.len());
    let status = match head.get(STATUS)? {
        // A tunnel is open (RFC 8441 section 5).
        b"101" => b"200",
        status => status,
    };
    write_field(block, b":status", status);
    let mut name_of = Vec::new();
    for line in lines(head.get(line_end + 2..).unwrap_or_default()) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        name_of.clear();
        name_of.extend(line[..colon].iter().map(u8::to_ascii_lowercase));
        if !OF_HTTP_1.iter().any(|name| name.as_bytes() == name_of) {
            write_field(block, &name_of, line[colon + 1..].trim_ascii());
        }
    }
    Some(Head { length, is_final: status != b"100" })
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = head.split(|&byte| byte == b'\n');
    lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use super::super::hpack::{Decoder, HpackError, Scratch};
    use super::*;

    fn block_of(answer: &str) -> Option<(Vec<(String, String)>, Head)> {
        let mut block = Vec::new();
        let head = write_block(&mut block, answer.as_bytes())?;
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let decoded = Decoder::default().decode(&block, &mut Scratch::default(), |name, value| {
            fields.push((text(name), text(value)));
            Ok::<(), HpackError>(())
        });
        decoded.expect("our own block");
        Some((fields, head))
    }

    fn fields(text: &[(&str, &str)]) -> Vec<(String, String)> {
        text.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn an_answer_keeps_what_is_not_about_its_connection() {
        let head = "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 2\r\nETag: \"a: b\"\r\n\r\n";
        let expected = [(":status", "404"), ("content-length", "2"), ("etag", "\"a: b\"")];
        let found = Head { length: head.len(), is_final: true };
        assert_eq!(block_of(&format!("{head}{{}}")), Some((fields(&expected), found)));
    }

    #[test]
    fn an_upgrade_is_a_200_and_a_100_is_not_the_last_head() {
        let upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: pushline.v1\r\n\r\n";
        let expected = [(":status", "200"), ("sec-websocket-protocol", "pushline.v1")];
        assert_eq!(block_of(upgrade).expect("a head").0, fields(&expected));
        let (fields_of, head) = block_of("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1").expect("a head");
        assert_eq!(
            (fields_of, head.is_final, head.length),
            (fields(&[(":status", "100")]), false, 25)
        );
        assert_eq!(block_of("HTTP/1.1 200 OK\r\n"), None);
    }
}
