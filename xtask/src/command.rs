//! Running other programs: each is printed before it runs, and one that fails or is missing is an error.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The cargo that runs this program, in the workspace's top directory.
pub(crate) fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = program(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.args(arguments);
    command
}

/// `name`, in the workspace's top directory.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.current_dir(harness::workspace::root()).stdin(Stdio::null());
    command
}

/// Runs `command` with its output on this program's.
///
/// # Errors
/// Where it does not start or does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.status().with_context(|| starting(command))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs `command`, lets its output through as it comes and also returns what it wrote to standard output, with whether it
/// succeeded.
///
/// # Errors
/// Where it does not start.
pub(crate) fn tee(command: &mut Command) -> Result<(String, bool)> {
    announce(command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| starting(command))?;
    let mut text = String::new();
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line)? > 0 {
            let shown = String::from_utf8_lossy(&line);
            print!("{shown}");
            text.push_str(&shown);
            line.clear();
        }
    }
    Ok((text, child.wait()?.success()))
}

/// Runs `command` quietly and returns what it wrote to standard output.
///
/// # Errors
/// Where it does not start or does not succeed; then with what it wrote to standard error.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| starting(command))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", shown(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Says what happens next.
pub(crate) fn say(text: &str) {
    eprintln!("==> {text}");
}

fn announce(command: &Command) {
    eprintln!("$ {}", shown(command));
}

fn starting(command: &Command) -> String {
    format!("`{}` did not start", shown(command))
}

/// The command as one would type it: the program without its directory, what it was given in its environment first.
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
        let (text, succeeded) = tee(program("sh").args(["-c", r"printf 'a\n\377\nb'; exit 1"])).unwrap();
        assert_eq!((text.as_str(), succeeded), ("a\n\u{fffd}\nb", false));
    }
}
