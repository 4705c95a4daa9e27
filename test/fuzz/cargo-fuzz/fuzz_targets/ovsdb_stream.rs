//! `ovenbird_fuzz::ovsdb_stream` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ovenbird_fuzz::ovsdb_stream(bytes));
