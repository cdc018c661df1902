//! Properties of the core that hold for any input, checked against simple models.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

use pixell_router::admin::body;
use pixell_router::change::{Change, Edit};
use pixell_router::config::Limits;
use pixell_router::decision::deployment_id;
use pixell_router::deployment_id::DeploymentId;
use pixell_router::json::Json;
use pixell_router::route::{Route, RouteState};
use pixell_router::snapshot::{Snapshot, encode};
use pixell_router::store::{
    CasMismatch, ChangeSignal, PublishError, RouteCache, SharedData, StoredMap, Update, prepare, publish,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};

fn ids() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]", "[A-Za-z0-9._-]{1,128}", "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"]
}

fn routes() -> impl Strategy<Value = Route> {
    let state = prop_oneof![Just(RouteState::Active), Just(RouteState::Draining)];
    (1..=u16::MAX, state).prop_map(|(port, state)| Route { port, state })
}

fn id(text: &str) -> DeploymentId<'_> {
    DeploymentId::parse(text.as_bytes()).unwrap()
}

/// Edits of few ids and few ports, so that they meet.
fn edits() -> impl Strategy<Value = BTreeMap<String, Edit>> {
    let state = prop_oneof![Just(RouteState::Active), Just(RouteState::Draining)];
    let edit = prop_oneof![
        4 => (2000_u16..2030, state.clone()).prop_map(|(port, state)| Edit::Set(Route { port, state })),
        1 => prop::option::of(state).prop_map(|state| Edit::Merge { port: None, state }),
        1 => Just(Edit::Remove),
    ];
    btree_map("[a-d][0-9]", edit, 0..12)
}

/// What the edits make of a plain map; `None` where they are to be refused.
fn model_of(
    before: &BTreeMap<String, Route>,
    replace: bool,
    edits: &BTreeMap<String, Edit>,
) -> Option<BTreeMap<String, Route>> {
    let mut after = if replace { BTreeMap::new() } else { before.clone() };
    let mut given = BTreeMap::new();
    for (id, edit) in edits {
        let route = match *edit {
            Edit::Set(route) => Some(route),
            Edit::Remove => None,
            Edit::Merge { state, .. } => {
                let old = before.get(id)?;
                Some(Route { port: old.port, state: state.unwrap_or(old.state) })
            }
        };
        after.remove(id);
        if let Some(route) = route {
            if given.insert(route.port, id).is_some() {
                return None;
            }
            after.insert(id.clone(), route);
        }
    }
    after.retain(|id, route| given.get(&route.port).is_none_or(|owner| *owner == id));
    (after.len() <= 30).then_some(after)
}

/// Shared data and a signal in memory.
#[derive(Default)]
struct Memory {
    entries: RefCell<HashMap<String, (Vec<u8>, u32)>>,
    signal: Cell<u64>,
}

impl SharedData for Memory {
    fn get(&self, key: &str) -> (Vec<u8>, u32) {
        self.entries.borrow().get(key).cloned().unwrap_or_default()
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), CasMismatch> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.entry(key.to_owned()).or_default();
        if cas != 0 && cas != entry.1 {
            return Err(CasMismatch);
        }
        *entry = (value.to_owned(), entry.1 + 1);
        Ok(())
    }

    fn now(&self) -> u64 {
        1
    }
}

impl ChangeSignal for Memory {
    fn read(&self) -> u64 {
        self.signal.get()
    }

    fn raise(&self) {
        self.signal.set(self.signal.get() + 1);
    }
}

