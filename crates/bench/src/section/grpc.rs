//! Unary gRPC calls: straight to the agent, through the filter, and through Envoy and a router in Python, which opens a channel for
//! each call.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::proto::{self, AgentServiceClient, Empty};
use serde_json::json;
use tonic::transport::Channel;

use crate::contender::{Stage, envoy};
use crate::python;
use crate::results::Figure;
use crate::summary::quantile;

/// The agent's id and name.
const AGENT: &str = "agent";
/// How long one client calls alone in one round.
const ALONE: Duration = Duration::from_millis(200);
/// How long all clients call.
const BUSY: Duration = Duration::from_millis(300);
/// Number of clients.
const CLIENTS: usize = 16;

/// One way to the agent, and its measurements.
struct Way {
    client: AgentServiceClient<Channel>,
    /// Median time of a call with one client, in milliseconds.
    latency: Vec<f64>,
    /// Calls per second of all clients.
    throughput: Vec<f64>,
}

pub(super) async fn measure(stage: &Stage<'_>, rounds: u32) -> Result<Vec<Figure>> {
    let agent = harness::agents::grpc::start(AGENT)?;
    let with = envoy::settings(stage).start().await?;
    with.routes().put_all([(AGENT, agent.port())]).await?;
    let (router, port) = python::start_router(&[(AGENT.to_owned(), agent.port())])?;
    let before_python = envoy::settings(stage)
        .data_filter("")
        .edit(HTTP2_CLUSTER, &(python_cluster(port) + HTTP2_CLUSTER))
        .edit(GRPC_ROUTE, PYTHON_ROUTE);
    let before_python = before_python.start().await?;
    for pid in [with.pid(), before_python.pid(), router.pid()] {
        stage.cores.give_proxy(pid)?;
    }
    let direct = SocketAddr::from((Ipv4Addr::LOCALHOST, agent.port()));
    let mut ways = Vec::new();
    for address in [direct, with.data_addr(), before_python.data_addr()] {
        let mut way = Way { client: proto::connect(address).await?, latency: Vec::new(), throughput: Vec::new() };
        way.round().await?;
        way.latency.clear();
        way.throughput.clear();
        ways.push(way);
    }
    for _ in 0..rounds {
        for way in &mut ways {
            way.round().await?;
        }
    }
    figures(ways)
}

fn figures(ways: Vec<Way>) -> Result<Vec<Figure>> {
    let Ok([direct, ours, python]) = <[Way; 3]>::try_from(ways) else { anyhow::bail!("there are three ways") };
    let added = |way: &Way| way.latency.iter().zip(&direct.latency).map(|(way, direct)| way - direct).collect::<Vec<_>>();
    let (by_ours, by_python) = (added(&ours), added(&python));
    // If a round through Envoy was not slower than straight to the agent, its ratio would mean nothing.
    let ratios = by_python.iter().zip(&by_ours).filter(|(_, ours)| **ours > 0.0).map(|(python, ours)| python / ours).collect();
    let figure = |what: &str, unit, values| Figure::median(what, unit, values).context("nothing was measured");
    Ok(vec![
        figure("Latency that the router in Python adds / that pixell-envoy adds (unary gRPC, one client)", "", ratios)?
            .at_least(4.0),
        figure("- straight to the agent", "ms", direct.latency)?,
        figure("- pixell-envoy", "ms", ours.latency)?,
        figure("- Envoy and the router in Python", "ms", python.latency)?,
        figure("Unary gRPC calls, 16 clients, straight to the agent", "calls/s", direct.throughput)?,
        figure("- pixell-envoy", "calls/s", ours.throughput)?,
        figure("- Envoy and the router in Python", "calls/s", python.throughput)?,
    ])
}

impl Way {
    async fn round(&mut self) -> Result<()> {
        let mut times = Vec::new();
        let started = Instant::now();
        while started.elapsed() < ALONE {
            let sent = Instant::now();
            call(&mut self.client).await?;
            times.push(sent.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        self.latency.push(quantile(&times, 0.5).context("no call was made")?);

        let started = Instant::now();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut client = self.client.clone();
                tokio::spawn(async move {
                    let mut calls = 0_u32;
                    while started.elapsed() < BUSY {
                        call(&mut client).await?;
                        calls += 1;
                    }
                    anyhow::Ok(calls)
                })
            })
            .collect();
        let mut calls = 0;
        for client in clients {
            calls += client.await??;
        }
        self.throughput.push(f64::from(calls) / started.elapsed().as_secs_f64());
        Ok(())
    }
}

async fn call(client: &mut AgentServiceClient<Channel>) -> Result<()> {
    let pong = client.ping(proto::request_to(AGENT, Empty {})?).await?.into_inner();
    ensure!(pong.message == AGENT, "expected a response of {AGENT}, got one of {}", pong.message);
    Ok(())
}

const HTTP2_CLUSTER: &str = "    - name: agents_http2\n";
const GRPC_ROUTE: &str = "                            cluster: agents_http2\n";
const PYTHON_ROUTE: &str = "                            cluster: python\n";

fn python_cluster(port: u16) -> String {
    let endpoint = json!({ "endpoint": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } } } });
    let cluster = json!({
        "name": "python",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": { "cluster_name": "python", "endpoints": [{ "lb_endpoints": [endpoint] }] },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        },
    });
    format!("    - {cluster}\n")
}
