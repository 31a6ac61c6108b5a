use super::*;
use proptest::prelude::*;

/// Feeds `pieces` one after the other; returns the payload, and what the body left over.
fn decode(framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), BodyError> {
    let mut decoder = BodyDecoder::new(framing);
    let (mut payload, mut left) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let decoded = decoder.decode(rest)?;
            payload.extend_from_slice(decoded.payload);
            rest = &rest[decoded.consumed..];
            if decoded.progress == Progress::Done || rest.is_empty() {
                break;
            }
            assert!(decoded.consumed > 0, "no step, no end");
        }
        left.extend_from_slice(rest);
    }
    Ok((payload, left, decoder.is_done()))
}

/// The outcome, which must be the same however the body arrives.
fn outcome(framing: Framing, body: &[u8]) -> Result<(Vec<u8>, Vec<u8>, bool), BodyError> {
    let whole = decode(framing, &[body]);
    let bytes: Vec<_> = body.chunks(1).collect();
    assert_eq!(decode(framing, &bytes), whole, "byte by byte");
    for cut in 0..body.len().min(600) {
        let (head, tail) = body.split_at(cut);
        assert_eq!(decode(framing, &[head, tail]), whole, "cut at {cut}");
    }
    whole
}

fn whole(payload: &[u8], left: &[u8]) -> Result<(Vec<u8>, Vec<u8>, bool), BodyError> {
    Ok((payload.to_vec(), left.to_vec(), true))
}

#[test]
fn a_body_without_framing_is_done_at_once() {
    for framing in [Framing::None, Framing::Length(0)] {
        assert!(BodyDecoder::new(framing).is_done());
        assert_eq!(outcome(framing, b"next"), whole(b"", b"next"));
    }
}

#[test]
fn a_length_takes_that_many_bytes_and_no_more() {
    assert_eq!(outcome(Framing::Length(5), b"hellonext"), whole(b"hello", b"next"));
    let short = Ok((b"hell".to_vec(), Vec::new(), false));
    assert_eq!(outcome(Framing::Length(5), b"hell"), short);
    assert_eq!(outcome(Framing::Length(u64::MAX), b"hell"), short);
}

#[test]
fn chunks_are_joined_and_extensions_and_trailers_skipped() {
    for body in [
        &b"5\r\nhello\r\n0\r\n\r\nnext"[..],
        b"2\r\nhe\r\n003\r\nllo\r\n000\r\n\r\nnext",
        b"2;a\r\nhe\r\n3;b=\"c d\"\t;e\r\nllo\r\n0;z\r\n\r\nnext",
        b"2 ; a\t= b;c\r\nhe\r\n3;d=\"\\\"\\\\;\xff\" ;e=f\r\nllo\r\n0\r\n\r\nnext",
        b"5\r\nhello\r\n0\r\nA: b\r\nC:\r\nD: \xff\t\r\n\r\nnext",
    ] {
        assert_eq!(outcome(Framing::Chunked, body), whole(b"hello", b"next"));
    }
}

