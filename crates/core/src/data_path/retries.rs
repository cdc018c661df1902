//! Retries at an agent: which of them start. (The retry policy of `envoy/envoy.yaml` says after which failures, and how long Envoy waits before each.
//! Retries at a peer: [`crate::hop`].)

use super::{DataPath, Maps, RequestHost, Verdict};
use crate::decision::{Routes, decide_attempt};
use crate::rejection::Rejection;
use std::time::Duration;

/// How old a request may be when a retry at its agent starts. With the wait before a retry (up to 0.2 s) the client of an agent that is down
/// has its response after at most 1.1 s. So has the client of an agent that accepts no connection: the first attempt takes the whole second in
/// which a connection must be accepted. (Both times are set in envoy.yaml.)
pub const LAST_RETRY_AT_AGENT: Duration = Duration::from_millis(900);

impl DataPath {
    /// Whether an attempt may go where its request was sent before.
    pub(super) fn judge_attempt(&self, request: &impl RequestHost, routes: &Routes<'_>) -> Verdict {
        // The first attempt follows the request's own judgement at once. A map that another worker stores in between must not reject it.
        if request.header(&self.attempt).is_some_and(|attempt| *attempt == *b"1") {
            return Verdict::Continue;
        }
        match self.judge_bound(request, request.bound_port(), routes) {
            Verdict::Continue if request.age() > LAST_RETRY_AT_AGENT && !request.was_connected() => {
                Verdict::Reject(self.rejected(request, Rejection::AgentUnreachable))
            }
            other => other,
        }
    }

    /// Whether a request that waits for a connection to `port` of its agent may go on waiting, by the present map.
    pub fn judge_waiting(&self, request: &impl RequestHost, port: u16, maps: &Maps) -> Verdict {
        self.judge_bound(request, Some(port), &self.routes(maps))
    }

    /// Whether a request that no agent has seen may still go to the port that it was given.
    fn judge_bound(&self, request: &impl RequestHost, port: Option<u16>, routes: &Routes<'_>) -> Verdict {
        let is_from_peer = self.hops.is_some() && request.is_from_peer();
        let fallback_port = routes.fallback_port.filter(|_| !is_from_peer);
        let id = request.header(&self.decided_id);
        match decide_attempt(id.as_deref(), port, &Routes { fallback_port, ..*routes }) {
            Ok(()) => Verdict::Continue,
            // The agent has not seen the request, so the task that the client reached can send it where the agent is now.
            Err(Rejection::DeploymentMoved | Rejection::UnknownDeployment(_)) if is_from_peer => self.send_back(request, None),
            Err(rejection) => Verdict::Reject(self.rejected(request, rejection)),
        }
    }
}
