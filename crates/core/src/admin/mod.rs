//! The route API, version 1, as a pure function: request to response.
//!
//! The head of a request is judged first ([`RouteApi::begin`]), so that a call that cannot succeed is rejected before its body has
//! arrived; a call that needs its body is finished with it ([`RouteApi::finish`]).

pub mod body;
pub mod call;
pub mod code;
pub mod etag;
pub mod exchange;
mod fleet_map;
pub mod local;
mod ready;
pub mod response;
pub mod status_page;
pub mod tally;
pub mod token;

use self::call::{Call, Head, Read, Resource, Target, Terms, Write};
use self::code::Code;
use self::local::{is_local_host, is_local_origin};
use self::response::{Outcome, Response};
use self::token::Token;
use crate::config::AdminConfig;
use crate::json::Json;
use crate::problem::{FieldErrors, Problem};
use crate::routes::change::{Applied, Change, Edit, Invalid};
use crate::routes::{RouteMap, edition};
use crate::store::{
    Backend, ChangeSignal, Edition, FLEET_MAP, Layout, Moved, NoEdition, PublishError, ROUTE_MAP, SharedData, Stop, Stored,
    Update, Version, publish,
};

/// Whether a path belongs to the route API (whatever version): the rest of the listener is Envoy's own admin interface.
#[must_use]
pub fn owns_path(target: &[u8]) -> bool {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    path == b"/v1" || path.starts_with(b"/v1/")
}

/// The route API with its settings.
#[derive(Debug)]
pub struct RouteApi {
    /// Limits of the map and of bodies.
    pub config: AdminConfig,
    /// What clients must present, if anything.
    pub token: Option<Token>,
}

/// What to do after a request's head.
#[derive(Debug, PartialEq, Eq)]
pub enum Begun {
    /// Respond now.
    Done(Response),
    /// Wait for the whole body, then [`RouteApi::finish`].
    NeedsBody(Write),
}

impl RouteApi {
    /// Judges the head of a request, and makes the response if no body is needed.
    pub fn begin(&self, head: &Head<'_>, backend: &Backend<'_, impl SharedData, impl ChangeSignal>) -> Begun {
        if let Err(problem) = self.admit(head) {
            return Begun::Done(Response::problem(&problem));
        }
        match Call::parse(head, &self.config) {
            Err(problem) => Begun::Done(Response::problem(&problem)),
            Ok(Call::Write(write)) => Begun::NeedsBody(write),
            Ok(Call::Read(call)) => Begun::Done(read(&call, &self.config, backend.data)),
            Ok(Call::Delete(id, terms)) => {
                let change = Change { replace: false, edits: vec![(id.as_id(), Edit::Remove)] };
                Begun::Done(match self.commit(&change, &terms, backend) {
                    Ok(committed) => Response::empty(204, committed.version).with_outcome(committed.outcome),
                    Err(problem) => Response::problem(&problem),
                })
            }
        }
    }

    /// Checks that a request was sent to this machine under its own name, and with the token if there is one. (That it comes from the
    /// loopback interface is checked before.)
    ///
    /// # Errors
    /// What is wrong.
    pub fn admit(&self, head: &Head<'_>) -> Result<(), Problem> {
        check_names(head)?;
        if self.token.as_ref().is_some_and(|token| !token.admits(head.authorization)) {
            let problem = Code::Unauthorized.problem("send Authorization: Bearer with the token this Envoy was started with");
            return Err(problem.with_header("www-authenticate", "Bearer realm=\"pixell-envoy\""));
        }
        Ok(())
    }

    /// Makes the response to a write whose body has arrived.
    pub fn finish(&self, write: &Write, body: &[u8], backend: &Backend<'_, impl SharedData, impl ChangeSignal>) -> Response {
        self.write(write, body, backend).unwrap_or_else(|problem| Response::problem(&problem))
    }

