//! A task that is told to end: what other tasks sent to it ends first.

use std::process::Command;
use std::time::Duration;

use harness::{agents, wait};
use serde_json::json;

use crate::tasks::Tasks;

#[tokio::test]
async fn requests_of_other_tasks_end_before_their_task_does() {
    let entry_point = env!("CARGO_BIN_EXE_supervised");
    let mut tasks = Tasks::changed(2, |_| Vec::new(), |builder| builder.supervised(entry_point)).await;
    let agent = tasks.agent(1, || {
        agents::http::start("slow", 0, agents::http::Version::Http1, |_| async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            hyper::Response::new(agents::http::whole("done"))
        })
    });
    let agent = agent.await;
    tasks.routes(0, json!({})).await;
    tasks.routes(1, json!({ "a": agent.port() })).await;
    tasks.fleet(0, &[("a", &[1])]).await;
    let stop = async {
        let open = || async { Ok((tasks.count(1, "http.peers.downstream_rq_active").await == 1).then_some(())) };
        wait::until("the request to arrive", Duration::from_secs(2), open).await.unwrap();
        let told = Command::new("kill").args(["-TERM", &tasks.envoys[1].pid().to_string()]).status().unwrap();
        assert!(told.success());
    };
    let (response, ()) = tokio::join!(tasks.ask(0, "a"), stop);
    assert_eq!((response.status, response.body.as_str()), (200, "done"), "{response:?}");
    let status = tasks.envoys[1].exit(Duration::from_secs(10)).await.unwrap();
    assert!(status.success(), "{status}");
}
