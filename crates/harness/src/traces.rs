//! A collector of traces: an OTLP receiver over gRPC, as OpenTelemetry's own code defines it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
pub use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::{Request, Response, Status};

use crate::wait;

/// The collector, and the spans that it got.
#[derive(Clone, Debug, Default)]
pub struct Receiver(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spans.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Receiver {
    /// Starts a collector; returns where it listens.
    ///
    /// # Errors
    /// If the address is in use.
    pub async fn start(address: impl tokio::net::ToSocketAddrs) -> Result<(Self, SocketAddr)> {
        let receiver = Self::default();
        let listener = tokio::net::TcpListener::bind(address).await.context("listening for spans")?;
        let address = listener.local_addr()?;
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(receiver.clone()));
        tokio::spawn(server.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));
        Ok((receiver, address))
    }

    /// All spans so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first span that `wanted` accepts. Envoy sends its spans every five seconds.
    ///
    /// # Errors
    /// If there is none after 30 seconds.
    pub async fn span(&self, what: &str, wanted: impl Fn(&Span) -> bool) -> Result<Span> {
        let look = || {
            let found = self.spans().into_iter().find(|span| wanted(span));
            async { Ok(found) }
        };
        let found = wait::until(what, Duration::from_secs(30), look).await;
        found.with_context(|| format!("there is {:#?}", self.spans()))
    }
}

/// The attribute of a span, if it is text and not empty.
#[must_use]
pub fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    let value = span.attributes.iter().find(|attribute| attribute.key == name)?.value.as_ref()?;
    match value.value.as_ref()? {
        Value::StringValue(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// The number of a trace or a span as `traceparent` has it: hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
