//! The settings of the image: environment variables, checked and resolved to Envoy's command line.

mod error;
mod names;

use crate::addressing::{self, Addressing};
use crate::cors;
use crate::filter::Filter;
use crate::fleet::{self, Fleet};
use crate::jwt::Jwt;
use crate::origin::{self, Origin};
use crate::peer_tls::PeerTls;
use crate::rate_limit::{self, RateLimit};
use crate::tls::Tls;
use pixell_core::cidr::Cidr;
use pixell_core::metrics::MAX_WORKERS;
use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

pub use error::SettingError;
pub use names::*;

const LOG_LEVELS: [&str; 8] = ["trace", "debug", "info", "warning", "warn", "error", "critical", "off"];
/// Those at which Envoy logs the headers of requests.
const TELLING_LEVELS: [&str; 2] = ["trace", "debug"];
/// The values of [`CONCURRENCY`].
pub const CONCURRENCY_RANGE: RangeInclusive<u32> = 1..=MAX_WORKERS;
const DRAIN_RANGE: RangeInclusive<u32> = 0..=3600;
/// With an age of 1 s, every few requests cost a handshake. A day is longer than any deployment waits.
const AGE_RANGE: RangeInclusive<u32> = 1..=86400;
/// At most as many as the shipped file allows all clients together.
const CLIENT_RANGE: RangeInclusive<u32> = 1..=10_000;
const CALL_RANGE: RangeInclusive<u32> = 1..=86400;
const PERCENT_RANGE: RangeInclusive<u32> = 0..=100;
const DEFAULT_DRAIN_SECONDS: u32 = 30;

/// The resolved settings.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// The form of the filter.
    pub filter: Filter,
    /// One of Envoy's log levels; `info` unless set.
    pub log_level: String,
    /// Number of worker threads; `None` leaves it to Envoy, which starts one for each processor.
    pub concurrency: Option<u32>,
    /// Longest wait for open streams after SIGTERM, 30 s unless set. If it is zero, Envoy ends at once.
    pub drain: Duration,
    /// Age at which a client is asked to leave its connection, in seconds; `None` for no age limit.
    pub max_connection_seconds: Option<u32>,
    /// How long a call without a deadline of its client may take, in seconds; `None` for no limit.
    pub call_timeout_seconds: Option<u32>,
    /// The origins under which clients reach this proxy; empty unless set.
    pub external_origins: Vec<Origin>,
    /// The origins whose pages may call agents that they name by a header; empty if there are none.
    pub cors_origins: Vec<Origin>,
    /// How requests name their agent.
    pub addressing: Addressing,
    /// How detailed the access log is about successful requests.
    pub access_log: AccessLog,
    /// Where traces go; `None` for no tracing.
    pub tracing: Option<Tracing>,
    /// The networks that every connection must come from, with a PROXY protocol header; `None` for connections without one.
    pub proxy_senders: Option<Vec<Cidr>>,
    /// The most connections of one client address; `None` if they are not counted.
    pub client_connections: Option<u32>,
    /// TLS on the data path; `None` for cleartext.
    pub tls: Option<Tls>,
    /// Which tokens clients need; `None` for none.
    pub jwt: Option<Jwt>,
    /// How often a client may call a deployment; `None` for no limit.
    pub rate_limit: Option<RateLimit>,
    /// The other tasks; `None` if there are none.
    pub fleet: Option<Fleet>,
}

/// How many of the successful requests the access log has, in percent. Rejected and failed requests are logged in full, up to a rate.
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
    /// Most requests that are traced, in percent.
    pub percent: u32,
}

