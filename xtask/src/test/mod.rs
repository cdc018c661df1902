//! `cargo xtask test`: runs the suites, goes on after one that fails, and closes with the count of all of them.

mod count;
mod need;
mod suites;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use crate::command::{self, say};
use count::Count;
use need::Provided;
use suites::{SUITES, Suite};

/// Run the tests; without names, all that rustup, python3 and node suffice for.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Also run what needs system packages (installed here on Debian) or a container engine
    #[arg(long)]
    all: bool,
    /// Show the suites and run none
    #[arg(long)]
    list: bool,
    /// Run only these suites
    #[arg(value_name = "SUITE", value_parser = SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>())]
    names: Vec<String>,
}

/// How a suite ended.
struct Outcome {
    name: &'static str,
    count: Count,
    took: Duration,
    /// Why it failed, beyond the tests that did.
    fault: Option<String>,
}

/// Runs the suites asked for. Its code is a failure where a test failed, or a suite could not run or ran no test; the count
/// stays the last line then, too.
///
/// # Errors
/// None; every fault is part of the count.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let by_name = !arguments.names.is_empty();
    let (chosen, rest): (Vec<_>, Vec<_>) = SUITES.iter().partition(|suite| {
        if by_name {
            arguments.names.iter().any(|name| name == suite.name)
        } else {
            arguments.all || arguments.list || suite.is_common()
        }
    });
    if arguments.list {
        for suite in chosen {
            println!("{:<12} {}{}", suite.name, suite.about, if suite.is_common() { "" } else { " (--all)" });
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut provided = Provided::default();
    let outcomes: Vec<_> = chosen.into_iter().map(|suite| perform(suite, &mut provided)).collect();
    if !by_name && !rest.is_empty() {
        let names: Vec<_> = rest.iter().map(|suite| suite.name).collect();
        say(&format!("left to --all: {}", names.join(", ")));
    }
    Ok(report(&outcomes))
}

fn perform(suite: &Suite, provided: &mut Provided) -> Outcome {
    say(&format!("suite {}: {}", suite.name, suite.about));
    let started = Instant::now();
    let ended = provided.all(suite.needs).and_then(|()| command::tee(&mut (suite.command)()?));
    let (count, fault) = match ended {
        Ok((output, succeeded)) => judge(suite.runner.count(&output, succeeded), succeeded),
        Err(error) => (Count { failed: 1, ..Count::default() }, Some(format!("{error:#}"))),
    };
    if let Some(fault) = &fault {
        eprintln!("error: suite {}: {fault}", suite.name);
    }
    Outcome { name: suite.name, count, took: started.elapsed(), fault }
}

/// The count that goes into the sum, and what is wrong with the run as a whole. A fault counts as a failed test where none is
/// counted, so that the sum cannot look clean.
fn judge(mut count: Count, succeeded: bool) -> (Count, Option<String>) {
    let fault = if count.skipped > 0 {
        Some(format!("{} tests were skipped: a test that cannot run has to fail", count.skipped))
    } else if count.passed + count.failed == 0 {
        Some(if succeeded { "no test ran" } else { "failed before a test ran" }.to_owned())
    } else if !succeeded && count.failed == 0 {
        Some("the runner failed beyond its tests".to_owned())
    } else {
        None
    };
    if fault.is_some() {
        count.failed = count.failed.max(1);
    }
    (count, fault)
}

/// Prints how each suite ended, and the count of all as the last line.
fn report(outcomes: &[Outcome]) -> ExitCode {
    let mut sum = Count::default();
    println!("\n{:<12} {:>7} {:>7} {:>8}", "suite", "passed", "failed", "seconds");
    for Outcome { name, count, took, fault } in outcomes {
        let fault = fault.as_deref().and_then(|fault| fault.lines().next()).unwrap_or_default();
        println!("{name:<12} {:>7} {:>7} {:>8.1}  {fault}", count.passed, count.failed, took.as_secs_f32());
        sum += *count;
    }
    println!("\n{} passed, {} failed", sum.passed, sum.failed);
    if sum.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check([passed, failed, skipped]: [u64; 3], succeeded: bool, expected_failed: u64, expected_fault: Option<&str>) {
        let (count, fault) = judge(Count { passed, failed, skipped }, succeeded);
        assert_eq!((count.passed, count.failed), (passed, expected_failed));
        match expected_fault {
            Some(part) => assert!(fault.as_deref().is_some_and(|fault| fault.contains(part)), "{fault:?}"),
            None => assert_eq!(fault, None),
        }
    }

    #[test]
    fn only_tests_that_ran_and_passed_are_a_success() {
        check([3, 0, 0], true, 0, None);
        check([3, 2, 0], false, 2, None);
        check([0, 0, 0], true, 1, Some("no test ran"));
        check([0, 0, 0], false, 1, Some("before a test ran"));
        check([3, 0, 0], false, 1, Some("beyond its tests"));
        check([3, 0, 1], true, 1, Some("1 tests were skipped"));
    }
}
