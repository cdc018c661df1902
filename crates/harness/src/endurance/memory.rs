//! Measures Envoy's memory while distinct ids come and go.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::Envoy;
use crate::proto::DEPLOYMENT_ID;

/// Ids in the map at a time. Each change replaces all of them.
const BATCH: usize = 500;
/// The lowest port of the routes. No agent listens there, because no request is forwarded.
const FIRST_PORT: usize = 20_000;

/// The figures of a run.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Ids that came and went.
    pub ids: usize,
    /// Envoy's memory after `settle` of them, in bytes.
    pub settled: u64,
    /// Envoy's memory after all of them, in bytes.
    pub after: u64,
    /// How long it took.
    pub took: Duration,
}

impl Figures {
    /// By how much Envoy's memory grew after it had settled, in MiB.
    #[must_use]
    pub const fn grown_mib(&self) -> u64 {
        self.after.saturating_sub(self.settled) >> 20
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        let Self { ids, settled, after, took } = self;
        let grown = self.grown_mib();
        write!(f, "{ids} distinct ids in {took:.1?}: memory {} MiB, then {} MiB (+{grown} MiB)", mib(*settled), mib(*after))
    }
}

/// Lets `ids` distinct ids come and go, 500 at a time. After each change, sends a request to an id that has come and one to an id
/// that is gone. The memory is first read after `settle` ids.
///
/// # Errors
/// If a change fails, or a response does not fit the map.
pub async fn run(envoy: &Envoy, ids: usize, settle: usize) -> Result<Figures> {
    let begun = Instant::now();
    let routes = envoy.routes();
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build()?;
    let mut settled = None;
    let mut gone: Vec<String> = Vec::new();
    for first in (0..ids).step_by(BATCH) {
        let come: Vec<String> = (first..first + BATCH).map(|number| format!("0f8fad5b-d9cb-469f-a165-{number:012}")).collect();
        let mut patch: Map<String, Value> = gone.iter().map(|id| (id.clone(), Value::Null)).collect();
        // The state is draining, so that requests are rejected at once and no agent has to listen.
        let route = |place: usize| json!({"port": FIRST_PORT + place, "state": "draining"});
        patch.extend(come.iter().enumerate().map(|(place, id)| (id.clone(), route(place))));
        routes.patch_routes(&json!({ "routes": patch })).await?.expect(StatusCode::OK)?;
        for (id, status) in [(come.first(), 503), (gone.first(), 404)] {
            let Some(id) = id else { continue };
            let response = client.get(envoy.data_url()).header(DEPLOYMENT_ID, id).send().await?;
            ensure!(response.status() == status, "{id}: expected {status}, got {}", response.status());
        }
        if settled.is_none() && first + BATCH >= settle {
            settled = Some(envoy.resident_bytes()?);
        }
        gone = come;
    }
    let after = envoy.resident_bytes()?;
    Ok(Figures { ids, settled: settled.unwrap_or(after), after, took: begun.elapsed() })
}