impl Settings {
    /// Resolves the settings from the variables that `get` returns. An empty variable counts as not set, because compose files
    /// turn `${NAME:-}` into an empty one.
    ///
    /// # Errors
    /// If values are not allowed: one error for each such variable.
    pub fn resolve(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, Vec<SettingError>> {
        let mut errors = Vec::new();
        let raw = |name: &str| get(name).filter(|value| !value.is_empty());
        let filter = note(&mut errors, raw(FILTER).map(parse_filter)).unwrap_or_default();
        let log_level = note(&mut errors, raw(LOG_LEVEL).map(parse_log_level));
        let concurrency = note(&mut errors, raw(CONCURRENCY).map(|value| parse_number(CONCURRENCY, value, CONCURRENCY_RANGE)));
        let drain = note(&mut errors, raw(DRAIN_SECONDS).map(|value| parse_number(DRAIN_SECONDS, value, DRAIN_RANGE)));
        let age =
            note(&mut errors, raw(MAX_CONNECTION_SECONDS).map(|value| parse_number(MAX_CONNECTION_SECONDS, value, AGE_RANGE)));
        let client_connections =
            note(&mut errors, raw(CLIENT_CONNECTIONS).map(|value| parse_number(CLIENT_CONNECTIONS, value, CLIENT_RANGE)));
        let call_timeout =
            note(&mut errors, raw(CALL_TIMEOUT_SECONDS).map(|value| parse_number(CALL_TIMEOUT_SECONDS, value, CALL_RANGE)));
        let external_origins = note(&mut errors, raw(EXTERNAL_ORIGINS).map(parse_origins)).unwrap_or_default();
        let parse_cors = |text: &str| Origin::parse_set(text).ok_or_else(|| cors::EXPECTED.to_owned());
        let cors_origins =
            note(&mut errors, raw(CORS_ORIGINS).map(|value| parse_text(CORS_ORIGINS, value, parse_cors))).unwrap_or_default();
        let addressing = parse_addressing(&mut errors, raw);
        let detail = note(&mut errors, raw(ACCESS_LOG).map(parse_access_log)).unwrap_or(AccessLog::default());
        let mut percent =
            |name| note(&mut errors, raw(name).map(|value| parse_number(name, value, PERCENT_RANGE))).unwrap_or(100);
        let (log_percent, trace_percent) = (percent(ACCESS_LOG_PERCENT), percent(TRACE_PERCENT));
        let collector = note(&mut errors, raw(OTLP_ENDPOINT).map(parse_endpoint));
        let proxy_senders = note(&mut errors, Some(proxy_senders(raw(PROXY_PROTOCOL), raw(PROXY_CIDRS)))).flatten();
        let tls = note(&mut errors, Some(Tls::resolve(raw))).flatten();
        let jwt = note(&mut errors, Some(Jwt::resolve(raw))).flatten();
        let parse_rate = |text: &str| RateLimit::parse(text).ok_or_else(|| rate_limit::EXPECTED.to_owned());
        if raw(JWT_ISSUER).is_some() {
            // Empty, it would not restrict clients at all.
            if get(JWT_DEPLOYMENTS_CLAIM).is_some_and(|value| value.is_empty()) {
                let expected = "the name of a claim; if the variable is not set, every token allows every deployment";
                errors.push(SettingError::new(JWT_DEPLOYMENTS_CLAIM, OsString::new(), expected));
            }
            if let Some(level) = log_level.as_ref().filter(|level| TELLING_LEVELS.contains(&level.as_str())) {
                let levels: Vec<_> = LOG_LEVELS.into_iter().filter(|level| !TELLING_LEVELS.contains(level)).collect();
                let expected = format!("one of {}, because {JWT_ISSUER} is set, and Envoy would log tokens", levels.join(", "));
                errors.push(SettingError::new(LOG_LEVEL, level.into(), &expected));
            }
        }
        let rate_limit = note(&mut errors, raw(RATE_LIMIT).map(|value| parse_text(RATE_LIMIT, value, parse_rate)));
        let parse_fleet = |text: &str| Fleet::parse(text).ok_or_else(|| fleet::EXPECTED.to_owned());
        let fleet = note(&mut errors, raw(FLEET_CIDRS).map(|value| parse_text(FLEET_CIDRS, value, parse_fleet)));
        let peer_tls = note(&mut errors, Some(PeerTls::resolve(raw))).flatten();
        // Without a certificate any agent of another task could send requests past tokens, clients' certificates and rates.
        let judged = [JWT_ISSUER, TLS_CLIENT_CA_FILE, RATE_LIMIT].into_iter().find(|name| raw(name).is_some());
        if let (Some(judged), Some(_), None, true) = (judged, &fleet, &peer_tls, errors.is_empty()) {
            let expected = format!("the absolute path of a file, because {FLEET_CIDRS} and {judged} are set");
            errors.push(SettingError::new(PEER_CERT_FILE, OsString::new(), &expected));
        }
        if let (Some(fleet), None) = (&fleet, &peer_tls)
            && fleet.peer_cidrs.iter().any(|cidr| cidr.prefix_len() == 0)
        {
            let expected = format!("only networks of the fleet, because without {PEER_CERT_FILE} each address is trusted");
            errors.push(SettingError::new(FLEET_CIDRS, raw(FLEET_CIDRS).unwrap_or_default(), &expected));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            filter,
            log_level: log_level.unwrap_or_else(|| "info".to_owned()),
            concurrency,
            drain: Duration::from_secs(drain.unwrap_or(DEFAULT_DRAIN_SECONDS).into()),
            max_connection_seconds: age,
            call_timeout_seconds: call_timeout,
            external_origins,
            cors_origins,
            addressing,
            access_log: AccessLog { full: detail.full * log_percent / 100, brief: detail.brief * log_percent / 100 },
            tracing: collector.map(|(host, port)| Tracing { host, port, percent: trace_percent }),
            proxy_senders,
            client_connections,
            tls,
            jwt,
            rate_limit,
            fleet: fleet.map(|fleet| Fleet { tls: peer_tls, ..fleet }),
        })
    }

