//! libFuzzer on the property `snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pixell_fuzz::snapshot::check(bytes));
