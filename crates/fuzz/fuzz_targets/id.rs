//! libFuzzer on the property `id`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pixell_fuzz::id::check(bytes));
