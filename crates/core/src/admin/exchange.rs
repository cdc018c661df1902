//! One request to the listener of the route API, step by step, whatever host runs it.

use super::call::{Head, Write};
use super::code::Code;
use super::response::{Outcome, Response};
use super::status_page::{self, StatusPage};
use super::tally::Map;
use super::token::Token;
use super::{Begun, RouteApi, owns_path, ready};
use crate::config::AdminConfig;
use crate::store::{Backend, ChangeSignal, SharedData};
use crate::unfinished::{Body, Unfinished};

/// Longest body, in bytes, of a request to a path that takes none. Some clients send a few bytes with every request; Envoy's own admin
/// interface would buffer a body of any size.
const MOST_UNASKED: usize = 4096;

/// The route API and the status page.
#[derive(Debug)]
pub struct Admin {
    /// Everything below `/v1/`.
    pub api: RouteApi,
    /// `/`
    pub page: StatusPage,
    /// Bodies that are still arriving.
    pub unfinished: Unfinished,
    /// Unfinished bodies of writes to the fleet map, counted separately because they are much larger.
    pub unfinished_fleet: Unfinished,
}

/// How many bodies of the largest size may be unfinished at a time.
const MOST_BODIES: usize = 4;

/// The same for writes to the fleet map, which one program of the task makes.
const MOST_FLEET_BODIES: usize = 2;

/// How many bytes of a body are dropped at most while a rejection waits for the end of the request.
const MOST_DROPPED: usize = 64 << 20;

impl Admin {
    /// With these settings.
    #[must_use]
    pub fn new(config: AdminConfig, token: Option<Token>) -> Self {
        let largest = config.fleet.as_ref().map_or(0, |fleet| fleet.max_body_bytes);
        Self {
            unfinished: Unfinished::new(config.max_body_bytes, MOST_BODIES),
            unfinished_fleet: Unfinished::new(largest, MOST_FLEET_BODIES),
            page: StatusPage::new(&config),
            api: RouteApi { config, token },
        }
    }
}

/// The head of a request, as its host read it.
#[derive(Debug, Default)]
pub struct OwnedHead {
    method: Vec<u8>,
    target: Vec<u8>,
    host: Option<Vec<u8>>,
    origin: Option<Vec<u8>>,
    authorization: Option<Vec<u8>>,
    content_type: Option<Vec<u8>>,
    content_length: Option<Vec<u8>>,
    if_match: Option<Vec<u8>>,
    if_none_match: Option<Vec<u8>>,
}

impl OwnedHead {
    /// Reads the head with `header`, which gives the value of a header by its name, all its fields joined by commas. Only what
    /// the path needs is read.
    pub fn read(mut header: impl FnMut(&str) -> Option<Vec<u8>>) -> Self {
        let (method, target) = (header(":method").unwrap_or_default(), header(":path").unwrap_or_default());
        if names_agents(&target) {
            let (host, origin, authorization) = (header(":authority"), header("origin"), header("authorization"));
            return Self { method, target, host, origin, authorization, ..Self::default() };
        }
        if !owns_path(&target) {
            return Self { method, target, ..Self::default() };
        }
        Self {
            host: header(":authority"),
            origin: header("origin"),
            authorization: header("authorization"),
            content_type: header("content-type"),
            content_length: header("content-length"),
            if_match: header("if-match"),
            if_none_match: header("if-none-match"),
            method,
            target,
        }
    }

    fn head(&self) -> Head<'_> {
        Head {
            method: &self.method,
            target: &self.target,
            host: self.host.as_deref(),
            origin: self.origin.as_deref(),
            authorization: self.authorization.as_deref(),
            content_type: self.content_type.as_deref(),
            content_length: self.content_length.as_deref(),
            if_match: self.if_match.as_deref(),
            if_none_match: self.if_none_match.as_deref(),
        }
    }
}

/// What a host has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Let the request pass to Envoy's own admin interface.
    Pass,
    /// Keep the body and come back with more of it.
    Wait,
    /// Read the body, as far as it is there, up to so many bytes, and come back with it.
    ReadBody {
        /// Most bytes.
        most: usize,
    },
    /// Drop the body, as far as it is there, and come back with more of it.
    DropBody,
    /// Record how the request ends, then take the next step. The response may come later, or never if the client goes away.
    Record {
        /// What the metrics count.
        outcome: Outcome,
        /// For this map.
        map: Map,
        /// The code of an error, for the log.
        code: Option<&'static str>,
        /// What to do then.
        next: Box<Self>,
    },
    /// Send this.
    Response(Response),
}

/// One request.
#[derive(Debug, Default)]
pub struct Exchange {
    /// What waits for the body.
    waiting: Option<Waiting>,
    /// The map that the request is about.
    map: Map,
    /// Whether all of the request has arrived.
    ended: bool,
}

#[derive(Debug)]
enum Waiting {
    Write(Write, Body),
    /// A request for a path that takes no body.
    Pass(Body),
    /// The response of a rejection that does not depend on the rest of the body. After a response, Envoy reads nothing more from an HTTP/1.1
    /// client that has not sent all of its request, and resets the connection a second later. A client that sends everything before it reads
    /// would then never learn why. So the rest is dropped first, up to so many bytes.
    Response(Box<Step>, usize),
}

impl Exchange {
    /// The head is there; `ends` if there is no body.
    pub fn on_head(
        &mut self,
        admin: &Admin,
        head: &OwnedHead,
        ends: bool,
        backend: &Backend<'_, impl SharedData, impl ChangeSignal>,
    ) -> Step {
        self.ended = ends;
        let step = self.judge(admin, head, backend);
        self.once_ended(step, Step::Wait)
    }

