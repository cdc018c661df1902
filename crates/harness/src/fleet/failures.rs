//! A task that is killed or cut off, while clients call all agents through the other tasks: its ids are unavailable or served elsewhere within the
//! documented times, and all others are served as before.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::clients::{Client, Clients, Protocol, Wishes};
use super::draw::Draw;
use super::ledger::{Id, Outcome};
use super::{Fleet, Peers};

/// The task that fails.
const LOST: usize = 2;
/// An id that only it has.
const ALONE: Id = 5;
/// An id that task 0 has, too. Both other tasks prefer the one that fails, or task 0 itself.
const BOTH: Id = 6;
/// The ids that it does not have.
const OTHERS: [Id; 4] = [0, 1, 3, 4];
/// How many requests the task has in flight when it fails.
const HELD: usize = 4;
/// How long its agent would take for them, in milliseconds. The client's patience is shorter.
const NEVER: usize = 60_000;
/// Between two probes.
const PROBE: Duration = Duration::from_millis(50);
/// So many probes in a row with a final outcome mean that the failure is noticed.
const ENOUGH: usize = 20;
/// The longest that a probe may take from then on. On a machine that is not busy it is two attempts to connect, 0.5 s.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Within this time a task that comes back gets requests again.
const BACK: Duration = Duration::from_secs(10);
/// The longest that the whole may take.
const LIMIT: Duration = Duration::from_secs(25);

/// How a task fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// All its processes are killed.
    Killed,
    /// No packet comes or goes any more, and no task has a connection to it.
    CutWithout,
    /// The same, and the others have connections on which requests are sent all the time.
    CutBusy,
    /// The same, and nothing has been sent on these connections for a second.
    CutSilent,
}

impl Failure {
    /// Within this time it is noticed, as documented.
    #[must_use]
    pub const fn limit(self) -> Duration {
        match self {
            Self::Killed | Self::CutWithout => Duration::from_secs(2),
            Self::CutBusy | Self::CutSilent => Duration::from_secs(10),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Killed => "killed",
            Self::CutWithout => "cut off, no connection to it is open",
            Self::CutBusy => "cut off, connections to it are in use",
            Self::CutSilent => "cut off, connections to it are open and silent",
        })
    }
}

/// What clients saw of the ids of a task that failed.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How long after the failure the last client was told something else than the final outcome.
    pub noticed: Duration,
    /// The longest that a request took.
    pub longest: Duration,
    /// The longest that a request took that was sent after that.
    pub afterwards: Duration,
    /// What they were told.
    pub told: BTreeMap<String, usize>,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { noticed, longest, afterwards, told } = self;
        write!(f, "noticed after {noticed:.2?}, longest wait {longest:.2?}, {afterwards:.2?} from then on, {told:?}")
    }
}

/// The figures of a run.
#[derive(Clone, Debug)]
pub struct Figures {
    /// What failed.
    pub failure: Failure,
    /// Of an id that no other task has.
    pub alone: Seen,
    /// Of an id that another task has, too.
    pub both: Seen,
    /// How long after the failure the last client of a request in flight was told, if there were any. Each was told `agent_closed`.
    pub in_flight: Option<Duration>,
    /// How long after the end of the failure the last client was told something else than a response of its agent.
    pub back: Option<Duration>,
    /// Requests for ids that only other tasks have. None failed.
    pub others: usize,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { failure, alone, both, in_flight, back, others } = self;
        write!(f, "{failure}\n  its own id: {alone}\n  an id that another task has, too: {both}\n")?;
        if let Some(last) = in_flight {
            writeln!(f, "  {HELD} requests in flight: agent_closed after {last:.2?} at most")?;
        }
        if let Some(back) = back {
            writeln!(f, "  back {back:.2?} after the end of the cut")?;
        }
        write!(f, "  {others} requests for ids that only other tasks have without an error")
    }
}

