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
/// How much the access log tells of requests that went well.
pub const ACCESS_LOG: &str = "PIXELL_ACCESS_LOG";
/// How many of the requests that went well are logged, in percent.
pub const ACCESS_LOG_PERCENT: &str = "PIXELL_ACCESS_LOG_PERCENT";
/// Where traces go: the OTLP collector's gRPC endpoint. Not set, nothing is traced.
pub const OTLP_ENDPOINT: &str = "PIXELL_OTLP_ENDPOINT";
/// How many requests are traced at most, in percent; what a caller has decided not to trace is not traced.
pub const TRACE_PERCENT: &str = "PIXELL_TRACE_PERCENT";
/// Bearer token of the route API. The filter reads it out of Envoy's environment; here its name is only known.
pub const ADMIN_TOKEN: &str = "PIXELL_ADMIN_TOKEN";

/// Every variable that belongs to the image. Another one with the same prefix is most likely misspelt.
const NAMES: [&str; 8] =
    [LOG_LEVEL, CONCURRENCY, DRAIN_SECONDS, ACCESS_LOG, ACCESS_LOG_PERCENT, OTLP_ENDPOINT, TRACE_PERCENT, ADMIN_TOKEN];
const PREFIX: &str = "PIXELL_";

const LOG_LEVELS: [&str; 8] = ["trace", "debug", "info", "warning", "warn", "error", "critical", "off"];
/// Each worker has a VM of its own per module, so thousands of them are a slip and not a wish.
const CONCURRENCY_RANGE: RangeInclusive<u32> = 1..=256;
const DRAIN_RANGE: RangeInclusive<u32> = 0..=3600;
const PERCENT_RANGE: RangeInclusive<u32> = 0..=100;
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
    /// What the access log tells of requests that went well.
    pub access_log: AccessLog,
    /// Where traces go, if anywhere.
    pub tracing: Option<Tracing>,
}

/// What the access log tells of requests that went well, in percent of them. Refused and failed ones are always logged in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// With all fields.
    pub full: u32,
    /// With few fields.
    pub brief: u32,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { full: 100, brief: 0 }
    }
}

/// Where traces go.
#[derive(Debug, PartialEq, Eq)]
pub struct Tracing {
    /// The collector's name or address.
    pub host: String,
    /// Its port for OTLP over gRPC.
    pub port: u16,
    /// How many requests are traced at most, in percent.
    pub percent: u32,
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
        let detail = note(&mut faults, raw(ACCESS_LOG).map(parse_access_log)).unwrap_or(AccessLog::default());
        let mut percent =
            |name| note(&mut faults, raw(name).map(|value| parse_number(name, value, PERCENT_RANGE))).unwrap_or(100);
        let (log_percent, trace_percent) = (percent(ACCESS_LOG_PERCENT), percent(TRACE_PERCENT));
        let collector = note(&mut faults, raw(OTLP_ENDPOINT).map(parse_endpoint));
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            log_level: log_level.unwrap_or_else(|| "info".to_owned()),
            concurrency,
            drain: Duration::from_secs(drain.unwrap_or(DEFAULT_DRAIN_SECONDS).into()),
            access_log: AccessLog { full: detail.full * log_percent / 100, brief: detail.brief * log_percent / 100 },
            tracing: collector.map(|(host, port)| Tracing { host, port, percent: trace_percent }),
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

fn parse_access_log(value: OsString) -> Result<AccessLog, SettingError> {
    match value.to_str() {
        Some("full") => Ok(AccessLog::default()),
        Some("brief") => Ok(AccessLog { full: 0, brief: 100 }),
        Some("failures") => Ok(AccessLog { full: 0, brief: 0 }),
        _ => Err(SettingError { name: ACCESS_LOG, value, expected: "one of full, brief, failures".to_owned() }),
    }
}

/// Reads `host:port`; what the host may be made of is kept to what needs no quoting in Envoy's configuration.
fn parse_endpoint(value: OsString) -> Result<(String, u16), SettingError> {
    let plain =
        |host: &&str| !host.is_empty() && host.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_'));
    let parsed = value
        .to_str()
        .and_then(|text| text.rsplit_once(':'))
        .and_then(|(host, port)| Some((Some(host).filter(plain)?.to_owned(), port.parse().ok().filter(|port| *port != 0)?)));
    parsed.ok_or_else(|| {
        let expected = "the collector's host and its port for OTLP over gRPC, such as localhost:4317".to_owned();
        SettingError { name: OTLP_ENDPOINT, value, expected }
    })
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
    fn the_access_log_and_tracing_are_set() {
        assert_eq!(resolve(&[]).unwrap().access_log, AccessLog { full: 100, brief: 0 });
        assert_eq!(resolve(&[(ACCESS_LOG_PERCENT, "10")]).unwrap().access_log, AccessLog { full: 10, brief: 0 });
        let brief = resolve(&[(ACCESS_LOG, "brief"), (ACCESS_LOG_PERCENT, "5")]).unwrap();
        assert_eq!(brief.access_log, AccessLog { full: 0, brief: 5 });
        assert_eq!(resolve(&[(ACCESS_LOG, "failures")]).unwrap().access_log, AccessLog { full: 0, brief: 0 });
        assert_eq!(resolve(&[]).unwrap().tracing, None);
        let tracing = resolve(&[(OTLP_ENDPOINT, "collector.internal:4317"), (TRACE_PERCENT, "1")]).unwrap().tracing;
        assert_eq!(tracing, Some(Tracing { host: "collector.internal".to_owned(), port: 4317, percent: 1 }));
        check_faults(&[(ACCESS_LOG, "none")], &["PIXELL_ACCESS_LOG is \"none\": expected one of full, brief, failures"]);
        for endpoint in ["localhost", ":4317", "localhost:0", "http://localhost:4317", "a\"b:1", "a:70000"] {
            let faults = resolve(&[(OTLP_ENDPOINT, endpoint)]).unwrap_err();
            assert!(faults.iter().all(|fault| fault.to_string().contains("such as localhost:4317")), "{endpoint}");
        }
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
