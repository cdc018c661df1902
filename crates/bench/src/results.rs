//! The results of a run. They are written as JSON, and the table and the chart are made from them.

use serde::{Deserialize, Serialize};

use crate::summary::Summary;

/// All results of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// The machine that it ran on.
    pub machine: Machine,
    /// The number of rounds.
    pub rounds: u32,
    /// One row for each contender.
    pub contenders: Vec<Row>,
    /// The figures with bounds, and other figures that explain them.
    pub figures: Vec<Figure>,
}

/// The machine of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The processor as it names itself.
    pub processor: String,
    /// How many cores this program may use.
    pub cores: usize,
    /// Memory in GiB.
    pub memory: f64,
    /// Name and release of the kernel.
    pub kernel: String,
    /// The release of Envoy.
    pub envoy: String,
    /// Load average over one minute when the run began. It shows other work on the machine.
    pub load_average: f64,
}

/// The requests of one contender.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The contender's name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// CPU time of the proxy for each request, in microseconds.
    pub cpu: Summary,
    /// The ratio of `cpu` to the floor with requests to as many agents, round by round.
    pub ratio: Option<Summary>,
    /// Requests per second of 16 clients.
    pub throughput: Summary,
    /// Median time to the response with one client, in microseconds.
    pub latency: Summary,
    /// 99th percentile of it.
    pub latency_p99: Summary,
}

/// One measured quantity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// Its unit; empty for a ratio.
    pub unit: String,
    /// The value that counts.
    pub value: f64,
    /// The spread, if there are several values.
    pub spread: Option<Summary>,
    /// The bound that it must meet.
    pub bound: Option<Bound>,
}

/// The bound of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// It must not be above this.
    AtMost(f64),
    /// It must not be below this.
    AtLeast(f64),
}

impl Figure {
    /// The median of `values` as a figure; `None` if there are none.
    #[must_use]
    pub fn median(what: impl Into<String>, unit: &str, values: Vec<f64>) -> Option<Self> {
        let spread = Summary::of(values)?;
        Some(Self { what: what.into(), unit: unit.to_owned(), value: spread.median, spread: Some(spread), bound: None })
    }

    /// A single value as a figure.
    #[must_use]
    pub fn single(what: impl Into<String>, unit: &str, value: f64) -> Self {
        Self { what: what.into(), unit: unit.to_owned(), value, spread: None, bound: None }
    }

    /// The same figure, with an upper bound.
    #[must_use]
    pub const fn at_most(mut self, bound: f64) -> Self {
        self.bound = Some(Bound::AtMost(bound));
        self
    }

    /// The same figure, with a lower bound.
    #[must_use]
    pub const fn at_least(mut self, bound: f64) -> Self {
        self.bound = Some(Bound::AtLeast(bound));
        self
    }

    /// Whether it meets its bound; `None` if it has none.
    #[must_use]
    pub fn met(&self) -> Option<bool> {
        Some(match self.bound? {
            Bound::AtMost(bound) => self.value <= bound,
            Bound::AtLeast(bound) => self.value >= bound,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_includes_its_value() {
        let figure = |value| Figure::single("f", "", value);
        assert_eq!(figure(1.0).met(), None);
        assert_eq!(figure(1.0).at_most(1.0).met(), Some(true));
        assert_eq!(figure(1.1).at_most(1.0).met(), Some(false));
        assert_eq!(figure(8.0).at_least(8.0).met(), Some(true));
        assert_eq!(figure(7.9).at_least(8.0).met(), Some(false));
    }
}
