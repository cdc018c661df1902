//! The tasks of a fleet, and what takes the place of their directory: records become fleet maps, which reach the tasks at different times.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use http::Method;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::agent;
use super::draw::Draw;
use super::ledger::{Id, Ledger};
use super::name;
use super::task::{State, Task, start_envoy};
use crate::certificate;
use crate::fabric::{Fabric, Namespace};
use crate::ports::LISTEN;
use crate::{Agent, EnvoyBuilder};

/// The latest that a task learns of a change, in milliseconds. Tasks need not learn of it in any order.
const LATEST: usize = 200;

/// How the tasks of a fleet know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers {
    /// By their addresses alone.
    ByAddress,
    /// Also by certificates: hops are encrypted.
    ByCertificate,
}

impl Peers {
    /// Checks that this is how peers have reached a task.
    ///
    /// # Errors
    /// If it is not, or the task does not say.
    pub(super) async fn are_used(self, task: &Task) -> Result<()> {
        let stats = task.envoy.stats().await?;
        let requests = stats.get("wasmcustom.pixell_fleet_requests_total.hop.in").unwrap_or_default();
        let handshakes = stats.get("listener.peers.ssl.handshake").unwrap_or_default();
        let number = task.number;
        ensure!(requests > 0, "no request has come to task {number} from another one");
        ensure!((handshakes > 0) == (self == Self::ByCertificate), "{self:?}, but task {number} had {handshakes} handshakes");
        Ok(())
    }
}

/// A fleet.
pub struct Fleet {
    /// The network that its tasks are in.
    pub fabric: Fabric,
    /// The requests so far.
    pub ledger: Arc<Ledger>,
    /// The tasks that run, by their numbers in the fabric.
    tasks: Vec<Option<Arc<Task>>>,
    settings: Vec<(&'static str, String)>,
    change: Box<Change>,
    /// The files of certificates, if the tasks have any.
    _certificates: Option<TempDir>,
}

/// How Envoy is started otherwise than by default.
type Change = dyn Fn(EnvoyBuilder) -> EnvoyBuilder + Send + Sync;

impl Fleet {
    /// Starts so many tasks, without agents.
    ///
    /// # Errors
    /// If an Envoy does not start, this process may not make network namespaces, or the command openssl is missing.
    pub async fn start(tasks: u8, peers: Peers) -> Result<Self> {
        Self::with(tasks, peers, Vec::new(), |builder| builder).await
    }

