//! A route map that changes many times a second while it is in use: no wrong agent responds, no stable id fails, no stream breaks.

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

/// Ids whose routes change.
const MOVING: usize = 8;
/// Agents for them: more than ids, so that there is always a free one to move to.
const PLACES: usize = 12;
/// Ids whose routes never change.
const STABLE: usize = 3;
/// Streams that stay open all the time.
const STREAMS: usize = 4;

/// The figures of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Changes of the map, all with status 200.
    pub changes: u64,
    /// Requests to stable ids. Each had a response of the right agent.
    pub stable: u64,
    /// Requests to moving ids. Each had a response that fits the map at some moment of the request.
    pub moving: u64,
    /// Requests to unknown ids, all with status 404.
    pub unknown: u64,
    /// Messages on streams that stayed open all the time. All came back.
    pub messages: u64,
    /// How long it took.
    pub took: Duration,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { changes, stable, moving, unknown, messages, took } = self;
        write!(
            f,
            "{changes} changes in {took:.1?}; requests: {stable} stable, {moving} moving, {unknown} unknown; \
             {messages} messages on {STREAMS} streams: no wrong response, no error, no broken stream"
        )
    }
}

/// The present and recent routes of a moving id: the agent (`None`: no route), and when the response to the change that replaced it came.
type History = Arc<Mutex<VecDeque<(Option<usize>, Option<Instant>)>>>;

#[derive(Default)]
struct Counts {
    stable: AtomicU64,
    moving: AtomicU64,
    unknown: AtomicU64,
    messages: AtomicU64,
}

/// Changes the map `per_second` times a second for `duration`, and sends requests all the time.
///
/// # Errors
/// If a response is wrong, a stream breaks or a change fails, or if the machine is too slow for half of the changes.
pub async fn run(envoy: &Envoy, duration: Duration, per_second: u32) -> Result<Figures> {
    let stable = (0..STABLE).map(|n| agents::echo::start(&format!("stable-{n}"))).collect::<Result<Vec<_>>>()?;
    let places = (0..PLACES).map(|n| agents::echo::start(&format!("place-{n}"))).collect::<Result<Vec<_>>>()?;
    let (talker, _) = streams::start("talker")?;
    let all = stable.iter().chain([&talker]).map(|agent| (agent.name(), agent.port()));
    envoy.routes().put_all(all).await?;

    let (done, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
    let histories: Vec<History> = (0..MOVING).map(|_| Arc::new(Mutex::new(VecDeque::from([(None, None)])))).collect();
    let mut clients = Vec::new();
    for _ in 0..STREAMS {
        clients.push(tokio::spawn(talk(envoy.data_addr(), done.clone(), counts.clone())));
    }
    for number in 0..3 {
        let (url, done, counts) = (envoy.data_url(), done.clone(), counts.clone());
        clients.push(tokio::spawn(call(url, number, histories.clone(), done, counts)));
    }
    let begun = Instant::now();
    let changes = change(&envoy.routes(), &places, &histories, (begun, duration, per_second)).await;
    done.store(true, Ordering::SeqCst);
    for client in clients {
        client.await??;
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

/// With each change, moves one id to a free agent, or removes its route.
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
        let history = histories.get(moved).context("every moving id has a history")?;
        // Once the change is sent, the new agent may respond. Until the response to the change is here, the old one may, too.
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
    // Both protocols, so that there are several connections on both workers.
    let http = if client.is_multiple_of(2) { http.http2_prior_knowledge() } else { http.http1_only() }.build()?;
    let get = async |id: &str| {
        let response = http.get(&url).header(DEPLOYMENT_ID, id).send().await?;
        let status = response.status().as_u16();
        let body: Value = response.json().await?;
        anyhow::Ok((status, body.get("agent").and_then(Value::as_str).map(str::to_owned)))
    };
    let mut round = client;
    while !done.load(Ordering::SeqCst) {
        round += 1;
        let id = format!("stable-{}", round % STABLE);
        let response = get(&id).await?;
        ensure!(response == (200, Some(id.clone())), "{id}: {response:?}");
        counts.stable.fetch_add(1, Ordering::Relaxed);

        let number = round % MOVING;
        let history = histories.get(number).context("every moving id has a history")?;
        let sent = Instant::now();
        let (status, agent) = get(&format!("moving-{number}")).await?;
        let seen = match (status, &agent) {
            (404, None) => None,
            (200, Some(name)) => name.strip_prefix("place-").and_then(|place| place.parse().ok()),
            other => bail!("moving-{number}: {other:?}"),
        };
        let possible = note(history, |history| {
            history.iter().any(|(place, ended)| *place == seen && ended.is_none_or(|ended| ended >= sent))
        });
        ensure!(
            possible == Some(true),
            "moving-{number}: the response came from {agent:?}, which had no route at any time of the request"
        );
        counts.moving.fetch_add(1, Ordering::Relaxed);

        let response = get(&format!("unknown-{round}")).await?;
        ensure!(response == (404, None), "an unknown id: {response:?}");
        counts.unknown.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Keeps one stream open all the time and exchanges messages on it.
async fn talk(address: std::net::SocketAddr, done: Arc<AtomicBool>, counts: Arc<Counts>) -> Result<()> {
    let mut client = streams::connect(address).await?;
    let (send, receive) = mpsc::channel(1);
    let mut stream = client.chat(request_to("talker", ReceiverStream::new(receive))?).await?.into_inner();
    let mut number = 0;
    while !done.load(Ordering::SeqCst) {
        number += 1;
        send.send(Chunk { number, data: Vec::new() }).await?;
        let back = stream.message().await?.context("the stream ended")?;
        ensure!(back.number == number, "expected message {number}, got {}", back.number);
        counts.messages.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
