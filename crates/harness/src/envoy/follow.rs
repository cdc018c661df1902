//! Shows a person who starts an Envoy where it listens and where its logs are.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::AsyncReadExt;

use super::Envoy;

/// The directory `target/pixell/NAME` for logs, without those of the previous run; `NAME-2` and so on if a program that still runs has
/// it. It is taken for as long as the file is open.
///
/// # Errors
/// If it cannot be made or cleared.
pub fn fresh_directory(name: &str) -> Result<(PathBuf, File)> {
    let mut number = 1;
    loop {
        let name = if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
        let directory = workspace::target().join("pixell").join(name);
        let taken = || {
            fs::create_dir_all(&directory)?;
            let lock = File::create(directory.with_extension("lock"))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            for file in fs::read_dir(&directory)? {
                fs::remove_file(file?.path())?;
            }
            std::io::Result::Ok(Some(lock))
        };
        if let Some(lock) = taken().with_context(|| format!("clearing {}", directory.display()))? {
            return Ok((directory, lock));
        }
        number += 1;
    }
}

/// The addresses and files of `envoy`, a line each.
#[must_use]
pub fn places(envoy: &Envoy) -> String {
    let (data, api) = (envoy.data_url(), envoy.api_url());
    let mut lines = vec![
        format!("agents are called at  {data}"),
        format!("the route API         {api}/v1/"),
        format!("the status page       {api}/"),
    ];
    for (name, file) in [("the access log        ", envoy.access_log_file()), ("Envoy's own log       ", envoy.log_file())] {
        if file.exists() {
            lines.push(format!("{name}{}", file.display()));
        }
    }
    lines.join("\n")
}

/// Prints `file` to standard output as it grows. Drop the future to stop it.
pub async fn print(file: PathBuf) {
    let Ok(mut file) = tokio::fs::File::open(file).await else { return };
    let mut bytes = Vec::new();
    while file.read_to_end(&mut bytes).await.is_ok() {
        // It is not an error of the demo if nobody reads its output any more.
        let _ = std::io::stdout().write_all(&bytes);
        bytes.clear();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_of_a_program_that_runs_stay() {
        let name = format!("test-{}", std::process::id());
        let (first, lock) = fresh_directory(&name).unwrap();
        fs::write(first.join("access.log"), "{}").unwrap();
        let (second, _second_lock) = fresh_directory(&name).unwrap();
        assert_ne!(first, second);
        assert!(first.join("access.log").exists());
        drop(lock);
        let (third, _third_lock) = fresh_directory(&name).unwrap();
        assert_eq!(first, third);
        assert!(!first.join("access.log").exists());
        for directory in [first, second] {
            fs::remove_file(directory.with_extension("lock")).unwrap();
            fs::remove_dir_all(directory).unwrap();
        }
    }
}
