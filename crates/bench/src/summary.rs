//! Summarizes measurements: minimum, quartiles, median and maximum.

use serde::{Deserialize, Serialize};

/// The spread of repeated measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The lowest.
    pub min: f64,
    /// A quarter is below it.
    pub lower: f64,
    /// Half is below it.
    pub median: f64,
    /// Three quarters are below it.
    pub upper: f64,
    /// The highest.
    pub max: f64,
}

impl Summary {
    /// The spread of `values`; `None` if there are none.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let at = |share| quantile(&values, share);
        Some(Self { min: at(0.0)?, lower: at(0.25)?, median: at(0.5)?, upper: at(0.75)?, max: at(1.0)? })
    }
}

/// The value below which the part `share` (0 to 1) of `sorted` lies, interpolated between two neighbours.
#[must_use]
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share.clamp(0.0, 1.0) * (sorted.len().checked_sub(1)? as f64);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the slice")]
    let below = place.floor() as usize;
    let low = sorted.get(below)?;
    let high = sorted.get(below + 1).unwrap_or(low);
    Some(low + (high - low) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_neighbours() {
        assert_eq!(Summary::of(vec![]), None);
        let one = Summary::of(vec![3.0]).unwrap();
        assert_eq!((one.min, one.median, one.max), (3.0, 3.0, 3.0));
        let four = Summary::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((four.min, four.lower, four.median, four.upper, four.max), (1.0, 1.75, 2.5, 3.25, 4.0));
    }
}
