//! A hop: a request that another task of the fleet serves, and its way there.
//!
//! The task that a client reached is the *edge*, the one whose agent serves the request its *owner*. The edge asks its maps before each
//! attempt, and the owner knows its own routes alone, so a request hops once at most, whatever the maps say.

use crate::fleet::{FleetCache, PeerState};
use crate::rejection::Rejection;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

mod failed;

pub use failed::{Failed, Failure};

/// Header that tells the edge that the owner has no active route for the request. Clients never see it, and agents cannot send it.
pub const MISDIRECTED_HEADER: &str = "x-pixell-misdirected";

/// Header that tells the owner that the path or the host names the agent, although the request also has the decided id in a header.
pub const ADDRESSED_HEADER: &str = "x-pixell-addressed";

/// For how long a peer that failed is left out.
pub const PAUSE: Duration = Duration::from_secs(2);

/// How old a request may be when a retry at a peer starts. (At an agent: [`crate::data_path::LAST_RETRY_AT_AGENT`].) A peer must accept a
/// connection within 0.25 s (see `envoy/fleet/cluster.yaml`), so a client has its response within 2 s.
pub const LAST_RETRY_AT_PEER: Duration = Duration::from_millis(1500);

/// How often a request may come back from peers and be retried.
const MOST_RETURNS: u8 = 2;

/// How often a request may lose its connection before a peer has seen it, and be retried.
const MOST_LOSSES: u8 = 3;

/// How many attempts of a request may reach no host before the only peer of an id counts as failed.
const MOST_MISSES: u8 = 1;

/// Where a hop leads, seen from this task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To a peer.
    Out,
    /// From a peer to this task.
    In,
}

impl Direction {
    /// Its name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

/// How hops leave this task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hops {
    /// The port that all peers listen on for each other.
    pub port: u16,
    /// The address at which this task reaches its own port for peers, for a request whose agent has moved here meanwhile.
    pub local: IpAddr,
}

impl Hops {
    /// Where a host of the fleet takes requests of its peers.
    #[must_use]
    pub const fn address(&self, host: IpAddr) -> SocketAddr {
        SocketAddr::new(host, self.port)
    }
}

/// The peers of a worker: the fleet map, and which of them have just failed.
#[derive(Clone, Copy, Debug)]
pub struct Peers<'m> {
    /// The fleet map.
    pub map: &'m FleetCache,
    /// Those that are left out.
    pub failed: &'m Failed,
}

/// What the fleet map has for an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The first of its peers that takes requests and has not just failed; else the first of those that ended a connection, because the next
    /// connection may stay open.
    Host(IpAddr),
    /// Of the peers that take requests, none accepts a connection at present.
    Failed,
    /// All its peers are draining.
    Draining,
    /// No peer.
    Nothing,
}

impl Peers<'_> {
    /// The peer for a request to `id`; none of the hosts `except`, where the request has been.
    #[must_use]
    pub fn choose(&self, id: &[u8], except: &[IpAddr]) -> Choice {
        let (mut otherwise, mut closed) = (Choice::Nothing, None);
        for peer in self.map.find(id).into_iter().flat_map(|route| route.peers()) {
            match (peer.state, self.failed.of(peer.host)) {
                (PeerState::Active, None) if !except.contains(&peer.host) => return Choice::Host(peer.host),
                (PeerState::Active, failure) => {
                    otherwise = Choice::Failed;
                    if failure == Some(Failure::Closed) && !except.contains(&peer.host) {
                        closed = closed.or(Some(peer.host));
                    }
                }
                (PeerState::Draining, _) if otherwise == Choice::Nothing => otherwise = Choice::Draining,
                (PeerState::Draining, _) => {}
            }
        }
        closed.map_or(otherwise, Choice::Host)
    }
}

/// How an attempt that was not the last one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer has no active route for the request.
    Returned,
    /// The connection that the attempt began with ended, or the peer refused the stream. It may work on a new connection.
    Lost,
    /// The peer accepted no connection.
    Unreachable,
}

/// The hosts that a request was sent to. It is kept beside the request, in a form that the host of the filter can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trail {
    /// How many attempts reached a host that had no route for the request.
    returns: u8,
    /// How many attempts lost their connection.
    losses: u8,
    /// How many attempts reached no host.
    misses: u8,
    /// Whether the last attempt began with a connection.
    is_connected: bool,
    /// The host of each attempt, the coming one included.
    hosts: Vec<IpAddr>,
}

