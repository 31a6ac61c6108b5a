//! The PROXY protocol's header.

use pushline::proto::proxy::{Malformed, Parsed, parse};

/// More bytes never change what fewer have shown, and a header lies within the bytes.
pub fn check(input: &[u8]) {
    let whole = parse(input);
    for end in 0..input.len() {
        match parse(&input[..end]) {
            Ok(Parsed::Partial) => {}
            Ok(complete) => assert_eq!(Ok(complete), whole),
            Err(Malformed) => assert_eq!(whole, Err(Malformed)),
        }
    }
    if let Ok(Parsed::Complete { length, .. }) = whole {
        assert!(length <= input.len());
    }
}
