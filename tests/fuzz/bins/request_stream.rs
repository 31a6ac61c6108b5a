#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::request_stream::check(input));
