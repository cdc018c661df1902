//! libFuzzer on the property `table`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pixell_fuzz::table::check(bytes));
