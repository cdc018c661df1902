//! Clients that cancel: their agents learn of it, through a hop, too. They share a connection between two tasks with all others, and cannot end it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use harness::{agents, wait};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::grpc::hung;
use crate::tasks::Tasks;

/// How long a test waits for a thing to happen.
const WAIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_client_that_cancels_ends_its_own_requests_only() {
    let tasks = Tasks::start(2).await;
    let agent = tasks.agent(1, || {
        agents::http::start("slow", 0, agents::http::Version::Http1, |_| async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            hyper::Response::new(agents::http::whole("done"))
        })
    });
    let agent = agent.await;
    tasks.routes(0, json!({})).await;
    tasks.routes(1, json!({ "a": agent.port() })).await;
    tasks.fleet(0, &[("a", &[1])]).await;
    let url = format!("http://{}/", tasks.data(0));
    let cancel = move || async move {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = || client.get(&url).header("x-deployment-id", "a").timeout(Duration::from_millis(100)).send();
        stream::iter(0..400).map(|_| request()).buffer_unordered(40).for_each(|_| std::future::ready(())).await;
    };
    let cancel_many = async {
        let started = Instant::now();
        // On a busy machine some are cancelled before they have got that far. Each of both workers of task 0 has a connection of its own.
        while tasks.count(1, "http.peers.downstream_rq_rx_reset").await <= 800 {
            assert!(started.elapsed() < Duration::from_secs(60), "hardly any cancelled request has got to its agent's task");
            tasks.fabric.outside().run(cancel.clone()).await.unwrap();
        }
    };
    let (response, ()) = tokio::join!(tasks.ask(0, "a"), cancel_many);
    assert_eq!(tasks.count(1, "http.peers.downstream_rq_too_many_premature_resets").await, 0);
    assert_eq!((response.status, response.body.as_str()), (200, "done"), "{response:?}");
}

#[tokio::test]
async fn an_agent_learns_that_a_client_has_left_and_the_others_stay() {
    let tasks = Tasks::start(2).await;
    tasks.routes(0, json!({})).await;
    tasks.fleet(0, &[("a", &[1])]).await;
    for task in 0..2 {
        let (agent, calls) = hung(&tasks).await;
        tasks.routes(1, json!({ "a": agent.port() })).await;
        let (url, there) = (format!("http://{}/x.Y/Z", tasks.data(task)), Arc::clone(&calls));
        let leave = move || async move {
            let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
            let mut sent = Vec::new();
            // One at a time, so that all of them have the same connection.
            for (number, timeout) in ["51S", "52S", "53S"].into_iter().enumerate() {
                let call = client.post(&url).header("x-deployment-id", "a").header("content-type", "application/grpc");
                let call = call.header("grpc-timeout", timeout).body(vec![0; 5]);
                sent.push(tokio::task::spawn_local(call.send()));
                let arrives = || async { Ok((there.lock().unwrap().len() > number).then_some(())) };
                wait::until("the call to reach the agent", WAIT, arrives).await.unwrap();
            }
            sent[1].abort();
            sent
        };
        let sent = tasks.fabric.outside().run(leave).await.unwrap();
        let told = || async { Ok(calls.lock().unwrap().iter().any(|(_, is_reset)| *is_reset).then_some(())) };
        wait::until("the agent to learn of it", WAIT, told).await.unwrap();
        assert!(!sent[0].is_finished() && !sent[2].is_finished());
        let calls = calls.lock().unwrap().clone();
        let expected = [("51000m", false), ("52000m", true), ("53000m", false)];
        assert_eq!(calls, expected.map(|(timeout, is_reset)| (timeout.to_owned(), is_reset)), "through task {task}");
        sent.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

#[tokio::test]
async fn an_agent_of_http_1_learns_that_its_client_has_left() {
    let tasks = Tasks::start(2).await;
    // The paths of requests whose connection has ended.
    let ended = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&ended);
    let serve = move |mut stream: tokio::net::TcpStream| {
        let noted = Arc::clone(&noted);
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap().to_owned();
            if path.ends_with("begun") {
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n").await?;
            }
            // The client sends no more: this is the end of the connection.
            let _ = stream.read(&mut [0; 1]).await;
            noted.lock().unwrap().push(path);
            Ok(())
        }
    };
    let agent = tasks.agent(1, move || agents::raw::start("patient", serve)).await;
    tasks.routes(0, json!({})).await;
    tasks.routes(1, json!({ "a": agent.port() })).await;
    tasks.fleet(0, &[("a", &[1])]).await;
    let mut expected = Vec::new();
    for (task, path) in [(0, "/0/silent"), (0, "/0/begun"), (1, "/1/silent"), (1, "/1/begun")] {
        let url = format!("http://{}{path}", tasks.data(task));
        let leave = move || async move {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let request = client.get(url).header("x-deployment-id", "a");
            if path.ends_with("begun") {
                let mut response = request.send().await.unwrap();
                assert_eq!(&response.chunk().await.unwrap().unwrap()[..], b"begun");
            } else {
                assert!(request.timeout(Duration::from_millis(500)).send().await.is_err());
            }
        };
        tasks.fabric.outside().run(leave).await.unwrap();
        expected.push(path.to_owned());
        let told = || async { Ok((*ended.lock().unwrap() == expected).then_some(())) };
        wait::until("the agent to learn of it", WAIT, told).await.unwrap();
    }
}
