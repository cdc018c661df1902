//! Tasks of a fleet, each in a network namespace of its own, and clients between them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use harness::fabric::{Fabric, NETWORK};
use harness::{Envoy, RouteApi};
use http::{Method, StatusCode};
use launcher::filter::Filter;
use launcher::settings::Settings;

use crate::agents;
use crate::connection::Connection;
use crate::contender::{Stage, envoy};

const DATA_PORT: u16 = 50051;
const API_PORT: u16 = 9901;
const PEER_PORT: u16 = 50050;

/// Some tasks, of which the first ones have an Envoy.
pub struct Tasks {
    fabric: Fabric,
    /// Envoys on the proxy's core.
    pub envoys: Vec<Envoy>,
}

impl Tasks {
    /// Makes `all` namespaces, and starts an Envoy with so many workers and these settings in each of the first `with_envoy`.
    ///
    /// # Errors
    /// If this process may not make namespaces, iproute2 is missing, or an Envoy does not start.
    pub async fn start(
        stage: &Stage<'_>,
        filter: Filter,
        all: u8,
        with_envoy: usize,
        workers: u32,
        settings: &[(&'static str, String)],
    ) -> Result<Self> {
        let settings = resolved(&[&[("PIXELL_FLEET_CIDRS", NETWORK.to_owned())], settings].concat())?;
        let (fabric, mut envoys) = (Fabric::new(all)?, Vec::new());
        for task in 0..with_envoy {
            let builder = envoy::with_settings(stage, &settings).filter(filter).concurrency(workers);
            let builder = builder.bind(Ipv4Addr::UNSPECIFIED).data_port(DATA_PORT).api_port(API_PORT);
            let envoy = fabric.task(task)?.run(|| builder.start()).await??;
            stage.cores.give_proxy(envoy.pid())?;
            envoys.push(envoy);
        }
        Ok(Self { fabric, envoys })
    }

    /// The address of a task.
    #[must_use]
    pub fn address(&self, task: usize) -> Ipv4Addr {
        self.fabric.address(task)
    }

    /// A client's connection to a task's data path.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn connect(&self, task: usize) -> Result<Connection> {
        self.fabric.outside().enter(|| Connection::open((self.address(task), DATA_PORT).into()))
    }

    /// A connection to a task's route API, from inside the task.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn api(&self, task: usize) -> Result<Connection> {
        self.fabric.task(task)?.enter(|| Connection::open((Ipv4Addr::LOCALHOST, API_PORT).into()))
    }

    /// Replaces the route map (`/v1/routes`) or the fleet map (`/v1/fleet`) of a task.
    ///
    /// # Errors
    /// If the API does not respond with 200.
    pub async fn put(&self, task: usize, path: &'static str, body: String) -> Result<()> {
        let put = move || async move {
            let api = RouteApi::new(&format!("http://127.0.0.1:{API_PORT}"));
            let request = api.request(Method::PUT, path).header("content-type", "application/json").body(body);
            RouteApi::send(request).await?.expect(StatusCode::OK)
        };
        self.fabric.task(task)?.run(put).await??;
        Ok(())
    }

    /// Starts an agent in a task and returns its port.
    ///
    /// # Errors
    /// If no port is free.
    pub fn agent(&self, task: usize) -> Result<u16> {
        let ports = self.fabric.task(task)?.enter(|| agents::start(1))?;
        ports.first().copied().ok_or_else(|| anyhow!("no agent was started"))
    }

    /// Has a task without an Envoy respond to its peers with this text.
    ///
    /// # Errors
    /// If the port is taken.
    pub fn respond(&self, task: usize, text: String) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PEER_PORT));
        let listener = self.fabric.task(task)?.enter(|| Ok(TcpListener::bind(address)?))?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || runtime.block_on(serve(listener, text.into())));
        Ok(())
    }
}

/// The image's settings from these variables.
///
/// # Errors
/// If one is not allowed.
pub fn resolved(variables: &[(&str, String)]) -> Result<Settings> {
    let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    Settings::resolve(find).map_err(|errors| anyhow!("{errors:?}"))
}

/// Serves HTTP/2 until the program ends.
async fn serve(listener: TcpListener, text: Bytes) -> Option<()> {
    let listener = tokio::net::TcpListener::from_std(listener).ok()?;
    loop {
        let (stream, _) = listener.accept().await.ok()?;
        stream.set_nodelay(true).ok()?;
        let text = text.clone();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.ok()?;
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let response = http::Response::builder().header("content-length", text.len()).body(()).ok()?;
                respond.send_response(response, false).ok()?.send_data(text.clone(), true).ok()?;
            }
            Some(())
        });
    }
}