    fn judge(&mut self, admin: &Admin, head: &OwnedHead, backend: &Backend<'_, impl SharedData, impl ChangeSignal>) -> Step {
        if status_page::owns_path(&head.target) {
            return self.read(admin.page.response(&head.method));
        }
        if ready::owns_path(&head.target) {
            return self.read(ready::response(&head.method, &admin.api.config, backend.data));
        }
        self.map = Map::of_path(&head.target);
        let bodies = if self.map == Map::Fleet { &admin.unfinished_fleet } else { &admin.unfinished };
        if names_agents(&head.target)
            && let Err(problem) = admin.api.admit(&head.head())
        {
            return self.read(Response::problem(&problem));
        }
        if !owns_path(&head.target) {
            if self.ended {
                return Step::Pass;
            }
            self.waiting = Some(Waiting::Pass(bodies.body()));
            return Step::Wait;
        }
        match admin.api.begin(&head.head(), backend) {
            Begun::Done(response) => {
                // A rejected read does not concern the map; every other request can only be meant as a write.
                if matches!(head.method.as_slice(), b"GET" | b"HEAD" | b"OPTIONS") {
                    self.read(response)
                } else {
                    self.written(response)
                }
            }
            Begun::NeedsBody(write) if self.ended => self.written(admin.api.finish(&write, &[], backend)),
            Begun::NeedsBody(write) => {
                self.waiting = Some(Waiting::Write(write, bodies.body()));
                Step::Wait
            }
        }
    }

    /// So many bytes of the body are there; `ends` if no more will come.
    #[must_use]
    pub fn on_body(&mut self, admin: &Admin, size: usize, ends: bool) -> Step {
        self.ended = ends;
        match self.waiting.take() {
            None => Step::Pass,
            Some(Waiting::Write(write, mut body)) => {
                // One byte more than allowed is enough to see that it is too much.
                let most = write.most_bytes(&admin.api.config).saturating_add(1);
                let room = body.grow(size.min(most));
                if !room && !ends && body.bytes() < most {
                    return self.written(no_room());
                }
                let whole = ends || body.bytes() >= most;
                let step = if whole { Step::ReadBody { most: body.bytes() } } else { Step::Wait };
                self.waiting = Some(Waiting::Write(write, body));
                step
            }
            Some(Waiting::Pass(mut body)) => {
                let room = body.grow(size.min(MOST_UNASKED + 1));
                if body.bytes() > MOST_UNASKED {
                    let detail = format!("this path takes no body; at most {MOST_UNASKED} bytes are ignored");
                    let response = Response::problem(&Code::PayloadTooLarge.problem(detail));
                    return self.once_ended(self.read(response), Step::DropBody);
                }
                if ends {
                    return Step::Pass;
                }
                if !room {
                    return self.read(no_room());
                }
                self.waiting = Some(Waiting::Pass(body));
                Step::Wait
            }
            Some(Waiting::Response(response, left)) => {
                let left = left.saturating_sub(size);
                if ends || left == 0 {
                    return *response;
                }
                self.waiting = Some(Waiting::Response(response, left));
                Step::DropBody
            }
        }
    }

    /// Trailers have arrived, and with them all of the body.
    #[must_use]
    pub fn on_trailers(&mut self, admin: &Admin) -> Step {
        let size = match &self.waiting {
            Some(Waiting::Write(_, body) | Waiting::Pass(body)) => body.bytes(),
            Some(Waiting::Response(..)) | None => 0,
        };
        self.on_body(admin, size, true)
    }

    /// The body has been read.
    pub fn finish(&mut self, admin: &Admin, body: &[u8], backend: &Backend<'_, impl SharedData, impl ChangeSignal>) -> Step {
        let Some(Waiting::Write(write, _)) = self.waiting.take() else { return Step::Pass };
        self.once_ended(self.written(admin.api.finish(&write, body, backend)), Step::DropBody)
    }

    /// Keeps the response of a rejection, which has been recorded, until all of the request has arrived, and returns what to do `meanwhile`. Every
    /// other response is sent at once: it may be megabytes long, and no limit counts what is kept here.
    fn once_ended(&mut self, step: Step, meanwhile: Step) -> Step {
        match step {
            Step::Record { outcome, map, code: Some(code), next } if !self.ended => {
                self.waiting = Some(Waiting::Response(next, MOST_DROPPED));
                Step::Record { outcome, map, code: Some(code), next: Box::new(meanwhile) }
            }
            step => step,
        }
    }

    /// Ends with the response to a read.
    fn read(&self, response: Response) -> Step {
        self.end(response, Outcome::Read)
    }

    /// Ends with the response to a write.
    fn written(&self, response: Response) -> Step {
        let outcome = response.outcome;
        self.end(response, outcome)
    }

    fn end(&self, response: Response, outcome: Outcome) -> Step {
        Step::Record { outcome, map: self.map, code: response.code(), next: Box::new(Step::Response(response)) }
    }
}

/// Whether the response of Envoy's own admin interface to this path names agents: `/clusters` has the ports of agents with traffic, so it
/// is read under the same conditions as the route map.
fn names_agents(target: &[u8]) -> bool {
    target.starts_with(b"/clusters")
}

/// The response to a body for which there is no room.
fn no_room() -> Response {
    let detail = "too many requests with large bodies are unfinished; nothing was changed, try again";
    Response::problem(&Code::Overloaded.problem(detail).with_header("retry-after", "1"))
}

#[cfg(test)]
mod tests;
