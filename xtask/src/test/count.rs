//! How many tests a runner ran, read from its output.

use std::ops::AddAssign;

use regex::Regex;

/// Tests that ran, and tests that did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that were skipped. This is an error, because a test that cannot run must fail.
    pub skipped: u64,
}

/// The form in which a runner prints its count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runner {
    /// `cargo test` and wasm-bindgen's runner: a line `test result: ok. 1 passed; 0 failed; 0 ignored; ...` for each binary.
    Cargo,
    /// pytest: its last line `2 failed, 1 passed in 0.12s`, in a frame of `=` or without.
    Pytest,
    /// Any program that prints a line `2 passed, 1 failed`; the last one counts.
    Plain,
    /// A program that is one test as a whole. Its exit code says whether it passed.
    Whole,
}

impl Runner {
    /// The count in the `output` of a run that `succeeded` or not; all zero if the output has none.
    #[must_use]
    pub(super) fn count(self, output: &str, succeeded: bool) -> Count {
        match self {
            Self::Cargo => {
                let mut sum = Count::default();
                for line in output.lines().filter(|line| line.trim_start().starts_with("test result: ")) {
                    sum += words(line);
                }
                sum
            }
            Self::Pytest => last(output, |line| line.contains(" in ") && words(line) != Count::default()),
            Self::Plain => last(output, |line| line.contains(" passed, ") && line.trim_end().ends_with(" failed")),
            Self::Whole => Count { passed: succeeded.into(), failed: (!succeeded).into(), skipped: 0 },
        }
    }
}

fn last(output: &str, wanted: impl Fn(&str) -> bool) -> Count {
    output.lines().rev().find(|line| wanted(line)).map(words).unwrap_or_default()
}

/// Adds up every `<number> <word>` of `line`.
fn words(line: &str) -> Count {
    let mut count = Count::default();
    // The tests below check that the pattern compiles. If it did not, nothing would be counted, and every suite would fail.
    let Ok(pattern) = Regex::new(r"(\d+) (passed|failed|errors?|ignored|skipped|xpassed)\b") else { return count };
    for found in pattern.captures_iter(line) {
        let (_, [number, word]) = found.extract();
        let number: u64 = number.parse().unwrap_or(0);
        match word {
            "passed" => count.passed += number,
            "ignored" | "skipped" => count.skipped += number,
            _ => count.failed += number,
        }
    }
    count
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(runner: Runner, output: &str, [passed, failed, skipped]: [u64; 3]) {
        assert_eq!(runner.count(output, true), Count { passed, failed, skipped });
    }

    #[test]
    fn cargo_prints_a_count_for_each_binary() {
        let output = "\
            running 3 tests\n\
            test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.08s\n\
            note: 9 failed elsewhere\n\
            test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.08s\n";
        check(Runner::Cargo, output, [4, 2, 1]);
    }

    #[test]
    fn wasm_bindgen_prints_the_same_as_cargo() {
        check(Runner::Cargo, "test result: ok. 7 passed; 0 failed; 0 ignored; 0 filtered out; finished in 0.01s\n", [7, 0, 0]);
        check(Runner::Cargo, "no tests to run!\n", [0, 0, 0]);
    }

    #[test]
    fn pytest_prints_a_count_at_the_end() {
        check(Runner::Pytest, "..F [100%]\n1 failed in here\n1 failed, 2 passed in 0.12s\n", [2, 1, 0]);
        check(Runner::Pytest, "== 3 passed, 1 skipped, 2 errors, 1 xfailed in 61.20s (0:01:01) ==\n", [3, 2, 1]);
        check(Runner::Pytest, "no tests ran in 0.01s\n", [0, 0, 0]);
    }

    #[test]
    fn a_plain_count_is_alone_on_its_line() {
        check(Runner::Plain, "step one\n5 passed, 1 failed\n", [5, 1, 0]);
        check(Runner::Plain, "nothing here\n", [0, 0, 0]);
    }

    #[test]
    fn a_whole_program_is_one_test() {
        check(Runner::Whole, "", [1, 0, 0]);
        assert_eq!(Runner::Whole.count("5 passed", false), Count { failed: 1, ..Count::default() });
    }
}
