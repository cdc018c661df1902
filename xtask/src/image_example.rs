//! The first example of docs/image.md, from an image to a call, and the change of what is logged in docs/operations.md: run as they stand, but
//! in the network of a container and not of this machine, whose ports may be taken.

use anyhow::{Context, Result, bail, ensure};

use crate::command::{program, read, say};

const DOCUMENT: &str = "docs/image.md";
const OPERATIONS: &str = "docs/operations.md";

/// Runs the example on the image that it names, with `python` as the image of the container that has the network.
///
/// # Errors
/// If the example does not end in a response of its agent, or there are no rights to enter a network (root has them).
pub(crate) fn run(python: &str) -> Result<()> {
    say(&format!("running the first example of {DOCUMENT}"));
    let name = format!("pixell-example-{}", std::process::id());
    let network = format!("{name}-network");
    let outcome = enter(python, &name, &network);
    let _ = read(program("docker").args(["rm", "--force", "--volumes", &name, &network]));
    outcome
}

fn enter(python: &str, name: &str, network: &str) -> Result<()> {
    let script = script(&read_document(DOCUMENT)?, &read_document(OPERATIONS)?, name, network)?;
    read(program("docker").args(["run", "--detach", "--name", network, python, "sleep", "infinity"]))?;
    let process = read(program("docker").args(["inspect", "--format", "{{.State.Pid}}", network]))?;
    let mut shell = program("nsenter");
    shell.args(["--target", process.trim(), "--net", "bash", "-euo", "pipefail", "-c", &script]);
    let said = read(&mut shell).context("the example failed; entering a container's network needs root")?;
    for expected in ["\"added\":1", "Directory listing for /", "\nOK\n"] {
        ensure!(said.contains(expected), "the example does not print {expected:?} but:\n{said}");
    }
    Ok(())
}

fn read_document(path: &str) -> Result<String> {
    std::fs::read_to_string(workspace::root().join(path)).with_context(|| format!("reading {path}"))
}

/// The first block, the commands of `operations` for Envoy's admin socket, and the block that cleans up, with names and a network of their
/// own.
fn script(text: &str, operations: &str, name: &str, network: &str) -> Result<String> {
    let mut blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let (Some(first), Some(last)) = (blocks.next(), blocks.next()) else { bail!("{DOCUMENT} has no two blocks of commands") };
    let at_socket = operations.lines().filter(|line| line.starts_with("    socket=") || line.contains("--unix-socket $socket"));
    let at_socket: Vec<_> = at_socket.map(str::trim).collect();
    ensure!(at_socket.len() == 2, "{OPERATIONS} has {at_socket:?} for the admin socket");
    let mut script = format!("{first}{}\n{last}", at_socket.join("\n"));
    for (shown, own) in [
        ("--network host", format!("--network container:{network}")),
        ("--name pixell-envoy ", format!("--name {name} ")),
        ("docker exec pixell-envoy ", format!("docker exec {name} ")),
        ("{{.State.Pid}}' pixell-envoy)", format!("{{{{.State.Pid}}}}' {name})")),
        ("docker rm --force pixell-envoy\n", format!("docker rm --force {name}\n")),
    ] {
        ensure!(script.matches(shown).count() == 1, "the example of {DOCUMENT} has {shown:?} not once:\n{script}");
        script = script.replace(shown, &own);
    }
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_gets_names_of_its_own() {
        let script = script(&read_document(DOCUMENT).unwrap(), &read_document(OPERATIONS).unwrap(), "mine", "net").unwrap();
        assert!(script.contains("--name mine --network container:net"), "{script}");
        assert!(
            script.contains("127.0.0.1:50051")
                && script.contains("' mine)/root/run")
                && script.contains("docker rm --force mine\n"),
            "{script}"
        );
    }
}
