//! The settings of the image: environment variables, each checked, resolved to Envoy's command line.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Envoy's log level.
pub const LOG_LEVEL: &str = "PIXELL_LOG_LEVEL";
/// Number of Envoy's worker threads.
pub const CONCURRENCY: &str = "PIXELL_CONCURRENCY";
/// Longest wait for open streams after SIGTERM, in seconds.
pub const DRAIN_SECONDS: &str = "PIXELL_DRAIN_SECONDS";
/// Bearer token of the route API. The filter reads it out of Envoy's environment; here its name is only known.
pub const ADMIN_TOKEN: &str = "PIXELL_ADMIN_TOKEN";

/// Every variable that belongs to the image. Another one with the same prefix is most likely misspelt.
const NAMES: [&str; 4] = [LOG_LEVEL, CONCURRENCY, DRAIN_SECONDS, ADMIN_TOKEN];
const PREFIX: &str = "PIXELL_";

const LOG_LEVELS: [&str; 8] = ["trace", "debug", "info", "warning", "warn", "error", "critical", "off"];
/// Each worker has a VM of its own per module, so thousands of them are a slip and not a wish.
const CONCURRENCY_RANGE: RangeInclusive<u32> = 1..=256;
const DRAIN_RANGE: RangeInclusive<u32> = 0..=3600;
const DEFAULT_DRAIN_SECONDS: u32 = 30;

/// The resolved settings.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// One of Envoy's log levels; `info` unless set.
    pub log_level: String,
    /// Number of worker threads; `None` leaves it to Envoy, which starts one for each processor.
    pub concurrency: Option<u32>,
    /// Longest wait for open streams after SIGTERM; zero ends at once. 30 s unless set.
    pub drain: Duration,
}

/// A variable with a value that is not allowed.
#[derive(Debug, PartialEq, Eq)]
pub struct SettingError {
    name: &'static str,
    value: OsString,
    expected: String,
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {:?}: expected {}", self.name, self.value, self.expected)
    }
}

impl std::error::Error for SettingError {}

impl Settings {
    /// Resolves the settings from the variables that `get` gives. A variable that is empty counts as not set, since compose
    /// files pass `${NAME:-}` on as an empty one.
    ///
    /// # Errors
    /// Every variable whose value is not allowed.
    pub fn resolve(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, Vec<SettingError>> {
        let mut faults = Vec::new();
        let raw = |name| get(name).filter(|value| !value.is_empty());
        let log_level = note(&mut faults, raw(LOG_LEVEL).map(parse_log_level));
        let concurrency = note(&mut faults, raw(CONCURRENCY).map(|value| parse_number(CONCURRENCY, value, CONCURRENCY_RANGE)));
        let drain = note(&mut faults, raw(DRAIN_SECONDS).map(|value| parse_number(DRAIN_SECONDS, value, DRAIN_RANGE)));
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            log_level: log_level.unwrap_or_else(|| "info".to_owned()),
            concurrency,
            drain: Duration::from_secs(drain.unwrap_or(DEFAULT_DRAIN_SECONDS).into()),
        })
    }

    /// The arguments of Envoy that these settings stand for.
    #[must_use]
    pub fn envoy_args(&self) -> Vec<String> {
        let mut args = vec!["--log-level".to_owned(), self.log_level.clone()];
        if let Some(concurrency) = self.concurrency {
            args.extend(["--concurrency".to_owned(), concurrency.to_string()]);
        }
        args
    }
}

/// The names that look like settings of the image and are none.
pub fn unknown_names(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let mut unknown: Vec<String> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with(PREFIX) && !NAMES.contains(&name.as_str()))
        .collect();
    unknown.sort();
    unknown
}

/// What [`unknown_names`] are compared with, for messages.
#[must_use]
pub fn known_names() -> String {
    NAMES.join(", ")
}

/// Keeps the value of a parsed variable, or its fault.
fn note<T>(faults: &mut Vec<SettingError>, parsed: Option<Result<T, SettingError>>) -> Option<T> {
    match parsed? {
        Ok(value) => Some(value),
        Err(fault) => {
            faults.push(fault);
            None
        }
    }
}

