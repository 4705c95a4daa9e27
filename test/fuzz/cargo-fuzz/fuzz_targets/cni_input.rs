//! `ovenbird_fuzz::cni_input` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ovenbird_fuzz::cni_input(bytes));
