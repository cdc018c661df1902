//! A patch does what RFC 7396 and the rule of one id a port say, or nothing at all.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::store::Server;

/// The property.
pub fn check(bytes: &[u8]) {
    let server = Server::new();
    let before = json!({"routes": {"a": 5000, "b": {"port": 5001, "state": "draining"}, "c": 5002}});
    assert_eq!(server.send("PUT", "/v1/routes", before.to_string().as_bytes()).status, 200);
    let (map, signal) = (server.map(), server.signal());
    let reply = server.send("PATCH", "/v1/routes", bytes);
    let after = server.map();
    if reply.status != 200 {
        assert_eq!((map, signal), (after, server.signal()), "a refused patch changes nothing");
        return;
    }
    let patch: Value = serde_json::from_slice(bytes).expect("what the API takes is JSON");
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
            Value::Object(members) => {
                for (name, value) in members {
                    route[name] = value.clone();
                }
            }
            port => route = json!({"port": port}),
        }
        if route["state"].is_null() {
            route["state"] = "active".into();
        }
        assert_eq!(claimed.insert(route["port"].as_u64().unwrap(), id.clone()), None, "one port, one id");
        all.insert(id.clone(), route);
    }
    all.retain(|id, route| claimed.get(&route["port"].as_u64().unwrap()).is_none_or(|owner| owner == id));
    serde_json::to_value(all).unwrap()
}
