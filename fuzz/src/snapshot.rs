//! A snapshot finds what was stored and nothing else, and damaged bytes never make it fail.

use std::collections::BTreeMap;

use pixell_router::deployment_id::DeploymentId;
use pixell_router::route::{Route, RouteState};
use pixell_router::snapshot::{Snapshot, encode};

fn id(text: &str) -> DeploymentId<'_> {
    DeploymentId::parse(text.as_bytes()).unwrap()
}

/// The property.
pub fn check(bytes: &[u8]) {
    // As they come: whatever they are, looking things up ends.
    if let Ok(snapshot) = Snapshot::parse(bytes) {
        let listed = snapshot.iter().count();
        assert!(listed <= bytes.len() / 4);
        let _ = snapshot.find(DeploymentId::parse(b"a").unwrap());
    }

    // Read as routes: a port, a state and the length of an id made of what follows.
    let mut model = BTreeMap::new();
    let mut rest = bytes;
    while let [low, high, state, length, tail @ ..] = rest {
        let length = usize::from(length % 128 + 1).min(tail.len());
        let id: String = tail[..length].iter().map(|byte| char::from(b"abcXYZ019._-"[usize::from(byte % 12)])).collect();
        rest = &tail[length..];
        if !id.is_empty() {
            let state = if state % 2 == 0 { RouteState::Active } else { RouteState::Draining };
            model.insert(id, Route { port: u16::from_le_bytes([*low, *high]), state });
        }
    }
    let routes: Vec<(&String, Route)> = model.iter().map(|(text, route)| (text, *route)).collect();
    let stored = encode(7, 9, routes.iter().map(|(text, route)| (id(text), *route))).unwrap();
    let snapshot = Snapshot::parse(&stored).unwrap();
    assert_eq!((snapshot.epoch(), snapshot.generation(), snapshot.len()), (7, 9, model.len()));
    assert!(snapshot.iter().map(|(id, route)| (id.as_str().to_owned(), route)).eq(model.clone()));
    for (text, route) in &model {
        assert_eq!(snapshot.find(id(text)), Some(*route));
        let other = format!("{}~", &text[..text.len() - 1]).replace('~', "Q");
        assert_eq!(snapshot.find(id(&other)), model.get(&other).copied());
    }

    // One byte damaged: look-ups end, and every id that is listed is one.
    if let [first, second, ..] = bytes {
        let mut damaged = stored.clone();
        let at = usize::from(u16::from_le_bytes([*first, *second])) % damaged.len();
        damaged[at] ^= first | 1;
        if let Ok(snapshot) = Snapshot::parse(&damaged) {
            for text in model.keys() {
                let _ = snapshot.find(id(text));
            }
            assert!(snapshot.iter().count() <= damaged.len() / 4);
        }
    }
}
