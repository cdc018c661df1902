//! libFuzzer on the property `patch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pixell_fuzz::patch::check(bytes));
