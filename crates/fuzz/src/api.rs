//! Any sequence of requests gets responses that the contract allows, and leaves a route map that the contract allows.

use std::collections::BTreeSet;

use pixell_core::admin::call::Head;
use serde_json::Value;

use super::server::Server;

const STATUSES: [u16; 13] = [200, 201, 204, 304, 400, 404, 405, 409, 412, 413, 415, 422, 503];

/// Checks the property. The bytes are requests, each a line `method target if-match` and a line with the body.
pub fn check(bytes: &[u8]) {
    let server = Server::new();
    let mut lines = bytes.split(|byte| *byte == b'\n');
    while let (Some(line), Some(body)) = (lines.next(), lines.next()) {
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let (method, target, header) = (words.next(), words.next(), words.next());
        let head = Head {
            method: method.unwrap_or_default(),
            target: target.unwrap_or_default(),
            host: Some(b"localhost"),
            content_type: Some(b"application/json"),
            if_match: header.filter(|header| !header.is_empty()),
            ..Head::default()
        };
        let before = server.map();
        let response = server.call(&head, body);
        let after = server.map();
        assert!(STATUSES.contains(&response.status), "{}", response.status);
        if response.status >= 400 {
            let problem: Value = serde_json::from_str(&response.body).unwrap();
            assert_eq!(problem["status"], response.status);
            assert!(problem["code"].is_string() && problem["detail"].is_string() && problem["title"].is_string());
            if matches!(response.status, 409 | 422) {
                let (listed, total) =
                    (problem["errors"].as_array().unwrap().len() as u64, problem["errors_total"].as_u64().unwrap());
                assert!(total > 0 && listed == total.min(100));
            }
            assert_eq!(before, after, "a request with an error changes nothing");
        }
        let step = after["generation"].as_u64().unwrap() - before["generation"].as_u64().unwrap();
        assert!(step <= 1);
        assert!(step == 1 || before["routes"] == after["routes"], "every change has its own generation");
        valid(&after);
    }
}

fn valid(map: &Value) {
    let routes = map["routes"].as_object().unwrap();
    assert!(routes.len() <= 8);
    let mut ports = BTreeSet::new();
    for route in routes.values() {
        let endpoints = route["endpoints"].as_object();
        assert!(endpoints.is_none_or(|endpoints| (1..=8).contains(&endpoints.len()) && !endpoints.contains_key("a2a")));
        let others = endpoints.into_iter().flat_map(|endpoints| endpoints.values());
        let own: BTreeSet<u64> = others.chain([&route["port"]]).map(|port| port.as_u64().unwrap()).collect();
        assert!(ports.is_disjoint(&own), "one port serves one id");
        ports.extend(own);
    }
    assert!(ports.iter().all(|port| (1024..=65535).contains(port) && ![50050, 50051, 50052, 8080, 9090, 9901].contains(port)));
    assert!(routes.keys().all(|id| super::id::is_id(id)));
}