fn parse_log_level(value: OsString) -> Result<String, SettingError> {
    match value.to_str() {
        Some(level) if LOG_LEVELS.contains(&level) => Ok(level.to_owned()),
        _ => Err(SettingError { name: LOG_LEVEL, value, expected: format!("one of {}", LOG_LEVELS.join(", ")) }),
    }
}

fn parse_number(name: &'static str, value: OsString, range: RangeInclusive<u32>) -> Result<u32, SettingError> {
    match OsStr::to_str(&value).and_then(|text| text.parse().ok()) {
        Some(number) if range.contains(&number) => Ok(number),
        _ => {
            let expected = format!("a whole number from {} to {}", range.start(), range.end());
            Err(SettingError { name, value, expected })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(vars: &[(&str, &str)]) -> Result<Settings, Vec<SettingError>> {
        Settings::resolve(|name| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    #[track_caller]
    fn check_args(vars: &[(&str, &str)], expected: &str) {
        assert_eq!(resolve(vars).unwrap().envoy_args().join(" "), expected);
    }

    #[track_caller]
    fn check_faults(vars: &[(&str, &str)], expected: &[&str]) {
        let faults: Vec<String> = resolve(vars).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(faults, expected);
    }

    #[test]
    fn settings_become_arguments() {
        check_args(&[], "--log-level info");
        check_args(&[(LOG_LEVEL, ""), (CONCURRENCY, "")], "--log-level info");
        check_args(&[(LOG_LEVEL, "debug"), (CONCURRENCY, "2")], "--log-level debug --concurrency 2");
        check_args(&[(CONCURRENCY, "256")], "--log-level info --concurrency 256");
    }

    #[test]
    fn the_drain_time_has_a_default_and_may_be_zero() {
        assert_eq!(resolve(&[]).unwrap().drain, Duration::from_secs(30));
        assert_eq!(resolve(&[(DRAIN_SECONDS, "0")]).unwrap().drain, Duration::ZERO);
        assert_eq!(resolve(&[(DRAIN_SECONDS, "3600")]).unwrap().drain, Duration::from_secs(3600));
    }

    #[test]
    fn a_fault_names_the_variable_the_value_and_what_is_allowed() {
        check_faults(&[(CONCURRENCY, "0")], &["PIXELL_CONCURRENCY is \"0\": expected a whole number from 1 to 256"]);
        check_faults(&[(CONCURRENCY, "two")], &["PIXELL_CONCURRENCY is \"two\": expected a whole number from 1 to 256"]);
        check_faults(&[(DRAIN_SECONDS, "30s")], &["PIXELL_DRAIN_SECONDS is \"30s\": expected a whole number from 0 to 3600"]);
        check_faults(&[(DRAIN_SECONDS, "-1")], &["PIXELL_DRAIN_SECONDS is \"-1\": expected a whole number from 0 to 3600"]);
        check_faults(&[(DRAIN_SECONDS, " ")], &["PIXELL_DRAIN_SECONDS is \" \": expected a whole number from 0 to 3600"]);
    }

    #[test]
    fn every_fault_is_told() {
        check_faults(
            &[(LOG_LEVEL, "loud"), (CONCURRENCY, "257"), (DRAIN_SECONDS, "3601")],
            &[
                "PIXELL_LOG_LEVEL is \"loud\": expected one of trace, debug, info, warning, warn, error, critical, off",
                "PIXELL_CONCURRENCY is \"257\": expected a whole number from 1 to 256",
                "PIXELL_DRAIN_SECONDS is \"3601\": expected a whole number from 0 to 3600",
            ],
        );
    }

    #[test]
    fn misspelt_names_are_found() {
        let names = ["PATH", "PIXELL_LOGLEVEL", LOG_LEVEL, ADMIN_TOKEN, "PIXELL_DRAIN"].map(OsString::from);
        assert_eq!(unknown_names(names.into_iter()), ["PIXELL_DRAIN", "PIXELL_LOGLEVEL"]);
    }
}
