//! Agents that die without notice, while clients call all of them through all tasks: another agent gets the port at once, and the dead one starts
//! in another task. Requests fail, but none gets to a wrong agent, and none is executed twice.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::clients::{Clients, Wishes};
use super::draw::Draw;
use super::ledger::{Counts, Id};
use super::moves::everywhere;
use super::task::State;
use super::{Fleet, Peers};

/// How many ids there are.
const IDS: usize = 12;
/// What clients may be told meanwhile.
const REJECTIONS: [&str; 4] = ["agent_closed", "agent_unreachable", "deployment_moved", "unknown_deployment"];

/// The figures of a run.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Agents that died.
    pub crashes: usize,
    /// What came of the requests.
    pub counts: Counts,
    /// How long it took.
    pub took: Duration,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { crashes, counts, took } = self;
        write!(f, "{crashes} agents killed, their ports taken by others, in {took:.1?}: {counts}")
    }
}

/// Kills so many agents of three tasks under load.
///
/// # Errors
/// If a request gets to a wrong agent, is executed twice or fails in another way than expected, or if a step fails.
pub async fn run(crashes: usize) -> Result<Figures> {
    let fleet = Fleet::start(3, Peers::ByAddress).await?;
    fleet.deploy_all(IDS).await?;
    let addresses: Vec<_> = fleet.running().map(|task| fleet.data(task.number)).collect();
    let (ids, pause) = ((0..IDS).collect(), Duration::from_millis(5));
    let wishes = Wishes { addresses: addresses.clone(), clients: 4, ids, pause };
    let started = Instant::now();
    let clients = Clients::start(fleet.fabric.outside(), &fleet.ledger, wishes).await?;
    let done = one_by_one(&fleet, crashes).await;
    clients.stop().await?;
    let (counts, took) = (fleet.ledger.counts(), started.elapsed());
    done?;
    let known = counts.failed.keys().all(|code| REJECTIONS.contains(&code.as_str()));
    ensure!(counts.is_right() && known, "{counts}\n{}", counts.first.join("\n"));
    everywhere(&fleet, &addresses, IDS).await?;
    Ok(Figures { crashes, counts, took })
}

async fn one_by_one(fleet: &Fleet, crashes: usize) -> Result<()> {
    let mut draw = Draw::new(7);
    let tasks = fleet.running().count();
    for _ in 0..crashes {
        // An agent dies, and another one of its task takes its port.
        let crowded = fleet.running().filter(|task| task.record().len() >= 2).collect::<Vec<_>>();
        let task = *crowded.get(draw.below(crowded.len())).context("more ids than tasks")?;
        let mut ids: Vec<Id> = task.record().into_iter().map(|(id, _)| id).collect();
        let (dead, heir) = (ids.swap_remove(draw.below(ids.len())), *ids.get(draw.below(ids.len())).context("two ids")?);
        let port = task.kill(dead)?;
        let namespace = fleet.namespace(task.number)?;
        // The route API takes it from the dead one, which was not deregistered.
        task.register(namespace, heir, port, State::Active).await?;
        if draw.below(2) == 0 {
            task.stop(heir, task.unseat(heir)).await?;
        } else {
            task.kill(heir)?;
        }
        task.seat(heir, port, fleet.agent(task.number, heir, port).await?);
        // The dead one starts elsewhere. The others learn of it sooner or later.
        let elsewhere = (task.number + 1 + draw.below(tasks - 1)) % tasks;
        let (other, namespace) = (fleet.task(elsewhere)?, fleet.namespace(elsewhere)?);
        let port = other.allocate(dead, false);
        other.register(namespace, dead, port, State::Active).await?;
        other.seat(dead, port, fleet.agent(elsewhere, dead, port).await?);
        fleet.announce(&mut draw).await?;
    }
    Ok(())
}
