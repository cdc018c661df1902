//! `cargo xtask envoy` takes the route API's token as the image does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "this is how a test fails")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use harness::RouteApi;

/// A running program. Dropping it ends the program and its Envoy.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

fn program(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_envoy"));
    command.args(["--listen-port", "0", "--admin-port", "0", "--concurrency", "1"]).envs(variables.iter().copied());
    command
}

#[tokio::test]
async fn the_token_is_read_from_the_file_that_the_variable_names() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let file = file.to_str().unwrap();
    let mut running = Running(program(&[("PIXELL_ADMIN_TOKEN_FILE", file)]).stderr(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(running.0.stderr.take().unwrap()).lines();
    let found =
        said.find_map(|line| Some(line.unwrap().strip_prefix("the route API")?.trim().strip_suffix("/v1/")?.to_owned()));
    let url = found.unwrap();
    // The rest of the output must be read, so that the program never waits to write it.
    std::thread::spawn(move || said.for_each(drop));
    for (api, status) in
        [(RouteApi::new(&url), 401), (RouteApi::new(&url).token("s3cret"), 200), (RouteApi::new(&url).token("s3cre"), 401)]
    {
        assert_eq!(api.status().await.unwrap().status, status);
    }
    // Only one of the two variables may be set.
    let output = program(&[("PIXELL_ADMIN_TOKEN_FILE", file), ("PIXELL_ADMIN_TOKEN", "s3cret")]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("are both set") && !said.contains("s3cret"), "{said}");
}
