//! The agents' gRPC service, generated from `harness/proto/agent.proto`.

use tonic::metadata::AsciiMetadataValue;

pub use generated::agent_service_client::AgentServiceClient;
pub use generated::agent_service_server::{AgentService, AgentServiceServer};
pub use generated::{ActionRequest, ActionResult, Capabilities, Empty, HealthStatus, Pong};

mod generated {
    #![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
    tonic::include_proto!("pixell.agent");
}

/// The four shapes of a gRPC call, generated from `harness/proto/streams.proto`.
pub mod streams {
    #![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
    tonic::include_proto!("pixell.test");
}

/// The header that names the agent a request is for.
pub const DEPLOYMENT_ID: &str = "x-deployment-id";

/// `message` as a request to the agent named `deployment_id`.
///
/// # Errors
/// Where the id has bytes that no gRPC metadata value may have.
pub fn request_to<T>(deployment_id: &str, message: T) -> anyhow::Result<tonic::Request<T>> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert(DEPLOYMENT_ID, AsciiMetadataValue::try_from(deployment_id)?);
    Ok(request)
}

/// A gRPC client on one connection of its own to `address`, for instance [`crate::Envoy::data_addr`].
///
/// # Errors
/// Where nothing answers there within five seconds.
pub async fn connect(address: std::net::SocketAddr) -> anyhow::Result<AgentServiceClient<tonic::transport::Channel>> {
    let endpoint =
        tonic::transport::Endpoint::try_from(format!("http://{address}"))?.connect_timeout(std::time::Duration::from_secs(5));
    let client = AgentServiceClient::new(endpoint.connect().await?);
    Ok(client.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT))
}

/// The largest message, in bytes, that agents and their callers exchange: 100 MiB, as in the Pixell Agent Runtime.
pub const MESSAGE_LIMIT: usize = 100 * 1024 * 1024;
