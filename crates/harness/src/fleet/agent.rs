//! An agent that enters each request that it gets into the ledger, and responds with its own id and task: over HTTP/1.1 in the body, over
//! gRPC as the result of `Invoke`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use prost::Message;

use super::ledger::{Id, Ledger, Outcome};
use crate::Agent;
use crate::agents::http::{self as agent, Body, Version, whole};
use crate::proto::ActionResult;

/// Header with the number of a request.
pub(super) const NUMBER: &str = "x-number";
/// Header with the time that the agent takes for its response, in milliseconds.
pub(super) const DELAY: &str = "x-delay-ms";

/// Starts an agent of `id` in the task `task`, on `port` of the network namespace of this thread.
///
/// # Errors
/// If the port is in use.
pub(super) fn start(ledger: &Arc<Ledger>, id: Id, task: usize, port: u16) -> Result<Agent> {
    let ledger = Arc::clone(ledger);
    agent::start(&format!("id-{id}"), port, Version::Either, move |request| {
        // A request counts from the moment that the agent knows of it, even if it breaks off later.
        let number: Option<usize> = value(request.headers(), NUMBER);
        if let Some(number) = number {
            ledger.executed(number, id);
        }
        respond(request, format!("{id} {task}"))
    })
}

async fn respond(request: Request<Incoming>, text: String) -> Response<Body> {
    let (head, body) = request.into_parts();
    drop(body.collect().await);
    if let Some(delay) = value(&head.headers, DELAY) {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    if !head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return Response::new(whole(text));
    }
    let result = ActionResult { success: true, result: text, ..ActionResult::default() };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Frame::data(framed(&result)), Frame::trailers(trailers)].map(Ok);
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream::iter(frames))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A message as gRPC puts it on the wire: not compressed, its length, its bytes.
pub(super) fn framed(message: &impl Message) -> Bytes {
    let bytes = message.encode_to_vec();
    let mut framed = BytesMut::with_capacity(bytes.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    framed.put_slice(&bytes);
    framed.freeze()
}

/// The outcome that the response of such an agent stands for.
///
/// # Errors
/// If it is not the response of such an agent.
pub(super) fn outcome(text: &str) -> Result<Outcome> {
    let (id, task) = text.split_once(' ').context("an agent responds with two numbers")?;
    Ok(Outcome::Served { id: id.parse()?, task: task.parse()? })
}

fn value<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