    /// The same with further settings in each task, and with changes of how each Envoy is started.
    ///
    /// # Errors
    /// As [`Fleet::start`].
    pub async fn with(
        tasks: u8,
        peers: Peers,
        mut settings: Vec<(&'static str, String)>,
        change: impl Fn(EnvoyBuilder) -> EnvoyBuilder + Send + Sync + 'static,
    ) -> Result<Self> {
        let mut certificates = None;
        if peers == Peers::ByCertificate {
            let directory = tempfile::Builder::new().prefix("pixell-").tempdir()?;
            settings.extend(certificate::of_peers(directory.path())?);
            certificates = Some(directory);
        }
        let (fabric, ledger) = (Fabric::new(tasks)?, Arc::default());
        let change = Box::new(change);
        let mut fleet = Self { fabric, ledger, tasks: Vec::new(), settings, change, _certificates: certificates };
        let started = (0..usize::from(tasks)).map(|number| fleet.start_task(number));
        let started = try_join_all(started).await?;
        fleet.tasks = started.into_iter().map(Some).collect();
        Ok(fleet)
    }

    async fn start_task(&self, number: usize) -> Result<Arc<Task>> {
        let namespace = self.fabric.task(number)?;
        let envoy = start_envoy(namespace, self.settings.clone(), &self.change).await?;
        let task = Task::new(number, envoy);
        // A PAR that starts knows no agents.
        task.call(namespace, Method::PUT, "/v1/routes".to_owned(), Some(json!({ "routes": {} }))).await?;
        Ok(Arc::new(task))
    }

    /// Adds a task with an address of its own, and without maps. It is no peer before it has a record.
    ///
    /// # Errors
    /// As [`Fleet::start`].
    pub async fn add(&mut self) -> Result<usize> {
        let number = self.fabric.add()?;
        let task = self.start_task(number).await?;
        self.tasks.push(Some(task));
        Ok(number)
    }

    /// Starts an Envoy in a task that has none.
    ///
    /// # Errors
    /// As [`Fleet::start`].
    pub async fn restart(&mut self, number: usize) -> Result<()> {
        let task = self.start_task(number).await?;
        *self.tasks.get_mut(number).with_context(|| format!("there is no task {number}"))? = Some(task);
        Ok(())
    }

    /// Takes a task out of the fleet: its record is gone.
    ///
    /// # Errors
    /// If it does not run, or is in use.
    pub fn remove(&mut self, number: usize) -> Result<Task> {
        let task = self.tasks.get_mut(number).and_then(Option::take);
        let task = task.with_context(|| format!("there is no task {number}"))?;
        Arc::try_unwrap(task).map_err(|_| anyhow::anyhow!("task {number} is in use"))
    }

    /// A task that runs.
    ///
    /// # Errors
    /// If it does not run.
    pub fn task(&self, number: usize) -> Result<&Task> {
        self.tasks.get(number).and_then(Option::as_deref).with_context(|| format!("there is no task {number}"))
    }

    /// The tasks that run.
    pub fn running(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().filter_map(Option::as_deref)
    }

    /// The namespace of a task.
    ///
    /// # Errors
    /// If there is no such task.
    pub fn namespace(&self, number: usize) -> Result<&Namespace> {
        self.fabric.task(number)
    }

    /// Where clients reach a task.
    #[must_use]
    pub fn data(&self, number: usize) -> SocketAddr {
        (self.fabric.address(number), LISTEN).into()
    }

    /// Starts an agent.
    ///
    /// # Errors
    /// If its port is in use.
    pub async fn agent(&self, task: usize, id: Id, port: u16) -> Result<Agent> {
        let ledger = Arc::clone(&self.ledger);
        self.namespace(task)?.run(move || async move { agent::start(&ledger, id, task, port) }).await?
    }

    /// Deploys an id in a task, without telling the others.
    ///
    /// # Errors
    /// If the agent does not start, or its route is not taken.
    pub async fn deploy(&self, number: usize, id: Id) -> Result<()> {
        let (task, namespace) = (self.task(number)?, self.namespace(number)?);
        let port = task.allocate(id, true);
        task.register(namespace, id, port, State::Active).await?;
        task.seat(id, port, self.agent(number, id, port).await?);
        Ok(())
    }

    /// Deploys the ids 0 to `ids` in turn in the tasks that run, and tells all of them.
    ///
    /// # Errors
    /// As [`Fleet::deploy`].
    pub async fn deploy_all(&self, ids: usize) -> Result<()> {
        let numbers: Vec<_> = self.running().map(|task| task.number).collect();
        for (id, number) in (0..ids).zip(numbers.iter().cycle()) {
            self.deploy(*number, id).await?;
        }
        self.announce(&mut Draw::new(0)).await
    }

    /// Gives each task the fleet map that all records now make, each after a time of its own. Returns when all have it.
    ///
    /// # Errors
    /// If a task does not take it.
    pub async fn announce(&self, draw: &mut Draw) -> Result<()> {
        let tasks: Vec<_> = self.running().map(|task| (task, draw.below(LATEST) as u64)).collect();
        try_join_all(tasks.into_iter().map(|(task, delay)| async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            self.tell(task).await
        }))
        .await
        .map(drop)
    }

    /// Gives a task the fleet map that all records now make.
    ///
    /// # Errors
    /// If it does not take it.
    pub async fn tell(&self, task: &Task) -> Result<()> {
        let _in_turn = task.fleet_map.lock().await;
        let map = self.fleet_map(task.number);
        task.call(self.namespace(task.number)?, Method::PUT, "/v1/fleet".to_owned(), Some(map)).await
    }

    /// The fleet map of a task: for each id the other tasks in which it is active, else those in which it drains.
    fn fleet_map(&self, number: usize) -> Value {
        let records: Vec<_> =
            self.running().filter(|task| task.number != number).map(|task| (task.number, task.record())).collect();
        let peer = |number: usize| format!("task-{number}");
        let host = |number: usize| json!({ "host": self.fabric.address(number) });
        let peers: Map<_, _> = records.iter().map(|(number, _)| (peer(*number), host(*number))).collect();
        let mut routes = Map::new();
        let ids: std::collections::BTreeSet<Id> = records.iter().flat_map(|(_, ids)| ids.iter().map(|(id, _)| *id)).collect();
        for id in ids {
            let claims = |state: State| {
                let claim = move |(number, ids): &(usize, Vec<(Id, State)>)| ids.contains(&(id, state)).then_some(*number);
                records.iter().filter_map(claim).collect::<Vec<_>>()
            };
            let mut chosen =
                [State::Active, State::Draining].map(claims).into_iter().find(|of| !of.is_empty()).unwrap_or_default();
            // Any order that is the same in all tasks.
            chosen.sort_by_key(|number| (number + id) % 7);
            routes.insert(name(id), chosen.into_iter().map(peer).collect());
        }
        json!({ "peers": peers, "routes": routes })
    }
}
