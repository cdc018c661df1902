//! `cargo xtask envoy` with the image's settings: a value that is not allowed ends the start, as in the image.
#![allow(clippy::unwrap_used, reason = "this is how a test fails")]

use std::process::Command;

#[test]
fn a_setting_that_is_not_allowed_ends_the_start() {
    let mut envoy = Command::new(env!("CARGO_BIN_EXE_envoy"));
    let output = envoy.env("PIXELL_PROXY_PROTOCOL", "v1").env("PIXELL_CONCURRENCY", "0").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said,
        "error: PIXELL_CONCURRENCY is \"0\": expected a whole number from 1 to 256\n\
         error: PIXELL_PROXY_PROTOCOL is \"v1\": expected one of off, v2\n"
    );
}
