//! What the data path does with a request, compared with a small model of the contract: which header, path or host names the agent, which
//! endpoint is meant, what the agent receives, and how a rejection looks.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

mod model;
mod request;

use model::{Expected, ROUTES, SETTINGS, is_grpc, model, statuses};
use pixell_core::config::RouterConfig;
use pixell_core::data_path::{DataPath, Judges, Maps, Response, Verdict};
use pixell_core::deployment_id::DeploymentId;
use pixell_core::endpoint::EndpointName;
use pixell_core::responses::way::Note;
use pixell_core::route::{Route, RouteState};
use pixell_core::routes::change::{Change, Edit};
use pixell_core::routes::{RouteMap, edition};
use pixell_core::store::memory::{MemoryData, MemorySignal};
use pixell_core::store::{Backend, ROUTE_MAP, Stop, Update, prepare, publish};
use pixell_core::timestamp::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use request::{Request, requests};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// A worker's copy of the routes.
fn maps() -> Maps {
    let (data, signal) = (MemoryData::default(), MemorySignal::default());
    prepare(&data, &ROUTE_MAP);
    let edits = ROUTES.iter().map(|(id, port, is_draining, endpoints)| {
        let state = if *is_draining { RouteState::Draining } else { RouteState::Active };
        let endpoints = endpoints.iter().map(|(name, port)| (EndpointName::parse(name.as_bytes()).unwrap(), *port)).collect();
        (DeploymentId::parse(id.as_bytes()).unwrap(), Edit::Set(Route { port: *port, state, endpoints }))
    });
    let change = Change { replace: true, edits: edits.collect() };
    let backend = Backend { data: &data, signal: &signal, new_epoch: || 5, now: Timestamp::default };
    let published = publish(&backend, &ROUTE_MAP, |stored| {
        let map = RouteMap::new(stored);
        let applied = change.apply(&map, 20)?;
        Ok::<_, Stop<_>>(Update::Store(edition(&map, &applied).unwrap(), applied))
    });
    assert!(published.is_ok());
    let mut maps = Maps::default();
    maps.routes.refresh(&data, &signal);
    maps
}

