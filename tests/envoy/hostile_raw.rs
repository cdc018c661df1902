//! Twenty thousand exchanges of broken HTTP: valid requests of both protocols with bytes changed, inserted, removed or cut off.
//! Every connection ends, and no VM crashes.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use harness::{Envoy, agents};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::dice::Dice;
use crate::frames::{frame, opening};
use crate::hostile_bytes::unharmed;

/// Connections, each with one broken exchange; half of them in HTTP/2.
const CONNECTIONS: usize = 20_000;
/// How many are open at a time. They spend most of their time waiting for responses that do not come.
const AT_A_TIME: usize = 400;
/// How long the test waits for the response to a broken exchange. One that was cut off gets none.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long Envoy may take to respond to a whole request, and to close a connection whose client has gone.
const END: Duration = Duration::from_secs(30);

/// How a broken exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// A response, or in HTTP/2 the end of the stream or of the connection with its reason.
    Responded,
    /// Envoy closed the connection without a response.
    Closed,
    /// Envoy waited for more, and closed the connection when its client did.
    Waited,
}

const HTTP1: [&[u8]; 4] = [
    b"POST /p?q HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\ncontent-length: 4\r\nte: trailers\r\n\r\nbody\
      GET / HTTP/1.1\r\nhost: h\r\nx-deployment-id: b\r\n\r\n",
    b"PUT /x HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\ntransfer-encoding: chunked\r\ntrailer: t\r\n\r\n\
      4;e=1\r\nbody\r\n1\r\nx\r\n0\r\nt: 1\r\n\r\n",
    b"GET http://h/ HTTP/1.1\r\nhost: h\r\nx-deployment-id: a, a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
      sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    b"POST /s/m HTTP/1.1\r\nhost: h\r\nx-deployment-id: nobody\r\ncontent-type: application/grpc+proto\r\n\
      expect: 100-continue\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0",
];

/// Preface, SETTINGS, and then one or more requests.
fn http2() -> [Vec<u8>; 4] {
    // `:method GET` (0x82) or `POST` (0x83), `:scheme http`, `:path /`, `:authority h`, and the id, never indexed.
    let get = b"\x82\x86\x84\x41\x01h\x10\x0fx-deployment-id\x01a".as_slice();
    let post = b"\x83\x86\x84\x41\x01h\x40\x0fx-deployment-id\x01a\x40\x0ccontent-type\x10application/grpc".as_slice();
    let unknown = b"\x82\x86\x84\x41\x01h\x40\x0fx-deployment-id\x06nobody".as_slice();
    let (first, rest) = get.split_at(10);
    let requests = [
        frame(1, 5, 1, get),
        // In two pieces, with a priority, and then another stream.
        [frame(1, 0x21, 1, &[&[0, 0, 0, 0, 16], first].concat()), frame(9, 4, 1, rest), frame(1, 5, 3, unknown)].concat(),
        // A gRPC call whose body and trailers come apart, with windows and a PING in between.
        [
            frame(1, 4, 1, post),
            frame(8, 0, 0, &[0, 1, 0, 0]),
            frame(6, 0, 0, b"pingpong"),
            frame(0, 0, 1, &[0; 5]),
            frame(1, 5, 1, b"\x40\x01t\x011"),
        ]
        .concat(),
        // Padded data, a reset, and a client that sends GOAWAY.
        [
            frame(1, 4, 1, post),
            frame(0, 8, 1, &[2, 0, 0, 0, 0, 0, 0, 0]),
            frame(3, 0, 1, &[0, 0, 0, 8]),
            frame(1, 5, 3, get),
            frame(7, 0, 0, &[0; 8]),
        ]
        .concat(),
    ];
    requests.map(|request| [opening(), request].concat())
}

fn break_up(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.roll(4) {
        if bytes.len() < 2 {
            break;
        }
        let at = dice.roll(bytes.len());
        match dice.roll(5) {
            0 => bytes[at] = dice.byte(),
            1 => bytes.insert(at, dice.byte()),
            2 => drop(bytes.remove(at)),
            3 => bytes[at] ^= 1 << dice.roll(8),
            _ if dice.roll(4) == 0 => bytes.truncate(at.max(1)),
            _ => {
                let end = (at + 1 + dice.roll(12)).min(bytes.len());
                bytes.extend_from_within(at..end);
            }
        }
    }
}

/// Whether these bytes hold a response: a whole head, or a HEADERS, RST_STREAM or GOAWAY frame.
fn responded(mut bytes: &[u8]) -> bool {
    if bytes.starts_with(b"HTTP/1.1 ") {
        return bytes.windows(4).any(|end| end == b"\r\n\r\n");
    }
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
        if matches!(*kind, 1 | 3 | 7) {
            return true;
        }
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        bytes = rest.get(length..).unwrap_or_default();
    }
    false
}

async fn exchange(address: SocketAddr, bytes: &[u8], patience: Duration) -> Outcome {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Envoy may close the connection before it has read everything.
    let _ = stream.write_all(bytes).await;
    let (mut all, mut some) = (Vec::new(), [0; 4096]);
    let outcome = loop {
        match tokio::time::timeout(patience, stream.read(&mut some)).await {
            Err(_) => break Outcome::Waited,
            Ok(Ok(count)) if count > 0 => all.extend_from_slice(&some[..count]),
            Ok(_) => return if responded(&all) { Outcome::Responded } else { Outcome::Closed },
        }
        if responded(&all) {
            break Outcome::Responded;
        }
    };
    let _ = stream.shutdown().await;
    let ended = async { while stream.read(&mut some).await.is_ok_and(|count| count > 0) {} };
    tokio::time::timeout(END, ended).await.unwrap_or_else(|_| panic!("still open: {}", bytes.escape_ascii()));
    outcome
}

#[tokio::test]
async fn twenty_thousand_broken_exchanges_harm_no_vm() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let (address, http2) = (envoy.data_addr(), http2());
    for whole in HTTP1.into_iter().chain(http2.iter().map(Vec::as_slice)) {
        assert_eq!(exchange(address, whole, END).await, Outcome::Responded, "unbroken: {}", whole.escape_ascii());
    }
    let work = (0..AT_A_TIME).map(|seed| {
        let (http2, mut dice) = (&http2, Dice(0x2545_f491_4f6c_dd1d ^ (seed as u64 + 1)));
        async move {
            let mut outcomes = Vec::new();
            for number in 0..CONNECTIONS / AT_A_TIME {
                let mut bytes = if seed % 2 == 0 { HTTP1[number % 4].to_vec() } else { http2[number % 4].clone() };
                break_up(&mut bytes, &mut dice);
                outcomes.push((seed % 2, exchange(address, &bytes, PATIENCE).await));
            }
            outcomes
        }
    });
    let outcomes = join_all(work).await.concat();
    assert_eq!(outcomes.len(), CONNECTIONS);
    for (protocol, name) in ["HTTP/1.1", "HTTP/2"].into_iter().enumerate() {
        let count = |wanted| outcomes.iter().filter(|outcome| **outcome == (protocol, wanted)).count();
        let (responded, closed, waited) = (count(Outcome::Responded), count(Outcome::Closed), count(Outcome::Waited));
        println!("{name}: of the broken exchanges, {responded} got a response, {closed} were closed, {waited} waited for more");
        // A tenth to all of this protocol's exchanges: the bytes are broken enough to matter, and not so much that none gets a response.
        assert!(responded > CONNECTIONS / 20 && responded < CONNECTIONS / 2, "{name}: {responded}");
    }
    unharmed(&envoy).await;
}
