//! Hostile authorities, by the thousand, over HTTP/1.1 and HTTP/2, where the host or the path names the agent and no header does: none reaches
//! another agent than the one whose id stands before the suffix, byte for byte.

use std::time::Duration;

use futures_util::StreamExt;
use harness::Envoy;

use crate::access_log_level::with_settings;
use crate::dice::Dice;
use crate::frames::Field;
use crate::hostile_http2;
use crate::hostile_paths::target;
use crate::recorders::{LIES, NUMBER, Recorders, Sent};
use crate::wire::exchange;

const REQUESTS: usize = 2_000;
/// Most of them wait a second, which Envoy gives a rejected client to close its connection.
const AT_A_TIME: usize = 250;
const PATIENCE: Duration = Duration::from_secs(20);
const SUFFIX: &str = ".agents.test";

/// Those that have a route: what a careless reading could make of the labels below.
const ROUTES: [&str; 8] = ["a", "b", "A", "a.b", ".", "a.", ".a", "a.agents.test"];
const LABELS: [&[u8]; 32] = [
    b"a",
    b"b",
    b"A",
    b"a.b",
    b"a.",
    b"a.agents.test",
    b"b.a",
    b"",
    b".",
    b"..",
    b".a",
    b"a..b",
    b"%61",
    b"a%00",
    b"a%2eb",
    b"a@b",
    b"b:80@a",
    b"a:80",
    b"[::1]",
    b"[a]",
    b"[::ffff:127.0.0.1]",
    b"127.0.0.1",
    b"2130706433",
    b"localhost",
    b"*",
    b"a,b",
    b"a;b",
    b"a ",
    b"a/b",
    b"a\\b",
    b"\xc3\xa4",
    b"xn--4ca",
];
const ENDS: [&[u8]; 16] = [
    b".agents.test",
    b".agents.test",
    b".agents.test",
    b".agents.test",
    b".agents.test",
    b".AGENTS.Test",
    b".agents.test.",
    b"..agents.test",
    b"agents.test",
    b".agents.test.evil.test",
    b".agents.test/",
    b".agents.test#",
    b".agents%2etest",
    b"\xe3\x80\x82agents.test",
    b".agent\xc5\xbf.test",
    b"",
];
const PORTS: [&[u8]; 18] = [
    b"",
    b"",
    b"",
    b":80",
    b":443",
    b":50051",
    b":",
    b":0",
    b":65536",
    b":99999999999999999999",
    b":http",
    b":80:80",
    b":-1",
    b": 80",
    b":80.agents.test",
    b":80@b.agents.test",
    b"@b.agents.test",
    b":\xd9\xa1",
];

/// An authority without line ends, which would end the header in HTTP/1.1.
fn authority(dice: &mut Dice) -> Vec<u8> {
    // Mostly the first ones, with which an authority can lead to an agent.
    let mut one_of = |parts: &[&'static [u8]]| {
        let sides = if dice.roll(3) == 0 { parts.len() } else { 6 };
        parts[dice.roll(sides)]
    };
    let mut authority = [one_of(&LABELS), one_of(&ENDS), one_of(&PORTS)].concat();
    match dice.roll(24) {
        0 => authority.splice(..0, vec![b'x'; 60 << 10]).for_each(drop),
        1 => authority.splice(..0, *b"user:password@").for_each(drop),
        2 => authority.insert(dice.roll(authority.len() + 1), dice.byte()),
        3 => authority.splice(..0, *b"b.agents.test,").for_each(drop),
        4 => authority.extend(b" "),
        _ => {}
    }
    authority.retain(|byte| !matches!(byte, b'\r' | b'\n'));
    authority
}

fn path(dice: &mut Dice) -> Vec<u8> {
    const PATHS: [&[u8]; 8] =
        [b"/", b"/x?y", b"//b.agents.test/", b"/agents", b"/agent/b", b"/?/agents/b", b"/%2fagents/b", b"/..//agents/b"];
    if dice.roll(8) == 0 { target(dice).1 } else { PATHS[dice.roll(PATHS.len())].to_vec() }
}

/// What no setting lets name an agent.
fn lies() -> impl Iterator<Item = (&'static str, &'static str)> {
    LIES.into_iter().chain([("x-deployment-id", "b"), ("deployment-id", "b"), ("forwarded", "host=b.agents.test")])
}

async fn start() -> (Envoy, Recorders) {
    let settings = [("PIXELL_ID_HEADERS", "none"), ("PIXELL_HOST_SUFFIX", SUFFIX)];
    let envoy = with_settings(&settings).start().await.unwrap();
    let agents = Recorders::start(&envoy, &ROUTES).await;
    (envoy, agents)
}

