//! The part of the data path that is about attempts to reach an agent.

use super::{DataPath, LAST_ATTEMPT, RequestHost, Verdict};
use crate::decision::{Routes, decide_attempt};
use crate::rejection::Rejection;

impl DataPath {
    /// Whether an attempt may go where its request was sent before.
    pub(super) fn judge_attempt(&self, request: &impl RequestHost, routes: &Routes<'_>) -> Verdict {
        // It follows its request's judgement at once. A map that another worker stored in between must not make an error of it.
        if request.header(&self.attempt).is_some_and(|attempt| *attempt == *b"1") {
            return Verdict::Continue;
        }
        let is_from_peer = self.hops.is_some() && request.is_from_peer();
        let fallback_port = routes.fallback_port.filter(|_| !is_from_peer);
        let id = request.header(&self.decided_id);
        match decide_attempt(id.as_deref(), request.bound_port(), &Routes { fallback_port, ..*routes }) {
            Ok(()) if request.age() <= LAST_ATTEMPT || request.was_connected() => Verdict::Continue,
            Ok(()) => Verdict::Reject(self.rejected(request, Rejection::AgentUnreachable)),
            // The agent has seen nothing of it, so the task that the client reached can send it where the agent is now.
            Err(Rejection::DeploymentMoved | Rejection::UnknownDeployment(_)) if is_from_peer => self.send_back(request, None),
            Err(rejection) => Verdict::Reject(self.rejected(request, rejection)),
        }
    }
}
