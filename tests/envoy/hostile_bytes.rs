//! Twenty thousand header values that no honest client sends: the filter judges each id as a second implementation of the contract does,
//! and no VM crashes.

use futures_util::future::join_all;
use harness::proto::DEPLOYMENT_ID;
use harness::{Envoy, agents};
use reqwest::Client;
use reqwest::header::HeaderValue;

use crate::clients::{http1, http2};
use crate::dice::Dice;

/// Header values sent.
const VALUES: usize = 20_000;

/// A value that is an id, or nearly one.
fn value(dice: &mut Dice) -> Vec<u8> {
    const PARTS: [&[u8]; 14] = [
        b"a",
        b"a",
        b"a,a",
        b"a, a",
        b",",
        b" ",
        b"\xff",
        b"\xc3\xa4",
        b"\xed\xa0\x80",
        b"%00",
        b"-._",
        b"Zz09",
        b"\t",
        b"127.0.0.1:1",
    ];
    let mut value = Vec::new();
    for _ in 0..dice.roll(5) {
        match dice.roll(6) {
            // Any byte that a header value may have (RFC 9110, 5.5).
            0 => value.push(u8::try_from(0x21 + dice.roll(0xdf)).unwrap()),
            1 => value.extend(std::iter::repeat_n(b'x', 120 + dice.roll(20))),
            _ => value.extend_from_slice(PARTS[dice.roll(PARTS.len())]),
        }
    }
    value.retain(|byte| *byte != 0x7f);
    value
}

/// The code of the rejection according to the contract. Only `a` has a route.
fn expected(value: &[u8]) -> &'static str {
    let trim = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_matches([' ', '\t']).to_owned();
    let is_id =
        |text: &str| (1..=128).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if trim(value).is_empty() {
        return "missing_deployment_id";
    }
    let ids: Vec<String> = value.split(|byte| *byte == b',').map(trim).collect();
    if !ids.iter().all(|id| is_id(id) && *id == ids[0]) {
        return "invalid_deployment_id";
    }
    if ids[0] == "a" { "none" } else { "unknown_deployment" }
}

async fn send(client: &Client, envoy: &Envoy, value: &[u8]) {
    let request = client.get(envoy.data_url()).header(DEPLOYMENT_ID, HeaderValue::from_bytes(value).unwrap());
    let response = request.send().await.unwrap_or_else(|error| panic!("{value:?}: {error}"));
    let code = response.headers().get("x-pixell-error").map_or("none", |code| code.to_str().unwrap());
    assert_eq!(code, expected(value), "{:?}", String::from_utf8_lossy(value));
}

/// Checks that both workers of Envoy respond, and that none of its VMs has crashed.
pub(crate) async fn unharmed(envoy: &Envoy) {
    // Envoy counts a trap at the worker's next request, so this sends requests to both.
    for _ in 0..16 {
        send(&http1(), envoy, b"a").await;
    }
    let stats = envoy.stats().await.unwrap();
    assert!(stats.worker_connections("agents").unwrap().values().all(|count| *count > 0));
    assert_eq!(stats.crashes().unwrap(), 0);
}

#[tokio::test]
async fn twenty_thousand_header_values_are_judged_as_the_contract_says() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let clients: Vec<Client> = (0..16).map(|n| if n % 2 == 0 { http1() } else { http2() }).collect();
    let work = clients.iter().enumerate().map(|(seed, client)| {
        let (envoy, mut dice) = (&envoy, Dice(0x9e37_79b9_7f4a_7c15 ^ (seed as u64 + 1)));
        async move {
            for _ in 0..VALUES / 16 {
                send(client, envoy, &value(&mut dice)).await;
            }
        }
    });
    join_all(work).await;
    unharmed(&envoy).await;
}