/// What the verdict comes to, in the model's words. Fails if a part of it contradicts another one.
fn seen(request: &Request, verdict: &Verdict) -> Expected {
    match verdict {
        Verdict::Forward { port, id, changes: None } => {
            // Untouched, so the agent's id has to be there already.
            assert_eq!(request.headers.get("x-deployment-id"), Some(id));
            Expected::Forward { port: *port, id: id.clone(), path: request.path.clone(), prefix: None, is_addressed: false }
        }
        Verdict::Forward { port, id, changes: Some(changes) } => {
            let note = changes.note.as_deref().map(|note| Note::parse(note).unwrap());
            if let Some(note) = note {
                assert_eq!((note.port, note.path, note.authority), (*port, &request.path[..], &request.authority[..]));
            }
            let before_query = request.path.split(|byte| *byte == b'?').next().unwrap();
            let is_card =
                before_query.ends_with(b"/.well-known/agent-card.json") || before_query.ends_with(b"/.well-known/agent.json");
            assert_eq!(changes.is_card, note.is_some() && is_card && request.method == "GET");
            assert_eq!(changes.path.is_some(), changes.prefix.is_some());
            let path = changes.path.clone().unwrap_or_else(|| request.path.clone());
            Expected::Forward {
                port: *port,
                id: id.clone(),
                path,
                prefix: changes.prefix.clone(),
                is_addressed: note.is_some(),
            }
        }
        Verdict::Reject(rejected) => {
            let (http, grpc) = statuses(rejected.code);
            match &rejected.response {
                Response::Http { status, body } => {
                    assert!(!is_grpc(request) && *status == http, "{rejected:?}");
                    assert!(body.contains(&format!("\"code\":\"{}\"", rejected.code)), "{body}");
                }
                Response::Grpc { status, .. } | Response::WrittenGrpc { status, .. } => {
                    assert!(is_grpc(request) && *status == grpc, "{rejected:?}");
                }
            }
            Expected::Reject(rejected.code)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_data_path_does_what_the_contract_says() {
    let paths = SETTINGS.map(|settings| {
        let config = RouterConfig::parse(settings.text.as_bytes()).unwrap();
        (DataPath::new(&config, Judges::Requests), settings)
    });
    let maps = RefCell::new(maps());
    let rows = RefCell::new(BTreeSet::new());
    let mut runner = TestRunner::new(Config { cases: 40_000, failure_persistence: None, ..Config::default() });
    runner
        .run(&(0..paths.len(), requests()), |(number, request)| {
            let (data_path, settings) = &paths[number];
            let (expected, row) = model(settings, &request);
            let verdict = data_path.judge(&request, &mut maps.borrow_mut());
            prop_assert_eq!(seen(&request, &verdict), expected.clone(), "{}", request.path.escape_ascii());
            let end = match expected {
                Expected::Forward { port, .. } => port.to_string(),
                Expected::Reject(code) => code.to_owned(),
            };
            rows.borrow_mut().insert(format!("{row} -> {end}"));
            Ok(())
        })
        .unwrap();
    // Every row of the contract came up, with each of its endpoints and rejections.
    let rows = rows.into_inner();
    let every = [
        ("x-deployment-id", "1000 1001 2000 3000 deployment_draining invalid_deployment_id unknown_deployment"),
        ("deployment-id", "1000 1001 2000 3000 deployment_draining invalid_deployment_id unknown_deployment"),
        ("deployment_id", "1000 1001 2000 3000 deployment_draining invalid_deployment_id unknown_deployment"),
        ("other", "1000 1001 2000 3000 deployment_draining invalid_deployment_id unknown_deployment"),
        (
            "/agents/{id}/-/{endpoint}",
            "1000 1001 1002 2000 3000 3001 3002 deployment_draining invalid_deployment_id unknown_deployment unknown_endpoint",
        ),
        ("/agents/{id}/a2a", "1000 2000 3000 deployment_draining invalid_deployment_id unknown_deployment"),
        (
            "/agents/{id}/api",
            "1001 2000 3000 3002 9000 deployment_draining invalid_deployment_id unknown_deployment unknown_endpoint",
        ),
        ("/agents/{id}/ui", "1002 2000 3001 deployment_draining invalid_deployment_id unknown_deployment"),
        ("/agents/{id}", "1000 1001 2000 3000 9000 deployment_draining invalid_deployment_id unknown_deployment"),
        ("/ui/{id}", "1002 3001 9000 deployment_draining invalid_deployment_id unknown_endpoint"),
        (
            "/e/{endpoint}/{id}",
            "1000 1001 1002 2000 3000 3001 3002 9000 deployment_draining invalid_deployment_id unknown_endpoint",
        ),
        ("host", "1000 1001 2000 3000 9000 deployment_draining invalid_deployment_id unknown_deployment"),
        ("nothing", "missing_deployment_id"),
    ];
    let every: BTreeSet<_> =
        every.iter().flat_map(|(row, ends)| ends.split(' ').map(move |end| format!("{row} -> {end}"))).collect();
    assert_eq!(rows, every);
}

/// What else a client may send decides nothing.
#[test]
fn nothing_else_decides() {
    let config = RouterConfig::parse(SETTINGS[1].text.as_bytes()).unwrap();
    let data_path = DataPath::new(&config, Judges::Requests);
    let maps = RefCell::new(maps());
    let known = select(vec![
        "deployment-id",
        "x-forwarded-prefix",
        "x-forwarded-host",
        "x-forwarded-proto",
        "forwarded",
        "host",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        "x-envoy-original-path",
        "x-envoy-original-host",
        "x-pixell-addressed",
        "x-pixell-hop",
        "x-pixell-misdirected",
    ]);
    let ids = select(vec!["a", "b", "/agents/b", "b.h.test", "https"]).prop_map(|value| value.as_bytes().to_vec());
    let fields = vec((known, prop_oneof![ids, vec(any::<u8>(), 0..10)]), 1..4);
    let mut runner = TestRunner::new(Config { cases: 10_000, failure_persistence: None, ..Config::default() });
    runner
        .run(&(requests(), fields), |(request, fields)| {
            let before = data_path.judge(&request, &mut maps.borrow_mut());
            let mut more = request.clone();
            for (name, value) in fields {
                more.headers.insert(name, value);
            }
            prop_assert_eq!(data_path.judge(&more, &mut maps.borrow_mut()), before);
            Ok(())
        })
        .unwrap();
}
