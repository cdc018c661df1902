//! An Envoy with two workers and a connection to each, so that requests can be sent to every worker.

use anyhow::{Context, Result};
use harness::{Envoy, RouteApi};
use launcher::filter::Filter;

use crate::agents;
use crate::connection::Connection;
use crate::contender::{Stage, envoy};
use crate::load;
use crate::table::Table;

/// The number of workers: as many as the shipped image has on the task that it is made for.
pub(super) const WORKERS: u32 = 2;

/// Such an Envoy and its routes.
pub(super) struct Workers {
    pub envoy: Envoy,
    /// Connections of the data path, one to each worker.
    pub data: Vec<Connection>,
    /// A connection of the route API, to any worker.
    pub api: Connection,
    pub table: Table,
    /// The port of a running agent that has no route at first.
    pub spare: u16,
}

impl Workers {
    /// Starts Envoy with this form of the filter and `routes` routes.
    pub(super) async fn start(stage: &Stage<'_>, filter: Filter, routes: usize) -> Result<Self> {
        Self::with_workers(stage, filter, routes, WORKERS).await
    }

    /// Starts Envoy with this form of the filter, `routes` routes and `workers` workers.
    pub(super) async fn with_workers(stage: &Stage<'_>, filter: Filter, routes: usize, workers: u32) -> Result<Self> {
        let (spare, agents) = stage.agents.split_last().context("the bench has no agents")?;
        let mut table = Table::new(routes, agents);
        // A route with the spare agent's port would be displaced when another route gets that port.
        table.routes.retain(|(_, port)| port != spare);
        let envoy = envoy::without_limits(envoy::settings(stage).filter(filter)).concurrency(workers).start().await?;
        envoy::push(&envoy, &table).await?;
        stage.cores.give_proxy(envoy.pid())?;
        let data = one_for_each(&envoy, workers).await?;
        let api = Connection::open(envoy.api_addr())?;
        let mut this = Self { envoy, data, api, table, spare: *spare };
        let (id, port) = this.table.requested.first().context("the map is empty")?.clone();
        this.expect_all(&id, port)?;
        Ok(this)
    }

    /// Sends a request for `id` to every worker at once, and checks that each response comes from the agent on `port`.
    pub(super) fn expect_all(&mut self, id: &str, port: u16) -> Result<()> {
        let request = load::request(id, port);
        for connection in &mut self.data {
            connection.send(&request)?;
        }
        for connection in &mut self.data {
            let response = connection.receive()?;
            let body = String::from_utf8_lossy(response.body).into_owned();
            anyhow::ensure!(body == agents::body(port), "expected the agent on {port}, got {} {body}", response.status());
        }
        Ok(())
    }

    /// Changes one route by `PUT /v1/routes/{id}`.
    pub(super) fn write(&mut self, id: &str, port: u16) -> Result<()> {
        write(&mut self.api, id, port)
    }

    /// A client of the route API.
    pub(super) fn routes(&self) -> RouteApi {
        self.envoy.routes()
    }
}

/// Changes one route on the connection `api`.
pub(super) fn write(api: &mut Connection, id: &str, port: u16) -> Result<()> {
    let body = format!("{{\"port\":{port}}}");
    let request = format!(
        "PUT /v1/routes/{id} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let response = api.exchange(request.as_bytes())?;
    let body = String::from_utf8_lossy(response.body).into_owned();
    anyhow::ensure!(matches!(response.status(), 200 | 201), "the route API responded with {}: {body}", response.status());
    Ok(())
}

/// Sends a request on the route API's port that Envoy itself responds to with 404. It costs what any request there costs at least.
pub(super) fn not_found(api: &mut Connection) -> Result<()> {
    let status = api.exchange(b"GET /nothing HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")?.status();
    anyhow::ensure!(status == 404, "Envoy responded with {status}");
    Ok(())
}

/// Opens connections until each of `workers` workers has one: the kernel chooses the worker of a connection.
pub(super) async fn one_for_each(envoy: &Envoy, workers: u32) -> Result<Vec<Connection>> {
    one_for_each_by(envoy, workers, || Connection::open(envoy.data_addr())).await
}

/// As [`one_for_each`], with connections that `open` returns.
pub(super) async fn one_for_each_by(
    envoy: &Envoy,
    workers: u32,
    open: impl Fn() -> Result<Connection>,
) -> Result<Vec<Connection>> {
    const ATTEMPTS: usize = 200;
    let mut taken = envoy.stats().await?.worker_connections("agents")?;
    let mut found = std::collections::BTreeMap::new();
    for _ in 0..ATTEMPTS {
        let mut connection = open()?;
        // Once there is a response (here that the id is unknown), a worker has accepted the connection. A request without an id would not do,
        // because Envoy closes the connection after a 400.
        connection.exchange(&load::request("nobody", 0))?;
        let now = envoy.stats().await?.worker_connections("agents")?;
        if let Some((worker, _)) = now.iter().find(|(worker, count)| taken.get(worker) != Some(count)) {
            found.entry(*worker).or_insert(connection);
        }
        if found.len() as u64 == u64::from(workers) {
            return Ok(found.into_values().collect());
        }
        taken = now;
    }
    anyhow::bail!("after {ATTEMPTS} connections only {} of {workers} workers have one", found.len())
}
