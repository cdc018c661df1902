//! The route API, version 1, as a pure function: request to reply.
//!
//! The head of a request is judged first ([`RouteApi::begin`]), so that a call that cannot succeed is refused before its body has
//! arrived; a call that needs its body is finished with it ([`RouteApi::finish`]).

pub mod body;
pub mod call;
pub mod etag;
pub mod reply;
pub mod status_page;
pub mod token;

use self::call::{Call, Head, Operation};
use self::etag::Version;
use self::reply::{Outcome, Reply};
use self::token::Token;
use crate::change::{Applied, Change, Edit, Refusal};
use crate::config::AdminConfig;
use crate::deployment_id::DeploymentId;
use crate::json::Json;
use crate::problem::{Fault, Problem};
use crate::store::{ChangeSignal, Moved, PublishError, SharedData, Stop, StoredMap, Update, publish};

/// Whether a path belongs to the route API (whatever version): the rest of the listener is Envoy's own admin interface.
#[must_use]
pub fn owns_path(target: &[u8]) -> bool {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    path == b"/v1" || path.starts_with(b"/v1/")
}

/// Where the map lives.
pub struct Backend<'a, D, S> {
    /// Envoy's shared data.
    pub data: &'a D,
    /// What tells the workers.
    pub signal: &'a S,
    /// Draws the epoch for a first map; not 0.
    pub new_epoch: fn() -> u64,
}

/// The route API with its settings.
#[derive(Debug)]
pub struct RouteApi {
    /// Limits of the map and of bodies.
    pub config: AdminConfig,
    /// What callers must present, if anything.
    pub token: Option<Token>,
}

/// What to do after a request's head.
#[derive(Debug, PartialEq, Eq)]
pub enum Begun {
    /// Answer now.
    Answered(Reply),
    /// Wait for the whole body, then [`RouteApi::finish`].
    NeedsBody(Call),
}

impl RouteApi {
    /// Judges the head of a request, and answers if no body is needed.
    pub fn begin(&self, head: &Head<'_>, backend: &Backend<'_, impl SharedData, impl ChangeSignal>) -> Begun {
        if self.token.as_ref().is_some_and(|token| !token.admits(head.authorization)) {
            let problem =
                Problem::new(401, "unauthorized", "send Authorization: Bearer with the token this Envoy was started with");
            return Begun::Answered(Reply::problem(&problem.with_header("www-authenticate", "Bearer realm=\"pixell-envoy\"")));
        }
        let call = match Call::parse(head, &self.config) {
            Ok(call) => call,
            Err(problem) => return Begun::Answered(Reply::problem(&problem)),
        };
        match &call.operation {
            operation if operation.needs_body() => Begun::NeedsBody(call),
            Operation::DeleteRoute(_) => Begun::Answered(self.write(&call, None, backend)),
            _ => Begun::Answered(read(&call, backend.data)),
        }
    }

    /// Answers a call whose body has arrived.
    pub fn finish(&self, call: &Call, body: &[u8], backend: &Backend<'_, impl SharedData, impl ChangeSignal>) -> Reply {
        if body.len() > self.config.max_body_bytes {
            return Reply::problem(&call::payload_too_large(self.config.max_body_bytes));
        }
        match Json::parse(body) {
            Ok(json) => self.write(call, Some(&json), backend),
            Err(error) => {
                let mut problem = Problem::new(400, "malformed_json", format!("the body is not JSON: {error}"));
                problem.position = Some((error.line, error.column));
                Reply::problem(&problem)
            }
        }
    }

    fn write(&self, call: &Call, json: Option<&Json>, backend: &Backend<'_, impl SharedData, impl ChangeSignal>) -> Reply {
        let change = match self.change(&call.operation, json) {
            Ok(change) => change,
            Err(faults) => return Reply::problem(&invalid_routes(faults)),
        };
        let published = publish(backend.data, backend.signal, backend.new_epoch, |map| {
            let now = Version::from(map.version());
            if !call.preconditions.if_match_holds(now) || !call.preconditions.if_none_match_holds(now) {
                return Err(Stop::Refused(precondition_failed(now)));
            }
            let applied = change.apply(map, self.config.limits.max_routes).map_err(|stop| match stop {
                Stop::Moved => Stop::Moved,
                Stop::Refused(refusal) => Stop::Refused(refused(refusal, &call.operation)),
            })?;
            // Replacing nothing by an empty map is a change all the same: from now on the map counts as loaded.
            let loads = !map.is_loaded() && change.replace;
            if call.dry_run || (applied.is_empty() && !loads) {
                return Ok(Update::Keep(applied));
            }
            Ok(Update::Store(applied))
        });
        match published {
            Ok(published) => {
                let outcome = match published.stored {
                    true => Outcome::Published,
                    false if call.dry_run => Outcome::Read,
                    false => Outcome::Confirmed,
                };
                written(call, (published.epoch, published.generation).into(), &published.applied).with_outcome(outcome)
            }
            Err(PublishError::Refused(problem)) => Reply::problem(&problem),
            Err(PublishError::TooLarge) => {
                Reply::problem(&Problem::new(413, "payload_too_large", "the map would be larger than can be stored"))
            }
            Err(PublishError::RetriesExhausted) => Reply::problem(&retries_exhausted()),
        }
    }

