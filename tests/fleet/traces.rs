//! A trace through two tasks: each adds its span, and the agent is below the second.

use harness::traces::{Receiver, Span, attribute, hex};

use crate::tasks::Tasks;

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

#[tokio::test]
async fn a_trace_leads_through_both_tasks_to_the_agent() {
    // Each task reaches the collector between the tasks under an address of its own.
    let collector = |task: usize| format!("198.18.{task}.1:4317");
    let tasks = Tasks::with(2, |task| vec![("PIXELL_OTLP_ENDPOINT", collector(task))]).await;
    let (receiver, _) = tasks.fabric.outside().run(|| Receiver::start("0.0.0.0:4317")).await.unwrap().unwrap();
    let agent = tasks.echo(1, "a").await;
    tasks.routes(1, serde_json::json!({ "a": agent.port() })).await;
    tasks.fleet(0, &[("a", &[1])]).await;

    let traceparent = format!("00-{TRACE_ID}-{PARENT}-01");
    let asked =
        tasks.send(0, "/traced", move |request| request.header("x-deployment-id", "a").header("traceparent", traceparent));
    let seen = asked.await.seen();
    let child_of = |parent: String| move |span: &Span| hex(&span.trace_id) == TRACE_ID && hex(&span.parent_span_id) == parent;
    let out = receiver.span("the span of the first task", child_of(PARENT.to_owned())).await.unwrap();
    let inner = receiver.span("the span of the agent's task", child_of(hex(&out.span_id))).await.unwrap();
    for span in [&out, &inner] {
        assert_eq!(attribute(span, "pixell.deployment_id"), Some("a"), "{span:#?}");
    }
    let wanted = serde_json::json!(["traceparent", format!("00-{TRACE_ID}-{}-01", hex(&inner.span_id))]);
    assert!(seen["headers"].as_array().unwrap().contains(&wanted), "{seen}");
    for (task, hop) in [(0, "out"), (1, "in")] {
        let line = tasks.envoys[task].logged(1, |line| line["path"] == "/traced").await.unwrap().remove(0);
        assert_eq!((&line["trace_id"], &line["hop"]), (&TRACE_ID.into(), &hop.into()), "{line}");
    }

    // A rejection at the agent's task is in the trace, too.
    tasks.fleet(0, &[("gone", &[1])]).await;
    let traceparent = "00-11111111111111111111111111111111-2222222222222222-01";
    let response =
        tasks.send(0, "/gone", move |request| request.header("x-deployment-id", "gone").header("traceparent", traceparent));
    response.await.is_rejected("deployment_moved");
    let rejected = |span: &Span| attribute(span, "pixell.rejection") == Some("deployment_moved") && span.trace_id == [0x11; 16];
    receiver.span("the span of a rejection", rejected).await.unwrap();
}
