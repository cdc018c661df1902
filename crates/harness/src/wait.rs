//! Waits for something to become true: probes it until a deadline, so that no test sleeps longer than necessary.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Time between two probes.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long a probe may take. One that hangs is dropped, and the next one starts: a client of hyper's on several threads may wait forever
/// if its connection is closed at the moment when its request is queued, because tokio's channel then keeps the request until the client
/// is dropped (seen 18 times in 290,000 requests on a busy machine).
const LONGEST_PROBE: Duration = Duration::from_secs(10);

/// Calls `probe` until it returns a value. The last probe is the first one that starts when `limit` has passed, so that a machine that
/// stood still is not what a test fails for.
///
/// # Errors
/// If `probe` returns an error, or the time is over; the error then names `what`.
pub async fn until<T, F>(what: &str, limit: Duration, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let is_last = Instant::now() >= deadline;
        let probed = tokio::time::timeout(LONGEST_PROBE, probe());
        if let Some(value) = probed.await.unwrap_or(Ok(None))? {
            return Ok(value);
        }
        if is_last {
            bail!("gave up waiting for {what} after {} s", limit.as_secs_f32());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_the_first_value() {
        let mut probes = 0;
        let value = until("three probes", Duration::from_secs(5), || {
            probes += 1;
            let value = (probes == 3).then_some(probes);
            async move { Ok(value) }
        });
        assert_eq!(value.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn the_error_names_what_it_waited_for() {
        let never = until("the moon", Duration::from_millis(20), || async { Ok(None::<()>) });
        assert!(never.await.unwrap_err().to_string().contains("the moon"));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_probe_that_hangs_comes_another() {
        let mut probes = 0;
        let value = until("a second probe", Duration::from_secs(1), || {
            probes += 1;
            let hangs = probes == 1;
            async move { if hangs { std::future::pending().await } else { Ok(Some(())) } }
        });
        value.await.unwrap();
        assert_eq!(probes, 2);
    }

    #[tokio::test]
    async fn a_probe_starts_after_the_limit() {
        let started = Instant::now();
        let limit = Duration::from_millis(50);
        let late = || async { Ok((started.elapsed() >= limit).then_some(())) };
        until("the limit", limit, late).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_hangs_ends_too() {
        let hangs = until("Godot", Duration::ZERO, std::future::pending::<Result<Option<()>>>);
        assert!(hangs.await.unwrap_err().to_string().contains("Godot"));
    }

    #[tokio::test]
    async fn an_error_ends_the_wait() {
        let broken = until("it", Duration::from_secs(60), || async { Err::<Option<()>, _>(anyhow::anyhow!("broken")) });
        assert_eq!(broken.await.unwrap_err().to_string(), "broken");
    }
}
