//! A map that changes many times a second while it is used: no wrong agent answers, no stable id fails, no stream breaks.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::agents::{self, streams};
use crate::proto::streams::Chunk;
use crate::proto::{DEPLOYMENT_ID, request_to};
use crate::{Agent, Envoy, RouteApi};

const MOVING: usize = 8;
/// More agents than moving ids, so that there is always somewhere to move to.
const PLACES: usize = 12;
const STABLE: usize = 3;
const STREAMS: usize = 4;

/// What came out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Changes of the map, each answered 200.
    pub changes: u64,
    /// Calls to ids that no change touches, all answered by their agent.
    pub stable: u64,
    /// Calls to ids that move, all answered as the map had it at some moment of the call.
    pub moving: u64,
    /// Calls to ids that nobody has, all answered 404.
    pub unknown: u64,
    /// Messages of streams that were open all the time, all given back.
    pub messages: u64,
    /// How long it took.
    pub took: Duration,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { changes, stable, moving, unknown, messages, took } = self;
        write!(
            f,
            "{changes} changes in {took:.1?}; calls: {stable} stable, {moving} moving, {unknown} unknown; \
             {messages} messages on {STREAMS} streams: no wrong answer, no error, no broken stream"
        )
    }
}

/// Where a moving id leads, and has led not long ago: the agent (none: no route), and when the change that ended it was answered.
type History = Arc<Mutex<VecDeque<(Option<usize>, Option<Instant>)>>>;

#[derive(Default)]
struct Counts {
    stable: AtomicU64,
    moving: AtomicU64,
    unknown: AtomicU64,
    messages: AtomicU64,
}

/// Changes the map `per_second` times a second for `duration`, and calls it all the while.
///
/// # Errors
/// The first wrong or failed answer, broken stream or refused change, or where the machine is too slow for half the pace.
pub async fn run(envoy: &Envoy, duration: Duration, per_second: u32) -> Result<Figures> {
    let stable = (0..STABLE).map(|n| agents::echo::start(&format!("stable-{n}"))).collect::<Result<Vec<_>>>()?;
    let places = (0..PLACES).map(|n| agents::echo::start(&format!("place-{n}"))).collect::<Result<Vec<_>>>()?;
    let (talker, _) = streams::start("talker")?;
    let all = stable.iter().chain([&talker]).map(|agent| (agent.name(), agent.port()));
    envoy.routes().put_all(all).await?;

    let (done, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
    let histories: Vec<History> = (0..MOVING).map(|_| Arc::new(Mutex::new(VecDeque::from([(None, None)])))).collect();
    let mut users = Vec::new();
    for _ in 0..STREAMS {
        users.push(tokio::spawn(talk(envoy.data_addr(), done.clone(), counts.clone())));
    }
    for client in 0..3 {
        let (url, done, counts) = (envoy.data_url(), done.clone(), counts.clone());
        users.push(tokio::spawn(call(url, client, histories.clone(), done, counts)));
    }
    let begun = Instant::now();
    let changes = change(&envoy.routes(), &places, &histories, (begun, duration, per_second)).await;
    done.store(true, Ordering::SeqCst);
    for user in users {
        user.await??;
    }
    let (changes, took) = (changes?, begun.elapsed());
    ensure!(
        changes * 2 >= u64::from(per_second) * duration.as_secs(),
        "only {changes} changes in {took:?}: the machine is too slow"
    );
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    let Counts { stable, moving, unknown, messages } = &*counts;
    Ok(Figures {
        changes,
        stable: count(stable),
        moving: count(moving),
        unknown: count(unknown),
        messages: count(messages),
        took,
    })
}

/// Moves one id a time to a free agent, or takes its route away.
async fn change(
    api: &RouteApi,
    places: &[Agent],
    histories: &[History],
    (begun, duration, per_second): (Instant, Duration, u32),
) -> Result<u64> {
    let mut at = [None; MOVING];
    let mut changes = 0_u64;
    let mut random = 0x9e37_79b9_u64;
    let mut draw = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap_or_default() % below
    };
    while begun.elapsed() < duration {
        let moved = draw(MOVING);
        let free: Vec<usize> = (0..PLACES).filter(|place| !at.contains(&Some(*place))).collect();
        let target = if draw(5) == 0 { None } else { free.get(draw(free.len())).copied() };
        let history = histories.get(moved).context("one each")?;
        // From the moment the change is sent the new agent may answer; until it is answered the old one may.
        note(history, |history| history.push_back((target, None)));
        let route = target.and_then(|place| places.get(place)).map_or(Value::Null, |agent| agent.port().into());
        let patch: Map<String, Value> = [(format!("moving-{moved}"), route)].into_iter().collect();
        api.patch_routes(&json!({ "routes": patch })).await?.expect(StatusCode::OK)?;
        note(history, |history| {
            let now = Instant::now();
            for (_, ended) in history.iter_mut().rev().skip(1) {
                ended.get_or_insert(now);
            }
            while history.len() > 64 {
                history.pop_front();
            }
        });
        if let Some(place) = at.get_mut(moved) {
            *place = target;
        }
        changes += 1;
        let due = begun + Duration::from_secs(1) / per_second * u32::try_from(changes).unwrap_or(u32::MAX);
        tokio::time::sleep_until(due.into()).await;
    }
    Ok(changes)
}