    fn change<'j>(&self, operation: &'j Operation, json: Option<&'j Json>) -> Result<Change<'j>, Vec<Fault>> {
        let limits = &self.config.limits;
        match (operation, json) {
            (Operation::ReplaceRoutes, Some(json)) => body::replacement(json, limits),
            (Operation::PatchRoutes, Some(json)) => body::patch(json, limits),
            (Operation::PutRoute(id), Some(json)) => body::single(valid(id)?, json, limits),
            (Operation::DeleteRoute(id), _) => Ok(Change { replace: false, edits: vec![(valid(id)?, Edit::Remove)] }),
            // Reads come here never, writes with a body never without it.
            _ => Ok(Change::default()),
        }
    }
}

/// The id of an operation; it was valid when the operation was made.
fn valid(id: &str) -> Result<DeploymentId<'_>, Vec<Fault>> {
    DeploymentId::parse(id.as_bytes()).map_err(|error| vec![Fault::new("", error.to_string())])
}

/// How often a read begins again because the map moved on under it.
const READ_ATTEMPTS: usize = 16;

fn read(call: &Call, data: &impl SharedData) -> Reply {
    let attempt = |_| try_read(call, &StoredMap::now(data)).ok();
    (0..READ_ATTEMPTS).find_map(attempt).unwrap_or_else(|| Reply::problem(&retries_exhausted()))
}

fn try_read(call: &Call, map: &StoredMap<'_, impl SharedData>) -> Result<Reply, Moved> {
    let now = Version::from(map.version());
    if !call.preconditions.if_match_holds(now) {
        return Ok(Reply::problem(&precondition_failed(now)));
    }
    let body = match &call.operation {
        Operation::GetRoute(id) => {
            let route = match valid(id) {
                Ok(id) => map.find(id)?,
                Err(_) => None,
            };
            let Some(route) = route else {
                return Ok(Reply::problem(&Problem::new(404, "not_found", format!("there is no route for {id}"))));
            };
            reply::route_body(now, route)
        }
        Operation::GetRoutes => {
            let mut routes = map.routes()?;
            routes.sort_unstable_by_key(|(id, _)| *id);
            reply::routes_body(now, &routes)
        }
        _ => reply::status_body(now, map.len(), map.is_loaded()),
    };
    Ok(if call.preconditions.if_none_match_holds(now) { Reply::json(200, now, body) } else { Reply::empty(304, now) })
}

fn written(call: &Call, version: Version, applied: &Applied) -> Reply {
    match &call.operation {
        Operation::DeleteRoute(_) => Reply::empty(204, version),
        Operation::PutRoute(_) if applied.added > 0 => Reply::json(201, version, reply::applied_body(version, applied)),
        _ => Reply::json(200, version, reply::applied_body(version, applied)),
    }
}

fn retries_exhausted() -> Problem {
    let detail = "other writers were faster every time; nothing was changed, try again";
    Problem::new(503, "conflict_retries_exhausted", detail).with_header("retry-after", "1")
}

fn precondition_failed(now: Version) -> Problem {
    let detail =
        format!("the map is at {}; read it again, apply the change to what is there now, and retry with its ETag", now.etag());
    Problem::new(412, "precondition_failed", detail)
}

fn invalid_routes(faults: Vec<Fault>) -> Problem {
    Problem::new(422, "invalid_routes", format!("nothing was changed: {}", count(faults.len()))).with_errors(faults)
}

fn refused(refusal: Refusal, operation: &Operation) -> Problem {
    let mut problem = match refusal {
        Refusal::Invalid(faults) => invalid_routes(faults),
        Refusal::PortInUse(faults) => {
            Problem::new(409, "port_in_use", format!("nothing was changed: {}", count(faults.len()))).with_errors(faults)
        }
    };
    if let Operation::PutRoute(_) = operation {
        // The body is the route itself, so its root is what is at fault.
        problem.errors.iter_mut().for_each(|fault| fault.pointer.clear());
    }
    problem
}

fn count(faults: usize) -> String {
    if faults == 1 { "1 fault, see errors".to_owned() } else { format!("{faults} faults, see errors") }
}

#[cfg(test)]
mod tests;
