//! The calls of `/v1/fleet`.

use super::call::Terms;
use super::code::Code;
use super::response::{self, FleetStatus, Response};
use super::{RouteApi, no_edition, publish_on, with_errors};
use crate::config::AdminConfig;
use crate::fleet::{FleetMap, edition, form};
use crate::json::Json;
use crate::problem::Problem;
use crate::store::{Backend, ChangeSignal, FLEET_MAP, Moved, SharedData, Stop, Stored};

impl RouteApi {
    /// Changes the fleet map, or replaces it.
    pub(super) fn write_fleet(
        &self,
        json: &Json,
        replace: bool,
        terms: &Terms,
        backend: &Backend<'_, impl SharedData, impl ChangeSignal>,
    ) -> Result<Response, Problem> {
        // Unreachable: without a fleet a call is rejected by its head.
        let Some(fleet) = &self.config.fleet else { return Err(super::call::fleet_disabled()) };
        let limits = &fleet.limits;
        let change = if replace { form::replacement(json, limits) } else { form::patch(json, limits) };
        let invalid = |errors| with_errors(Code::InvalidFleet, errors);
        let change = change.map_err(invalid)?;
        let now = (backend.now)();
        let committed = publish_on(terms, backend, &FLEET_MAP, |stored| {
            let map = FleetMap::new(stored);
            let applied = change.apply(&map, limits.most(), now).map_err(|stop| match stop {
                Stop::Moved => Stop::Moved,
                Stop::Rejected(errors) => Stop::Rejected(invalid(errors)),
            })?;
            let changes = !applied.is_empty() || (!map.is_loaded() && change.replace);
            let edition = changes.then(|| edition(&map, &applied)).transpose().map_err(no_edition)?;
            Ok((edition, applied.counts))
        })?;
        let body = response::fleet_applied_body(committed.version, committed.applied);
        Ok(Response::json(200, committed.version, body).with_outcome(committed.outcome))
    }
}

/// The body of `GET /v1/fleet`.
pub(super) fn body(stored: &Stored<'_, impl SharedData>) -> Result<String, Moved> {
    let map = FleetMap::new(stored);
    let (peers, mut routes) = (map.peers()?, map.routes()?);
    routes.sort_unstable_by_key(|(id, _)| *id);
    Ok(response::fleet_body(map.version(), &peers, &routes))
}

/// The body of `GET /v1/fleet/peers`.
pub(super) fn peers_body(stored: &Stored<'_, impl SharedData>) -> Result<String, Moved> {
    Ok(response::fleet_peers_body(&FleetMap::new(stored).reports()?))
}

/// What the status says of the fleet map.
pub(super) fn status(config: &AdminConfig, data: &impl SharedData) -> Result<FleetStatus, Moved> {
    if config.fleet.is_none() {
        return Ok(FleetStatus::default());
    }
    let stored = Stored::now(data, &FLEET_MAP);
    let map = FleetMap::new(&stored);
    Ok(FleetStatus { enabled: true, version: map.version(), peers: map.peer_count()?, routes: map.len() })
}
