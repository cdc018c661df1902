//! The rounds: every contender in turn, again and again, so that whatever slows the machine slows all of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::load::{Load, Sample};

/// How long all callers are at work on one contender in one round.
const BUSY: Duration = Duration::from_millis(300);
/// How long one caller is alone on it.
const ALONE: Duration = Duration::from_millis(100);
/// How long each is warmed up: the module's hot code is compiled anew, connections are opened.
const WARM_UP: Duration = Duration::from_millis(600);

/// What was measured: for each contender a sample a round.
pub type Samples = BTreeMap<&'static str, Vec<Sample>>;

/// Measures the contenders `loads` in `rounds` rounds.
///
/// # Errors
/// Where one of them does not answer, or wrongly; the error names it.
pub fn run(loads: &mut [(&'static str, Load)], rounds: u32) -> Result<Samples> {
    let mut samples = Samples::new();
    if loads.is_empty() {
        return Ok(samples);
    }
    for (name, load) in &mut *loads {
        load.measure(WARM_UP, ALONE).with_context(|| format!("contender {name}"))?;
    }
    let started = Instant::now();
    for round in 1..=rounds {
        // The other way round every second time: none is always the one that comes after a given other one.
        let forward = round % 2 == 0;
        let order: Box<dyn Iterator<Item = _>> =
            if forward { Box::new(loads.iter_mut()) } else { Box::new(loads.iter_mut().rev()) };
        for (name, load) in order {
            let sample = load.measure(BUSY, ALONE).with_context(|| format!("contender {name}"))?;
            samples.entry(name).or_default().push(sample);
        }
        let left = started.elapsed().mul_f64(f64::from(rounds - round) / f64::from(round));
        eprintln!("round {round} of {rounds}, {} s left", left.as_secs_f64().ceil());
    }
    Ok(samples)
}

/// The ratio of two contenders' samples, round by round.
#[must_use]
pub fn ratios(samples: &Samples, one: &str, other: &str, value: impl Fn(&Sample) -> f64) -> Vec<f64> {
    let of = |name: &str| samples.get(name).map(Vec::as_slice).unwrap_or_default();
    of(one).iter().zip(of(other)).map(|(one, other)| value(one) / value(other)).collect()
}
