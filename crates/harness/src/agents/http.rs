//! An HTTP/1.1 or HTTP/2 agent whose responses a function makes.

use std::convert::Infallible;
use std::future::Future;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;

use super::{Agent, Seat};

/// The body of a response.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// The protocol of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1
    Http1,
    /// HTTP/2 without TLS
    Http2,
    /// Each connection the one that its client speaks
    Either,
}

/// A body of known bytes.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// Starts an agent on `port` (0: any free port) that responds to each request with what `respond` returns.
///
/// # Errors
/// If the port is in use.
pub fn start<F>(
    name: &str,
    port: u16,
    version: Version,
    respond: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> Result<Agent>
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    Agent::start(name, port, move |seat| serve(seat, version, respond))
}

async fn serve<F>(
    seat: Seat,
    version: Version,
    respond: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> Result<()>
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let Seat { listener, mut stopped, .. } = seat;
    let connections = GracefulShutdown::new();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = &mut stopped => break,
        };
        let respond = respond.clone();
        let service = service_fn(move |request| {
            let response = respond(request);
            async { Ok::<_, Infallible>(response.await) }
        });
        let server = auto::Builder::new(TokioExecutor::new());
        let server = match version {
            Version::Http1 => server.http1_only(),
            Version::Http2 => server.http2_only(),
            Version::Either => server,
        };
        let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = connections.watch(connection);
        // A client that closes the connection is not an error of the agent.
        tokio::spawn(async { drop(connection.await) });
    }
    drop(listener);
    connections.shutdown().await;
    Ok(())
}
