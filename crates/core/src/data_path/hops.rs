//! The part of the data path that is about other tasks of the fleet.

use super::{DataPath, Hop, Maps, Rejected, RequestHost, Verdict};
use crate::decision::Routes;
use crate::hop::{Attempt, Choice, Failure, Outcome, Peers, Trail};
use crate::rejection::Rejection;
use crate::route::{RouteState, StoredRoute};
use crate::routes::RouteCache;
use std::net::IpAddr;
use std::time::Duration;

impl DataPath {
    /// Sends a request to the port for peers of `host`.
    pub(super) fn hop(&self, host: IpAddr, id: Option<&[u8]>, is_addressed: bool) -> Verdict {
        // Without a fleet no decision leads here.
        let address = self.hops.map_or_else(|| (host, 0).into(), |hops| hops.address(host));
        Verdict::Hop(Box::new(Hop { address, id: id.map(<[u8]>::to_vec), is_addressed, trail: Trail::to(host).to_bytes() }))
    }

    /// What happens to a request that a peer has sent: it goes to an agent of this task, or back.
    pub(super) fn judge_incoming(&self, request: &impl RequestHost, map: &RouteCache) -> Verdict {
        let routes = Routes { map, fallback_port: None, peers: None };
        // The peer has found out which id the request names, and checked that its client may call it. This task's settings may differ, but must
        // not change the id.
        let decided = request.header(&self.decided_id).unwrap_or_default();
        let verdict = if request.has(&self.addressed) {
            self.judge_addressed(request, Some(&decided), &routes)
        } else {
            self.judge_named(request, decided, true, &routes)
        };
        match verdict {
            Verdict::Reject(rejected) if is_elsewhere(rejected.code) => self.send_back(request, rejected.id),
            other => other,
        }
    }

    /// Tells the peer that sent a request to decide again. `id` is as in [`super::Rejected`].
    #[cold]
    pub(super) fn send_back(&self, request: &impl RequestHost, id: Option<Vec<u8>>) -> Verdict {
        let rejected = self.rejected(request, Rejection::DeploymentMoved);
        Verdict::Reject(Rejected { id, is_misdirected: true, ..rejected })
    }

    /// What happens to an attempt to reach a peer, and how the previous attempt ended.
    pub fn judge_hop(&self, request: &impl RequestHost, maps: &mut Maps) -> (Option<Outcome>, Verdict) {
        let id = request.header(&self.decided_id);
        let trail = request.trail().and_then(|bytes| Trail::parse(&bytes));
        let (Some(id), Some(mut trail), Some(hops)) = (id, trail, self.hops) else {
            return (None, Verdict::Reject(self.rejected(request, Rejection::Internal)));
        };
        let attempt = Attempt { returns: request.returns(), is_connected: request.was_connected(), age: request.age() };
        let outcome = trail.note(attempt);
        let Maps { routes, fleet, failed } = &*maps;
        let next = |hosts: &[IpAddr]| match routes.find(&id) {
            Some(StoredRoute { state: RouteState::Active, .. }) if !hosts.contains(&hops.local) => Some(hops.local),
            _ => match (Peers { map: fleet, failed }).choose(&id, hosts) {
                Choice::Host(host) => Some(host),
                Choice::Failed | Choice::Draining | Choice::Nothing => None,
            },
        };
        let chosen = trail.go_on(attempt, outcome.map(|(_, outcome)| outcome), next);
        if let Some((host, Outcome::Unreachable)) = outcome
            && host != hops.local
        {
            // The peer has not failed yet if it is tried once more.
            let is_asked_again = chosen.is_ok() && trail.last().is_some_and(|(present, _)| present == host);
            if !is_asked_again {
                maps.failed.add(host, Failure::Unreachable, request.now());
            }
        }
        let verdict = match chosen {
            Ok(host) => Verdict::Next { address: host.map(|host| hops.address(host)), trail: trail.to_bytes() },
            Err(rejection) => Verdict::Reject(self.rejected(request, rejection)),
        };
        (outcome.map(|(_, outcome)| outcome), verdict)
    }

    /// The failure of a request's last peer, found at the end of the request; `None` if the peer has not failed, or was already known to.
    ///
    /// Each attempt finds out how the previous one ended ([`Self::judge_hop`]). No attempt follows the last one, which may be the only one.
    /// `since` is the time at which the request was sent, by the clock of [`RequestHost::now`].
    pub fn end_hop(&self, request: &impl RequestHost, since: Duration, maps: &mut Maps) -> Option<Failure> {
        let trail = Trail::parse(&request.trail()?)?;
        let (host, has_only_waited) = trail.last().filter(|(host, _)| self.hops.is_some_and(|hops| *host != hops.local))?;
        let now = request.now();
        let details = request.details().unwrap_or_default();
        if let Some(failure) = Failure::of(&details) {
            maps.failed.add(host, failure, now);
            return Some(failure);
        }
        if details.starts_with(b"upstream_reset_") {
            // This Envoy itself ended the attempt, by a limit of its own.
            return None;
        }
        if request.was_connected() {
            maps.failed.reached(host);
            return None;
        }
        // The client or its deadline has ended the request; or the last attempt had no host left, and has already noted the failure. (A peer that
        // sent the request back had accepted a connection.)
        let is_known = maps.failed.of(host) == Some(Failure::Unreachable);
        let has_failed = has_only_waited && request.returns() == 0 && maps.failed.wait(host, since, now);
        (has_failed && !is_known).then_some(Failure::Unreachable)
    }
}

/// Whether a rejection says that this task does not serve the id now, so that another task may serve it.
fn is_elsewhere(code: &str) -> bool {
    ["unknown_deployment", "deployment_draining", "route_map_not_loaded"].contains(&code)
}