/// What is known when an attempt starts.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// How many peers have responded so far that they have no route for the request.
    pub returns: u8,
    /// Whether it has a connection already.
    pub is_connected: bool,
    /// How long ago the request arrived.
    pub age: Duration,
}

impl Trail {
    /// The trail of a request that is first sent to `host`.
    #[must_use]
    pub fn to(host: IpAddr) -> Self {
        Self { returns: 0, losses: 0, misses: 0, is_connected: false, hosts: vec![host] }
    }

    /// The host of the last attempt that was allowed, and whether the request has so far only waited for a connection to it; `None` before the
    /// first attempt.
    #[must_use]
    pub fn last(&self) -> Option<(IpAddr, bool)> {
        // The last one in the list is that of the coming attempt.
        let (_, asked) = self.hosts.split_last()?;
        let host = *asked.last()?;
        Some((host, self.losses == 0 && asked.iter().all(|earlier| *earlier == host)))
    }

    /// Notes how the previous attempt ended, and returns this with its host; `None` if this is the first attempt.
    pub fn note(&mut self, attempt: Attempt) -> Option<(IpAddr, Outcome)> {
        let was_connected = std::mem::replace(&mut self.is_connected, attempt.is_connected);
        let before = self.hosts.len().checked_sub(2).and_then(|at| self.hosts.get(at)).copied()?;
        let outcome = if attempt.returns > self.returns {
            self.returns = attempt.returns;
            Outcome::Returned
        } else if was_connected {
            self.losses = self.losses.saturating_add(1);
            Outcome::Lost
        } else {
            self.misses = self.misses.saturating_add(1);
            Outcome::Unreachable
        };
        Some((before, outcome))
    }

    /// Decides on the attempt that starts now: whether it may go on to the host that was chosen for it when the previous one started, and where
    /// the next one goes if this one fails. `before` is how the previous attempt ended; `next` returns the next host of the maps besides those
    /// that it is given.
    ///
    /// # Errors
    /// The rejection, if it may not.
    pub fn go_on(
        &mut self,
        attempt: Attempt,
        before: Option<Outcome>,
        next: impl FnOnce(&[IpAddr]) -> Option<IpAddr>,
    ) -> Result<Option<IpAddr>, Rejection<'static>> {
        let Some((present, earlier)) = self.hosts.split_last() else { return Err(Rejection::Internal) };
        let (is_first, was_here) = (earlier.is_empty(), earlier.contains(present));
        if self.returns > MOST_RETURNS || self.losses > MOST_LOSSES || (!is_first && attempt.age > LAST_RETRY_AT_PEER) {
            return Err(self.rejection());
        }
        let next = next(&self.hosts);
        // The only peer of an id is tried twice, because the first packet to it may have been lost.
        let may_stay = match before {
            Some(Outcome::Lost) => true,
            Some(Outcome::Unreachable) => self.misses <= MOST_MISSES,
            Some(Outcome::Returned) | None => false,
        };
        if was_here && next.is_none() && !may_stay {
            return Err(self.rejection());
        }
        self.hosts.push(next.unwrap_or(*present));
        Ok(next)
    }

    const fn rejection(&self) -> Rejection<'static> {
        if self.misses > 0 || self.losses > MOST_LOSSES { Rejection::PeerUnreachable } else { Rejection::DeploymentMoved }
    }

    /// The trail as bytes:
    ///
    /// ```text
    /// returns u8 | losses u8 | misses u8 | is_connected u8 | for each host: bytes of the address u8, 4 or 16, and the address
    /// ```
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.returns, self.losses, self.misses, self.is_connected.into()];
        for host in &self.hosts {
            match host {
                IpAddr::V4(host) => {
                    bytes.push(4);
                    bytes.extend_from_slice(&host.octets());
                }
                IpAddr::V6(host) => {
                    bytes.push(16);
                    bytes.extend_from_slice(&host.octets());
                }
            }
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] made; `None` for anything else.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[returns, losses, misses, is_connected], mut rest) = bytes.split_first_chunk()?;
        let mut hosts = Vec::new();
        while let Some((len, more)) = rest.split_first() {
            let (octets, more) = more.split_at_checked(usize::from(*len))?;
            let host = match len {
                4 => IpAddr::from(<[u8; 4]>::try_from(octets).ok()?),
                16 => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
                _ => return None,
            };
            hosts.push(host);
            rest = more;
        }
        Some(Self { returns, losses, misses, is_connected: is_connected != 0, hosts })
    }
}

#[cfg(test)]
pub(crate) mod tests;
