//! Fleets under load, with counts: what `cargo xtask endurance` runs for longer.

use harness::fleet::failures::{self, Failure};
use harness::fleet::{Peers, crashes, moves, reuse, rolling};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_move_and_are_redeployed_without_an_error() {
    println!("{}", moves::run(moves::Size { moves: 20, redeploys: 10 }, Peers::ByAddress).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_certificates_agents_move_without_an_error() {
    println!("{}", moves::run(moves::Size { moves: 9, redeploys: 0 }, Peers::ByCertificate).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_die_lead_nobody_to_another() {
    println!("{}", crashes::run(12).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_tasks_are_replaced_without_an_error() {
    println!("{}", rolling::run(3, env!("CARGO_BIN_EXE_supervised").as_ref()).await.unwrap());
}

async fn failures_are_noticed_in_time(failures: &[Failure], peers: Peers) {
    for figures in failures::run(failures, peers).await.unwrap() {
        println!("{figures}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_cut_off_is_noticed_in_time() {
    failures_are_noticed_in_time(&[Failure::CutWithout, Failure::CutBusy], Peers::ByAddress).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_and_a_killed_task_are_noticed_in_time() {
    failures_are_noticed_in_time(&[Failure::CutSilent, Failure::Killed], Peers::ByAddress).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_certificates_a_task_that_is_cut_off_or_killed_is_noticed_in_time() {
    failures_are_noticed_in_time(&[Failure::CutBusy, Failure::Killed], Peers::ByCertificate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_of_a_task_that_is_gone_leads_to_no_wrong_agent() {
    println!("{}", reuse::run().await.unwrap());
}