    fn write(
        &self,
        write: &Write,
        body: &[u8],
        backend: &Backend<'_, impl SharedData, impl ChangeSignal>,
    ) -> Result<Response, Problem> {
        let most = write.most_bytes(&self.config);
        if body.len() > most {
            return Err(call::payload_too_large(most));
        }
        let json = Json::parse(body).map_err(|error| {
            let mut problem = Code::MalformedJson.problem(format!("the body is not JSON: {error}"));
            problem.position = Some((error.line, error.column));
            problem
        })?;
        let Write { target, terms } = write;
        let limits = &self.config.limits;
        let change = match target {
            Target::ReplaceFleet => return self.write_fleet(&json, true, terms, backend),
            Target::PatchFleet => return self.write_fleet(&json, false, terms, backend),
            Target::Replace => body::replacement(&json, limits),
            Target::Patch => body::patch(&json, limits),
            Target::Route(id) => body::single(id.as_id(), &json, limits),
        };
        let committed = self.commit(&change.map_err(invalid_routes)?, terms, backend);
        let Committed { version, applied, outcome } = committed.map_err(|problem| match target {
            Target::Route(_) => about_one_route(problem),
            _ => problem,
        })?;
        let created = matches!(target, Target::Route(_)) && applied.added > 0;
        let response = Response::json(if created { 201 } else { 200 }, version, response::applied_body(version, &applied));
        Ok(response.with_outcome(outcome))
    }

    /// Publishes a change on these terms.
    fn commit(
        &self,
        change: &Change<'_>,
        terms: &Terms,
        backend: &Backend<'_, impl SharedData, impl ChangeSignal>,
    ) -> Result<Committed, Problem> {
        let committed = publish_on(terms, backend, &ROUTE_MAP, |stored| {
            let map = RouteMap::new(stored);
            let applied = change.apply(&map, self.config.limits.max_routes).map_err(|stop| match stop {
                Stop::Moved => Stop::Moved,
                Stop::Rejected(invalid) => Stop::Rejected(rejected(invalid)),
            })?;
            // Replacing nothing by an empty map is a change, too: from now on the map counts as loaded.
            let changes = !applied.is_empty() || (!map.is_loaded() && change.replace);
            let edition = changes.then(|| edition(&map, &applied)).transpose().map_err(no_edition)?;
            Ok((edition, applied))
        });
        committed.map(|mut committed| {
            if let Outcome::Published { displaced } = &mut committed.outcome {
                *displaced = committed.applied.displaced.len();
            }
            committed
        })
    }
}

/// A write that was accepted, and what it did.
struct Committed<T = Applied> {
    version: Version,
    applied: T,
    outcome: Outcome,
}

