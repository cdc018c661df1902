//! CPU time per message of a long bidirectional gRPC stream, with and without the filter.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::{BufMut, Bytes, BytesMut};

use crate::contender::{Stage, envoy};
use crate::cpu_time;
use crate::results::Figure;
use crate::stream_agent::{self, Stream};
use crate::table::Table;

/// Bytes of a message's content: one or two tokens of a language model.
const CONTENT: usize = 64;
/// How long each stream is measured in one round.
const BUSY: Duration = Duration::from_millis(300);

pub(super) async fn measure(stage: &Stage<'_>, rounds: u32) -> Result<Vec<Figure>> {
    let port = stream_agent::start()?;
    let mut table = Table::new(20, stage.agents);
    let id = "stream";
    table.routes.push((id.to_owned(), port));
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for rounds in crate::starts(rounds) {
        let filter = envoy::settings(stage).start().await?;
        envoy::push(&filter, &table).await?;
        let plain = envoy::address_from_header(envoy::settings(stage).data_filter("")).start().await?;
        let mut streams = Vec::new();
        for (envoy, values) in [(&filter, &mut with), (&plain, &mut without)] {
            stage.cores.give_proxy(envoy.pid())?;
            let mut stream = Stream::open(envoy.data_addr(), id, port).await?;
            per_message(&mut stream, envoy.pid()).await?;
            streams.push((stream, envoy.pid(), values));
        }
        for _ in 0..rounds {
            for (stream, pid, values) in &mut streams {
                values.push(per_message(stream, *pid).await?);
            }
            streams.reverse();
        }
    }
    let ratios = with.iter().zip(&without).map(|(with, without)| with / without).collect();
    let figure = |what: &str, unit, values| Figure::median(what, unit, values).context("nothing was measured");
    Ok(vec![
        figure("CPU per streamed message, with the filter / without", "", ratios)?.at_most(1.03),
        figure("- with the filter", "us", with)?,
        figure("- without", "us", without)?,
    ])
}

/// Microseconds of CPU time per message. The messages of both directions count.
async fn per_message(stream: &mut Stream, pid: u32) -> Result<f64> {
    let message = message();
    let (started, before) = (Instant::now(), cpu_time::of(&[pid])?);
    let mut messages = 0_u32;
    while started.elapsed() < BUSY {
        stream.exchange(&message).await?;
        messages += 2;
    }
    Ok((cpu_time::of(&[pid])? - before) as f64 / 1e3 / f64::from(messages))
}

/// A gRPC message: the flag that it is not compressed, its length and its content.
fn message() -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(CONTENT).unwrap_or(0));
    bytes.put_bytes(b'.', CONTENT);
    bytes.freeze()
}
