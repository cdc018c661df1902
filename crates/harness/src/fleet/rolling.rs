//! A rolling deployment: each task of a fleet is replaced by a new one, in the documented order, while clients call all agents through a load
//! balancer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;

use super::balancer::Balancer;
use super::clients::{Clients, Wishes};
use super::draw::Draw;
use super::ledger::{Counts, Id};
use super::moves::everywhere;
use super::task::State;
use super::{Fleet, Peers};
use crate::wait;

/// How many ids there are.
const IDS: usize = 9;
/// The age at which Envoy asks a connection to leave, in seconds.
const AGE: &str = "1";
/// The longest that clients may take to leave a task that the load balancer has taken out: the deregistration delay.
const LEFT: Duration = Duration::from_secs(30);

/// The figures of a run.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Tasks that were replaced.
    pub tasks: usize,
    /// What came of the requests.
    pub counts: Counts,
    /// How long it took.
    pub took: Duration,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tasks, counts, took } = self;
        write!(f, "{tasks} tasks replaced in {took:.1?}: {counts}")
    }
}

/// Replaces all of so many tasks under load. `entry_point` starts each Envoy, see [`crate::EnvoyBuilder::supervised`].
///
/// # Errors
/// If a request gets to a wrong agent, is executed twice or fails, or if a step fails.
pub async fn run(tasks: u8, entry_point: &Path) -> Result<Figures> {
    let entry_point: PathBuf = entry_point.to_owned();
    let settings = vec![("PIXELL_MAX_CONNECTION_SECONDS", AGE.to_owned())];
    let mut fleet = Fleet::with(tasks, Peers::ByAddress, settings, move |builder| builder.supervised(&entry_point)).await?;
    fleet.deploy_all(IDS).await?;
    let tasks = usize::from(tasks);
    let servers = (0..2 * tasks).map(|number| fleet.fabric.address(number));
    let balancer = Balancer::start(fleet.fabric.outside(), servers).await?;
    // To HAProxy each server is up until its first check.
    try_join_all((0..2 * tasks).map(|number| balancer.becomes(number, number < tasks))).await?;
    let wishes =
        Wishes { addresses: vec![balancer.address], clients: 6, ids: (0..IDS).collect(), pause: Duration::from_millis(5) };
    let started = Instant::now();
    let clients = Clients::start(fleet.fabric.outside(), &fleet.ledger, wishes).await?;
    let mut done = Ok(());
    for old in 0..tasks {
        done = replace(&mut fleet, &balancer, old).await.with_context(|| format!("replacing task {old}"));
        if done.is_err() {
            break;
        }
    }
    clients.stop().await?;
    let (counts, took) = (fleet.ledger.counts(), started.elapsed());
    ensure!(counts.is_right() && counts.errors() == 0, "{counts}\n{}\n{done:?}", counts.first.join("\n"));
    done?;
    let addresses: Vec<_> = fleet.running().map(|task| fleet.data(task.number)).collect();
    everywhere(&fleet, &addresses, IDS).await?;
    Ok(Figures { tasks, counts, took })
}

/// Starts a new task with the agents of an old one, and ends that.
async fn replace(fleet: &mut Fleet, balancer: &Balancer, old: usize) -> Result<()> {
    let mut draw = Draw::new(old as u64);
    let ids: Vec<Id> = fleet.task(old)?.record().into_iter().map(|(id, _)| id).collect();
    let new = fleet.add().await?;
    for id in ids.iter().copied() {
        let (task, here) = (fleet.task(new)?, fleet.namespace(new)?);
        let port = task.allocate(id, true);
        task.register(here, id, port, State::Draining).await?;
        task.seat(id, port, fleet.agent(new, id, port).await?);
        task.register(here, id, port, State::Active).await?;
    }
    fleet.announce(&mut draw).await?;
    balancer.becomes(new, true).await?;
    // What ECS does before it sends SIGTERM.
    balancer.deregister(old).await?;
    let there = fleet.namespace(old)?;
    {
        let task = fleet.task(old)?;
        let left = || async { Ok((task.envoy.stat("http.agents.downstream_cx_active").await? == Some(0)).then_some(())) };
        wait::until("the clients to leave", LEFT, left).await?;
        // `fleet.drain()`: the record first, and when the others know it, the routes.
        task.resign();
        fleet.announce(&mut draw).await?;
        for id in ids.iter().copied() {
            task.drain(there, id).await?;
        }
        for id in ids.iter().copied() {
            task.idle(task.port(id).context("a port")?).await?;
            task.stop(id, task.unseat(id)).await?;
        }
    }
    // `fleet.close()`, and the end of PAR, after which Envoy gets SIGTERM.
    let mut task = fleet.remove(old)?;
    fleet.announce(&mut draw).await?;
    let status = task.envoy.sigterm().await?;
    ensure!(status.success(), "Envoy ended with {status}");
    Ok(())
}
