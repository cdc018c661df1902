//! A patch does exactly what RFC 7396 and the rule that one port serves one id say, or nothing at all.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::server::Server;

/// Checks the property. The bytes are the body of a patch.
pub fn check(bytes: &[u8]) {
    let server = Server::new();
    let c = json!({"port": 5002, "endpoints": {"rest": 5003, "ui": 5004}});
    let before = json!({"routes": {"a": 5000, "b": {"port": 5001, "state": "draining"}, "c": c}});
    assert_eq!(server.send("PUT", "/v1/routes", before.to_string().as_bytes()).status, 200);
    let (map, signal) = (server.map(), server.signal());
    let response = server.send("PATCH", "/v1/routes", bytes);
    let after = server.map();
    if response.status != 200 {
        assert_eq!((map, signal), (after, server.signal()), "a patch with an error changes nothing");
        return;
    }
    let patch: Value = serde_json::from_slice(bytes).expect("the API accepts only JSON");
    let expected = merged(&map["routes"], &patch["routes"]);
    assert_eq!(after["routes"], expected);
    let changed = after["routes"] != map["routes"];
    assert_eq!(after["generation"].as_u64().unwrap() - map["generation"].as_u64().unwrap(), u64::from(changed));
    assert_eq!(server.signal() > signal, changed);
}

fn merged(routes: &Value, patch: &Value) -> Value {
    let mut all: BTreeMap<String, Value> = serde_json::from_value(routes.clone()).unwrap();
    let mut claimed = BTreeMap::new();
    for (id, edit) in patch.as_object().into_iter().flatten() {
        if edit.is_null() {
            all.remove(id);
            continue;
        }
        let mut route = all.get(id).cloned().unwrap_or(json!({}));
        match edit {
            Value::Object(_) => merge(&mut route, edit),
            port => route = json!({"port": port}),
        }
        let members = route.as_object_mut().unwrap();
        members.entry("state").or_insert("active".into());
        if members.get("endpoints").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
            members.remove("endpoints");
        }
        for port in ports(&route) {
            assert!(claimed.insert(port, id.clone()).is_none_or(|owner| owner == *id), "one port serves one id");
        }
        all.insert(id.clone(), route);
    }
    all.retain(|id, route| ports(route).all(|port| claimed.get(&port).is_none_or(|owner| owner == id)));
    serde_json::to_value(all).unwrap()
}

/// RFC 7396, section 2, on an object.
fn merge(target: &mut Value, patch: &Value) {
    for (name, value) in patch.as_object().unwrap() {
        let members = target.as_object_mut().unwrap();
        if value.is_null() {
            members.remove(name);
        } else if value.is_object() {
            merge(members.entry(name).or_insert(json!({})), value);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
}

fn ports(route: &Value) -> impl Iterator<Item = u64> {
    let endpoints = route["endpoints"].as_object().into_iter().flat_map(|endpoints| endpoints.values());
    endpoints.chain([&route["port"]]).map(|port| port.as_u64().unwrap()).collect::<Vec<_>>().into_iter()
}
