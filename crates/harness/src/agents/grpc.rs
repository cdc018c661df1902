//! An agent that serves the agents' gRPC service (`crates/harness/proto/agent.proto`).
//!
//! - `Health` and `Ping` return the agent's name as the message.
//! - `DescribeCapabilities` returns the name and every request header (as `header:<name>`) in `metadata`.
//! - `Invoke` knows two actions. `echo` returns the parameter `text`. `fail` ends the call with the gRPC status in the parameters
//!   `code` (a number), `message` and `details`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::KeyAndValueRef;
use tonic::{Code, Request, Response, Status};

use super::{Agent, Seat};
use crate::proto::{
    ActionRequest, ActionResult, AgentService, AgentServiceServer, Capabilities, Empty, HealthStatus, MESSAGE_LIMIT, Pong,
};

/// Starts an agent on a free port.
///
/// # Errors
/// If no port is free.
pub fn start(name: &str) -> Result<Agent> {
    start_on(name, 0)
}

/// Starts an agent on `port`.
///
/// # Errors
/// If the port is in use.
pub fn start_on(name: &str, port: u16) -> Result<Agent> {
    Agent::start(name, port, serve)
}

async fn serve(seat: Seat) -> Result<()> {
    let service = AgentServiceServer::new(Service { name: seat.name })
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    let stopped = async {
        // The sender is only dropped, so this is always an error.
        let _ = seat.stopped.await;
    };
    tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(seat.listener), stopped)
        .await?;
    Ok(())
}

struct Service {
    name: String,
}

#[tonic::async_trait]
impl AgentService for Service {
    async fn health(&self, _: Request<Empty>) -> Result<Response<HealthStatus>, Status> {
        Ok(Response::new(HealthStatus { ok: true, message: self.name.clone(), timestamp: seconds() }))
    }

    async fn describe_capabilities(&self, request: Request<Empty>) -> Result<Response<Capabilities>, Status> {
        let headers = request.metadata().iter().map(|header| match header {
            KeyAndValueRef::Ascii(key, value) => (format!("header:{key}"), text(value.as_bytes())),
            KeyAndValueRef::Binary(key, value) => (format!("header:{key}"), text(value.as_encoded_bytes())),
        });
        let name = ("name".to_owned(), self.name.clone());
        let metadata = headers.chain([name]).collect();
        Ok(Response::new(Capabilities { methods: vec!["echo".into(), "fail".into()], metadata }))
    }

    async fn invoke(&self, request: Request<ActionRequest>) -> Result<Response<ActionResult>, Status> {
        let ActionRequest { action, mut parameters, request_id } = request.into_inner();
        let mut parameter = |name: &str| parameters.remove(name).unwrap_or_default();
        match action.as_str() {
            "echo" => Ok(Response::new(ActionResult {
                success: true,
                result: parameter("text"),
                request_id,
                ..ActionResult::default()
            })),
            "fail" => {
                let code = Code::from(parameter("code").parse::<i32>().unwrap_or(i32::MAX));
                Err(Status::with_details(code, parameter("message"), parameter("details").into()))
            }
            other => Ok(Response::new(ActionResult {
                error: format!("unknown action {other:?}"),
                request_id,
                ..ActionResult::default()
            })),
        }
    }

    async fn ping(&self, _: Request<Empty>) -> Result<Response<Pong>, Status> {
        Ok(Response::new(Pong { message: self.name.clone(), timestamp: seconds() }))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Seconds since the Unix epoch.
fn seconds() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;

    #[tokio::test]
    async fn responds_with_its_name_the_headers_or_the_wanted_status() {
        let agent = start("somebody").unwrap();
        let mut client = proto::connect(([127, 0, 0, 1], agent.port()).into()).await.unwrap();
        let health = client.health(Empty {}).await.unwrap().into_inner();
        assert!(health.ok);
        assert_eq!(health.message, "somebody");
        let request = proto::request_to("an-id", Empty {}).unwrap();
        let capabilities = client.describe_capabilities(request).await.unwrap().into_inner();
        assert_eq!(capabilities.metadata["header:x-deployment-id"], "an-id");

        let parameters = [("code", "7"), ("message", "no"), ("details", "\u{1}")];
        let parameters = parameters.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let failing = ActionRequest { action: "fail".into(), parameters, request_id: String::new() };
        let status = client.invoke(failing).await.unwrap_err();
        assert_eq!((status.code(), status.message(), status.details()), (Code::PermissionDenied, "no", &[1_u8][..]));
        agent.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_killed_agent_breaks_its_connections_and_frees_its_port() {
        let agent = start("mortal").unwrap();
        let port = agent.port();
        let mut client = proto::connect(([127, 0, 0, 1], port).into()).await.unwrap();
        client.ping(Empty {}).await.unwrap();
        agent.kill();
        // At once, connections are refused and the port is free for another agent.
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap_err();
        let heir = start_on("heir", port).unwrap();
        // The old connection is broken, so this call reaches the heir.
        let response = crate::wait::until("the heir", Duration::from_secs(10), || {
            let mut client = client.clone();
            async move { Ok(client.ping(Empty {}).await.ok()) }
        });
        assert_eq!(response.await.unwrap().into_inner().message, heir.name());
    }
}
