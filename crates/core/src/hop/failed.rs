//! The peers that have just failed, as far as one worker knows.

use super::PAUSE;
use std::net::IpAddr;
use std::time::Duration;

/// How long requests may wait in total for a connection to a peer before it counts as one that accepts none. Envoy itself gives up a connection
/// after this time (`connect_timeout` in `envoy/fleet/cluster.yaml`), but the filter learns this only for requests that have not ended.
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// For how long a wait counts: the peer is tried again after [`PAUSE`], and the next client without a connection shows that nothing has changed.
const MEMORY: Duration = Duration::from_secs(4);

/// How a peer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It accepted no connection.
    Unreachable,
    /// It ended the connection or the stream before it responded. The next connection may work.
    Closed,
}

impl Failure {
    /// The failure of the last peer, from the response code details of Envoy's own response; `None` if they name no failure of the peer.
    #[must_use]
    pub fn of(details: &[u8]) -> Option<Self> {
        let reason = details.strip_prefix(b"upstream_reset_before_response_started{")?;
        let is = |names: &[&str]| names.iter().any(|name| reason.starts_with(name.as_bytes()));
        if is(&["remote_connection_failure", "connection_timeout"]) {
            Some(Self::Unreachable)
        } else if is(&["connection_termination", "remote_reset", "remote_refused_stream_reset"]) {
            Some(Self::Closed)
        } else {
            None
        }
    }
}

/// The peers that failed within the last [`PAUSE`], and those that keep requests waiting.
#[derive(Clone, Debug, Default)]
pub struct Failed {
    peers: Vec<(IpAddr, Failure, Duration)>,
    waits: Vec<Wait>,
}

/// Requests that ended before a peer accepted a connection for them.
#[derive(Clone, Copy, Debug)]
struct Wait {
    host: IpAddr,
    /// How long requests waited; the time of several at once counts once.
    sum: Duration,
    /// When the last of them ended.
    until: Duration,
}

impl Failed {
    /// Whether nothing is known against any peer.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.waits.is_empty()
    }

    /// How this one failed; `None` if it did not.
    #[must_use]
    pub fn of(&self, host: IpAddr) -> Option<Failure> {
        self.peers.iter().find(|(failed, ..)| *failed == host).map(|(_, failure, _)| *failure)
    }

    /// Notes that a peer has failed at `now`, by a monotonic clock. If it accepts no connection, the end of an old connection does not change
    /// that.
    pub fn add(&mut self, host: IpAddr, failure: Failure, now: Duration) {
        if failure == Failure::Closed && self.of(host) == Some(Failure::Unreachable) {
            return;
        }
        self.peers.retain(|(failed, ..)| *failed != host);
        self.peers.push((host, failure, now));
    }

    /// Notes that a request for a peer ended at `now` and had waited for a connection since `from`. Returns whether the peer now counts as failed:
    /// a client may end its request at any time, so one short wait proves nothing.
    pub fn wait(&mut self, host: IpAddr, from: Duration, now: Duration) -> bool {
        let mut wait = Wait { host, sum: Duration::ZERO, until: Duration::ZERO };
        self.waits.retain(|known| {
            if known.host == host {
                wait = *known;
            }
            known.host != host
        });
        let more = now.saturating_sub(from.max(wait.until));
        wait = Wait { sum: wait.sum.saturating_add(more), until: now, ..wait };
        self.waits.push(wait);
        let has_failed = wait.sum >= LONGEST_WAIT;
        if has_failed {
            self.add(host, Failure::Unreachable, now);
        }
        has_failed
    }

    /// Notes that a peer has accepted a connection, so that earlier waits no longer count.
    pub fn reached(&mut self, host: IpAddr) {
        self.waits.retain(|wait| wait.host != host);
    }

    /// Forgets failures and waits that no longer count.
    pub fn forget(&mut self, now: Duration) {
        self.peers.retain(|(.., at)| now.saturating_sub(*at) < PAUSE);
        self.waits.retain(|wait| now.saturating_sub(wait.until) < MEMORY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn host(last: u8) -> IpAddr {
        [10, 0, 1, last].into()
    }

    const fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_failure_is_forgotten_after_two_seconds() {
        let mut failed = Failed::default();
        failed.add(host(1), Failure::Closed, at(100));
        failed.add(host(2), Failure::Unreachable, at(1500));
        failed.add(host(1), Failure::Closed, at(1000));
        failed.add(host(2), Failure::Closed, at(1600));
        failed.forget(at(2999));
        let all = [1, 2, 3].map(|last| failed.of(host(last)));
        assert_eq!(all, [Some(Failure::Closed), Some(Failure::Unreachable), None]);
        failed.forget(at(3000));
        assert_eq!(failed.of(host(1)), None);
        assert!(!failed.is_empty());
        failed.forget(at(3500));
        assert!(failed.is_empty());
    }

    #[test]
    fn waits_count_together_until_the_peer_is_reached() {
        let mut failed = Failed::default();
        assert!(!failed.wait(host(1), at(1000), at(1100)));
        // At the same time as the first one; and for another peer.
        assert!(!failed.wait(host(1), at(1000), at(1100)));
        assert!(!failed.wait(host(1), at(1050), at(1150)));
        assert!(!failed.wait(host(2), at(1000), at(1200)));
        assert_eq!(failed.of(host(1)), None);
        assert!(failed.wait(host(1), at(1500), at(1600)));
        assert_eq!((failed.of(host(1)), failed.of(host(2))), (Some(Failure::Unreachable), None));
        // The pause is over, and the next client has no connection either.
        failed.forget(at(3601));
        assert_eq!(failed.of(host(1)), None);
        assert!(failed.wait(host(1), at(3601), at(3602)));
        failed.reached(host(1));
        failed.forget(at(5700));
        assert!(failed.is_empty());
        assert!(!failed.wait(host(1), at(5701), at(5950)));
        // Too long ago to be the same trouble.
        failed.forget(at(9950));
        assert!(failed.is_empty());
    }

    #[test]
    fn what_envoy_says_of_an_attempt_tells_how_it_failed() {
        for (details, expected) in [
            (
                "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_111}",
                Some(Failure::Unreachable),
            ),
            ("upstream_reset_before_response_started{connection_timeout}", Some(Failure::Unreachable)),
            ("upstream_reset_before_response_started{connection_termination}", Some(Failure::Closed)),
            ("upstream_reset_before_response_started{remote_reset}", Some(Failure::Closed)),
            ("upstream_reset_before_response_started{remote_refused_stream_reset}", Some(Failure::Closed)),
            // What this Envoy does, and what comes after the head of a response, which the agent may have broken off.
            ("upstream_reset_before_response_started{local_connection_failure|no_ports}", None),
            ("upstream_reset_before_response_started{overflow}", None),
            ("upstream_reset_before_response_started{protocol_error}", None),
            ("upstream_reset_after_response_started{connection_termination}", None),
            ("via_upstream", None),
            ("http2.remote_reset", None),
            ("downstream_remote_disconnect", None),
            ("max_duration_timeout", None),
            ("", None),
        ] {
            assert_eq!(Failure::of(details.as_bytes()), expected, "{details}");
        }
    }
}
