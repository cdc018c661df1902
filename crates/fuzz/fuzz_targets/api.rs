//! libFuzzer on the property `api`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pixell_fuzz::api::check(bytes));
