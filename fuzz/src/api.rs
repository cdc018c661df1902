//! Any sequence of requests gets answers of the contract, and leaves a map that the contract allows.

use std::collections::BTreeSet;

use pixell_router::admin::call::Head;
use serde_json::Value;

use super::store::Server;

const STATUSES: [u16; 13] = [200, 201, 204, 304, 400, 404, 405, 409, 412, 413, 415, 422, 503];

/// The property. The bytes are requests, each a line `method target header` and a line with the body.
pub fn check(bytes: &[u8]) {
    let server = Server::new();
    let mut lines = bytes.split(|byte| *byte == b'\n');
    while let (Some(line), Some(body)) = (lines.next(), lines.next()) {
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let (method, target, header) = (words.next(), words.next(), words.next());
        let head = Head {
            method: method.unwrap_or_default(),
            target: target.unwrap_or_default(),
            content_type: Some(b"application/json"),
            if_match: header.filter(|header| !header.is_empty()),
            ..Head::default()
        };
        let before = server.map();
        let reply = server.call(&head, body);
        let after = server.map();
        assert!(STATUSES.contains(&reply.status), "{}", reply.status);
        if reply.status >= 400 {
            let problem: Value = serde_json::from_str(&reply.body).unwrap();
            assert_eq!(problem["status"], reply.status);
            assert!(problem["code"].is_string() && problem["detail"].is_string() && problem["title"].is_string());
            assert!(!matches!(reply.status, 409 | 422) || !problem["errors"].as_array().unwrap().is_empty());
            assert_eq!(before, after, "a refused request changes nothing");
        }
        let step = after["generation"].as_u64().unwrap() - before["generation"].as_u64().unwrap();
        assert!(step <= 1);
        assert!(step == 1 || before["routes"] == after["routes"], "a change has a generation of its own");
        valid(&after);
    }
}

fn valid(map: &Value) {
    let routes = map["routes"].as_object().unwrap();
    assert!(routes.len() <= 8);
    let ports: BTreeSet<u64> = routes.values().map(|route| route["port"].as_u64().unwrap()).collect();
    assert_eq!(ports.len(), routes.len(), "one port, one id");
    assert!(ports.iter().all(|port| (1024..=65535).contains(port) && ![50051, 9901, 8080, 9090].contains(port)));
    assert!(routes.keys().all(|id| super::id::is_id(id)));
}
