//! Hostile headers and bodies, and streams that end at any moment, on the module's border to Envoy, with a stand-in for Envoy.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

mod host;

use std::time::{Duration, Instant};

use host::{Filter, Stream, panics, take_calls, take_turn};
use pixell_core::filter_state::ARRIVED;
use pixell_native::abi_types::Status;

/// As many as the tests with a real Envoy send.
const REQUESTS: u64 = 20_000;

/// A time of [`ARRIVED`] that is never past.
const JUST_NOW: u64 = u64::MAX;
const ADDRESS: &str = "envoy.network.transport_socket.original_dst_address";

/// Pseudo-random numbers (xorshift), the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.roll(all.len())]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.roll(most + 1)).map(|_| u8::try_from(self.roll(256)).unwrap()).collect()
    }
}

fn headers(pairs: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect()
}

/// A call of the route API with a body in two parts.
fn call(admin: &Filter, method: &str, path: &str, body: &str) -> (u32, String) {
    let json = ("content-type", b"application/json".as_slice());
    let head = headers(&[(":method", method.as_bytes()), (":path", path.as_bytes()), (":authority", b"127.0.0.1:9901"), json]);
    let stream = Stream::open(admin, 0, head, false);
    stream.head(body.is_empty());
    let (first, second) = body.as_bytes().split_at(body.len() / 2);
    stream.part(&[first], false);
    stream.part(&[second], true);
    let response = stream.response().unwrap();
    (response.status, String::from_utf8(response.body).unwrap())
}

