//! Agents that move from task to task and are redeployed, in the orders that `docs/fleet.md` gives, while clients call all of them
//! through all tasks.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use futures_util::future::{try_join, try_join_all};

use super::clients::{Client, Clients, Protocol, Wishes};
use super::draw::Draw;
use super::ledger::{Counts, Id, Outcome};
use super::task::State;
use super::{Fleet, Peers};

/// How many ids there are. Each moves and is redeployed again and again, at the same time as the others.
const IDS: usize = 18;
/// The time that the documented order of a move leaves the other tasks to learn of it. An id also rests so long after a redeploy: requests that
/// wait for its new port would be rejected with `deployment_moved` if it had another one before they reach it.
const KNOWN: Duration = Duration::from_secs(2);
/// Clients of each task and protocol.
const CLIENTS: usize = 3;
/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(10);

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Agents that move to another task.
    pub moves: usize,
    /// Agents that are started again on another port.
    pub redeploys: usize,
}

/// The figures of a run.
#[derive(Clone, Debug)]
pub struct Figures {
    /// What was done.
    pub size: Size,
    /// What came of the requests.
    pub counts: Counts,
    /// Requests that went to another task.
    pub hops: u64,
    /// Hops to a task that did not have the agent any more.
    pub misdirected: u64,
    /// How long it took.
    pub took: Duration,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { size: Size { moves, redeploys }, counts, hops, misdirected, took } = self;
        write!(
            f,
            "{moves} moves and {redeploys} redeploys in {took:.1?}: {counts}; {hops} hops, {misdirected} by an old fleet map"
        )
    }
}

/// Moves and redeploys agents of three tasks that know each other so, under load.
///
/// # Errors
/// If a request gets to a wrong agent, is executed twice or fails, or if a step fails.
pub async fn run(size: Size, peers: Peers) -> Result<Figures> {
    let fleet = Fleet::start(3, peers).await?;
    fleet.deploy_all(IDS).await?;
    let addresses: Vec<_> = fleet.running().map(|task| fleet.data(task.number)).collect();
    let wishes = Wishes { addresses: addresses.clone(), clients: CLIENTS, ids: (0..IDS).collect(), pause: PAUSE };
    let started = Instant::now();
    let clients = Clients::start(fleet.fabric.outside(), &fleet.ledger, wishes).await?;
    let done = try_join_all((0..IDS).map(|id| {
        let share = |all: usize, id: usize| (all + IDS - 1 - id) / IDS;
        // Those with a move less have a redeploy more.
        in_turn(&fleet, id, Size { moves: share(size.moves, id), redeploys: share(size.redeploys, IDS - 1 - id) })
    }));
    let done = done.await;
    clients.stop().await?;
    let (counts, took) = (fleet.ledger.counts(), started.elapsed());
    done?;
    ensure!(counts.is_right() && counts.errors() == 0, "{counts}\n{}", counts.first.join("\n"));
    everywhere(&fleet, &addresses, IDS).await?;
    let (mut hops, mut misdirected) = (0, 0);
    for task in fleet.running() {
        let stats = task.envoy.stats().await?;
        ensure!(stats.crashes()? == 0, "a filter of task {} crashed", task.number);
        let count = |name: &str| stats.get(&format!("wasmcustom.pixell_fleet_{name}_total.hop.out")).unwrap_or_default();
        hops += count("requests");
        misdirected += count("misdirected");
        peers.are_used(task).await?;
    }
    Ok(Figures { size, counts, hops, misdirected, took })
}

/// Calls each id once through each of these addresses, with each protocol.
///
/// # Errors
/// If one does not respond.
pub(super) async fn everywhere(fleet: &Fleet, addresses: &[std::net::SocketAddr], ids: usize) -> Result<()> {
    for address in addresses.iter().copied() {
        let ledger = std::sync::Arc::clone(&fleet.ledger);
        let calls = move || async move {
            for protocol in [Protocol::Http, Protocol::Grpc] {
                let client = Client::new(address, protocol, std::sync::Arc::clone(&ledger))?;
                for id in 0..ids {
                    let outcome = client.send(id, 0, 10).await;
                    if !matches!(outcome, Outcome::Served { id: by, .. } if by == id) {
                        bail!("id {id} through {address}: {outcome:?}");
                    }
                }
            }
            Ok(())
        };
        fleet.fabric.outside().run(calls).await??;
    }
    Ok(())
}

/// Moves and redeploys an id, in a random order.
async fn in_turn(fleet: &Fleet, id: Id, size: Size) -> Result<()> {
    let mut draw = Draw::new(id as u64 + 100);
    let tasks = fleet.running().count();
    let mut task = id % tasks;
    let Size { mut moves, mut redeploys } = size;
    while moves + redeploys > 0 {
        if draw.below(moves + redeploys) < moves {
            let to = (task + 1 + draw.below(tasks - 1)) % tasks;
            move_agent(fleet, &mut draw, id, (task, to)).await?;
            task = to;
            moves -= 1;
        } else {
            redeploy(fleet, &mut draw, id, task).await?;
            tokio::time::sleep(KNOWN).await;
            redeploys -= 1;
        }
    }
    Ok(())
}

/// A planned move, in the order that `docs/fleet.md` gives.
///
/// # Errors
/// If a step fails.
pub(super) async fn move_agent(fleet: &Fleet, draw: &mut Draw, id: Id, (from, to): (usize, usize)) -> Result<()> {
    let (old, new) = (fleet.task(from)?, fleet.task(to)?);
    let (there, here) = (fleet.namespace(from)?, fleet.namespace(to)?);
    // 1. The agent has its port, and no request comes while it starts.
    let port = new.allocate(id, draw.below(2) == 0);
    new.register(here, id, port, State::Draining).await?;
    fleet.announce(draw).await?;
    new.seat(id, port, fleet.agent(to, id, port).await?);
    // 2. Both tasks take requests.
    new.register(here, id, port, State::Active).await?;
    let known = tokio::time::sleep(KNOWN);
    fleet.announce(draw).await?;
    known.await;
    // 3. The old task sends new requests to the new one, and the others learn of it sooner or later.
    let Some(freed) = old.port(id) else { bail!("{id} is not in task {from}") };
    old.drain(there, id).await?;
    // 4. The old agent ends once its requests have.
    let end = async {
        old.idle(freed).await?;
        old.deregister(there, id).await?;
        old.stop(id, old.unseat(id)).await
    };
    try_join(fleet.announce(draw), end).await?;
    fleet.announce(draw).await
}

/// A redeploy, in the order that `docs/fleet.md` gives.
async fn redeploy(fleet: &Fleet, draw: &mut Draw, id: Id, number: usize) -> Result<()> {
    let (task, namespace) = (fleet.task(number)?, fleet.namespace(number)?);
    let Some(freed) = task.port(id) else { bail!("{id} is not in task {number}") };
    let port = task.allocate(id, draw.below(2) == 0);
    // 1. The old agent serves the id. The port of the new one is an endpoint of it, and so of nobody else.
    task.register_next(namespace, id, freed, port).await?;
    // 2. The new agent starts.
    let old = task.seat(id, port, fleet.agent(number, id, port).await?);
    // 3. It gets new requests.
    task.register(namespace, id, port, State::Active).await?;
    // 4. The old agent ends once its requests have.
    task.idle(freed).await?;
    task.stop(id, old).await
}
