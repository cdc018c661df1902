//! Measures the contenders in rounds. Each round measures all of them in turn, so that other work on the machine slows all of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::load::{Load, Sample};

/// How long all clients send requests to one contender in one round.
const BUSY: Duration = Duration::from_millis(300);
/// How long one client then sends alone.
const ALONE: Duration = Duration::from_millis(100);
/// How long each contender warms up: V8 optimizes the module's hot code, and connections are opened.
const WARM_UP: Duration = Duration::from_millis(600);

/// The samples of each contender: one for each round.
pub type Samples = BTreeMap<&'static str, Vec<Sample>>;

/// The progress of a run.
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

/// Measures the contenders `loads` in `rounds` rounds and adds the measurements to `samples`.
///
/// # Errors
/// If one of them does not respond, or with a wrong response; the error names it.
pub fn run(loads: &mut [(&'static str, Load)], rounds: u32, samples: &mut Samples, progress: &mut Progress) -> Result<()> {
    for (name, load) in &mut *loads {
        load.measure(WARM_UP, ALONE).with_context(|| format!("contender {name}"))?;
    }
    for round in 0..rounds {
        // Every second round goes backwards, so that no contender always comes after the same other one.
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