fn filters() -> (Filter, Filter, Filter) {
    let router = r#"{"role":"router","id_headers":["x-deployment-id","other"],"host_suffix":".h.test"}"#;
    let [router, retry] = ["router", "retry"].map(|name| Filter::configure(name, router).unwrap());
    let admin = Filter::configure("admin", r#"{"role":"admin","max_body_bytes":2000}"#).unwrap();
    let routes = r#"{"routes":{"a":2000,"b":{"port":2001,"endpoints":{"ui":2002}},"d":{"port":2003,"state":"draining"}}}"#;
    assert_eq!(call(&admin, "PUT", "/v1/routes", routes).0, 200);
    (router, retry, admin)
}

#[test]
fn hostile_requests_are_forwarded_to_a_route_or_rejected() {
    let _turn = take_turn();
    let (router, retry, _admin) = filters();
    let mut dice = Dice(1);
    let (mut forwarded, mut rejected, mut judged, mut went_on) = (0, 0, 0, 0);
    for number in 0..REQUESTS {
        let mut head = Vec::new();
        for _ in 0..dice.roll(4) {
            let name = dice.pick(&["x-deployment-id", "other", "content-type", "x-pixell-error", ""]);
            let value = match dice.roll(3) {
                0 => dice.bytes(200),
                _ => dice.pick(&["a", "b", "d", "a,a", "a,b", " a ", "", ",", "application/grpc", "\u{0}", "c"]).into(),
            };
            head.push((name.to_owned(), value));
        }
        for (name, known) in [
            (":path", ["/", "/agents/a/ui", "/agents/b/-/ui?x", "/agents//", "/agents/%61/", "/agents/b/-/", "*"]),
            (":authority", ["", "a.h.test", "b.h.test:80", ".h.test", "h.test", "[::1]:1", ":"]),
        ] {
            match dice.roll(4) {
                0 => head.push((name.to_owned(), dice.bytes(300))),
                1 => {}
                _ => head.push((name.to_owned(), dice.pick(&known).into())),
            }
        }
        let stream = Stream::open(&router, number, head.clone(), dice.roll(2) == 0);
        // Envoy may end a stream at any moment.
        let ends_at = dice.roll(12);
        let status = stream.head(dice.roll(2) == 0).unwrap();
        if ends_at == 0 {
            stream.end();
        }
        stream.part(&[&dice.bytes(50)], false);
        stream.trailers();
        stream.scheduled(number % 2);
        match (status, stream.state(ADDRESS)) {
            (Status::Continue, Some(address)) => {
                forwarded += 1;
                let known = ["127.0.0.1:2000", "127.0.0.1:2001", "127.0.0.1:2002"];
                assert!(known.iter().any(|known| known.as_bytes() == address), "{}", address.escape_ascii());
                assert!(["a", "b"].iter().any(|id| stream.header("x-deployment-id").unwrap() == id.as_bytes()), "{head:?}");
                let id = if dice.roll(2) == 0 { dice.bytes(9) } else { dice.pick(&["a", "b"]).into() };
                let attempt = Stream::open(&retry, number, headers(&[("x-deployment-id", &id)]), dice.roll(2) == 0);
                attempt.set_upstream(dice.pick(&["127.0.0.1:2000", "127.0.0.1:", "10.0.0.1:2000", ""]));
                if dice.roll(2) == 0 {
                    attempt.set_state(ARRIVED, JUST_NOW.to_le_bytes().to_vec());
                }
                match attempt.head(true).unwrap() {
                    Status::Stop => judged += 1,
                    _ => went_on += 1,
                }
                drop(attempt);
                stream.response_head();
            }
            (Status::Stop, None) => {
                rejected += 1;
                let response = stream.response().unwrap();
                let code = response.headers.iter().find(|(name, _)| name == "x-pixell-error").unwrap();
                assert!(response.status == 200 || (400..=503).contains(&response.status), "{response:?}");
                assert_eq!(stream.state("wasm.pixell.rejection").unwrap(), code.1.as_bytes());
            }
            other => panic!("{other:?} of {head:?}"),
        }
    }
    println!("{forwarded} forwarded, {rejected} rejected; {judged} attempts rejected, {went_on} went on");
    assert!(forwarded > 1_000 && rejected > 1_000 && judged > 500 && went_on > 100);
    assert_eq!(panics(), [""; 0]);
}

#[test]
fn hostile_calls_of_the_route_api_do_no_harm() {
    let _turn = take_turn();
    let (_router, _retry, admin) = filters();
    let mut dice = Dice(2);
    for number in 0..REQUESTS {
        let method = dice.pick(&["GET", "PUT", "PATCH", "DELETE", "POST", "HEAD", "", "\u{7f}"]);
        let path = match dice.roll(3) {
            0 => [b"/v1/".as_slice(), &dice.bytes(40)].concat(),
            _ => dice
                .pick(&["/v1/routes", "/v1/routes/a", "/v1/status", "/", "/v1/routes/%ff", "/v1/routes?dry_run=1", "/x"])
                .into(),
        };
        let mut head = headers(&[(":method", method.as_bytes()), (":path", &path), (":authority", b"localhost")]);
        for name in ["content-type", "content-length", "if-match", "if-none-match", "authorization", "content-type"] {
            match dice.roll(4) {
                0 => head.push((name.to_owned(), dice.bytes(30))),
                1 => head.push((name.to_owned(), dice.pick(&["application/json", "*", "5", "", "\"0-0\""]).into())),
                _ => {}
            }
        }
        let stream = Stream::open(&admin, number, head, dice.roll(2) == 0);
        stream.head(dice.roll(4) == 0);
        for part in 0..dice.roll(5) {
            let piece = match dice.roll(3) {
                0 => dice.bytes(900),
                _ => {
                    dice.pick(&["{", "}", "\"routes\":{", "\"a\":", "2000", ",", "[[[[", "null", "\"\\ud800\"", "1e999"]).into()
                }
            };
            stream.part(&[&piece, &piece[..piece.len() / 2]], part == 3);
            if dice.roll(20) == 0 {
                stream.end();
            }
        }
        if dice.roll(3) == 0 {
            stream.trailers();
        }
        if let Some(response) = stream.response() {
            assert!((200..=503).contains(&response.status) && response.status != 500, "{response:?}");
        }
    }
    assert_eq!(panics(), [""; 0]);
    let (status, map) = call(&admin, "GET", "/v1/routes", "");
    assert_eq!(status, 200, "{map}");
}

#[test]
fn hostile_responses_of_agents_do_no_harm() {
    let _turn = take_turn();
    let (router, ..) = filters();
    let mut dice = Dice(3);
    let (mut changed, mut cards, mut untouched) = (0, 0, 0);
    for number in 0..REQUESTS {
        let path =
            dice.pick(&["/agents/a/ui/x", "/agents/a/.well-known/agent-card.json", "/agents/b/-/ui/.well-known/agent.json?x"]);
        let authority = dice.pick(&["c.test", "a.h.test:80", "c.test:443"]);
        let head = headers(&[(":method", b"GET"), (":path", path.as_bytes()), (":authority", authority.as_bytes())]);
        let is_grpc = dice.roll(8) == 0;
        let content_type = is_grpc.then(|| dice.pick(&["application/grpc", "application/grpc+proto", "application/grpc ; x"]));
        let content_type = content_type.map(|value| ("content-type".to_owned(), value.into()));
        let stream = Stream::open(&router, number, head.into_iter().chain(content_type).collect(), false);
        assert_eq!(stream.head(true), Some(Status::Continue), "{path}");
        let mut head = headers(&[(":status", b"200"), ("content-type", b"application/json")]);
        head.truncate(1 + dice.roll(2));
        for _ in 0..dice.roll(6) {
            let name = dice.pick(&["location", "set-cookie", "content-type", "content-encoding", "content-length", "etag"]);
            let known = [
                "/x",
                "//o.test/",
                "http://127.0.0.1:2002/y",
                "https://c.test:443/",
                "http://[::1/",
                "s=1; Path=/; Domain=a.test",
                "application/json",
                "gzip",
                "7",
            ];
            head.push((name.to_owned(), if dice.roll(3) == 0 { dice.bytes(300) } else { dice.pick(&known).into() }));
        }
        stream.response_head_of(head.clone());
        let body = match dice.roll(3) {
            0 => dice.bytes(3000),
            1 => br#"{"url":"http://0.0.0.0:2002/z","additionalInterfaces":[{"url":"http://localhost:2000"}],"x":[1,2]}"#
                .to_vec(),
            _ => dice.pick(&["{", "{}", "[[[[", "{\"url\":1}", "{\"url\":\"http://127.0.0.1:2000/\\ud800\"}", ""]).into(),
        };
        let cut = dice.roll(body.len() + 1);
        let has_trailers = dice.roll(3) == 0;
        stream.response_part(&[&body[..cut / 2], &body[cut / 2..cut]], false);
        if dice.roll(20) == 0 {
            stream.end();
            continue;
        }
        stream.response_part(&[&body[cut..]], !has_trailers);
        if has_trailers {
            stream.response_trailers();
        }
        let (headers, received) = stream.received();
        assert!(!is_grpc || (headers == head && received == body), "a response of gRPC stays as it is");
        changed += usize::from(headers != head);
        cards += usize::from(received != body);
        untouched += usize::from(headers == head && received == body);
        assert!(
            received == body || serde_json::from_slice::<serde_json::Value>(&received).is_ok(),
            "{}",
            received.escape_ascii()
        );
    }
    println!("{changed} heads and {cards} cards changed, {untouched} responses left alone");
    assert!(changed > 1_000 && cards > 300 && untouched > 1_000);
    assert_eq!(panics(), [""; 0]);
}

#[test]
fn an_agent_says_nothing_in_the_name_of_the_proxy() {
    let _turn = take_turn();
    let (_router, retry, _admin) = filters();
    let mut dice = Dice(4);
    for number in 0..REQUESTS {
        let mut own = || {
            let names =
                ["x-pixell-error", "x-pixell-", "x-pixell-misdirected", "x-pixell", "x-pixel-l", "server", ":status", ""];
            (0..dice.roll(9)).map(|_| (dice.pick(&names).to_owned(), dice.bytes(20))).collect::<Vec<_>>()
        };
        let (head, trailers) = (own(), own());
        let stream = Stream::open(&retry, number, headers(&[("x-envoy-attempt-count", b"1")]), false);
        stream.head(true);
        stream.response_head_of(head.clone());
        let left = |sent: &[(String, Vec<u8>)]| -> Vec<_> {
            sent.iter().filter(|(name, _)| !name.starts_with("x-pixell-")).cloned().collect()
        };
        assert_eq!(stream.response_trailers_of(trailers.clone()), left(&trailers));
        assert_eq!(stream.received().0, left(&head));
    }
    assert_eq!(panics(), [""; 0]);
}

#[test]
fn a_stream_is_called_after_five_to_six_seconds_if_it_is_still_there() {
    let _turn = take_turn();
    let (router, _retry, admin) = filters();
    let open = |number| {
        let stream = Stream::open(&router, number, headers(&[("x-deployment-id", b"a")]), true);
        assert_eq!(stream.head(true), Some(Status::Continue));
        stream
    };
    let (stays, gone) = (open(u64::MAX), open(u64::MAX - 1));
    let began = Instant::now();
    drop(gone);
    // No other test here pushes this map, so it is a change whatever they have left.
    assert_eq!(call(&admin, "PUT", "/v1/routes", r#"{"routes":{"a":2000,"waited":2100}}"#).0, 200);
    let mut called = Vec::new();
    // 0 stands for a wait that is too long.
    while !called.contains(&(u64::MAX, 0)) {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(20));
        called.extend(take_calls());
    }
    assert!(began.elapsed() >= Duration::from_millis(4_900), "{:?}", began.elapsed());
    assert!(!called.contains(&(u64::MAX - 1, 0)), "it had ended");
    // 1 stands for a change.
    assert!(called.contains(&(u64::MAX, 1)));
    stays.scheduled(0);
    let response = stays.response().unwrap();
    assert_eq!(response.status, 503);
    assert!(router.counted("pixell_rejections_total.reason.overloaded") > 0);
}

#[test]
fn a_wrong_configuration_is_rejected() {
    for (name, configuration) in
        [("router", "{}"), ("admin", r#"{"role":"router"}"#), ("", r#"{"role":"router"}"#), ("retry", "")]
    {
        assert!(Filter::configure(name, configuration).is_none(), "{name} {configuration}");
    }
}
