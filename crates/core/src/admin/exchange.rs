//! One request to the listener of the route API, step by step, whatever host runs it.

use super::call::{Head, Write};
use super::code::Code;
use super::reply::{Outcome, Reply};
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

impl Admin {
    /// With these settings.
    #[must_use]
    pub fn new(config: AdminConfig, token: Option<Token>) -> Self {
        let largest = config.fleet.as_ref().map_or(0, |fleet| fleet.max_body_bytes);
        Self {
            unfinished: Unfinished::new(config.max_body_bytes, MOST_BODIES),
            unfinished_fleet: Unfinished::new(largest, MOST_FLEET_BODIES),
            page: StatusPage::new(&config.agents_url),
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
    /// Send this. The outcome is what the metrics count, for this map.
    Reply(Reply, Outcome, Map),
}

/// One request.
#[derive(Debug, Default)]
pub struct Exchange {
    /// What waits for its body.
    waiting: Option<Waiting>,
    /// The map that the request is about.
    map: Map,
}

#[derive(Debug)]
struct Waiting {
    /// The write that the body is for; `None` if nothing here asks for one.
    write: Option<Write>,
    body: Body,
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
        if status_page::owns_path(&head.target) {
            return Step::Reply(admin.page.reply(&head.method), Outcome::Read, self.map);
        }
        if ready::owns_path(&head.target) {
            return Step::Reply(ready::reply(&head.method, &admin.api.config, backend.data), Outcome::Read, self.map);
        }
        self.map = Map::of_path(&head.target);
        let map = self.map;
        let mut wait = |write| {
            let bodies = if map == Map::Fleet { &admin.unfinished_fleet } else { &admin.unfinished };
            self.waiting = Some(Waiting { write, body: bodies.body() });
            Step::Wait
        };
        if names_agents(&head.target)
            && let Err(problem) = admin.api.admit(&head.head())
        {
            return Step::Reply(Reply::problem(&problem), Outcome::Read, map);
        }
        if !owns_path(&head.target) {
            return if ends { Step::Pass } else { wait(None) };
        }
        match admin.api.begin(&head.head(), backend) {
            Begun::Done(reply) => {
                // A rejected read does not concern the map; every other request can only be meant as a write.
                let read = matches!(head.method.as_slice(), b"GET" | b"HEAD" | b"OPTIONS");
                let outcome = if read { Outcome::Read } else { reply.outcome };
                Step::Reply(reply, outcome, map)
            }
            Begun::NeedsBody(write) if ends => replied(admin.api.finish(&write, &[], backend), map),
            Begun::NeedsBody(write) => wait(Some(write)),
        }
    }

    /// So many bytes of the body have arrived; `ends` if that is all.
    #[must_use]
    pub fn on_body(&mut self, admin: &Admin, size: usize, ends: bool) -> Step {
        let Some(Waiting { write, body }) = &mut self.waiting else { return Step::Pass };
        // One byte more than allowed is enough to see that it is too much.
        let most = write.as_ref().map_or(MOST_UNASKED, |write| write.most_bytes(&admin.api.config)).saturating_add(1);
        let room = body.grow(size.min(most));
        if write.is_none() && body.bytes() >= most {
            self.waiting = None;
            let detail = format!("this path takes no body; at most {MOST_UNASKED} bytes are ignored");
            return Step::Reply(Reply::problem(&Code::PayloadTooLarge.problem(detail)), Outcome::Read, self.map);
        }
        if ends || body.bytes() >= most {
            let most = body.bytes();
            if write.is_some() {
                return Step::ReadBody { most };
            }
            self.waiting = None;
            return Step::Pass;
        }
        if room {
            return Step::Wait;
        }
        let writes = write.is_some();
        self.waiting = None;
        let reply = no_room();
        let outcome = if writes { reply.outcome } else { Outcome::Read };
        Step::Reply(reply, outcome, self.map)
    }

    /// Trailers have arrived, and with them all of the body.
    #[must_use]
    pub fn on_trailers(&mut self, admin: &Admin) -> Step {
        let size = self.waiting.as_ref().map_or(0, |waiting| waiting.body.bytes());
        self.on_body(admin, size, true)
    }

    /// The body has been read.
    pub fn finish(&mut self, admin: &Admin, body: &[u8], backend: &Backend<'_, impl SharedData, impl ChangeSignal>) -> Step {
        let write = self.waiting.take().and_then(|waiting| waiting.write);
        write.map_or(Step::Pass, |write| replied(admin.api.finish(&write, body, backend), self.map))
    }
}

/// Whether the response of Envoy's own admin interface to this path names agents: `/clusters` has the ports of agents with traffic, so it
/// is read under the same conditions as the route map.
fn names_agents(target: &[u8]) -> bool {
    target.starts_with(b"/clusters")
}

fn replied(reply: Reply, map: Map) -> Step {
    let outcome = reply.outcome;
    Step::Reply(reply, outcome, map)
}

/// The reply to a body for which there is no room.
fn no_room() -> Reply {
    let detail = "too many requests with large bodies are unfinished; nothing was changed, try again";
    Reply::problem(&Code::Overloaded.problem(detail).with_header("retry-after", "1"))
}

#[cfg(test)]
mod tests;