    /// Checks the files that the settings name, partly by the Envoy whose binary is `envoy`.
    ///
    /// # Errors
    /// A line that names the variable and the file.
    pub fn check(&self, envoy: &Path) -> Result<(), String> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.check(envoy))?;
        self.fleet.as_ref().and_then(|fleet| fleet.tls.as_ref()).map_or(Ok(()), |tls| tls.check(envoy))?;
        self.jwt.as_ref().map_or(Ok(()), Jwt::check)
    }

    /// Warnings at startup: secrets that too many users may read, and a fleet without TLS behind a data path with it.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let files = self.tls.iter().filter_map(Tls::warning).chain(self.jwt.iter().filter_map(Jwt::warning));
        let fleet = self.fleet.iter().filter_map(|fleet| match (&fleet.tls, &self.tls) {
            (Some(tls), _) => tls.warning(),
            (None, Some(_)) => Some(format!(
                "warning: {TLS_CERT_FILE} is set and {PEER_CERT_FILE} is not: requests to agents of other tasks leave this one in cleartext"
            )),
            (None, None) => None,
        });
        files.chain(fleet).collect()
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

/// Returns the value of a parsed variable, or adds its error to `errors`.
fn note<T>(errors: &mut Vec<SettingError>, parsed: Option<Result<T, SettingError>>) -> Option<T> {
    match parsed? {
        Ok(value) => Some(value),
        Err(error) => {
            errors.push(error);
            None
        }
    }
}

fn parse_filter(value: OsString) -> Result<Filter, SettingError> {
    value.to_str().and_then(Filter::named).ok_or_else(|| {
        let expected = format!("one of {}", Filter::ALL.map(|(name, _)| name).join(", "));
        SettingError { name: FILTER, value, expected }
    })
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

fn parse_origins(value: OsString) -> Result<Vec<Origin>, SettingError> {
    let parsed = value.to_str().and_then(Origin::parse_list);
    parsed.ok_or_else(|| SettingError { name: EXTERNAL_ORIGINS, value, expected: origin::EXPECTED.to_owned() })
}

/// Reads a text; `parse` says what it expects instead.
fn parse_text<T>(name: &'static str, value: OsString, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, SettingError> {
    parse(&value.to_string_lossy()).map_err(|expected| SettingError { name, value, expected })
}

/// Reads the settings of addressing, each by itself and then together.
fn parse_addressing(errors: &mut Vec<SettingError>, raw: impl Fn(&str) -> Option<OsString>) -> Addressing {
    let before = errors.len();
    let headers = |text: &str| addressing::parse_headers(text).ok_or_else(|| addressing::HEADERS_EXPECTED.to_owned());
    let suffix = |text: &str| addressing::parse_suffix(text).ok_or_else(|| addressing::SUFFIX_EXPECTED.to_owned());
    let all = Addressing {
        id_headers: note(errors, raw(ID_HEADERS).map(|value| parse_text(ID_HEADERS, value, headers))),
        path_prefixes: note(
            errors,
            raw(PATH_PREFIXES).map(|value| parse_text(PATH_PREFIXES, value, addressing::parse_prefixes)),
        ),
        host_suffix: note(errors, raw(HOST_SUFFIX).map(|value| parse_text(HOST_SUFFIX, value, suffix))),
    };
    if errors.len() == before && all.check().is_some() {
        let expected =
            format!("a header, because {PATH_PREFIXES} is none, too: without {HOST_SUFFIX} no request could name an agent");
        errors.push(SettingError { name: ID_HEADERS, value: raw(ID_HEADERS).unwrap_or_default(), expected });
    }
    all
}

/// Parses `host:port`. The host may have only characters that need no quoting in Envoy's configuration.
fn parse_endpoint(value: OsString) -> Result<(String, u16), SettingError> {
    let plain =
        |host: &&str| !host.is_empty() && host.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_'));
    let parsed = value
        .to_str()
        .and_then(|text| text.rsplit_once(':'))
        .and_then(|(host, port)| Some((Some(host).filter(plain)?.to_owned(), port.parse().ok().filter(|port| *port != 0)?)));
    parsed.ok_or_else(|| {
        let expected = "the collector's host and its port for OTLP over gRPC, such as 127.0.0.1:4317".to_owned();
        SettingError { name: OTLP_ENDPOINT, value, expected }
    })
}

fn proxy_senders(protocol: Option<OsString>, cidrs: Option<OsString>) -> Result<Option<Vec<Cidr>>, SettingError> {
    let error = |name, value, expected: &str| Err(SettingError { name, value, expected: expected.to_owned() });
    let on = match protocol {
        None => false,
        Some(value) => match value.to_str() {
            Some("off") => false,
            Some("v2") => true,
            _ => return error(PROXY_PROTOCOL, value, "one of off, v2"),
        },
    };
    match (on, cidrs) {
        (false, None) => Ok(None),
        // The operator may believe that PROXY protocol is on.
        (false, Some(value)) => error(PROXY_CIDRS, value, "nothing, because PIXELL_PROXY_PROTOCOL is not v2"),
        (true, value) => {
            let value = value.unwrap_or_default();
            let parsed = value.to_str().and_then(|list| list.split(',').map(|cidr| cidr.parse().ok()).collect());
            match parsed {
                Some(cidrs) => Ok(Some(cidrs)),
                None => error(
                    PROXY_CIDRS,
                    value,
                    "the load balancer's networks, separated by commas, such as 10.0.1.0/24,10.0.2.0/24",
                ),
            }
        }
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
mod tests;
