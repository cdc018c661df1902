//! The entry point itself, started with invalid tokens: its error names the variable and does not show the value.

use std::process::Command;

#[test]
fn an_invalid_token_ends_the_start_with_exit_code_78() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("token");
    std::fs::write(&file, "s3cret token\n").unwrap();
    let file = file.to_str().unwrap();
    let both = "PIXELL_ADMIN_TOKEN and PIXELL_ADMIN_TOKEN_FILE are both set";
    for (vars, expected) in [
        (vec![("PIXELL_ADMIN_TOKEN", "s3cret token")], "PIXELL_ADMIN_TOKEN is empty or holds characters"),
        (vec![("PIXELL_ADMIN_TOKEN", "")], "PIXELL_ADMIN_TOKEN is empty or holds characters"),
        (vec![("PIXELL_ADMIN_TOKEN_FILE", file)], "PIXELL_ADMIN_TOKEN_FILE is \"/"),
        (vec![("PIXELL_ADMIN_TOKEN_FILE", "")], "PIXELL_ADMIN_TOKEN_FILE is \"\""),
        (vec![("PIXELL_ADMIN_TOKEN_FILE", "/nonexistent")], "PIXELL_ADMIN_TOKEN_FILE is \"/nonexistent\""),
        (vec![("PIXELL_ADMIN_TOKEN", "s3cret"), ("PIXELL_ADMIN_TOKEN_FILE", file)], both),
        (vec![("PIXELL_ADMIN_TOKEN", ""), ("PIXELL_ADMIN_TOKEN_FILE", file)], both),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_pixell-envoy")).env_clear().envs(vars.clone()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{vars:?}: {said}");
        assert!(said.contains(expected) && !said.contains("s3cret"), "{vars:?}: {said}");
    }
}
