//! An address that another task gets, while the other tasks still believe that the old one has it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::clients::{Client, Clients, Protocol, Wishes};
use super::draw::Draw;
use super::ledger::{Counts, Id, Outcome};
use super::{Fleet, Peers};

/// The task whose address is reused.
const REUSED: usize = 2;
/// The ids of the old task, those of the new one, and those of the other tasks. The new agents get the ports of the old ones.
const OLD: [Id; 2] = [2, 5];
const NEW: [Id; 2] = [6, 7];
const OTHERS: [Id; 4] = [0, 1, 3, 4];
/// What clients may be told of the old ids from one end to the other: the connection broke, the address is not there, it is another task.
const REJECTIONS: [&str; 3] = ["agent_closed", "peer_unreachable", "deployment_moved"];

/// The figures of a run.
#[derive(Clone, Debug)]
pub struct Figures {
    /// What came of the requests.
    pub counts: Counts,
    /// Requests for the old ids that reached the new task by an old fleet map.
    pub misdirected: u64,
    /// How long it took.
    pub took: Duration,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { counts, misdirected, took } = self;
        write!(f, "an address reused, {took:.1?}: {counts}; {misdirected} requests reached the new task by an old fleet map")
    }
}

/// Lets the address of a task of three be reused under load.
///
/// # Errors
/// If a request gets to a wrong agent or is executed twice, a request for an id of another task fails, clients of the old ids are told something
/// else than documented, or the new ids are not served once the others know of them.
pub async fn run() -> Result<Figures> {
    let mut fleet = Fleet::start(3, Peers::ByAddress).await?;
    fleet.deploy_all(6).await?;
    let addresses = vec![fleet.data(0), fleet.data(1)];
    let (pause, ids) = (Duration::from_millis(5), OTHERS.into_iter().chain(OLD).collect());
    let wishes = Wishes { addresses: addresses.clone(), clients: 4, ids, pause };
    let started = Instant::now();
    let clients = Clients::start(fleet.fabric.outside(), &fleet.ledger, wishes).await?;
    let lost = fleet.remove(REUSED)?;
    let ports: Vec<_> = OLD.iter().map(|id| lost.port(*id)).collect();
    tokio::task::spawn_blocking(move || drop(lost)).await?;
    fleet.fabric.replace(REUSED)?;
    fleet.restart(REUSED).await?;
    for id in NEW {
        fleet.deploy(REUSED, id).await?;
    }
    let (task, namespace) = (fleet.task(REUSED)?, fleet.namespace(REUSED)?);
    ensure!(ports == NEW.iter().map(|id| task.port(*id)).collect::<Vec<_>>(), "the new agents have the ports of the old ones");
    // The other tasks are told nothing yet. A peer that could not be reached is left out for 2 s.
    let stats = "wasmcustom.pixell_fleet_misdirected_total.hop.in";
    let arrive = || async { Ok(task.envoy.stat(stats).await?.filter(|count| *count >= 40)) };
    crate::wait::until("requests for the old ids", Duration::from_secs(15), arrive).await?;
    clients.stop().await?;
    let counts = fleet.ledger.counts();
    let known = counts.failed.keys().all(|code| REJECTIONS.contains(&code.as_str()));
    let failed = fleet.ledger.errors_of(&OTHERS);
    ensure!(counts.is_right() && known && failed == 0, "{failed} others failed; {counts}\n{}", counts.first.join("\n"));
    let misdirected = task.envoy.stat(stats).await?.unwrap_or_default();
    for address in addresses.iter().copied() {
        is_rejected(&fleet, address).await?;
    }
    fleet.tell(task).await?;
    ensure!(task.ready(namespace).await.is_ok(), "the new task is not ready");
    fleet.announce(&mut Draw::new(3)).await?;
    let ledger = std::sync::Arc::clone(&fleet.ledger);
    let serve = move || async move {
        for address in addresses {
            for id in NEW {
                let outcome = Client::new(address, Protocol::Grpc, std::sync::Arc::clone(&ledger))?.send(id, 0, 0).await;
                ensure!(outcome == Outcome::Served { id, task: REUSED }, "{id} through {address}: {outcome:?}");
            }
        }
        Ok(())
    };
    fleet.fabric.outside().run(serve).await??;
    let counts = fleet.ledger.counts();
    ensure!(counts.is_right(), "{counts}\n{}", counts.first.join("\n"));
    Ok(Figures { counts, misdirected, took: started.elapsed() })
}

/// The old ids are not there: the documented rejection, from each worker. One that had no connection in time may leave the task out for 2 s.
async fn is_rejected(fleet: &Fleet, address: std::net::SocketAddr) -> Result<()> {
    let ledger = std::sync::Arc::clone(&fleet.ledger);
    let calls = move || async move {
        let deadline = Instant::now() + Duration::from_secs(15);
        for _ in 0..4 {
            for (protocol, id) in [(Protocol::Http, OLD[0]), (Protocol::Grpc, OLD[1])] {
                let client = Client::new(address, protocol, std::sync::Arc::clone(&ledger))?;
                let mut outcome = client.send(id, 0, 10).await;
                while outcome == Outcome::Failed("peer_unreachable".to_owned()) && Instant::now() < deadline {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    outcome = client.send(id, 0, 10).await;
                }
                ensure!(outcome == Outcome::Failed("deployment_moved".to_owned()), "{id} through {address}: {outcome:?}");
            }
        }
        Ok(())
    };
    fleet.fabric.outside().run(calls).await?
}
