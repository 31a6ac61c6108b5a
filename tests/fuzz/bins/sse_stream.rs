#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::sse_stream::check(input));
