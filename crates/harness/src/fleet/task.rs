//! One task of a fleet: its Envoy, its agents, and what PAR would do for them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use http::{Method, StatusCode};
use launcher::settings::{FLEET_CIDRS, Settings};
use serde_json::{Value, json};

use super::ledger::Id;
use super::name;
use crate::fabric::{NETWORK, Namespace};
use crate::ports::{ADMIN, LISTEN};
use crate::{Agent, Envoy, EnvoyBuilder, RouteApi, wait};

/// The lowest port of agents. Each task has all ports for itself.
const FIRST_PORT: u16 = 21_000;
/// How long the requests of an agent may take to end.
const END: Duration = Duration::from_secs(30);

/// Whether an agent takes new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does.
    Active,
    /// It does not.
    Draining,
}

impl State {
    /// The state as the route API calls it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
        }
    }
}

/// Starts the Envoy of a task in a namespace, with these settings and all of the fleet's addresses as peers.
///
/// # Errors
/// If a setting is not valid, or as [`EnvoyBuilder::start`].
pub async fn start_envoy(
    namespace: &Namespace,
    mut settings: Vec<(&'static str, String)>,
    change: impl FnOnce(EnvoyBuilder) -> EnvoyBuilder,
) -> Result<Envoy> {
    // The first one counts.
    settings.push((FLEET_CIDRS, NETWORK.to_owned()));
    let find = |name: &str| settings.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    let settings = Settings::resolve(find).map_err(|errors| anyhow!("{errors:?}"))?;
    let builder = Envoy::builder().settings(&settings).bind(Ipv4Addr::UNSPECIFIED).data_port(LISTEN).api_port(ADMIN);
    let builder = change(builder);
    namespace.run(|| builder.start()).await?
}

/// A task. Its methods are steps that PAR takes.
#[derive(Debug)]
pub struct Task {
    /// Its number in the fabric.
    pub number: usize,
    /// Its Envoy.
    pub envoy: Envoy,
    par: Mutex<Par>,
    /// Held while its fleet map is written, so that an older one never follows a newer one.
    pub(super) fleet_map: tokio::sync::Mutex<()>,
}

/// What PAR remembers.
#[derive(Debug, Default)]
struct Par {
    /// The routes as Envoy has them, and the task's record.
    routes: BTreeMap<Id, (u16, State)>,
    agents: BTreeMap<Id, (u16, Agent)>,
    /// Ports that nobody uses any more, with the ids that had them.
    freed: Vec<(u16, Id)>,
    used: u16,
    /// Whether the record calls all ids draining, whatever the routes say.
    is_resigning: bool,
}

impl Task {
    /// A task without routes.
    #[must_use]
    pub fn new(number: usize, envoy: Envoy) -> Self {
        Self { number, envoy, par: Mutex::default(), fleet_map: tokio::sync::Mutex::default() }
    }

    fn par<T>(&self, use_it: impl FnOnce(&mut Par) -> T) -> T {
        use_it(&mut self.par.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// The ids of its record.
    #[must_use]
    pub fn record(&self) -> Vec<(Id, State)> {
        self.par(|par| {
            let state = |state| if par.is_resigning { State::Draining } else { state };
            par.routes.iter().map(|(id, (_, of_route))| (*id, state(*of_route))).collect()
        })
    }

    /// Publishes all ids as draining from now on.
    pub fn resign(&self) {
        self.par(|par| par.is_resigning = true);
    }

    /// A port for an agent of `id`: one that another id had, or if there is none or `fresh` is set, one that nobody had.
    pub fn allocate(&self, id: Id, fresh: bool) -> u16 {
        self.par(|par| {
            let another = par.freed.iter().rposition(|(_, owner)| *owner != id).filter(|_| !fresh);
            another.map_or_else(
                || {
                    par.used += 1;
                    FIRST_PORT + par.used
                },
                |at| par.freed.remove(at).0,
            )
        })
    }

    /// Sends one call to its route API, from inside the task.
    ///
    /// # Errors
    /// If the response is not one of success.
    pub async fn call(&self, namespace: &Namespace, method: Method, path: String, body: Option<Value>) -> Result<()> {
        let api = self.envoy.routes();
        let send = move || async move {
            let request = api.request(method, &path);
            RouteApi::send(if let Some(body) = &body { request.json(body) } else { request }).await
        };
        let response = namespace.run(send).await??;
        ensure!(response.status.is_success(), "task {}: {response}", self.number);
        Ok(())
    }

    /// Gives an id this port in this state.
    ///
    /// # Errors
    /// If the route API does not take it.
    pub async fn register(&self, namespace: &Namespace, id: Id, port: u16, state: State) -> Result<()> {
        let route = json!({ "port": port, "state": state.word() });
        self.call(namespace, Method::PUT, format!("/v1/routes/{}", name(id)), Some(route)).await?;
        self.par(|par| {
            // One port serves one id.
            par.routes.retain(|other, (taken, _)| *other == id || *taken != port);
            par.routes.insert(id, (port, state));
        });
        Ok(())
    }

    /// Keeps an id at its port `old`, and makes the port of the agent that is going to start its endpoint `next`.
    ///
    /// # Errors
    /// If the route API does not take it.
    pub async fn register_next(&self, namespace: &Namespace, id: Id, old: u16, next: u16) -> Result<()> {
        let route = json!({ "port": old, "endpoints": { "next": next } });
        self.call(namespace, Method::PUT, format!("/v1/routes/{}", name(id)), Some(route)).await
    }

    /// Lets an id take no new requests here.
    ///
    /// # Errors
    /// If it is not registered, or the route API does not take it.
    pub async fn drain(&self, namespace: &Namespace, id: Id) -> Result<()> {
        let port = self.port(id).with_context(|| format!("{id} is not registered"))?;
        self.register(namespace, id, port, State::Draining).await
    }

    /// Removes the route of an id.
    ///
    /// # Errors
    /// If the route API does not take it.
    pub async fn deregister(&self, namespace: &Namespace, id: Id) -> Result<()> {
        self.call(namespace, Method::DELETE, format!("/v1/routes/{}", name(id)), None).await?;
        self.par(|par| par.routes.remove(&id));
        Ok(())
    }

    /// The port that an id has.
    #[must_use]
    pub fn port(&self, id: Id) -> Option<u16> {
        self.par(|par| par.routes.get(&id).map(|(port, _)| *port))
    }

    /// Takes an agent that has been started on a port. The one that the id had before is returned.
    pub fn seat(&self, id: Id, port: u16, agent: Agent) -> Option<(u16, Agent)> {
        self.par(|par| par.agents.insert(id, (port, agent)))
    }

    /// Hands out the agent of an id, which is to end.
    #[must_use]
    pub fn unseat(&self, id: Id) -> Option<(u16, Agent)> {
        self.par(|par| par.agents.remove(&id))
    }

    /// Stops an agent, which ends what it has in flight first, and frees its port.
    ///
    /// # Errors
    /// If the agent failed.
    pub async fn stop(&self, id: Id, seated: Option<(u16, Agent)>) -> Result<()> {
        let (port, agent) = seated.with_context(|| format!("there is no agent of {id}"))?;
        agent.stop().await?;
        self.par(|par| par.freed.push((port, id)));
        Ok(())
    }

    /// Kills an agent, and returns its port.
    ///
    /// # Errors
    /// If there is none.
    pub fn kill(&self, id: Id) -> Result<u16> {
        let (port, agent) = self.unseat(id).with_context(|| format!("there is no agent of {id}"))?;
        agent.kill();
        Ok(port)
    }

    /// Waits until no request is at this port, or on its way there. Only if no route leads there.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn idle(&self, port: u16) -> Result<()> {
        let count = format!("::127.0.0.1:{port}::rq_active::");
        let mut looks = 0;
        let none = || {
            let text = self.envoy.admin("/clusters");
            let count = &count;
            async move {
                let text = text.await?;
                anyhow::Ok(text.lines().filter(|line| line.contains(count)).all(|line| line.ends_with("::0")))
            }
        };
        let deadline = std::time::Instant::now() + END;
        // A request that waits for a connection is not counted. The second look comes after that.
        while looks < 2 {
            looks = if none().await? { looks + 1 } else { 0 };
            ensure!(std::time::Instant::now() < deadline, "port {port} still has requests");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until load balancers would send requests here.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn ready(&self, namespace: &Namespace) -> Result<()> {
        let api = self.envoy.routes();
        let ready = move || async move {
            let look = || async {
                Ok(api.get("/ready/traffic").await.is_ok_and(|response| response.status == StatusCode::OK).then_some(()))
            };
            wait::until("the task to be ready", END, look).await
        };
        namespace.run(ready).await?
    }
}
