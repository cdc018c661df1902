//! `cargo xtask test`: runs the suites, also after one that fails, and ends with the count of all tests.

mod count;
mod need;
mod suite;
mod suites;
mod wasm_only;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use crate::command::{self, Ended, say};
use count::Count;
use launcher::filter::{Filter, from_environment};
use need::Provided;
use suite::Suite;
use suites::SUITES;

/// Run the test suites; without names, all that need only rustup, python3, node and openssl.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Also run the suites that need system packages (which are installed on Debian) or a container engine
    #[arg(long)]
    all: bool,
    /// Run only suites that work with either form of the filter, and use this form [default: all suites, with $PIXELL_FILTER, or wasm]
    #[arg(long, value_name = "wasm|native", value_parser = |name: &str| Filter::named(name).ok_or("expected wasm or native"))]
    filter: Option<Filter>,
    /// List the suites and run none
    #[arg(long)]
    list: bool,
    /// Run one suite at a time, and show all output as it comes [default: two, because most suites wait more than they compute]
    #[arg(long)]
    one_by_one: bool,
    /// Run only these suites
    #[arg(value_name = "SUITE", value_parser = SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>())]
    names: Vec<String>,
}

/// How a suite ended.
struct Outcome {
    name: &'static str,
    count: Count,
    took: Duration,
    /// Why it failed, if not only because tests failed.
    error: Option<String>,
}

/// Runs the chosen suites. The exit code is a failure if a test failed, or a suite could not run or ran no test. The last line of
/// the output is the count.
///
/// # Errors
/// If `$PIXELL_FILTER` names no form of the filter. All errors of suites are part of the count.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let by_name = !arguments.names.is_empty();
    let (chosen, rest): (Vec<_>, Vec<_>) = SUITES.iter().partition(|suite| {
        if by_name {
            arguments.names.iter().any(|name| name == suite.name)
        } else {
            (arguments.all || arguments.list || suite.is_common()) && (arguments.filter.is_none() || suite.has_choice())
        }
    });
    if arguments.list {
        for suite in chosen {
            let all = if suite.is_common() { "" } else { " (--all)" };
            println!("{:<17} {:>4} s  {}{all}", suite.name, suite.seconds, suite.about);
        }
        println!("\nAbout {} minutes, {} with --all, on two cores, the first run longer.", minutes(false), minutes(true));
        return Ok(ExitCode::SUCCESS);
    }
    let filter = arguments.filter.map_or_else(|| from_environment().map_err(anyhow::Error::msg), Ok)?;
    let outcomes = run_all(chosen, filter, arguments.one_by_one);
    if !by_name && !rest.is_empty() {
        let names: Vec<_> = rest.iter().map(|suite| suite.name).collect();
        say(&format!("not run without --all: {}", names.join(", ")));
    }
    Ok(report(&outcomes))
}

/// How long a run without names takes on two cores: each lane takes its next suite when it has ended the one before.
fn minutes(all: bool) -> u32 {
    let mut waiting: VecDeque<_> = SUITES.iter().filter(|suite| all || suite.is_common()).map(|suite| suite.seconds).collect();
    let (mut live, mut other) = (0, 0);
    while let Some(seconds) = if live <= other { waiting.pop_front() } else { waiting.pop_back() } {
        *(if live <= other { &mut live } else { &mut other }) += seconds;
    }
    live.max(other) / 60
}

/// Runs the suites in two lanes, which begin at the two ends of the list and meet. The first shows all output as it comes, the second
/// that of a whole suite at its end; only what a suite builds or installs before its tests is shown at once.
fn run_all(suites: Vec<&'static Suite>, filter: Filter, one_by_one: bool) -> Vec<Outcome> {
    let count = suites.len();
    let waiting = Mutex::new(suites.into_iter().zip(1..).collect::<VecDeque<_>>());
    let provided = Mutex::new(Provided::default());
    let lane = |live: bool| -> Vec<_> {
        let next = || {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if live { waiting.pop_front() } else { waiting.pop_back() }
        };
        std::iter::from_fn(next).map(|(suite, number)| perform(suite, (number, count), filter, &provided, live)).collect()
    };
    thread::scope(|scope| {
        let second = (!one_by_one && count > 1).then(|| scope.spawn(|| lane(false)));
        let mut outcomes = lane(true);
        match second.map(thread::ScopedJoinHandle::join) {
            Some(Ok(others)) => outcomes.extend(others.into_iter().rev()),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => {}
        }
        outcomes
    })
}

