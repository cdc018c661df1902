//! Envoy starts although another program takes a port that the system gave to it.
#![allow(clippy::unwrap_used, reason = "this is how a test fails")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

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

/// Neither if the program begins to listen after Envoy has bound the port, nor if it did so before.
#[tokio::test]
async fn a_free_port_for_the_settings_is_replaced_too() {
    let directory = tempfile::tempdir().unwrap();
    let (program, chosen) = (unlucky(directory.path(), 1), Mutex::new(Vec::new()));
    let envoy = Envoy::on_free_port(|port| {
        let mut chosen = chosen.lock().unwrap();
        // The first start fails as the program says; the second one because this port is taken.
        let taken = (chosen.len() == 1).then(|| TcpListener::bind(("127.0.0.1", port)).unwrap());
        chosen.push((port, taken));
        Envoy::builder().binary(&program)
    });
    let envoy = envoy.await.unwrap();
    let ports: Vec<_> = chosen.into_inner().unwrap().iter().map(|(port, _)| *port).collect();
    assert_eq!((ports.len(), starts(directory.path()), envoy.data_addr().port()), (3, 3, ports[2]));
}

#[tokio::test]
async fn a_port_that_was_chosen_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = Envoy::builder().binary(unlucky(directory.path(), 2)).data_port(port).start().await.unwrap_err();
    assert_eq!(starts(directory.path()), 1);
    assert!(error.to_string().contains("began to listen on a port that Envoy had bound"), "{error}");
}
