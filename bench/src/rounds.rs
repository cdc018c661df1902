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

/// How far a run is.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    done: u32,
    rounds: u32,
}

impl Progress {
    /// A run of `rounds` rounds that begins now.
    #[must_use]
    pub fn new(rounds: u32) -> Self {
        Self { started: Instant::now(), done: 0, rounds }
    }

    fn step(&mut self) {
        self.done += 1;
        let left = self.started.elapsed().mul_f64(f64::from(self.rounds - self.done) / f64::from(self.done));
        eprintln!("round {} of {}, {} s left", self.done, self.rounds, left.as_secs_f64().ceil());
    }
}

/// Measures the contenders `loads` in `rounds` rounds and adds what was measured to `samples`.
///
/// # Errors
/// Where one of them does not answer, or wrongly; the error names it.
pub fn run(loads: &mut [(&'static str, Load)], rounds: u32, samples: &mut Samples, progress: &mut Progress) -> Result<()> {
    for (name, load) in &mut *loads {
        load.measure(WARM_UP, ALONE).with_context(|| format!("contender {name}"))?;
    }
    for round in 0..rounds {
        // The other way round every second time: none is always the one that comes after a given other one.
        let forward = round % 2 == 0;
        let order: Box<dyn Iterator<Item = _>> =
            if forward { Box::new(loads.iter_mut()) } else { Box::new(loads.iter_mut().rev()) };
        for (name, load) in order {
            let sample = load.measure(BUSY, ALONE).with_context(|| format!("contender {name}"))?;
            samples.entry(name).or_default().push(sample);
        }
        progress.step();
    }
    Ok(())
}

/// The ratio of two contenders' samples, round by round.
#[must_use]
pub fn ratios(samples: &Samples, one: &str, other: &str, value: impl Fn(&Sample) -> f64) -> Vec<f64> {
    let of = |name: &str| samples.get(name).map(Vec::as_slice).unwrap_or_default();
    of(one).iter().zip(of(other)).map(|(one, other)| value(one) / value(other)).collect()
}