fn perform(suite: &Suite, (number, count): (usize, usize), filter: Filter, provided: &Mutex<Provided>, live: bool) -> Outcome {
    let Suite { name, seconds, about, .. } = suite;
    let later = if live { "" } else { " (beside the others; its output follows when it has ended)" };
    say(&format!("suite {number} of {count}, {name}, about {seconds} s: {about}{later}"));
    let started = Instant::now();
    let limit = suite.limit();
    let provide = || provided.lock().unwrap_or_else(PoisonError::into_inner).all(suite.needs);
    let ended = provide().and_then(|()| command::tee(suite.command_with(filter)?, limit, live));
    if let (false, Ok(Ended { output, .. })) = (live, &ended) {
        // In one piece, so that no line of the other lane comes between.
        println!("==> the output of suite {name}:\n{output}==> that was suite {name}");
    }
    let (count, error) = match ended {
        Ok(Ended { output, overdue: true, .. }) => {
            let count = suite.runner.count(&output, false);
            let error = format!("killed after {} s: a test hangs, one that has no result in the output above", limit.as_secs());
            (Count { failed: count.failed + 1, ..count }, Some(error))
        }
        Ok(Ended { output, succeeded, .. }) => judge(suite.runner.count(&output, succeeded), succeeded),
        Err(error) => (Count { failed: 1, ..Count::default() }, Some(format!("{error:#}"))),
    };
    if let Some(error) = &error {
        eprintln!("error: suite {name}: {error}");
    }
    Outcome { name: suite.name, count, took: started.elapsed(), error }
}

/// The count for the sum, and the error of the suite as a whole, if there is one. Such an error counts as at least one failed test, so
/// that the sum is never clean despite an error.
fn judge(mut count: Count, succeeded: bool) -> (Count, Option<String>) {
    let error = if count.skipped > 0 {
        Some(format!("{} tests were skipped: a test that cannot run must fail", count.skipped))
    } else if count.passed + count.failed == 0 {
        Some(if succeeded { "no test ran" } else { "failed before a test ran" }.to_owned())
    } else if !succeeded && count.failed == 0 {
        Some("the runner failed, although no test did".to_owned())
    } else {
        None
    };
    if error.is_some() {
        count.failed = count.failed.max(1);
    }
    (count, error)
}

/// Prints how each suite ended, and as the last line the count of all tests.
fn report(outcomes: &[Outcome]) -> ExitCode {
    let mut sum = Count::default();
    println!("\n{:<17} {:>7} {:>7} {:>8}", "suite", "passed", "failed", "seconds");
    for Outcome { name, count, took, error } in outcomes {
        let error = error.as_deref().and_then(|error| error.lines().next()).unwrap_or_default();
        println!("{name:<17} {:>7} {:>7} {:>8.1}  {error}", count.passed, count.failed, took.as_secs_f32());
        sum += *count;
    }
    println!("\n{} passed, {} failed", sum.passed, sum.failed);
    if sum.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check([passed, failed, skipped]: [u64; 3], succeeded: bool, expected_failed: u64, expected_error: Option<&str>) {
        let (count, error) = judge(Count { passed, failed, skipped }, succeeded);
        assert_eq!((count.passed, count.failed), (passed, expected_failed));
        match expected_error {
            Some(part) => assert!(error.as_deref().is_some_and(|error| error.contains(part)), "{error:?}"),
            None => assert_eq!(error, None),
        }
    }

    #[test]
    fn the_readme_names_how_long_they_take() {
        let text = std::fs::read_to_string(workspace::root().join("README.md")).unwrap();
        for (command, all) in [("cargo xtask test ", false), ("cargo xtask test --all ", true)] {
            let line = text.lines().find(|line| line.starts_with(command)).unwrap();
            let (_, figure) = line.split_once("about ").unwrap();
            let named: u32 = figure.split(' ').next().unwrap().parse().unwrap();
            // A rough figure, so that not every change of a suite is one of the README.
            assert!(named.abs_diff(minutes(all)) * 10 <= named, "{line}: {} minutes", minutes(all));
        }
    }

    #[test]
    fn only_tests_that_ran_and_passed_are_a_success() {
        check([3, 0, 0], true, 0, None);
        check([3, 2, 0], false, 2, None);
        check([0, 0, 0], true, 1, Some("no test ran"));
        check([0, 0, 0], false, 1, Some("before a test ran"));
        check([3, 0, 0], false, 1, Some("although no test did"));
        check([3, 0, 1], true, 1, Some("1 tests were skipped"));
    }
}