fn snapshot(map: &BTreeMap<String, Route>) -> Snapshot<Vec<u8>> {
    Snapshot::parse(encode(9, 4, map.iter().map(|(text, route)| (id(text), *route))).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_snapshot_finds_what_a_hash_map_finds(map in btree_map(ids(), routes(), 0..400), asked in vec(ids(), 0..50)) {
        let model: HashMap<&String, &Route> = map.iter().collect();
        let snapshot = snapshot(&map);
        for text in map.keys().chain(&asked) {
            prop_assert_eq!(snapshot.find(id(text)), model.get(text).map(|route| **route));
        }
        let listed: BTreeMap<String, Route> = snapshot.iter().map(|(id, route)| (id.as_str().to_owned(), route)).collect();
        prop_assert_eq!(listed, map);
    }

    #[test]
    fn any_bytes_are_an_id_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        let valid = (1..=128).contains(&bytes.len()) && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte));
        prop_assert_eq!(DeploymentId::parse(&bytes).map(|id| id.as_str().as_bytes() == bytes).ok(), valid.then_some(true));
    }

    #[test]
    fn any_header_is_one_id_or_refused(values in vec(vec(any::<u8>(), 0..8), 1..4), good in "[a-z]{1,3}", copies in 1_usize..4) {
        let _ = deployment_id(Some(&values.join(&b','))).map(DeploymentId::as_str);
        let equal = vec![good.as_bytes(); copies].join(&b", "[..]);
        prop_assert_eq!(deployment_id(Some(&equal)).map(DeploymentId::as_str), Ok(good.as_str()));
    }

    #[test]
    fn any_bytes_are_a_snapshot_or_refused(map in btree_map(ids(), routes(), 0..60), cut in any::<prop::sample::Index>(), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..8)) {
        let mut bytes = encode(9, 4, map.iter().map(|(text, route)| (id(text), *route))).unwrap();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(snapshot) = Snapshot::parse(bytes.as_slice()) {
            let _ = snapshot.find(id("a"));
            prop_assert!(snapshot.iter().count() <= bytes.len());
        }
    }

    /// A stored map behaves like a plain one in which a port has one owner: each change is compared with the model.
    #[test]
    fn a_stored_map_is_a_map_with_one_owner_a_port(changes in vec((any::<bool>(), edits()), 1..12)) {
        let data = Memory::default();
        prepare(&data);
        let mut model: BTreeMap<String, Route> = BTreeMap::new();
        let mut cache = RouteCache::default();
        for (replace, edits) in &changes {
            let change = Change { replace: *replace, edits: edits.iter().map(|(text, edit)| (id(text), *edit)).collect() };
            let published = publish(&data, &data, || 5, |map| change.apply(map, 30).map(Update::Store));
            match (published, model_of(&model, *replace, edits)) {
                (Ok(published), Some(after)) => {
                    let gone: Vec<_> = model.keys().filter(|id| !after.contains_key(*id)).collect();
                    let removed: Vec<_> = published.applied.removed.iter().map(|id| id.as_id().as_str()).collect();
                    prop_assert_eq!(removed, gone);
                    prop_assert_eq!(published.applied.added, after.keys().filter(|id| !model.contains_key(*id)).count());
                    model = after;
                }
                (Err(PublishError::Refused(_)), None) => {}
                (published, model) => prop_assert!(false, "{published:?} but {model:?}"),
            }
            let map = StoredMap::now(&data);
            let stored: BTreeMap<_, _> = map.routes().unwrap().into_iter().map(|(id, route)| (id.as_str().to_owned(), route)).collect();
            prop_assert_eq!(&stored, &model);
            prop_assert_eq!(map.len(), model.len());
            cache.refresh(&data, &data);
            for (text, route) in &model {
                prop_assert_eq!(cache.find(text.as_bytes()), Some(*route));
                prop_assert_eq!(map.owner(route.port), Ok(Some(id(text))));
            }
        }
    }

    #[test]
    fn any_body_is_a_change_or_refused(text in ".{0,80}", noise in vec(any::<u8>(), 0..80)) {
        for bytes in [text.as_bytes(), &noise] {
            if let Ok(json) = Json::parse(bytes) {
                for outcome in [body::replacement(&json, &Limits::default()), body::patch(&json, &Limits::default())] {
                    prop_assert!(outcome.map_or_else(|faults| !faults.is_empty(), |_| true));
                }
            }
        }
    }
}
