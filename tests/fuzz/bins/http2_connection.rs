#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::http2_connection::check(input));
