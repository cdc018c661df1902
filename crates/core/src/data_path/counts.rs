//! What the data path counts, and which rejections it logs whatever the rate. A host has the counters.

use super::{DataPath, Judges, Maps, Rejected, RequestHost, Verdict};
use crate::hop::{Direction, Outcome};
use crate::metrics::{FLEET_MISDIRECTED, FLEET_REQUESTS, First, HOPS, Labelled, PEER_FAILURES, REJECTION_REASONS, REJECTIONS};

/// The rejections that are logged whatever the rate.
pub type FirstRejections = First<{ REJECTION_REASONS.len() }>;

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A rejection with this code.
    Rejected(&'static str),
    /// A request that another task serves, or has sent here.
    Hopped(Direction),
    /// Such a request that another task has to serve, as its peer sees it (`in`) or the task that sent it (`out`).
    Misdirected(Direction),
    /// A peer has failed.
    PeerFailed,
}

impl Event {
    /// What is counted of an attempt to reach a peer; `None` if nothing is.
    #[must_use]
    pub const fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Returned => Some(Self::Misdirected(Direction::Out)),
            Outcome::Lost => None,
            Outcome::Unreachable => Some(Self::PeerFailed),
        }
    }
}

impl Rejected {
    /// What is counted of it.
    #[must_use]
    pub const fn event(&self) -> Event {
        if self.is_misdirected { Event::Misdirected(Direction::In) } else { Event::Rejected(self.code) }
    }

    /// Whether it is logged whatever the rate. If it tells a peer to try another task, it is not, and leaves its place to one that a client gets.
    #[must_use]
    pub fn is_first(&self, first: &FirstRejections) -> bool {
        !self.is_misdirected && first.take(self.code)
    }
}

impl DataPath {
    /// [`Self::judge`], and what is counted besides the verdict.
    pub fn judge_counted(&self, request: &impl RequestHost, maps: &mut Maps) -> (Option<Event>, Verdict) {
        match self.judges() {
            Judges::Requests | Judges::Attempts => (None, self.judge(request, maps)),
            Judges::Incoming => (Some(Event::Hopped(Direction::In)), self.judge(request, maps)),
            Judges::Hops => {
                let (outcome, verdict) = self.judge_hop(request, maps);
                (outcome.and_then(Event::of), verdict)
            }
        }
    }
}

/// The counters of the data path. `C` is what the host has for a counter. A request that is forwarded costs nothing here.
#[derive(Debug)]
pub struct Counters<C> {
    rejections: Labelled<C, { REJECTION_REASONS.len() }>,
    hops: Labelled<C, { HOPS.len() }>,
    misdirected: Labelled<C, { HOPS.len() }>,
    failures: C,
}

impl<C> Counters<C> {
    /// Defines them all; `counter` defines one by its name.
    pub fn define(counter: impl Fn(&str) -> C) -> Self {
        Self {
            rejections: Labelled::define(REJECTIONS, "reason", REJECTION_REASONS, &counter),
            hops: Labelled::define(FLEET_REQUESTS, "hop", HOPS, &counter),
            misdirected: Labelled::define(FLEET_MISDIRECTED, "hop", HOPS, &counter),
            failures: counter(PEER_FAILURES),
        }
    }

    /// The counter of an event.
    pub fn of(&self, event: Event) -> Option<&C> {
        match event {
            Event::Rejected(code) => self.rejections.of(code),
            Event::Hopped(direction) => self.hops.of(direction.name()),
            Event::Misdirected(direction) => self.misdirected.of(direction.name()),
            Event::PeerFailed => Some(&self.failures),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejection::{Client, Rejection};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// In a fleet whose routes move, peers get many such rejections. The first ones that clients get must be logged all the same.
    #[test]
    fn a_misdirected_request_takes_no_place_among_the_first_rejections() {
        let to_client = Rejected::new(Rejection::DeploymentMoved, Client::Http);
        let to_peer = Rejected { is_misdirected: true, ..to_client.clone() };
        let first = FirstRejections::of(REJECTION_REASONS);
        let logged = |rejected: &Rejected, times| (0..times).filter(|_| rejected.is_first(&first)).count();
        assert_eq!(logged(&to_peer, 20), 0);
        assert_eq!(logged(&to_client, 4), 4);
        assert_eq!(logged(&to_peer, 20), 0);
        assert_eq!(logged(&to_client, 20), 6);
        assert_eq!(logged(&Rejected::new(Rejection::Overloaded, Client::Grpc), 20), 10);
    }

    #[test]
    fn every_event_has_its_counter() {
        let counters = Counters::define(str::to_owned);
        let of = |event| counters.of(event).expect("counted").as_str();
        let rejected = Rejected::new(Rejection::DeploymentMoved, Client::Http);
        assert_eq!(of(rejected.event()), "pixell_rejections_total.reason.deployment_moved");
        let misdirected = Rejected { is_misdirected: true, ..rejected };
        assert_eq!(of(misdirected.event()), "pixell_fleet_misdirected_total.hop.in");
        assert_eq!(of(Event::Hopped(Direction::Out)), "pixell_fleet_requests_total.hop.out");
        assert_eq!(of(Event::Hopped(Direction::In)), "pixell_fleet_requests_total.hop.in");
        let ended = |outcome| Event::of(outcome).map(of);
        assert_eq!(ended(Outcome::Returned), Some("pixell_fleet_misdirected_total.hop.out"));
        assert_eq!(ended(Outcome::Unreachable), Some("pixell_fleet_peer_failures_total"));
        assert_eq!(ended(Outcome::Lost), None);
    }
}
