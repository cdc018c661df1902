//! A worker's copy of the fleet map.

use super::peer::{PeerState, StoredPeer};
use super::preference;
use crate::store::layout::PEER_SHARD;
use crate::store::{Cache, ChangeSignal, FLEET_MAP, SharedData};
use crate::table::{Table, hash};
use std::net::IpAddr;

/// A worker's copy of the fleet map, brought up to date when the change signal says so.
#[derive(Debug)]
pub struct FleetCache(Cache);

impl Default for FleetCache {
    fn default() -> Self {
        Self(Cache::new(&FLEET_MAP))
    }
}

impl FleetCache {
    /// See [`Cache::refresh`].
    pub fn refresh(&mut self, data: &impl SharedData, signal: &impl ChangeSignal) -> bool {
        self.0.refresh(data, signal)
    }

    /// Whether a map has been stored since Envoy started.
    #[must_use]
    pub const fn is_loaded(&self) -> bool {
        self.0.is_loaded()
    }

    /// The route of the id that is made of these bytes; none if they are not an id.
    #[must_use]
    pub fn find(&self, id: &[u8]) -> Option<FleetRoute<'_>> {
        Some(FleetRoute { numbers: self.0.find(id)?, peers: self.0.table(PEER_SHARD) })
    }
}

/// The route of an id that other tasks serve.
#[derive(Clone, Copy, Debug)]
pub struct FleetRoute<'a> {
    numbers: &'a [u8],
    peers: Option<&'a Table<Vec<u8>>>,
}

impl<'a> FleetRoute<'a> {
    /// Its peers, in order of preference. What does not exist is left out.
    pub fn peers(&self) -> impl Iterator<Item = FleetPeer<'a>> + use<'a> {
        let peers = self.peers;
        preference::numbers(self.numbers).filter_map(move |number| {
            let key = number.key();
            let StoredPeer { name, peer, .. } = StoredPeer::parse(peers?.find_hashed(&key, hash(&key))?)?;
            Some(FleetPeer { name, host: peer.host, state: peer.state })
        })
    }
}

/// A peer of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetPeer<'a> {
    /// Its name, which has the form of a deployment id.
    pub name: &'a [u8],
    /// Its address.
    pub host: IpAddr,
    /// Whether it takes new requests.
    pub state: PeerState,
}
