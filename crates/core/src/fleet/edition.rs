//! The shards of the next fleet map, made from the present one and what changes.

use super::FleetMap;
use super::change::Applied;
use crate::store::layout::PEER_SHARD;
use crate::store::{Edition, NoEdition, SharedData, TAG_LEN};
use crate::table::{TooLarge, edit};

/// The shards that change if `applied`, which was decided on `map`, is carried out.
///
/// # Errors
/// [`NoEdition`]
pub fn edition<D: SharedData>(map: &FleetMap<'_, D>, applied: &Applied<'_>) -> Result<Edition, NoEdition> {
    let mut edition = Edition { shards: Vec::new(), len: u32::try_from(applied.len).map_err(|_| TooLarge)? };
    for changes in applied.routes.chunk_by(|one, next| one.table == next.table) {
        let Some(number) = changes.first().map(|change| change.table) else { continue };
        let values = changes.iter().map(|change| (change.id, change.route.as_ref().map(super::Preference::as_bytes)));
        edition.shards.push((number, edit(map.tables.get(number)?, &[0; TAG_LEN], values)?));
    }
    if let Some(peers) = &applied.peers {
        edition.shards.push((PEER_SHARD, peers.to_table()?));
    }
    Ok(edition)
}
