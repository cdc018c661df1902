//! A report: all that the fleet map says of one peer.

use super::peer::PeerNumber;
use super::peers::Entry;
use super::{FleetMap, Peer, preference};
use crate::deployment_id::DeploymentId;
use crate::store::{ID_SHARDS, Moved, SharedData};
use crate::table::Table;
use crate::timestamp::Timestamp;

/// All that the fleet map says of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerReport<'a> {
    /// Its name.
    pub name: DeploymentId<'a>,
    /// Where it is, and its state.
    pub peer: Peer,
    /// How many routes name it.
    pub routes: usize,
    /// When this Envoy learned of its present address and state.
    pub since: Timestamp,
}

impl<D: SharedData> FleetMap<'_, D> {
    /// A report on each peer, in ascending order of their names.
    ///
    /// # Errors
    /// [`Moved`]
    pub fn reports(&self) -> Result<Vec<PeerReport<'_>>, Moved> {
        // By the peers' numbers, which are as low as they can be.
        let mut counts: Vec<usize> = Vec::new();
        for table in 0..ID_SHARDS {
            let routes = self.tables.get(table)?.into_iter().flat_map(Table::values);
            for PeerNumber(number) in routes.flat_map(preference::numbers) {
                let number = usize::from(number);
                if counts.len() <= number {
                    counts.resize(number + 1, 0);
                }
                if let Some(count) = counts.get_mut(number) {
                    *count += 1;
                }
            }
        }
        let peers = self.peers()?.into_entries();
        let routes = |PeerNumber(number)| counts.get(usize::from(number)).copied().unwrap_or_default();
        let report =
            |(name, entry): (_, Entry)| PeerReport { name, peer: entry.peer, routes: routes(entry.number), since: entry.since };
        Ok(peers.map(report).collect())
    }
}
