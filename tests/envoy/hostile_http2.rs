//! Hostile requests over HTTP/2, each beside an honest one on the same connection.

use std::time::Duration;

use futures_util::StreamExt;
use harness::Envoy;

use crate::frames::{self, End, Field};
use crate::recorders::{NUMBER, Recorders, Sent};

const AT_A_TIME: usize = 40;
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends these requests, and then checks what the agents got: nothing that does not name them, and every honest request. Returns how many
/// of the hostile ones reached an agent. There is a route for `b`.
pub(crate) async fn send(envoy: &Envoy, agents: &Recorders, requests: Vec<(Vec<Field>, Sent)>, suffix: Option<&str>) -> usize {
    let (address, count) = (envoy.data_addr(), requests.len());
    let honest = Sent { path: b"/agents/b/honest".to_vec(), authority: b"h".to_vec(), is_clear: true };
    let honest_fields = |number: usize| -> [Field; 5] {
        let [method, scheme] = [(":method", b"GET".to_vec()), (":scheme", b"http".to_vec())];
        let number = (NUMBER, (count + number).to_string().into());
        [method, scheme, (":authority", honest.authority.clone()), (":path", honest.path.clone()), number]
    };
    let exchanges = futures_util::stream::iter(requests.iter().enumerate()).map(|(number, (fields, sent))| {
        let beside = honest_fields(number);
        async move {
            let ends = tokio::time::timeout(PATIENCE, frames::exchange(address, fields, &beside)).await;
            let [end, beside] = ends.unwrap_or_else(|_| panic!("without an end: {}", sent.shown()));
            assert!(end != End::Connection && beside == End::Response, "{end:?}, beside it {beside:?}: {}", sent.shown());
            end
        }
    });
    let ends: Vec<End> = exchanges.buffer_unordered(AT_A_TIME).collect().await;
    let sent = requests.into_iter().map(|(_, sent)| sent).chain(std::iter::repeat_n(honest.clone(), count));
    let reached = agents.check(&sent.collect::<Vec<_>>(), suffix);
    assert!((count..2 * count).all(|number| reached.contains(&number)), "an honest request was not served");
    let (served, reset) = (reached.len() - count, ends.iter().filter(|end| **end == End::Reset).count());
    println!("{served} of {count} served, {reset} reset");
    served
}
