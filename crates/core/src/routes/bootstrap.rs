//! The routes of the configuration, which a new Envoy starts with.

use super::change::{Applied, Change, Edit, Invalid};
use super::{RouteMap, edition};
use crate::deployment_id::OwnedDeploymentId;
use crate::problem::FieldErrors;
use crate::route::Route;
use crate::store::{Backend, ChangeSignal, NoEdition, PublishError, ROUTE_MAP, SharedData, Stop, Update, publish};

/// Stores the routes if no map has been stored yet, and says whether it did: every worker gets here, also after a crash of its VM.
///
/// # Errors
/// If they cannot be stored; the error says why.
pub fn store(
    routes: &[(OwnedDeploymentId, Route)],
    backend: &Backend<'_, impl SharedData, impl ChangeSignal>,
) -> Result<bool, String> {
    let edits = routes.iter().map(|(id, route)| (id.as_id(), Edit::Set(route.clone()))).collect();
    let change = Change { replace: true, edits };
    let published = publish(backend, &ROUTE_MAP, |stored| {
        let map = RouteMap::new(stored);
        if map.is_loaded() {
            return Ok(Update::Keep(Applied::default()));
        }
        let applied = change.apply(&map, usize::MAX)?;
        match edition(&map, &applied) {
            Ok(edition) => Ok(Update::Store(edition, applied)),
            Err(NoEdition::Moved) => Err(Stop::Moved),
            Err(NoEdition::TooLarge) => Err(Stop::Rejected(Invalid::Routes(FieldErrors::default()))),
        }
    });
    match published {
        Ok(done) => Ok(done.stored),
        Err(PublishError::Rejected(invalid)) => Err(format!("/bootstrap_routes cannot be stored: {invalid:?}")),
        Err(PublishError::RetriesExhausted) => {
            Err("/bootstrap_routes could not be stored: other writers were faster".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::tests::{id, map_of, routes_of};
    use crate::store::memory::{MemoryData, MemorySignal};
    use crate::store::prepare;
    use crate::timestamp::Timestamp;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn only_a_first_map_is_made() {
        let routes = [(id("a").into(), Route::active(1))];
        let signal = MemorySignal::default();
        let store =
            |data: &MemoryData| store(&routes, &Backend { data, signal: &signal, new_epoch: || 7, now: Timestamp::default });
        let data = MemoryData::default();
        prepare(&data, &ROUTE_MAP);
        assert_eq!((store(&data), store(&data)), (Ok(true), Ok(false)));
        assert_eq!(routes_of(&data), [("a".to_owned(), Route::active(1))].into());
        let pushed = map_of(&[]);
        assert_eq!(store(&pushed), Ok(false));
        assert!(routes_of(&pushed).is_empty());
    }
}
