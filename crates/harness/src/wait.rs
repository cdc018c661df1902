//! Waits for something to become true: probes it until a deadline, so that no test sleeps longer than necessary.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Time between two probes.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long after the limit the last probe may end, on a machine that is busy.
const LAST_PROBE: Duration = Duration::from_secs(20);

/// Calls `probe` until it returns a value, but at most for `limit`.
///
/// # Errors
/// If `probe` returns an error, or the time is over; the error then names `what`.
pub async fn until<T, F>(what: &str, limit: Duration, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let probed = tokio::time::timeout_at((deadline + LAST_PROBE).into(), probe());
        if let Some(value) = probed.await.unwrap_or(Ok(None))? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
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
