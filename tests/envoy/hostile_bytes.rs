//! Bytes that no honest caller sends, by the ten thousand: each id is judged as an independent reading of the contract says, and no
//! VM falls over any of it.

use std::time::Duration;

use futures_util::future::join_all;
use harness::proto::DEPLOYMENT_ID;
use harness::{Envoy, agents};
use reqwest::Client;
use reqwest::header::HeaderValue;

use crate::clients::{http1, http2};
use crate::wire;

/// Header values sent; as many again reach Envoy as raw requests.
const VALUES: usize = 20_000;
const RAW: usize = 2_000;

/// Numbers that look random and are the same in every run (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % sides
    }

    /// A value near the border between an id and none.
    fn value(&mut self) -> Vec<u8> {
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
        for _ in 0..self.roll(5) {
            match self.roll(6) {
                // Any byte that a header value may have at all (RFC 9110, 5.5).
                0 => value.push(u8::try_from(0x21 + self.roll(0xdf)).unwrap()),
                1 => value.extend(std::iter::repeat_n(b'x', 120 + self.roll(20))),
                _ => value.extend_from_slice(PARTS[self.roll(PARTS.len())]),
            }
        }
        value.retain(|byte| *byte != 0x7f);
        value
    }
}

/// What the contract says of a value: `a` is the one id that has a route.
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
    let answer = request.send().await.unwrap_or_else(|error| panic!("{value:?}: {error}"));
    let code = answer.headers().get("x-pixell-error").map_or("none", |code| code.to_str().unwrap());
    assert_eq!(code, expected(value), "{:?}", String::from_utf8_lossy(value));
}

async fn unharmed(envoy: &Envoy) {
    // A VM that trapped shows in the counter when its worker is next asked, so ask both.
    for _ in 0..16 {
        send(&http1(), envoy, b"a").await;
    }
    let stats = envoy.stats().await.unwrap();
    assert!(stats.worker_connections("agents").unwrap().values().all(|count| *count > 0));
    assert_eq!(stats.vm_reloads().unwrap(), 0);
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
                send(client, envoy, &dice.value()).await;
            }
        }
    });
    join_all(work).await;
    unharmed(&envoy).await;
}

#[tokio::test]
async fn raw_requests_of_both_protocols_harm_no_vm() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let http1 = b"POST /p?q HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\ncontent-length: 4\r\nte: trailers\r\n\r\nbodyGET / HTTP/1.1\r\nhost: h\r\nx-deployment-id: b\r\n\r\n";
    // Preface, SETTINGS, then HEADERS with `:method GET`, `:scheme http`, `:path /`, `:authority h` and the id.
    let mut http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let mut block = b"\x82\x86\x84\x41\x01h\x40\x0fx-deployment-id\x01a".to_vec();
    http2.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    http2.append(&mut block);
    let work = (0..16_u64).map(|seed| {
        let (envoy, mut dice) = (&envoy, Dice(0x2545_f491_4f6c_dd1d ^ (seed + 1)));
        let good = if seed % 2 == 0 { http1.to_vec() } else { http2.clone() };
        async move {
            for _ in 0..RAW / 16 {
                let mut bytes = good.clone();
                for _ in 0..=dice.roll(4) {
                    if bytes.len() < 2 {
                        break;
                    }
                    let at = dice.roll(bytes.len());
                    match dice.roll(4) {
                        0 => bytes[at] = u8::try_from(dice.roll(256)).unwrap(),
                        1 => bytes.insert(at, u8::try_from(dice.roll(256)).unwrap()),
                        2 => drop(bytes.remove(at)),
                        _ => bytes.truncate(at.max(1)),
                    }
                }
                wire::exchange(envoy.data_addr(), &bytes, Duration::from_millis(20)).await;
            }
        }
    });
    join_all(work).await;
    unharmed(&envoy).await;
}
