#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::chunked_body::check(input));
