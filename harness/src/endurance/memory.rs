//! Distinct ids come and go: what Envoy's memory does meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::Envoy;
use crate::proto::DEPLOYMENT_ID;

/// Ids in the map at a time, and in one change of it.
const BATCH: usize = 500;
/// The lowest port that routes get; nobody listens there, for nobody is called.
const FIRST_PORT: usize = 20_000;

/// What came out.
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
    /// By how much Envoy grew after it had settled, in MiB.
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

/// Lets `ids` distinct ids come and go, 500 at a time, and calls one of each 500 and one that is gone; the memory is first
/// read after `settle` of them.
///
/// # Errors
/// Where a change is not answered 200, or a call not as the map says.
pub async fn run(envoy: &Envoy, ids: usize, settle: usize) -> Result<Figures> {
    let begun = Instant::now();
    let routes = envoy.routes();
    let caller = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build()?;
    let mut settled = None;
    let mut gone: Vec<String> = Vec::new();
    for first in (0..ids).step_by(BATCH) {
        let come: Vec<String> = (first..first + BATCH).map(|number| format!("0f8fad5b-d9cb-469f-a165-{number:012}")).collect();
        let mut patch: Map<String, Value> = gone.iter().map(|id| (id.clone(), Value::Null)).collect();
        // Draining, so that a call is answered at once though nobody listens.
        let route = |place: usize| json!({"port": FIRST_PORT + place, "state": "draining"});
        patch.extend(come.iter().enumerate().map(|(place, id)| (id.clone(), route(place))));
        routes.patch_routes(&json!({ "routes": patch })).await?.expect(StatusCode::OK)?;
        for (id, status) in [(come.first(), 503), (gone.first(), 404)] {
            let Some(id) = id else { continue };
            let answer = caller.get(envoy.data_url()).header(DEPLOYMENT_ID, id).send().await?;
            ensure!(answer.status() == status, "{id}: {} and not {status}", answer.status());
        }
        if settled.is_none() && first + BATCH >= settle {
            settled = Some(envoy.resident_bytes()?);
        }
        gone = come;
    }
    let after = envoy.resident_bytes()?;
    Ok(Figures { ids, settled: settled.unwrap_or(after), after, took: begun.elapsed() })
}
