//! Field blocks of HTTP/2, and the heads of HTTP/1.1 they become.

use pushline::proto::h2::hpack::encode::write_field;
use pushline::proto::h2::hpack::{Decoder, Scratch};
use pushline::proto::h2::request::{BlockError, Body, LIST_BYTES_MAX, RequestHead};
use pushline::proto::http::head::{Framing, HeaderSpace, Parsed, parse_prefix};

/// A head becomes one head and nothing else, whatever is in its fields: what it says of its body is
/// what the parser reads. What was decoded is decoded again from our own encoding.
pub fn check(input: &[u8]) {
    let (first, rest) = input.split_first().unwrap_or((&0, &[]));
    let ended = first & 1 == 0;
    let mut head = RequestHead::default();
    let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut scratch = Scratch::default();
    let decoded = Decoder::default().decode(rest, &mut scratch, |name, value| {
        fields.push((name.into(), value.into()));
        head.field(name, value)
    });
    let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    match decoded {
        Ok(()) => assert!(bytes <= LIST_BYTES_MAX),
        Err(BlockError::TooLarge) => return assert!(bytes > LIST_BYTES_MAX),
        Err(BlockError::Hpack(_)) => {}
    }
    check_encoder(&fields);
    let mut text = Vec::new();
    if let Some(body) = head.write(ended, &mut text) {
        check_text(&text, body, ended);
    }
}

fn check_encoder(fields: &[(Vec<u8>, Vec<u8>)]) {
    let mut block = Vec::new();
    fields.iter().for_each(|(name, value)| write_field(&mut block, name, value));
    let mut left = fields.iter();
    let decoded = Decoder::default().decode(&block, &mut Scratch::default(), |name, value| {
        let next = left.next().map(|(name, value)| (&name[..], &value[..]));
        assert_eq!(next, Some((name, value)));
        Ok::<(), BlockError>(())
    });
    assert_eq!((decoded, left.len()), (Ok(()), 0));
}

fn check_text(text: &[u8], body: Body, ended: bool) {
    let shown = text.escape_ascii();
    match parse_prefix(text, &mut HeaderSpace::new()) {
        // The parser knows more faults, and how large a head may be.
        Err(_) => {}
        Ok(Parsed::Partial) => panic!("half a head: {shown}"),
        Ok(Parsed::Complete(request)) => {
            assert_eq!(request.head_len(), text.len(), "more than a head: {shown}");
            let framing = match body {
                Body::None => Framing::Length(0),
                Body::Length(length) => Framing::Length(length),
                Body::Chunked => Framing::Chunked,
                Body::Tunnel => request.framing(),
            };
            assert_eq!(request.framing(), framing, "{shown}");
            assert!(body != Body::Chunked || !ended, "{shown}");
        }
    }
}
