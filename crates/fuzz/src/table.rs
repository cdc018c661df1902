//! A table finds exactly what was stored, and damaged bytes never make it panic or loop.

use std::collections::BTreeMap;

use pixell_core::deployment_id::DeploymentId;
use pixell_core::route::StoredRoute;
use pixell_core::table::{Table, edit};

fn id(text: &str) -> DeploymentId<'_> {
    DeploymentId::parse(text.as_bytes()).unwrap()
}

/// Checks the property.
pub fn check(bytes: &[u8]) {
    // The bytes as a table: whatever they are, every look-up ends.
    if let Ok(table) = Table::parse(bytes, 0) {
        look_around(&table, bytes.len());
    }

    // The bytes as entries: the length of an id, the length of a value, and then the bytes that both are made from.
    let mut model = BTreeMap::new();
    let mut rest = bytes;
    while let [id_length, value_length, tail @ ..] = rest {
        let id_length = usize::from(id_length % 128 + 1).min(tail.len());
        let (id, tail) = tail.split_at(id_length);
        let (value, tail) = tail.split_at(usize::from(*value_length).min(tail.len()));
        let id: String = id.iter().map(|byte| char::from(b"abcXYZ019._-"[usize::from(byte % 12)])).collect();
        rest = tail;
        if !id.is_empty() {
            model.insert(id, value);
        }
    }
    let all = model.iter().map(|(text, value)| (id(text), Some(*value)));
    let stored = edit(None::<&Table<Vec<u8>>>, b"tag", all.collect::<Vec<_>>().into_iter()).unwrap();
    assert_eq!(stored.is_none(), model.is_empty());
    let Some(stored) = stored else { return };
    let table = Table::parse(&stored, 3).unwrap();
    assert_eq!(table.len(), model.len());
    assert!(table.iter().eq(model.iter().map(|(text, value)| (id(text), *value))));
    for (text, value) in &model {
        assert_eq!(table.find(id(text)), Some(*value));
        let other = format!("{}Q", &text[..text.len() - 1]);
        assert_eq!(table.find(id(&other)), model.get(&other).copied());
    }

    // The table with one damaged byte: every look-up ends.
    if let [first, second, ..] = bytes {
        let mut damaged = stored.clone();
        let at = usize::from(u16::from_le_bytes([*first, *second])) % damaged.len();
        damaged[at] ^= first | 1;
        if let Ok(table) = Table::parse(&damaged, 3) {
            for text in model.keys() {
                let _ = table.find(id(text));
            }
            look_around(&table, damaged.len());
        }
    }
}

fn look_around<B: AsRef<[u8]>>(table: &Table<B>, len: usize) {
    let _ = table.find(id("a"));
    let mut listed = 0;
    for (_, value) in table.iter() {
        listed += 1;
        // The value is parsed as a route.
        if let Some(route) = StoredRoute::parse(value) {
            assert!(route.to_route().endpoints.len() <= value.len());
            assert!(route.ports().count() <= value.len());
        }
    }
    assert!(listed <= len / 2);
}
