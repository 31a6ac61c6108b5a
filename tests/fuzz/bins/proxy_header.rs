#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::proxy_header::check(input));
