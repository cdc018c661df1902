//! Hostile paths, by the thousand: none reaches another agent than the one whose id stands in it, byte for byte, and what the agent receives is
//! what the client sent without the prefix.

use std::time::Duration;

use futures_util::StreamExt;
use harness::{Envoy, agents};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::hostile_bytes::unharmed;
use crate::wire::exchange;

const REQUESTS: usize = 2_000;
const AT_A_TIME: usize = 40;
const PATIENCE: Duration = Duration::from_secs(20);

const IDS: [&str; 22] = [
    "a", "a", "a", "b", "b", "", ".", "..", "%61", "%2e%2e", "a%2Fb", "a%00", "a;b", "a,b", "a\\b", "a\\..\\b", "A", "a%20",
    "a@b", "a:80", "%", "a+",
];
const SEGMENTS: [&str; 20] = [
    "a2a",
    "api",
    "ui",
    "-",
    "rest",
    "..",
    ".",
    "%2e%2e",
    "%2E",
    "",
    "b",
    "agents",
    "agents/b",
    "..;/b",
    "a2a%2f..",
    "%00",
    "\\..\\b",
    ";p=1",
    "v1",
    "a%5c..%5cb",
];

/// A path, or a whole URL, and what stands behind the authority in it.
fn target(dice: &mut Dice) -> (Vec<u8>, Vec<u8>) {
    let mut path = Vec::new();
    if dice.roll(12) == 0 {
        path.extend(b"/");
    }
    path.extend(if dice.roll(10) == 0 { b"/Agents/".as_slice() } else { b"/agents/" });
    path.extend(if dice.roll(2) == 0 { ["a", "b"][dice.roll(2)] } else { IDS[dice.roll(IDS.len())] }.bytes());
    for _ in 0..dice.roll(5) {
        path.push(b'/');
        path.extend(SEGMENTS[dice.roll(SEGMENTS.len())].bytes());
    }
    match dice.roll(12) {
        0 => path.extend(b"?x=/agents/b"),
        1 => path.extend(b"?/../../agents/b"),
        2 => path.extend([b"/".as_slice(), &vec![b'x'; 60 << 10]].concat()),
        3 => path.push(0x80 | dice.byte()),
        4 => {
            let at = dice.roll(path.len());
            path.insert(at, dice.byte());
        }
        _ => {}
    }
    let form: &[u8] = match dice.roll(12) {
        0 => b"http://b.agents.test",
        1 => b"http://a@b/",
        2 => b"b:80",
        _ => b"",
    };
    ([form, &path].concat(), path)
}

/// The id segment, read without the filter's code.
fn segment(path: &[u8]) -> Option<&[u8]> {
    path.strip_prefix(b"/agents/").map(|rest| rest.split(|byte| matches!(byte, b'/' | b'?')).next().unwrap_or_default())
}

#[tokio::test]
async fn no_path_reaches_another_agent() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (a, b, rest) =
        (agents::echo::start("a").unwrap(), agents::echo::start("b").unwrap(), agents::echo::start("a").unwrap());
    let routes = json!({"routes": {"a": {"port": a.port(), "endpoints": {"rest": rest.port()}}, "b": b.port()}});
    assert_eq!(envoy.routes().patch_routes(&routes).await.unwrap().status, 200);
    let mut dice = Dice(7);
    let targets: Vec<_> = (0..REQUESTS).map(|_| target(&mut dice)).collect();
    let address = envoy.data_addr();
    let outcomes = futures_util::stream::iter(&targets).map(|(target, path)| async move {
        let lies = "x-forwarded-prefix: /agents/b\r\nx-forwarded-host: b\r\nx-pixell-error: b\r\nx-envoy-original-dst-host: 127.0.0.1:1\r\n";
        let request = [b"GET ", target.as_slice(), b" HTTP/1.1\r\nhost: h\r\nconnection: close\r\n", lies.as_bytes(), b"\r\n"].concat();
        (path, exchange(address, &request, PATIENCE).await)
    });
    let (mut served, mut rejected) = (0, 0);
    let outcomes: Vec<_> = outcomes.buffer_unordered(AT_A_TIME).collect().await;
    for (path, response) in outcomes {
        let shown = path.escape_ascii().to_string();
        if !response.starts_with(b"HTTP/1.1 200 ") {
            // A line feed ends the request line before its version.
            let is_rejected = [b"HTTP/1.1 4", b"HTTP/1.0 4"].iter().any(|start| response.starts_with(*start));
            assert!(is_rejected, "{shown}: {}", response.escape_ascii());
            rejected += 1;
            continue;
        }
        served += 1;
        let body = response.windows(4).position(|end| end == b"\r\n\r\n").map(|at| &response[at + 4..]).unwrap();
        let echo: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{shown}: {error}"));
        let id = segment(path).unwrap_or_else(|| panic!("{shown} names nobody: {echo}"));
        assert_eq!(echo["agent"].as_str().unwrap().as_bytes(), id, "{shown}");
        let header = |name: &str| -> Vec<&str> {
            let all = echo["headers"].as_array().unwrap();
            all.iter().filter(|header| header[0] == name).map(|header| header[1].as_str().unwrap()).collect()
        };
        assert_eq!(header("x-deployment-id").concat().as_bytes(), id, "{shown}");
        assert!(header("x-forwarded-host").is_empty() && header("x-pixell-error").is_empty(), "{shown}: {echo}");
        // The prefix and the rest are what was sent.
        let prefix = header("x-forwarded-prefix").concat();
        let rest = echo["path"].as_str().unwrap();
        let again = [prefix.as_str(), rest].concat();
        let added = |rest: &str| [prefix.as_str(), rest.strip_prefix('/').unwrap_or(rest)].concat();
        assert!(again.as_bytes() == *path || added(rest).as_bytes() == *path, "{shown}: {prefix} and {rest}");
    }
    println!("{served} served, {rejected} rejected");
    assert!(served > REQUESTS / 5 && rejected > REQUESTS / 5, "{served} served, {rejected} rejected");
    unharmed(&envoy).await;
}
