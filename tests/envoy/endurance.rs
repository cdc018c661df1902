//! Short runs of what `cargo xtask endurance` runs for longer.

use std::time::Duration;

use harness::Envoy;
use harness::endurance::{changes, growth, memory, rates};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_right_while_the_map_changes() {
    let envoy = Envoy::builder().start().await.unwrap();
    let figures = changes::run(&envoy, Duration::from_secs(5), 100).await.unwrap();
    println!("{figures}");
    assert!(figures.stable > 0 && figures.moving > 0 && figures.unknown > 0 && figures.messages > 0, "{figures}");
    assert_eq!(envoy.stats().await.unwrap().crashes().unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_added_one_by_one_stay() {
    let envoy = Envoy::builder().start().await.unwrap();
    let figures = growth::run(&envoy, 300).await.unwrap();
    println!("{figures}");
    assert!(figures.requests > 0);
}

#[tokio::test]
async fn ids_that_come_and_go_leave_nothing_behind() {
    let envoy = Envoy::builder().start().await.unwrap();
    let figures = memory::run(&envoy, 50_000, 20_000).await.unwrap();
    println!("{figures}");
    assert!(figures.grown_mib() < 32, "{figures}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_with_a_rate_take_no_more_memory_than_there_are_buckets() {
    let directory = tempfile::tempdir().unwrap();
    let (issuer, settings) = rates::settings(directory.path()).unwrap();
    let envoy = settings.start().await.unwrap();
    let figures = rates::run(&envoy, &issuer, 50_000).await.unwrap();
    println!("{figures}");
    // docs/authentication.md says about 600 bytes. The 25,000 clients after the first ones would take 15 MiB if they had buckets of their own.
    assert!((300..1_000).contains(&figures.bucket_bytes()), "{figures}");
    assert!(figures.grown_mib() < 4, "{figures}");
    assert_eq!(figures.rejected, 500);
    assert_eq!(envoy.stats().await.unwrap().crashes().unwrap(), 0);
}
