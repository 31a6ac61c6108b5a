#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::last_event_id::check(input));