#[test]
fn broken_chunks_are_refused() {
    use BodyError::*;
    for (body, error) in [
        (&b"\r\n"[..], ChunkSizeInvalid),
        (b"g\r\n", ChunkSizeInvalid),
        (b"-1\r\n", ChunkSizeInvalid),
        (b"+1\r\n", ChunkSizeInvalid),
        (b"0x1\r\n", ChunkSizeInvalid),
        (b" 1\r\n", ChunkSizeInvalid),
        (b"1 \r\n", ChunkExtensionInvalid),
        (b"1\t\r\n", ChunkExtensionInvalid),
        (b"1 1\r\n", ChunkExtensionInvalid),
        (b"1;\r\n", ChunkExtensionInvalid),
        (b"1;;a\r\n", ChunkExtensionInvalid),
        (b"1;a \r\n", ChunkExtensionInvalid),
        (b"1;a=\r\n", ChunkExtensionInvalid),
        (b"1;a=b=c\r\n", ChunkExtensionInvalid),
        (b"1;a b\r\n", ChunkExtensionInvalid),
        (b"1;a[\r\n", ChunkExtensionInvalid),
        (b"1;=b\r\n", ChunkExtensionInvalid),
        (b"1;a=\"b\r\n", ChunkExtensionInvalid),
        (b"1;a=\"b\"c\r\n", ChunkExtensionInvalid),
        (b"1;a=\"\\\r\n", ChunkExtensionInvalid),
        (b";a\r\n", ChunkSizeInvalid),
        (b"10000000000000000\r\n", ChunkSizeInvalid),
        (b"fffffffffffffffff\r\n", ChunkSizeInvalid),
        (b"1\nx\r\n", LineEndInvalid),
        (b"1;a\nx\r\n", LineEndInvalid),
        (b"1\rx", LineEndInvalid),
        (b"1\r\nxy\r\n", LineEndInvalid),
        (b"1\r\nx\n", LineEndInvalid),
        (b"1\r\nx\rz", LineEndInvalid),
        (b"1;\0\r\n", ChunkExtensionInvalid),
        (b"1;\x7f\r\n", ChunkExtensionInvalid),
        (b"0\r\n\n", LineEndInvalid),
        (b"0\r\n\rx", LineEndInvalid),
        (b"0\r\nA: b\n", LineEndInvalid),
        (b"0\r\nA: b\rx", LineEndInvalid),
        (b"0\r\nA: \0\r\n", TrailerInvalid),
        (b"0\r\nA : b\r\n", TrailerInvalid),
        (b"0\r\n A: b\r\n", TrailerInvalid),
        (b"0\r\n: b\r\n", TrailerInvalid),
        (b"0\r\nA\r\n", TrailerInvalid),
    ] {
        let shown = String::from_utf8_lossy(body);
        assert_eq!(outcome(Framing::Chunked, body), Err(error), "{shown:?}");
    }
}

#[test]
fn each_cap_holds_to_the_byte() {
    // The size line is counted up to its CR.
    let extended = |length: usize| {
        let line = format!("0;{}\r\n\r\n", "x".repeat(length - 3));
        outcome(Framing::Chunked, line.as_bytes())
    };
    let zeros = |length: usize| {
        let line = format!("{}\r\n\r\n", "0".repeat(length - 1));
        outcome(Framing::Chunked, line.as_bytes())
    };
    let line_max = usize::from(CHUNK_LINE_BYTES_MAX);
    assert_eq!(extended(line_max), whole(b"", b""));
    assert_eq!(extended(line_max + 1), Err(BodyError::ChunkLineTooLong));
    assert_eq!(zeros(line_max), whole(b"", b""));
    assert_eq!(zeros(line_max + 1), Err(BodyError::ChunkLineTooLong));

    // The trailers are counted up to the CR of the empty line.
    let trailers = |length: usize| {
        let value = "x".repeat(length - "A:\r\nB:\r\n\r".len());
        outcome(Framing::Chunked, format!("0\r\nA:\r\nB:{value}\r\n\r\n").as_bytes())
    };
    let trailers_max = usize::from(TRAILERS_BYTES_MAX);
    assert_eq!(trailers(trailers_max), whole(b"", b""));
    assert_eq!(trailers(trailers_max + 1), Err(BodyError::TrailersTooLarge));
}

proptest! {
    #[test]
    fn any_chunking_and_any_split_gives_the_same_payload(
        chunks in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 1..40), 0..8),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
    ) {
        let mut body = Vec::new();
        for chunk in &chunks {
            body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\nT: x\r\n\r\n");
        let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(body.len())).collect();
        places.extend([0, body.len()]);
        places.sort_unstable();
        let pieces: Vec<_> = places.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
        prop_assert_eq!(decode(Framing::Chunked, &pieces), whole(&chunks.concat(), b""));
    }

    #[test]
    fn any_bytes_in_any_split_have_one_outcome(
        body in "[0-9a-f\r\n; :xA]{0,60}",
        cut in any::<proptest::sample::Index>(),
    ) {
        let body = body.as_bytes();
        let (head, tail) = body.split_at(cut.index(body.len() + 1));
        let (one, two) =
            (decode(Framing::Chunked, &[body]), decode(Framing::Chunked, &[head, tail]));
        prop_assert_eq!(one, two);
    }
}
