//! An Envoy of two workers with a connection to each, so that every worker can be asked what it sees.

use anyhow::{Context, Result};
use harness::{Envoy, RouteApi};

use crate::agents;
use crate::connection::Connection;
use crate::contender::{Stage, envoy};
use crate::load;
use crate::table::Table;

/// How many workers: those of the shipped image on the task it is made for.
pub(super) const WORKERS: u32 = 2;

/// Such an Envoy and its map.
pub(super) struct Workers {
    pub envoy: Envoy,
    /// The data path, one connection a worker.
    pub data: Vec<Connection>,
    /// The route API, on whichever worker.
    pub api: Connection,
    pub table: Table,
    /// A running agent that no route leads to at first.
    pub spare: u16,
}

impl Workers {
    /// Starts Envoy with `routes` routes.
    pub(super) async fn start(stage: &Stage<'_>, routes: usize) -> Result<Self> {
        Self::with_workers(stage, routes, WORKERS).await
    }

    /// Starts Envoy with `routes` routes and `workers` workers.
    pub(super) async fn with_workers(stage: &Stage<'_>, routes: usize, workers: u32) -> Result<Self> {
        let (spare, agents) = stage.agents.split_last().context("the bench has no agents")?;
        let mut table = Table::new(routes, agents);
        // No other route may have the port of the spare agent; there, it would take part of the table away.
        table.routes.retain(|(_, port)| port != spare);
        let envoy = envoy::without_limits(envoy::settings(stage)).concurrency(workers).start().await?;
        envoy::push(&envoy, &table).await?;
        stage.cores.give_proxy(envoy.pid())?;
        let data = one_for_each(&envoy, workers).await?;
        let api = Connection::open(envoy.api_addr())?;
        let mut this = Self { envoy, data, api, table, spare: *spare };
        this.ask_all(0)?;
        Ok(this)
    }

    /// Sends a request for the asked id number `number` to every worker.
    pub(super) fn ask_all(&mut self, number: usize) -> Result<()> {
        let (id, port) = self.table.asked.get(number).context("the table has no such id")?.clone();
        self.expect_all(&id, port)
    }

    /// Sends a request for `id` to every worker at once and makes sure that the agent on `port` answers each.
    pub(super) fn expect_all(&mut self, id: &str, port: u16) -> Result<()> {
        let request = load::request(id, port);
        for connection in &mut self.data {
            connection.send(&request)?;
        }
        for connection in &mut self.data {
            let answer = connection.receive()?;
            let body = String::from_utf8_lossy(answer.body).into_owned();
            anyhow::ensure!(body == agents::body(port), "expected the agent on {port}, got {} {body}", answer.status());
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

/// Changes one route over `api`.
pub(super) fn write(api: &mut Connection, id: &str, port: u16) -> Result<()> {
    let body = format!("{{\"port\":{port}}}");
    let request = format!(
        "PUT /v1/routes/{id} HTTP/1.1\r\nhost: envoy\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = api.exchange(request.as_bytes())?;
    let said = String::from_utf8_lossy(answer.body).into_owned();
    anyhow::ensure!(matches!(answer.status(), 200 | 201), "the route API answers {}: {said}", answer.status());
    Ok(())
}

/// Asks for a path of the route API's port that Envoy refuses by itself: what any request there costs.
pub(super) fn refused(api: &mut Connection) -> Result<()> {
    let status = api.exchange(b"GET /nothing HTTP/1.1\r\nhost: envoy\r\n\r\n")?.status();
    anyhow::ensure!(status == 404, "Envoy answers {status}");
    Ok(())
}

/// Opens connections until each of `workers` workers has taken one: the kernel chooses who gets which.
async fn one_for_each(envoy: &Envoy, workers: u32) -> Result<Vec<Connection>> {
    const ATTEMPTS: usize = 200;
    let mut taken = envoy.stats().await?.worker_connections("agents")?;
    let mut found = std::collections::BTreeMap::new();
    for _ in 0..ATTEMPTS {
        let mut connection = Connection::open(envoy.data_addr())?;
        // An answer, here that there is no such route, shows that a worker has it. (Envoy ends the connection after a 400.)
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
