//! All peers of one moment, by name and by number.

use super::peer::{Peer, PeerNumber, StoredPeer};
use super::preference::Preference;
use crate::deployment_id::DeploymentId;
use crate::store::TAG_LEN;
use crate::table::{Table, TooLarge, edit};
use crate::timestamp::Timestamp;
use std::collections::BTreeMap;

/// The peers of a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers<'a> {
    by_name: BTreeMap<DeploymentId<'a>, Entry>,
    names: BTreeMap<PeerNumber, DeploymentId<'a>>,
}

/// What is stored of a peer under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) number: PeerNumber,
    pub(super) peer: Peer,
    /// When this Envoy learned of the peer's present host and state.
    pub(super) since: Timestamp,
}

impl<'a> Peers<'a> {
    /// Reads the table of peers.
    pub(super) fn read(table: &'a Table<Vec<u8>>) -> Self {
        let mut peers = Self::default();
        for (key, value) in table.iter() {
            let number = PeerNumber::from_key(key.as_str().as_bytes());
            let stored = StoredPeer::parse(value);
            if let Some((number, stored)) = number.zip(stored)
                && let Ok(name) = DeploymentId::parse(stored.name)
            {
                peers.insert(name, Entry { number, peer: stored.peer, since: stored.since });
            }
        }
        peers
    }

    /// Number of peers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is no peer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The peer with this name.
    #[must_use]
    pub fn find(&self, name: DeploymentId<'_>) -> Option<Peer> {
        self.entry(name).map(|entry| entry.peer)
    }

    /// All peers, in ascending order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (DeploymentId<'a>, Peer)> {
        self.by_name.iter().map(|(name, entry)| (*name, entry.peer))
    }

    /// The names of a route's peers, in order of preference. One that does not exist is left out.
    pub fn names_of(&self, preference: &Preference) -> impl Iterator<Item = DeploymentId<'a>> {
        preference.numbers().filter_map(|number| self.name(number))
    }

    pub(super) fn entry(&self, name: DeploymentId<'_>) -> Option<Entry> {
        self.by_name.get(&name).copied()
    }

    /// What is stored of each peer, in ascending order of their names.
    pub(super) fn into_entries(self) -> impl Iterator<Item = (DeploymentId<'a>, Entry)> {
        self.by_name.into_iter()
    }

    pub(super) fn number(&self, name: DeploymentId<'_>) -> Option<PeerNumber> {
        self.entry(name).map(|entry| entry.number)
    }

    pub(super) fn name(&self, number: PeerNumber) -> Option<DeploymentId<'a>> {
        self.names.get(&number).copied()
    }

    pub(super) fn insert(&mut self, name: DeploymentId<'a>, entry: Entry) {
        self.by_name.insert(name, entry);
        self.names.insert(entry.number, name);
    }

    pub(super) fn remove(&mut self, name: DeploymentId<'a>) {
        if let Some(entry) = self.by_name.remove(&name) {
            self.names.remove(&entry.number);
        }
    }

    /// The table of peers in the stored form; `None` if there is no peer.
    pub(super) fn to_table(&self) -> Result<Option<Vec<u8>>, TooLarge> {
        let record = |(number, name): (&PeerNumber, &DeploymentId<'a>)| {
            let Entry { peer, since, .. } = self.entry(*name)?;
            let stored = StoredPeer { name: name.as_str().as_bytes(), peer, since };
            Some((number.key(), stored.to_bytes()))
        };
        let records: Vec<_> = self.names.iter().filter_map(record).collect();
        let entries: Vec<_> =
            records.iter().filter_map(|(key, value)| Some((DeploymentId::parse(key).ok()?, Some(value.as_slice())))).collect();
        edit(None::<&Table<Vec<u8>>>, &[0; TAG_LEN], entries.into_iter())
    }
}
