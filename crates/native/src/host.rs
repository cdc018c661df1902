//! A stream as the core sees it, and what all filters do with one.

use crate::abi::{Host, Map, write_log};
use crate::abi_types::{Attribute, LogLevel};
use pixell_core::data_path::{FirstRejections, Header, Rejected, RequestHost, Response};
use pixell_core::filter_state::{ARRIVED, FIRST, HOP, REJECTION, RETURNS, TRAIL};
use pixell_core::hop::{Direction, MISDIRECTED_HEADER};
use pixell_core::metrics::{First, REJECTION_REASONS};
use pixell_core::rejection::Client;
use pixell_core::responses::Unchanged;
use pixell_core::upstream;
use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The response code details of every response that the filter makes. Envoy would write `dynamic_module_send_response` without.
const DETAILS: &str = "pixell";

static REJECTIONS: FirstRejections = FirstRejections::of(REJECTION_REASONS);
static CARDS: First<{ Unchanged::REASONS.len() }> = First::of(Unchanged::REASONS);

/// Whether this is one of the first cards that pass unchanged for this reason.
pub(crate) fn is_first_card(reason: &str) -> bool {
    CARDS.take(reason)
}

/// Counts the response of a peer if it says that it has no route for the request.
pub(crate) fn note_return(host: &mut Host<'_>) {
    if host.value(Map::Response, MISDIRECTED_HEADER, 0).1 > 0 {
        let count = host.returns().saturating_add(1);
        if !host.set_state(RETURNS, &[count]) {
            error("a response of a peer could not be noted");
        }
    }
}

/// Notes that the request goes to a peer or was sent by one; `false` if Envoy does not.
pub(crate) fn note_hop(host: &mut Host<'_>, direction: Direction) -> bool {
    host.set_state(HOP, direction.name().as_bytes())
}

/// Leaves the trail of a hop to the filter before the peers' cluster; `false` if Envoy does not.
pub(crate) fn leave_trail(host: &mut Host<'_>, trail: &[u8]) -> bool {
    host.set_state(TRAIL, trail)
}

/// The start from which times are counted.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

const fn nanoseconds(bytes: [u8; 8]) -> Duration {
    Duration::from_nanos(u64::from_le_bytes(bytes))
}

/// Notes that the request has arrived now.
pub(crate) fn note_arrival(host: &mut Host<'_>) {
    let now = u64::try_from(BEGAN.elapsed().as_nanos()).unwrap_or(u64::MAX);
    if !host.set_state(ARRIVED, &now.to_le_bytes()) {
        error("the time of a request could not be noted");
    }
}

impl RequestHost for Host<'_> {
    fn header(&self, header: &Header) -> Option<Cow<'_, [u8]>> {
        joined(self, &header.name).filter(|value| !value.is_empty())
    }

    fn has(&self, header: &Header) -> bool {
        Host::header(self, &header.name, 0).1 > 0
    }

    fn path(&self) -> Cow<'_, [u8]> {
        joined(self, ":path").unwrap_or_default()
    }

    fn authority(&self) -> Cow<'_, [u8]> {
        joined(self, ":authority").unwrap_or_default()
    }

    fn method(&self) -> Cow<'_, [u8]> {
        joined(self, ":method").unwrap_or_default()
    }

    fn is_https(&self) -> bool {
        Host::header(self, "x-forwarded-proto", 0).0.is_some_and(|scheme| scheme == b"https")
    }

    fn age(&self) -> Duration {
        let arrived = self.state(ARRIVED).and_then(|bytes| bytes.try_into().ok()).map_or(Duration::ZERO, nanoseconds);
        BEGAN.elapsed().saturating_sub(arrived)
    }

    fn was_connected(&self) -> bool {
        self.text(Attribute::UpstreamLocalAddress).is_some()
    }

    fn trail(&self) -> Option<Cow<'_, [u8]>> {
        self.state(TRAIL).map(Cow::Borrowed)
    }

    fn is_from_peer(&self) -> bool {
        self.state(HOP) == Some(Direction::In.name().as_bytes())
    }

    fn returns(&self) -> u8 {
        self.state(RETURNS).and_then(|count| count.first()).copied().unwrap_or_default()
    }

    fn details(&self) -> Option<Cow<'_, [u8]>> {
        self.text(Attribute::ResponseCodeDetails).map(Cow::Borrowed)
    }

    fn now(&self) -> Duration {
        BEGAN.elapsed()
    }

    fn bound_port(&self) -> Option<u16> {
        self.text(Attribute::UpstreamAddress).and_then(upstream::port_of)
    }
}

/// The value of a request header, all fields of that name joined by commas; `None` if there is none.
pub(crate) fn joined<'a>(host: &'a Host<'_>, name: &str) -> Option<Cow<'a, [u8]>> {
    let (first, count) = Host::header(host, name, 0);
    let first = first?;
    if count < 2 {
        return Some(first.into());
    }
    let mut all = first.to_vec();
    for index in 1..count {
        all.push(b',');
        all.extend_from_slice(Host::header(host, name, index).0.unwrap_or_default());
    }
    Some(all.into())
}

/// Whether a request is gRPC, or was gRPC-Web.
pub(crate) fn is_grpc(host: &Host<'_>) -> bool {
    Client::of(&joined(host, "content-type").unwrap_or_default()) != Client::Http
}

/// Removes the headers or trailers of an agent's response that only this proxy may send to a client.
pub(crate) fn remove_forged(host: &mut Host<'_>, map: Map) {
    for name in host.names_beginning(map, b"x-pixell-") {
        if !host.remove_from(map, &name) {
            error(&format!("a header of an agent could not be removed: {}", name.escape_ascii()));
        }
    }
}

/// Leaves the reason of a rejection to Envoy's access log and tracing: unlike a response header, no agent can set it.
pub(crate) fn note_rejection(host: &mut Host<'_>, code: &str) {
    if !host.set_state(REJECTION, code.as_bytes()) {
        error("the reason of a rejection could not be noted");
    }
}

/// Sends a rejection and notes its reason.
pub(crate) fn reject(host: &mut Host<'_>, rejected: &Rejected) {
    note_rejection(host, rejected.code);
    if rejected.is_first(&REJECTIONS) && !host.set_state(FIRST, b"1") {
        error("the first of a kind of rejection could not be noted");
    }
    let mut headers = rejected.headers();
    match &rejected.response {
        Response::Grpc { status, message } => {
            headers.push(("grpc-status", status.digits()));
            respond(host, 200, &headers, message);
        }
        Response::WrittenGrpc { .. } => respond(host, 200, &headers, ""),
        Response::Http { status, body } => respond(host, *status, &headers, body),
    }
}

/// Sends a response.
pub(crate) fn respond(host: &mut Host<'_>, status: u16, headers: &[(&str, &str)], body: &str) {
    host.respond(status, headers, body.as_bytes(), DETAILS);
}

/// Writes a line about an error to Envoy's log.
pub(crate) fn error(message: &str) {
    write_log(LogLevel::Error, message);
}