/// Checks that so many served requests are neither few nor most, and that both workers still respond and have not crashed.
async fn unharmed(envoy: &Envoy, served: usize) {
    assert!((REQUESTS / 10..REQUESTS * 4 / 5).contains(&served), "{served}");
    for _ in 0..16 {
        let request = b"GET /agents/a/ HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
        assert!(exchange(envoy.data_addr(), request, PATIENCE).await.starts_with(b"HTTP/1.1 200"));
    }
    let stats = envoy.stats().await.unwrap();
    assert!(stats.worker_connections("agents").unwrap().values().all(|count| *count > 0));
    assert_eq!(stats.crashes().unwrap(), 0);
}

/// A request of HTTP/1.1, and what names its agent (RFC 9112, 3.3): the authority of its target goes before `host`.
fn http1(dice: &mut Dice, number: usize) -> (Vec<u8>, Sent) {
    let (authority, path) = (authority(dice), path(dice));
    let can_be_in_a_url = !authority.iter().any(|byte| matches!(byte, b'/' | b'?' | b'#' | b'\\' | b' ')) && path[0] == b'/';
    let way = dice.roll(12);
    let whole = [b"http://", &*authority, &*path].concat();
    let other = b"b.agents.test".as_slice();
    let (target, hosts): (&[u8], &[&[u8]]) = match way {
        0..3 if can_be_in_a_url => (&whole, &[other]),
        3 => (&path, &[&authority, other]),
        4 => (&path, &[other, &authority]),
        5 => (&path, &[]),
        _ => (&path, &[&authority]),
    };
    // Envoy takes several for one with commas, and no id has one.
    let joined = hosts.join(&b","[..]);
    let hosts: Vec<u8> = hosts.iter().flat_map(|host| [b"host: ", *host, b"\r\n"].concat()).collect();
    let lies: String = lies().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let rest = format!("connection: close\r\n{NUMBER}: {number}\r\n{lies}\r\n");
    let request = [b"GET ", target, b" HTTP/1.1\r\n", &hosts, rest.as_bytes()].concat();
    let is_clear = way != 5;
    let authority = if target == whole {
        // User information is no part of the host (RFC 3986, 3.2).
        authority.rsplit(|byte| *byte == b'@').next().unwrap_or_default().to_vec()
    } else {
        joined.trim_ascii().to_vec()
    };
    (request, Sent { path, authority, is_clear })
}

/// The same over HTTP/2, where `:authority` goes before `host` (RFC 9113, 8.3.1).
fn http2(dice: &mut Dice, number: usize) -> (Vec<Field>, Sent) {
    let (authority, path) = (authority(dice), path(dice));
    let mut fields: Vec<Field> = [(":method", b"GET".to_vec()), (":scheme", b"http".to_vec())].into();
    fields.extend([(":authority", authority.clone()), (":path", path.clone()), (NUMBER, number.to_string().into())]);
    fields.extend(lies().map(|(name, value)| (name, value.as_bytes().to_vec())));
    let other = b"b.agents.test".to_vec();
    let way = dice.roll(20);
    match way {
        0 => fields.insert(2 + dice.roll(3), (":authority", other)),
        1 => fields.push(("host", other)),
        2 => fields.insert(4, ("host", other)),
        // `host` alone names the host.
        3 => fields[2..5].rotate_left(1),
        4 => fields[1].1 = b"http://b.agents.test/".to_vec(),
        _ => {}
    }
    if way == 3 {
        let host = fields.iter_mut().find(|(name, _)| *name == ":authority");
        host.unwrap().0 = "host";
    }
    (fields, Sent { path, authority, is_clear: way != 0 })
}

#[tokio::test]
async fn no_authority_reaches_another_agent() {
    let (envoy, agents) = start().await;
    let mut dice = Dice(13);
    let (requests, sent): (Vec<_>, Vec<_>) = (0..REQUESTS).map(|number| http1(&mut dice, number)).unzip();
    let address = envoy.data_addr();
    let responses = futures_util::stream::iter(requests.iter().zip(&sent))
        .map(|(request, sent)| async move { (sent, exchange(address, request, PATIENCE).await) });
    let responses: Vec<_> = responses.buffer_unordered(AT_A_TIME).collect().await;
    for (sent, response) in responses {
        let is_response = ["HTTP/1.1 200", "HTTP/1.1 4"].iter().any(|start| response.starts_with(start.as_bytes()));
        assert!(is_response, "{}: {}", sent.shown(), response.escape_ascii());
    }
    let served = agents.check(&sent, Some(SUFFIX)).len();
    println!("{served} of {REQUESTS} served");
    unharmed(&envoy, served).await;
}

#[tokio::test]
async fn no_authority_of_http2_reaches_another_agent() {
    let (envoy, agents) = start().await;
    let mut dice = Dice(17);
    let requests = (0..REQUESTS).map(|number| http2(&mut dice, number)).collect();
    let served = hostile_http2::send(&envoy, &agents, requests, Some(SUFFIX)).await;
    unharmed(&envoy, served).await;
}
