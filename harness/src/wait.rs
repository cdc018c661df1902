//! Waiting for something to become true: asked again and again until a deadline, so that nothing sleeps longer than it must.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long to leave between two looks.
const INTERVAL: Duration = Duration::from_millis(10);

/// Calls `probe` until it gives a value, at most for `limit`.
///
/// # Errors
/// The first error of `probe`; where the time ran out, an error that says `what` was waited for.
pub async fn until<T, F>(what: &str, limit: Duration, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe().await? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s in vain for {what}", limit.as_secs_f32());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gives_the_first_value() {
        let mut looks = 0;
        let value = until("three looks", Duration::from_secs(5), || {
            looks += 1;
            let seen = (looks == 3).then_some(looks);
            async move { Ok(seen) }
        });
        assert_eq!(value.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn names_what_it_waited_for() {
        let never = until("the moon", Duration::from_millis(20), || async { Ok(None::<()>) });
        assert!(never.await.unwrap_err().to_string().contains("the moon"));
    }

    #[tokio::test]
    async fn an_error_ends_the_wait() {
        let broken = until("it", Duration::from_secs(60), || async { Err::<Option<()>, _>(anyhow::anyhow!("broken")) });
        assert_eq!(broken.await.unwrap_err().to_string(), "broken");
    }
}
