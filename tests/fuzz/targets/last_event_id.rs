//! Cursors: what a client sends as the last id it saw.

use pushline::proto::cursor::{Cursor, EPOCH_LEN, Epoch, EventId};

/// Zero bits make the epoch `aaaaaaaa`, which the corpus can write out.
const EPOCH_BITS: u64 = 0;

/// Ids are read as a plain reading of the rule does, and an id that was read is printed unchanged.
pub fn check(input: &[u8]) {
    let epoch = Epoch::from_random(EPOCH_BITS);
    let cursor = Cursor::parse(input, epoch);
    assert_eq!(cursor, plainly(input, epoch));
    if let Cursor::After(seq) = cursor {
        let mut printed = Vec::new();
        EventId { epoch, seq }.write(&mut printed);
        assert_eq!(printed, input);
        assert!(printed.len() <= EPOCH_LEN + 1 + 20);
    }
}

fn plainly(input: &[u8], epoch: Epoch) -> Cursor {
    let Ok(text) = std::str::from_utf8(input) else { return Cursor::Foreign };
    match text {
        "" => return Cursor::Now,
        "earliest" => return Cursor::Earliest,
        _ => {}
    }
    match text.split_once('-') {
        Some((before, after)) if before == epoch.to_string() => match after.parse::<u64>() {
            // There is only one way to write a number.
            Ok(seq) if seq.to_string() == after => Cursor::After(seq),
            _ => Cursor::Foreign,
        },
        _ => Cursor::Foreign,
    }
}
