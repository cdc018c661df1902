//! libFuzzer on the property `card`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pixell_fuzz::card::check(bytes));
