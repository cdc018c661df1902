//! Every hook of the native module, what a panic in it does to a request, and how that is checked for each filter.

use std::time::Duration;

use bytes::Bytes;
use harness::{Agent, agents, wait};
use http_body_util::{BodyExt, Full};
use reqwest::{Body, RequestBuilder};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The header that makes a hook panic: `<filter>.<hook>`. See the feature `test-trap` of `crates/native`.
pub(crate) const TRAP: &str = "x-test-trap";

/// Where an agent of [`card`] has its card. Its response to this passes every hook of every filter on its way.
pub(crate) const CARD: &str = "/agents/card/.well-known/agent-card.json";

/// What happens to a request if a hook panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The client gets the rejection `internal`.
    Rejected,
    /// The head of the response has been sent, so it is broken off.
    Broken,
    /// The client does not notice.
    Unseen,
    /// It cannot panic: Envoy does not call the hook for this filter, or the hook has nothing to do.
    Idle,
}
use Then::{Broken, Idle, Rejected, Unseen};

/// The filters of one task, and those that only a request to another task meets.
pub(crate) const OF_A_TASK: [&str; 4] = ["router", "incoming", "retry", "admin"];
pub(crate) const OF_A_FLEET: [&str; 1] = ["hops"];

/// The filters in the order of the columns of [`HOOKS`].
pub(crate) const FILTERS: [&str; 5] = ["router", "incoming", "retry", "hops", "admin"];

/// The hooks of a stream.
pub(crate) const HOOKS: [(&str, [Then; 5]); 18] = [
    (NEW, [Rejected; 5]),
    ("http_filter_request_headers", [Rejected; 5]),
    ("http_filter_request_body", [Rejected; 5]),
    ("http_filter_request_trailers", [Rejected; 5]),
    (SCHEDULED, [Rejected, Rejected, Idle, Idle, Idle]),
    ("http_filter_response_headers", [Rejected; 5]),
    ("http_filter_response_body", [Broken; 5]),
    ("http_filter_response_trailers", [Broken, Broken, Broken, Broken, Idle]),
    (COMPLETE, [Unseen, Unseen, Idle, Idle, Unseen]),
    ("http_filter_destroy", [Unseen; 5]),
    ("http_filter_http_callout_done", [Idle; 5]),
    ("http_filter_http_stream_headers", [Idle; 5]),
    ("http_filter_http_stream_data", [Idle; 5]),
    ("http_filter_http_stream_trailers", [Idle; 5]),
    ("http_filter_http_stream_complete", [Idle; 5]),
    ("http_filter_http_stream_reset", [Idle; 5]),
    ("http_filter_downstream_above_write_buffer_high_watermark", [Idle; 5]),
    ("http_filter_downstream_below_write_buffer_low_watermark", [Idle; 5]),
];
pub(crate) const NEW: &str = "http_filter_new";
pub(crate) const SCHEDULED: &str = "http_filter_scheduled";
pub(crate) const COMPLETE: &str = "http_filter_stream_complete";

/// The hooks without a stream, each of which has a test of its own in `panics.rs`.
pub(crate) const BEGIN: &str = "program_init";
pub(crate) const CONFIGURE: &str = "http_filter_config_new";
pub(crate) const FORGET: &str = "http_filter_config_destroy";

/// What a client got.
#[derive(Debug)]
pub(crate) struct Got {
    status: u16,
    code: String,
    content_type: String,
    /// `None` if the response was cut off, before its head or after it.
    body: Option<String>,
}

impl Got {
    /// Sends a request, and gives what the client gets.
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let Ok(response) = request.send().await else {
            return Self { status: 0, code: String::new(), content_type: String::new(), body: None };
        };
        let text = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let (code, content_type) = (text("x-pixell-error"), text("content-type"));
        Self { status: response.status().as_u16(), code, content_type, body: response.text().await.ok() }
    }

    pub(crate) fn is_served(&self) -> bool {
        self.status == 200 && self.body.is_some()
    }

    /// Checks that it is the rejection `internal`.
    #[track_caller]
    pub(crate) fn is_internal(&self, place: &str) {
        let seen = (self.status, self.code.as_str(), self.content_type.as_str());
        assert_eq!(seen, (500, "internal", "application/problem+json"), "{place}: {self:?}");
        let problem: Value = serde_json::from_str(self.body.as_ref().unwrap()).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&"internal".into(), &500.into()), "{place}");
    }
}

/// Where hooks are made to panic.
pub(crate) trait Stage {
    /// Sends a request that passes this hook of this filter, with this value of [`TRAP`].
    async fn ask(&self, filter: &str, hook: &str, trap: Option<&str>) -> Got;
    /// How many panics were counted so far.
    async fn panics(&self) -> u64;
    /// The log of the Envoy that panics.
    fn log(&self) -> String;
}

/// Has every hook of these filters panic, each by itself.
pub(crate) async fn check(stage: &impl Stage, filters: &[&str]) {
    let cases =
        HOOKS.iter().flat_map(|(hook, then)| FILTERS.iter().zip(then).map(move |(filter, then)| (*filter, *hook, *then)));
    let cases: Vec<_> = cases.filter(|(filter, ..)| filters.contains(filter)).collect();
    for (filter, hook, then) in &cases {
        let place = format!("{filter}.{hook}");
        let expected = stage.panics().await + u64::from(*then != Idle);
        let mut got = stage.ask(filter, hook, Some(&place)).await;
        // The stream of a listener's filter begins before the head of its request is there, so the next request's panics.
        if *hook == NEW && got.is_served() {
            got = stage.ask(filter, hook, None).await;
        }
        match then {
            Rejected => got.is_internal(&place),
            Broken => assert_eq!(got.body, None, "{place}: {got:?}"),
            Unseen | Idle => assert!(got.body.is_some() && got.code != "internal", "{place}: {got:?}"),
        }
        assert!(stage.ask(filter, "", None).await.is_served(), "after {place}");
        let counted = || async { Ok((stage.panics().await == expected).then_some(())) };
        let counted = wait::until("the count of panics", Duration::from_secs(10), counted).await;
        assert!(counted.is_ok(), "{place}: {} counted, not {expected}", stage.panics().await);
    }
    let log = stage.log();
    for (filter, hook, then) in &cases {
        let line = format!("asked for in {filter}.{hook}");
        let lines = log.lines().filter(|logged| logged.contains("the filter panicked") && logged.ends_with(&line)).count();
        assert_eq!(lines, usize::from(*then != Idle), "lines of the log with {line:?}");
    }
}

/// A body with trailers.
pub(crate) fn with_trailers(bytes: impl Into<Bytes>) -> Body {
    let trailers = async {
        let end = (http::HeaderName::from_static("x-end"), http::HeaderValue::from_static("1"));
        Some(Ok(http::HeaderMap::from_iter([end])))
    };
    Body::wrap(Full::new(bytes.into()).with_trailers(trailers))
}

/// The body of each request to that agent.
pub(crate) const BODY: &str = "some";

/// Starts an agent that responds to each [`BODY`] with a card that ends with trailers.
pub(crate) fn card() -> anyhow::Result<Agent> {
    const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n\
        2\r\n{}\r\n0\r\nx-end: 1\r\n\r\n";
    agents::raw::start("card", |mut stream: TcpStream| async move {
        let mut request = Vec::new();
        loop {
            request.push(stream.read_u8().await?);
            if request.ends_with(BODY.as_bytes()) {
                request.clear();
                stream.write_all(RESPONSE).await?;
            }
        }
    })
}