/// Lets a task of three fail under load in each of these ways, one after another. It is whole again in between; one that was killed is not. The
/// tasks know each other by `peers`.
///
/// # Errors
/// If a request for an id of another task fails, a request gets to a wrong agent or is executed twice, the failure is noticed too late, or clients
/// are told something else than documented.
pub async fn run(failures: &[Failure], peers: Peers) -> Result<Vec<Figures>> {
    let mut fleet = Fleet::start(3, peers).await?;
    fleet.deploy_all(6).await?;
    for task in [0, LOST] {
        fleet.deploy(task, BOTH).await?;
    }
    fleet.announce(&mut Draw::new(1)).await?;
    let addresses = vec![fleet.data(0), fleet.data(1)];
    let wishes = Wishes { addresses, clients: 2, ids: OTHERS.to_vec(), pause: Duration::from_millis(10) };
    let clients = Clients::start(fleet.fabric.outside(), &fleet.ledger, wishes).await?;
    let mut all = Vec::new();
    for failure in failures {
        all.push(fail(&mut fleet, *failure).await?);
    }
    clients.stop().await?;
    for task in fleet.running() {
        peers.are_used(task).await?;
    }
    let (counts, failed) = (fleet.ledger.counts(), fleet.ledger.errors_of(&OTHERS));
    ensure!(counts.is_right() && failed == 0, "{failed} other ids failed, {counts}\n{}", counts.first.join("\n"));
    Ok(all)
}

