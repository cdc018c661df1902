//! Runs other programs. Each command is printed before it runs. A program that fails or is missing is an error.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub(crate) use workspace::say;

/// A command of the cargo that runs this program, in the workspace's top directory.
pub(crate) fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = program(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.args(arguments);
    command
}

/// A command of the program `name`, in the workspace's top directory.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.current_dir(workspace::root()).stdin(Stdio::null());
    command
}

/// Runs `command`; its output goes to that of this program.
///
/// # Errors
/// If it does not start or does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.status().with_context(|| starting(command))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// The output of a command that [`tee`] ran, and how it ended.
pub(crate) struct Ended {
    /// Its standard output and standard error, in the order in which it wrote them.
    pub(crate) output: String,
    /// Whether it succeeded.
    pub(crate) succeeded: bool,
    /// Whether it was killed because it ran longer than the limit.
    pub(crate) overdue: bool,
}

/// The output of a command that has ended is complete after this time without a line.
const SILENCE: Duration = Duration::from_secs(1);

/// Runs `command` and keeps its output. If it is `live`, prints the command and its output as it comes; otherwise the output begins with the
/// command. Kills it and all processes that it started if it runs longer than `limit`.
///
/// # Errors
/// If it does not start.
pub(crate) fn tee(mut command: Command, limit: Duration, live: bool) -> Result<Ended> {
    let mut text = String::new();
    if live {
        announce(&command);
    } else {
        text = format!("$ {}\n", shown(&command));
    }
    let (output, writer) = std::io::pipe()?;
    let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn().with_context(|| starting(&command))?;
    // It holds the pipe's other end, which has to be closed before the output can end.
    drop(command);
    let (ended, waiting) = mpsc::channel::<()>();
    let id = child.id();
    let watch = thread::spawn(move || {
        let overdue = waiting.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
        if overdue {
            kill_tree(id);
        }
        overdue
    });
    let (lines, coming) = mpsc::channel::<String>();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    let succeeded = loop {
        match coming.recv_timeout(SILENCE) {
            Ok(line) => {
                if live {
                    print!("{line}");
                }
                text.push_str(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break child.wait()?.success(),
            // A process that it left behind may hold the output open.
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = child.try_wait()? {
                    break status.success();
                }
            }
        }
    };
    drop(ended);
    Ok(Ended { output: text, succeeded, overdue: watch.join().unwrap_or_default() })
}

/// Kills a process and all processes that it started. A process group would be simpler, but Ctrl-C would not reach it.
fn kill_tree(root: u32) {
    let listing = Command::new("ps").args(["-e", "-o", "pid=,ppid="]).output();
    let listing = listing.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let pairs: Vec<(u32, u32)> = listing
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        })
        .collect();
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&parent) = tree.get(next) {
        tree.extend(pairs.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        next += 1;
    }
    // An error here only means that a process has ended meanwhile.
    let _ = Command::new("kill").arg("-KILL").args(tree.iter().map(u32::to_string)).stderr(Stdio::null()).status();
}

/// Runs `command` without printing it and returns its standard output.
///
/// # Errors
/// If it does not start or does not succeed; the error then shows its standard error.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| starting(command))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", shown(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn announce(command: &Command) {
    eprintln!("$ {}", shown(command));
}

fn starting(command: &Command) -> String {
    format!("`{}` did not start", shown(command))
}

/// The command as one would type it in a shell: variables first, and the program without its directory.
fn shown(command: &Command) -> String {
    let variables =
        command.get_envs().filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), value?.to_string_lossy())));
    let name = std::path::Path::new(command.get_program());
    let name = name.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    variables.chain([name]).chain(arguments).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = program("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_names_the_command() {
        let error = run(&mut program("false")).unwrap_err();
        assert!(error.to_string().contains("`false` failed"), "{error}");
        let error = read(program("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().ends_with("exit status: 3): why"), "{error}");
        let error = run(&mut program("no-such-program")).unwrap_err();
        assert!(error.to_string().contains("`no-such-program` did not start"), "{error}");
    }

    #[test]
    fn output_is_kept_whatever_its_bytes() {
        let ended = tee(shell(r"printf 'a\n\377\n'; echo b >&2; printf c; exit 1"), Duration::from_secs(60), true).unwrap();
        assert_eq!((ended.output.as_str(), ended.succeeded, ended.overdue), ("a\n\u{fffd}\nb\nc", false, false));
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_its_children() {
        // The inner sleep holds the output open.
        let ended = tee(shell("echo first; sh -c 'sleep 600'; echo never"), Duration::from_secs(1), true).unwrap();
        assert_eq!((ended.output.as_str(), ended.succeeded, ended.overdue), ("first\n", false, true));
    }

    #[test]
    fn a_process_that_a_command_leaves_behind_is_not_waited_for() {
        let begun = std::time::Instant::now();
        let ended = tee(shell("sleep 10 & echo first"), Duration::from_secs(60), true).unwrap();
        assert_eq!((ended.output.as_str(), ended.succeeded, ended.overdue), ("first\n", true, false));
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    }

    #[test]
    fn output_that_is_printed_later_begins_with_the_command() {
        let ended = tee(shell("echo first"), Duration::from_secs(60), false).unwrap();
        assert_eq!((ended.output.as_str(), ended.succeeded), ("$ sh -c echo first\nfirst\n", true));
    }
}
