//! `ovenbird_fuzz::api_objects` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ovenbird_fuzz::api_objects(bytes));