async fn fail(fleet: &mut Fleet, failure: Failure) -> Result<Figures> {
    // Task 0 has the second id itself, so that is called through task 1 alone.
    let (through_both, through_one) = ([fleet.data(0), fleet.data(1)], [fleet.data(1)]);
    let served = fleet.ledger.served_of(&OTHERS);
    let mut held = None;
    match failure {
        Failure::CutWithout => {}
        Failure::CutSilent => {
            connect(fleet, &through_both).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Failure::Killed | Failure::CutBusy => {
            connect(fleet, &through_both).await?;
            held = Some(hold(fleet, &through_both).await?);
        }
    }
    let at = Instant::now();
    if failure == Failure::Killed {
        let lost = fleet.remove(LOST)?;
        tokio::task::spawn_blocking(move || drop(lost)).await?;
    } else {
        fleet.fabric.cut(LOST, true)?;
    }
    let (alone, both) = tokio::try_join!(
        watch(fleet, &through_both, ALONE, at, "peer_unreachable"),
        watch(fleet, &through_one, BOTH, at, "served"),
    )?;
    let in_flight = match held {
        Some(held) => Some(released(held, at).await?),
        None => None,
    };
    let mut back = None;
    if failure != Failure::Killed {
        fleet.fabric.cut(LOST, false)?;
        back = Some(watch(fleet, &through_both, ALONE, Instant::now(), "served").await?.noticed);
    }
    let others = fleet.ledger.served_of(&OTHERS) - served;
    let figures = Figures { failure, alone, both, in_flight, back, others };
    ensure!(back.is_none_or(|back| back <= BACK), "too late: {figures}");
    ensure!(in_flight.is_none_or(|last| last <= failure.limit()), "too late: {figures}");
    for seen in [&figures.alone, &figures.both] {
        ensure!(seen.noticed <= failure.limit() && seen.longest <= failure.limit(), "too late: {figures}");
        ensure!(seen.afterwards <= AT_ONCE, "not at once: {figures}");
        let known = ["served", "agent_closed", "peer_unreachable"];
        ensure!(seen.told.keys().all(|told| known.contains(&told.as_str())), "unexpected: {figures}");
    }
    Ok(figures)
}

/// Has each worker of these tasks open a connection to the one that is going to fail.
async fn connect(fleet: &Fleet, addresses: &[SocketAddr]) -> Result<()> {
    for address in addresses.iter().copied() {
        let ledger = Arc::clone(&fleet.ledger);
        let calls = move || async move {
            // Each client is on another worker than the one before.
            let mut clients = Vec::new();
            for _ in 0..4 {
                let client = Client::new(address, Protocol::Grpc, Arc::clone(&ledger))?;
                for id in [ALONE, BOTH] {
                    let outcome = client.send(id, 0, 0).await;
                    ensure!(matches!(outcome, Outcome::Served { .. }), "before the failure: {outcome:?}");
                }
                clients.push(client);
            }
            Ok(())
        };
        fleet.fabric.outside().run(calls).await??;
    }
    Ok(())
}

/// The ends of requests in flight: when they came, and what clients were told.
type Ends = tokio::sync::mpsc::UnboundedReceiver<(Instant, Outcome)>;

/// Sends requests that the agent does not respond to, and waits until it has them.
async fn hold(fleet: &Fleet, addresses: &[SocketAddr]) -> Result<Ends> {
    let (tell, ends) = tokio::sync::mpsc::unbounded_channel();
    let (ledger, addresses) = (Arc::clone(&fleet.ledger), addresses.to_vec());
    let send = move || async move {
        for (number, address) in addresses.iter().cycle().copied().take(HELD).enumerate() {
            let protocol = if number < HELD / 2 { Protocol::Http } else { Protocol::Grpc };
            let (client, tell) = (Client::new(address, protocol, Arc::clone(&ledger))?, tell.clone());
            tokio::task::spawn_local(async move {
                let outcome = client.send(ALONE, NEVER, 10).await;
                let _ = tell.send((Instant::now(), outcome));
            });
        }
        anyhow::Ok(())
    };
    fleet.fabric.outside().run(send).await??;
    let there = || async {
        let open = fleet.task(LOST)?.envoy.stat("cluster.agents_http1.upstream_rq_active").await?;
        let grpc = fleet.task(LOST)?.envoy.stat("cluster.agents_http2.upstream_rq_active").await?;
        Ok((open == Some(HELD as u64 / 2) && grpc == Some(HELD as u64 / 2)).then_some(()))
    };
    crate::wait::until("the requests to arrive", Duration::from_secs(10), there).await?;
    Ok(ends)
}

/// How long after `at` the last of them ended.
async fn released(mut ends: Ends, at: Instant) -> Result<Duration> {
    let mut last = Duration::ZERO;
    while let Some((ended, outcome)) = ends.recv().await {
        ensure!(outcome == Outcome::Failed("agent_closed".to_owned()), "a request in flight: {outcome:?}");
        last = last.max(ended.duration_since(at));
    }
    Ok(last)
}

/// One probe: when it was sent, how long it took, and what the client was told.
type Probe = (Duration, Duration, String);

/// Calls an id all the time, whether or not earlier calls have ended, until all clients are told the outcome `last`.
async fn watch(fleet: &Fleet, addresses: &[SocketAddr], id: Id, at: Instant, last: &'static str) -> Result<Seen> {
    let (ledger, addresses) = (Arc::clone(&fleet.ledger), addresses.to_vec());
    let call = move || async move {
        let probes: Arc<Mutex<Vec<Option<Probe>>>> = Arc::default();
        let all = |probes: &Mutex<Vec<Option<Probe>>>| probes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_final = |probe: &Option<Probe>| probe.as_ref().is_some_and(|(_, _, told)| told == last);
        loop {
            let seen = all(&probes);
            let settled = seen.iter().rposition(|probe| !is_final(probe)).map_or(0, |last| last + 1);
            // The last one may still be on its way.
            let is_over = seen.len() >= settled + ENOUGH;
            if is_over && seen.iter().all(Option::is_some) {
                let seen: Vec<Probe> = seen.into_iter().flatten().collect();
                let (before, after) = seen.split_at_checked(settled).context("settled is a place in it")?;
                let longest = |of: &[Probe]| of.iter().map(|(_, took, _)| *took).max().unwrap_or_default();
                let mut told = BTreeMap::new();
                for (_, _, word) in &seen {
                    *told.entry(word.clone()).or_default() += 1;
                }
                let noticed = before.iter().map(|(sent, took, _)| *sent + *took).max().unwrap_or_default();
                return Ok(Seen { noticed, longest: longest(&seen), afterwards: longest(after), told });
            }
            ensure!(at.elapsed() < LIMIT, "it is not noticed: {seen:?}");
            let number = seen.len();
            probes.lock().unwrap_or_else(PoisonError::into_inner).push(None);
            let address = addresses.get(number % addresses.len()).copied().context("an address")?;
            let protocol = if number % 3 == 0 { Protocol::Grpc } else { Protocol::Http };
            let (client, probes) = (Client::new(address, protocol, Arc::clone(&ledger))?, Arc::clone(&probes));
            tokio::task::spawn_local(async move {
                let (sent, since) = (at.elapsed(), Instant::now());
                let told = match client.send(id, 0, 10).await {
                    Outcome::Served { .. } => "served".to_owned(),
                    Outcome::Failed(code) => code,
                };
                if let Some(probe) = probes.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number) {
                    *probe = Some((sent, since.elapsed(), told));
                }
            });
            tokio::time::sleep(PROBE).await;
        }
    };
    fleet.fabric.outside().run(call).await?
}