fn note<T>(history: &History, write: impl FnOnce(&mut VecDeque<(Option<usize>, Option<Instant>)>) -> T) -> Option<T> {
    history.lock().ok().map(|mut history| write(&mut history))
}

/// Calls a stable, a moving and an unknown id in turn.
async fn call(url: String, client: usize, histories: Vec<History>, done: Arc<AtomicBool>, counts: Arc<Counts>) -> Result<()> {
    let http = reqwest::Client::builder().no_proxy();
    // Both protocols, and so several connections on both workers.
    let http = if client.is_multiple_of(2) { http.http2_prior_knowledge() } else { http.http1_only() }.build()?;
    let ask = async |id: &str| {
        let answer = http.get(&url).header(DEPLOYMENT_ID, id).send().await?;
        let status = answer.status().as_u16();
        let body: Value = answer.json().await?;
        anyhow::Ok((status, body.get("agent").and_then(Value::as_str).map(str::to_owned)))
    };
    let mut round = client;
    while !done.load(Ordering::SeqCst) {
        round += 1;
        let id = format!("stable-{}", round % STABLE);
        let answer = ask(&id).await?;
        ensure!(answer == (200, Some(id.clone())), "{id}: {answer:?}");
        counts.stable.fetch_add(1, Ordering::Relaxed);

        let number = round % MOVING;
        let history = histories.get(number).context("one each")?;
        let asked = Instant::now();
        let (status, agent) = ask(&format!("moving-{number}")).await?;
        let seen = match (status, &agent) {
            (404, None) => None,
            (200, Some(name)) => name.strip_prefix("place-").and_then(|place| place.parse().ok()),
            other => bail!("moving-{number}: {other:?}"),
        };
        let possible = note(history, |history| {
            history.iter().any(|(place, ended)| *place == seen && ended.is_none_or(|ended| ended >= asked))
        });
        ensure!(
            possible == Some(true),
            "moving-{number} was answered by {agent:?}, which had no route at any time of the call"
        );
        counts.moving.fetch_add(1, Ordering::Relaxed);

        let answer = ask(&format!("unknown-{round}")).await?;
        ensure!(answer == (404, None), "an unknown id: {answer:?}");
        counts.unknown.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Keeps one stream open all the time.
async fn talk(address: std::net::SocketAddr, done: Arc<AtomicBool>, counts: Arc<Counts>) -> Result<()> {
    let mut client = streams::connect(address).await?;
    let (send, receive) = mpsc::channel(1);
    let mut stream = client.chat(request_to("talker", ReceiverStream::new(receive))?).await?.into_inner();
    let mut number = 0;
    while !done.load(Ordering::SeqCst) {
        number += 1;
        send.send(Chunk { number, data: Vec::new() }).await?;
        let back = stream.message().await?.context("the stream ended")?;
        ensure!(back.number == number, "message {} came for {number}", back.number);
        counts.messages.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