/// Publishes on these terms what `decide` returns for a map: the edition, unless the map does not change, and the client's result.
fn publish_on<D: SharedData, T>(
    terms: &Terms,
    backend: &Backend<'_, D, impl ChangeSignal>,
    layout: &'static Layout,
    decide: impl Fn(&Stored<'_, D>) -> Result<(Option<Edition>, T), Stop<Problem>>,
) -> Result<Committed<T>, Problem> {
    let published = publish(backend, layout, |stored| {
        let now = stored.version();
        if !terms.preconditions.if_match_holds(now) || !terms.preconditions.if_none_match_holds(now) {
            return Err(Stop::Rejected(precondition_failed(now)));
        }
        Ok(match decide(stored)? {
            (Some(edition), applied) if !terms.dry_run => Update::Store(edition, applied),
            (_, applied) => Update::Keep(applied),
        })
    });
    match published {
        Ok(done) => {
            let outcome = match done.stored {
                true => Outcome::Published { displaced: 0 },
                false if terms.dry_run => Outcome::Read,
                false => Outcome::Confirmed,
            };
            Ok(Committed { version: done.version, applied: done.outcome, outcome })
        }
        Err(PublishError::Rejected(problem)) => Err(problem),
        Err(PublishError::RetriesExhausted) => Err(retries_exhausted()),
    }
}

fn no_edition(none: NoEdition) -> Stop<Problem> {
    match none {
        NoEdition::Moved => Stop::Moved,
        NoEdition::TooLarge => Stop::Rejected(Code::PayloadTooLarge.problem("the map would be larger than can be stored")),
    }
}

/// Rejects what was not sent to this machine under its own name.
fn check_names(head: &Head<'_>) -> Result<(), Problem> {
    let name = if !head.host.is_some_and(is_local_host) {
        "Host"
    } else if !head.origin.is_none_or(is_local_origin) {
        "Origin"
    } else {
        return Ok(());
    };
    let detail = format!("the route API must be called as 127.0.0.1, localhost or [::1], but {name} names another host");
    Err(Code::ForeignOrigin.problem(detail))
}

/// How often a read starts over because the map moved on meanwhile.
const READ_ATTEMPTS: usize = 16;

fn read(call: &Read, config: &AdminConfig, data: &impl SharedData) -> Response {
    let attempt = |_| try_read(call, config, data).ok();
    (0..READ_ATTEMPTS).find_map(attempt).unwrap_or_else(|| Response::problem(&retries_exhausted()))
}

fn try_read(call: &Read, config: &AdminConfig, data: &impl SharedData) -> Result<Response, Moved> {
    let layout = if call.resource.is_of_fleet() { &FLEET_MAP } else { &ROUTE_MAP };
    let stored = Stored::now(data, layout);
    let now = stored.version();
    if !call.preconditions.if_match_holds(now) {
        return Ok(Response::problem(&precondition_failed(now)));
    }
    let map = RouteMap::new(&stored);
    // The entity tag of the status is that of the route map, and with a fleet the status tells of both.
    let versioned = call.resource != Resource::Status || config.fleet.is_none();
    let unchanged = versioned && !call.preconditions.if_none_match_holds(now);
    let body = match &call.resource {
        Resource::Route(id) => match map.find(id.as_id())? {
            Some(route) => response::route_body(now, &route),
            None => return Ok(Response::problem(&Code::NotFound.problem(format!("there is no route for {}", id.as_id())))),
        },
        // Before anything is read: the status page asks every two seconds.
        _ if unchanged => String::new(),
        Resource::Routes => {
            let mut routes = map.routes()?;
            routes.sort_unstable_by_key(|(id, _)| *id);
            response::routes_body(now, &routes)
        }
        Resource::Status => response::status_body(now, map.len(), map.is_loaded(), &fleet_map::status(config, data)?),
        Resource::Fleet => fleet_map::body(&stored)?,
        Resource::FleetPeers => fleet_map::peers_body(&stored)?,
    };
    Ok(if unchanged { Response::empty(304, now) } else { Response::json(200, now, body) })
}

fn retries_exhausted() -> Problem {
    let detail = "other writers were faster every time; nothing was changed, try again";
    Code::ConflictRetriesExhausted.problem(detail).with_header("retry-after", "1")
}

fn precondition_failed(now: Version) -> Problem {
    Code::PreconditionFailed.problem(format!(
        "the map is at {}; read it again, apply the change to what is there now, and retry with its ETag",
        now.etag()
    ))
}

fn invalid_routes(errors: FieldErrors) -> Problem {
    with_errors(Code::InvalidRoutes, errors)
}

fn rejected(invalid: Invalid) -> Problem {
    match invalid {
        Invalid::Routes(errors) => invalid_routes(errors),
        Invalid::PortInUse(errors) => with_errors(Code::PortInUse, errors),
    }
}

fn with_errors(code: Code, errors: FieldErrors) -> Problem {
    let count = match errors.total() {
        1 => "1 error, see errors".to_owned(),
        total if total > errors.listed().len() => format!("{total} errors, see errors for the first {}", errors.listed().len()),
        total => format!("{total} errors, see errors"),
    };
    code.problem(format!("nothing was changed: {count}")).with_errors(errors)
}

/// The same error if the body is the route itself: its root stands for `/routes/<id>`.
fn about_one_route(mut problem: Problem) -> Problem {
    for error in problem.errors.listed_mut() {
        let mut parts = error.pointer.splitn(4, '/');
        if parts.next() == Some("") && parts.next() == Some("routes") {
            error.pointer = parts.nth(1).map(|rest| format!("/{rest}")).unwrap_or_default();
        }
    }
    problem
}

#[cfg(test)]
mod tests;
