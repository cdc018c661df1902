//! The agents' gRPC service, generated from `crates/harness/proto/agent.proto`.

use tonic::metadata::AsciiMetadataValue;

pub use generated::agent_service_client::AgentServiceClient;
pub use generated::agent_service_server::{AgentService, AgentServiceServer};
pub use generated::{ActionRequest, ActionResult, Capabilities, Empty, HealthStatus, Pong};

mod generated {
    #![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
    tonic::include_proto!("pixell.agent");
}

/// The four kinds of gRPC calls, generated from `crates/harness/proto/streams.proto`.
pub mod streams {
    #![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
    tonic::include_proto!("pixell.test");
}

/// The header that names the agent a request is for.
pub const DEPLOYMENT_ID: &str = "x-deployment-id";

/// A request with `message` to the agent of `deployment_id`.
///
/// # Errors
/// If the id has bytes that are not allowed in gRPC metadata.
pub fn request_to<T>(deployment_id: &str, message: T) -> anyhow::Result<tonic::Request<T>> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert(DEPLOYMENT_ID, AsciiMetadataValue::try_from(deployment_id)?);
    Ok(request)
}

/// A gRPC client with its own connection to `address`, for instance [`crate::Envoy::data_addr`].
///
/// # Errors
/// If it cannot connect within five seconds.
pub async fn connect(address: std::net::SocketAddr) -> anyhow::Result<AgentServiceClient<tonic::transport::Channel>> {
    let endpoint =
        tonic::transport::Endpoint::try_from(format!("http://{address}"))?.connect_timeout(std::time::Duration::from_secs(5));
    let client = AgentServiceClient::new(endpoint.connect().await?);
    Ok(client.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT))
}

/// The largest message that agents and clients accept, in bytes: 100 MiB, as in the Pixell Agent Runtime.
pub const MESSAGE_LIMIT: usize = 100 * 1024 * 1024;
