//! Hostile paths, by the thousand, over HTTP/1.1 and HTTP/2: none reaches another agent than the one whose id stands in it, byte for byte, and
//! what the agent receives is what the client sent without the prefix.

use std::time::Duration;

use futures_util::StreamExt;
use harness::Envoy;

use crate::dice::Dice;
use crate::frames::Field;
use crate::hostile_bytes::unharmed;
use crate::hostile_http2;
use crate::recorders::{LIES, NUMBER, Recorders, Sent};
use crate::wire::exchange;

const REQUESTS: usize = 2_000;
/// Most of them wait a second, which Envoy gives a rejected client to close its connection.
const AT_A_TIME: usize = 250;
const PATIENCE: Duration = Duration::from_secs(20);

/// Those that have a route. Dots alone are ids, too.
const ROUTES: [&str; 5] = ["a", "b", "A", ".", ".."];

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
pub(crate) fn target(dice: &mut Dice) -> (Vec<u8>, Vec<u8>) {
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

/// What HTTP/2 can carry as a path, and HTTP/1.1 cannot, or not in one request.
fn http2_path(dice: &mut Dice) -> Vec<u8> {
    let (whole, path) = target(dice);
    let mut path = if dice.roll(4) == 0 { whole } else { path };
    let inside: &[u8] = match dice.roll(20) {
        0 => b" HTTP/1.1\r\nhost: h\r\n\r\nGET /agents/b/smuggled HTTP/1.1\r\nhost: h\r\n\r\n",
        1 => b"\r\nx-deployment-id: b\r\n",
        2 => b"\n",
        3 => b" ",
        4 => b"\0",
        5 => b"#/../b",
        6 => return [&b""[..], b"*", b"agents/a", b"?/agents/a", b"\xff"][dice.roll(5)].to_vec(),
        _ => b"",
    };
    let at = dice.roll(path.len() + 1);
    path.splice(at..at, inside.iter().copied());
    path
}

/// The fields of a request over HTTP/2, and whether they say its path once.
fn fields(dice: &mut Dice, number: usize, path: &[u8]) -> (Vec<Field>, bool) {
    let lies = LIES.iter().map(|(name, value)| (*name, value.as_bytes().to_vec()));
    let mut fields: Vec<Field> = [(":method", b"GET".to_vec()), (":scheme", b"http".to_vec())].into();
    fields.extend([(":authority", b"h".to_vec()), (":path", path.to_vec()), (NUMBER, number.to_string().into())]);
    fields.extend(lies);
    match dice.roll(30) {
        0 => fields.insert(dice.roll(5), (":path", b"/agents/b".to_vec())),
        1 => fields.push((":path", b"/agents/b".to_vec())),
        2 => fields[1].1 = b"http://h/agents/b".to_vec(),
        3 => fields[0].1 = b"GET /agents/b HTTP/1.1\r\nhost: h\r\n\r\nGET".to_vec(),
        4 => fields.swap(3, 5),
        5 => drop(fields.remove(3)),
        _ => {}
    }
    let paths = fields.iter().filter(|(name, _)| *name == ":path").count();
    (fields, paths == 1)
}

#[tokio::test]
async fn no_path_reaches_another_agent() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agents = Recorders::start(&envoy, &ROUTES).await;
    let mut dice = Dice(7);
    let (targets, sent): (Vec<_>, Vec<_>) = (0..REQUESTS)
        .map(|_| {
            let (target, path) = target(&mut dice);
            (target, Sent { path, authority: b"h".to_vec(), is_clear: true })
        })
        .unzip();
    let lies: String = LIES.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let (address, lies) = (envoy.data_addr(), lies.as_str());
    let responses = futures_util::stream::iter(targets.iter().zip(0..)).map(|(target, number): (_, usize)| async move {
        let rest = format!(" HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{NUMBER}: {number}\r\n{lies}\r\n");
        (number, exchange(address, &[b"GET ", target.as_slice(), rest.as_bytes()].concat(), PATIENCE).await)
    });
    let responses: Vec<_> = responses.buffer_unordered(AT_A_TIME).collect().await;
    for (number, response) in responses {
        // A line feed ends the request line before its version.
        let is_response =
            ["HTTP/1.1 200", "HTTP/1.1 4", "HTTP/1.0 4"].iter().any(|start| response.starts_with(start.as_bytes()));
        assert!(is_response, "{}: {}", sent[number].shown(), response.escape_ascii());
    }
    let served = agents.check(&sent, None).len();
    println!("{served} of {REQUESTS} served");
    assert!((REQUESTS / 5..REQUESTS * 4 / 5).contains(&served), "{served}");
    unharmed(&envoy).await;
}

#[tokio::test]
async fn no_path_of_http2_reaches_another_agent() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agents = Recorders::start(&envoy, &ROUTES).await;
    let mut dice = Dice(11);
    let requests = (0..REQUESTS).map(|number| {
        let path = http2_path(&mut dice);
        let (fields, is_clear) = fields(&mut dice, number, &path);
        (fields, Sent { path, authority: b"h".to_vec(), is_clear })
    });
    let served = hostile_http2::send(&envoy, &agents, requests.collect(), None).await;
    assert!((REQUESTS / 5..REQUESTS * 4 / 5).contains(&served), "{served}");
    unharmed(&envoy).await;
}
