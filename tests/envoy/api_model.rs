//! Thousands of random sequences of calls, compared call by call with a simple model in memory (`model.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use harness::ApiResponse;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::Value;

use crate::api::{Api, no_vm_fell_over, problem, without_warning};
use crate::api_configuration::with_admin;
use crate::model::{Call, Condition, Endpoints, Entry, Model, Response};

/// The environment variable for the seed that a failure prints.
const SEED: &str = "PIXELL_MODEL_SEED";
/// The most calls in a sequence.
const LONGEST: usize = 12;

/// The values from which the calls of a test are made.
#[derive(Clone)]
struct Scope {
    sequences: u32,
    ids: Vec<&'static str>,
    max_routes: usize,
    /// Bodies of `PUT /v1/routes` and of `PATCH /v1/routes`.
    bodies: [BoxedStrategy<Vec<(&'static str, Entry)>>; 2],
}

/// So few ids and ports that they collide all the time, and errors in every other body.
fn narrow() -> Scope {
    let ids = vec!["a", "b", "c", "d", "e", "f"];
    let keys = || prop_oneof![60 => select(ids.clone()), 1 => select(vec!["", "b d", "e/f"])];
    let bodies = |is_patch| vec((keys(), entries(is_patch)), 0..5).boxed();
    Scope { sequences: 2000, max_routes: 4, bodies: [bodies(false), bodies(true)], ids }
}

/// Maps large enough to be stored in several shards, bodies that change many of them, and few errors.
fn wide() -> Scope {
    let ids: Vec<&'static str> = (0..120).map(|n| &*format!("{n:x}-{n:03}").leak()).collect();
    let bodies = |is_patch: bool| {
        let ports = Just((2000..2200).collect::<Vec<u32>>()).prop_shuffle();
        let states = vec(prop::option::weighted(0.75, select(vec!["active", "draining"])), 90);
        let names = vec(select(vec![Some("rest"), Some("ui"), None, None]), 90);
        (subsequence(ids.clone(), 0..=90), ports, states, names).prop_map(move |(ids, ports, states, names)| {
            let (first, further) = ports.split_at(90);
            let entries =
                first.iter().zip(further).zip(states.into_iter().zip(names)).map(|((port, further), said)| match said {
                    (None, Some("ui")) if is_patch => {
                        Entry::Object { port: Some(*port), state: None, endpoints: Endpoints::Null }
                    }
                    (None, _) if is_patch => Entry::Null,
                    (None, _) => Entry::Bare(*port),
                    (state, name) => {
                        let each = |name| Endpoints::Each(vec![(name, Some(*further))]);
                        Entry::Object { port: Some(*port), state, endpoints: name.map_or(Endpoints::Absent, each) }
                    }
                });
            ids.into_iter().zip(entries.collect::<Vec<_>>()).collect()
        })
    };
    let bodies = [bodies(false).boxed(), bodies(true).boxed()];
    Scope { sequences: 200, ids, max_routes: 110, bodies }
}

type Step = (Call, Condition, bool);

/// Some of the ports are denied.
fn ports() -> impl Strategy<Value = u32> {
    prop_oneof![60 => 2000_u32..2010, 1 => select(vec![80_u32, 50051, 65536])]
}

fn entries(is_patch: bool) -> impl Strategy<Value = Entry> {
    let state = prop_oneof![10 => Just(None), 8 => Just(Some("active")), 8 => Just(Some("draining")), 1 => Just(Some("up"))];
    let port = prop::option::weighted(if is_patch { 0.5 } else { 0.97 }, ports());
    prop_oneof![
        if is_patch { 10 } else { 1 } => Just(Entry::Null),
        16 => ports().prop_map(Entry::Bare),
        30 => (port, state, endpoints(is_patch)).prop_map(|(port, state, endpoints)| Entry::Object { port, state, endpoints }),
    ]
}

/// A few of some names, or nearly as many as a route may have, or more.
fn endpoints(is_patch: bool) -> impl Strategy<Value = Endpoints> {
    const NAMES: [&str; 9] = ["rest", "ui", "x", "n-1", "n-2", "n-3", "n-4", "n-5", "abcdefghijklmnop"];
    let invalid = select(vec!["", "-", "a2a", "UI", "a_b", "abcdefghijklmnopq"]);
    let name = prop_oneof![60 => select(&NAMES[..3]), 1 => invalid];
    let port = || prop::option::weighted(if is_patch { 0.7 } else { 0.99 }, ports());
    let many = (subsequence(&NAMES, 7..=9), ports())
        .prop_map(|(names, port)| Endpoints::Each(names.into_iter().map(|name| (name, Some(port))).collect()));
    prop_oneof![
        20 => Just(Endpoints::Absent),
        16 => vec((name, port()), 0..4).prop_map(Endpoints::Each),
        2 => many,
        if is_patch { 2 } else { 1 } => Just(Endpoints::Null),
    ]
}

fn steps(scope: &Scope) -> impl Strategy<Value = Step> + use<> {
    let ids = || select(scope.ids.clone());
    let [whole, patches] = scope.bodies.clone();
    let call = prop_oneof![
        1 => Just(Call::GetAll),
        2 => ids().prop_map(Call::GetOne),
        1 => Just(Call::Status),
        3 => whole.prop_map(Call::Replace),
        8 => patches.prop_map(Call::Patch),
        6 => (ids(), entries(false)).prop_map(|(id, entry)| Call::PutOne(id, entry)),
        4 => ids().prop_map(Call::Delete),
    ];
    let condition = prop_oneof![
        12 => Just(Condition::None),
        3 => Just(Condition::IfMatchNow),
        1 => Just(Condition::IfMatchStale),
        1 => Just(Condition::IfNoneMatchNow),
        1 => Just(Condition::IfNoneMatchStale),
    ];
    (call, condition, prop::bool::weighted(0.1)).prop_map(|(call, condition, dry_run)| {
        let reads = matches!(call, Call::GetAll | Call::GetOne(_) | Call::Status);
        (call, condition, dry_run && !reads)
    })
}

#[test]
fn random_sequences_on_a_narrow_map_do_what_a_plain_map_does() {
    check(&narrow());
}

#[test]
fn random_sequences_on_a_wide_map_do_what_a_plain_map_does() {
    check(&wide());
}

fn check(scope: &Scope) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (envoy, api) = runtime.block_on(async {
        let envoy = with_admin(&format!("\"max_routes\": {}", scope.max_routes)).start().await.unwrap();
        let api = Api::open(&envoy).await;
        (envoy, api)
    });
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos().to_string();
    let seed = std::env::var(SEED).unwrap_or_else(|_| now());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes(&seed));
    let config = Config { cases: scope.sequences, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let checked = runner.run(&vec(steps(scope), 1..=LONGEST), |steps| runtime.block_on(replay(&api, scope.max_routes, &steps)));
    if let Err(failure) = checked {
        panic!("{failure}\nto reproduce it, run with {SEED}={seed}");
    }
    runtime.block_on(no_vm_fell_over(&envoy, &api));
}

fn seed_bytes(seed: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(seed.bytes()) {
        *to = from;
    }
    bytes
}

/// Makes the calls on an empty map. Compares each response, and the map at the end.
async fn replay(api: &Api, max_routes: usize, steps: &[Step]) -> Result<(), TestCaseError> {
    let emptied = api.call("PUT", "/v1/routes", r#"{"routes":{}}"#).await.json().unwrap();
    let epoch = emptied["epoch"].as_str().unwrap().to_owned();
    let generation = emptied["generation"].as_u64().unwrap();
    let mut model = Model { epoch, generation, routes: BTreeMap::new(), max_routes };
    for step in steps {
        let response = perform(api, step, &model).await;
        let expected = model.respond(&step.0, step.1, step.2);
        prop_assert_eq!(&seen(&response), &expected, "{:?} got {}", step, response);
        if expected.code.is_none() {
            let tag = model.tag();
            prop_assert_eq!(response.header("etag"), Some(tag.as_str()), "{:?}", step);
        }
    }
    let expected = model.respond(&Call::GetAll, Condition::None, false);
    prop_assert_eq!(api.map().await, expected.body, "the map after all calls");
    Ok(())
}

async fn perform(api: &Api, (call, condition, dry_run): &Step, model: &Model) -> ApiResponse {
    let (method, mut target, body) = match call {
        Call::GetAll => ("GET", "/v1/routes".to_owned(), String::new()),
        Call::GetOne(id) => ("GET", format!("/v1/routes/{id}"), String::new()),
        Call::Status => ("GET", "/v1/status".to_owned(), String::new()),
        Call::Replace(entries) => ("PUT", "/v1/routes".to_owned(), body_of(entries)),
        Call::Patch(entries) => ("PATCH", "/v1/routes".to_owned(), body_of(entries)),
        Call::PutOne(id, entry) => ("PUT", format!("/v1/routes/{id}"), text_of(entry)),
        Call::Delete(id) => ("DELETE", format!("/v1/routes/{id}"), String::new()),
    };
    if *dry_run {
        target += "?dry_run=true";
    }
    let now = model.tag();
    let stale = "\"0-0\"";
    let condition = match condition {
        Condition::None => None,
        Condition::IfMatchNow => Some(("if-match", now.as_str())),
        Condition::IfMatchStale => Some(("if-match", stale)),
        Condition::IfNoneMatchNow => Some(("if-none-match", now.as_str())),
        Condition::IfNoneMatchStale => Some(("if-none-match", stale)),
    };
    api.call_with(method, &target, condition.as_slice(), body).await
}

/// Written by hand, because a `Value` cannot have a key twice.
fn body_of(entries: &[(&'static str, Entry)]) -> String {
    let members: Vec<_> = entries.iter().map(|(id, entry)| format!("\"{id}\":{}", text_of(entry))).collect();
    format!("{{\"routes\":{{{}}}}}", members.join(","))
}

fn text_of(entry: &Entry) -> String {
    match entry {
        Entry::Null => "null".to_owned(),
        Entry::Bare(port) => port.to_string(),
        Entry::Object { port, state, endpoints } => {
            let port = port.map(|port| format!("\"port\":{port}"));
            let state = state.map(|state| format!("\"state\":\"{state}\""));
            let endpoints = match endpoints {
                Endpoints::Absent => None,
                Endpoints::Null => Some("\"endpoints\":null".to_owned()),
                Endpoints::Each(members) => {
                    let value = |port: &Option<u32>| port.map_or_else(|| "null".to_owned(), |port| port.to_string());
                    let members: Vec<_> = members.iter().map(|(name, port)| format!("\"{name}\":{}", value(port))).collect();
                    Some(format!("\"endpoints\":{{{}}}", members.join(",")))
                }
            };
            let members: Vec<_> = [port, state, endpoints].into_iter().flatten().collect();
            format!("{{{}}}", members.join(","))
        }
    }
}

/// A response in the form that the model uses.
fn seen(response: &ApiResponse) -> Response {
    let status = response.status.as_u16();
    if status < 400 {
        let body = without_warning(response);
        return Response { status, body, code: None, places: BTreeSet::new() };
    }
    let problem = problem(response);
    let code =
        ["invalid_routes", "precondition_failed", "port_in_use", "not_found"].into_iter().find(|code| problem["code"] == *code);
    let errors = problem["errors"].as_array().into_iter().flatten();
    let places = errors.map(|error| error["pointer"].as_str().unwrap().replace("~1", "/").replace("~0", "~")).collect();
    Response { status, body: Value::Null, code, places }
}
