//! Envoy starts although another program takes a port that the system gave to it.
#![allow(clippy::unwrap_used, reason = "this is how a test fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use harness::Envoy;

/// A program that is Envoy, but for its first `failures` starts only says that a port was taken.
fn unlucky(directory: &Path, failures: usize) -> PathBuf {
    let program = directory.join("unlucky");
    let script = format!(
        "#!/bin/sh\n\
         number=0\n\
         until [ \"$1\" = --version ] || mkdir \"$0-$number\"; do number=$((number + 1)); done 2>/dev/null\n\
         if [ \"$1\" = --version ] || [ $number -ge {failures} ]; then exec {} \"$@\"; fi\n\
         echo \"listener init for listener 'agents' failed: cannot listen() errno=98\" >&2\n\
         exec sleep 600\n",
        workspace::envoy::locate().unwrap().display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// How often the program was started.
fn starts(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
}

#[tokio::test]
async fn a_port_that_was_taken_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let envoy = Envoy::builder().binary(unlucky(directory.path(), 2)).start().await.unwrap();
    assert_eq!((starts(directory.path()), envoy.routes().status().await.unwrap().status.as_u16()), (3, 200));
}

#[tokio::test]
async fn a_port_that_was_chosen_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = Envoy::builder().binary(unlucky(directory.path(), 2)).data_port(port).start().await.unwrap_err();
    assert_eq!(starts(directory.path()), 1);
    assert!(error.to_string().contains("began to listen on a port that Envoy had bound"), "{error}");
}
