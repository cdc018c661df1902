//! A card that is rewritten differs in the URLs of its interfaces alone, these lead back, and nothing else makes it fail.

use pixell_core::addressing::Addressing;
use pixell_core::addressing::prefix::PathPrefix;
use pixell_core::endpoint::EndpointName;
use pixell_core::responses::card::rewritten;
use pixell_core::responses::origins::ExternalOrigins;
use pixell_core::responses::way::{Note, Reached};
use pixell_core::route::{Route, StoredRoute};
use serde_json::Value;

const ORIGIN: &str = "https://c.test:8443";

/// The property.
pub fn check(bytes: &[u8]) {
    let addressing = Addressing { prefixes: PathPrefix::defaults(), host_suffix: None };
    let route = Route { endpoints: [(EndpointName::REST, 1002)].into(), ..Route::active(1001) }.to_bytes();
    let (route, path) = (StoredRoute::parse(&route).unwrap(), b"/agents/x/.well-known/agent-card.json");
    let note =
        Note { port: 1002, is_card: true, is_https: true, is_prefix_alone: false, authority: b"c.test:8443", path, route };
    let reached = Reached::of(&note, &addressing, &ExternalOrigins::default()).unwrap();
    let Ok(Some(new)) = rewritten(bytes, &reached, &addressing) else { return };
    // What leads back is not changed once more.
    assert_eq!(rewritten(&new, &reached, &addressing), Ok(None), "{}", String::from_utf8_lossy(&new));
    // serde_json does not go deeper than 128.
    if let (Ok(before), Ok(after)) = (serde_json::from_slice::<Value>(bytes), serde_json::from_slice::<Value>(&new)) {
        compare(&before, &after, true);
    }
}

/// Compares what was with what is: only an interface has another URL.
fn compare(before: &Value, after: &Value, is_card: bool) {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        assert_eq!(before, after);
        return;
    };
    assert!(before.keys().eq(after.keys()));
    for ((name, old), new) in before.iter().zip(after.values()) {
        match (name.as_str(), old, new) {
            ("url", Value::String(old), Value::String(new)) if old != new => {
                let leads_back = new.starts_with(&format!("{ORIGIN}/agents/x")) || new == ORIGIN || new == "c.test:8443";
                assert!(leads_back, "{old} became {new}");
            }
            ("additionalInterfaces" | "supportedInterfaces", Value::Array(old), Value::Array(new)) if is_card => {
                assert_eq!(old.len(), new.len());
                old.iter().zip(new).for_each(|(old, new)| compare(old, new, false));
            }
            _ => assert_eq!(old, new, "{name}"),
        }
    }
}
