//! The network that the tasks of these tests are in.

use std::net::Ipv4Addr;
use std::time::Duration;

use harness::fabric::{Fabric, Namespace};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Whether a connection from one namespace to a task's port is served.
async fn reaches(from: &Namespace, to: Ipv4Addr) -> bool {
    let call = async move || {
        let mut stream = TcpStream::connect((to, 7)).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        std::io::Result::Ok(text)
    };
    let call = from.run(move || async move { tokio::time::timeout(Duration::from_secs(1), call()).await });
    matches!(call.await.unwrap(), Ok(Ok(text)) if text == "hello")
}

#[tokio::test]
async fn tasks_reach_each_other_until_one_is_cut_off() {
    let fabric = Fabric::new(2).unwrap();
    let (one, two) = (fabric.task(0).unwrap(), fabric.task(1).unwrap());
    let serve = || async {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7)).await.unwrap();
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(b"hello").await.unwrap();
            }
        });
    };
    two.run(serve).await.unwrap();
    let there = fabric.address(1);
    assert!(reaches(one, there).await && reaches(fabric.outside(), there).await && reaches(two, there).await);
    assert!(!reaches(one, fabric.address(0)).await, "nobody listens there");
    fabric.cut(1, true).unwrap();
    assert!(!reaches(one, there).await && !reaches(fabric.outside(), there).await);
    assert!(reaches(two, there).await, "its own loopback stays");
    fabric.cut(1, false).unwrap();
    assert!(reaches(one, there).await);
}
