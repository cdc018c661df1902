//! A counter with a label, as a host has it: one counter for each value.

use super::OTHER;

/// A counter with a label of fixed values. `C` is what the host has for a counter.
#[derive(Debug)]
pub struct Labelled<C, const N: usize> {
    values: [&'static str; N],
    counters: [C; N],
}

impl<C, const N: usize> Labelled<C, N> {
    /// All of them exist from the start, at 0, so that a rate is right from the first increment on. `counter` defines one by its name.
    pub fn define(name: &str, label: &str, values: [&'static str; N], counter: impl Fn(&str) -> C) -> Self {
        Self { values, counters: values.map(|value| counter(&labelled(name, label, value))) }
    }

    /// The counter of a value, or of [`OTHER`] for a value outside of the set; `None` if the set has neither.
    pub fn of(&self, value: &str) -> Option<&C> {
        let of = |wanted: &str| self.values.iter().zip(&self.counters).find(|(known, _)| **known == wanted);
        of(value).or_else(|| of(OTHER)).map(|(_, counter)| counter)
    }
}

/// A metric's name with its one label.
#[must_use]
pub fn labelled(name: &str, label: &str, value: &str) -> String {
    format!("{name}.{label}.{value}")
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_value_outside_of_the_set_counts_as_other() {
        let define = |values| Labelled::define("n", "l", values, str::to_owned);
        let of = |counters: Labelled<String, 2>, value| counters.of(value).cloned();
        assert_eq!(of(define(["a", "b"]), "b").as_deref(), Some("n.l.b"));
        assert_eq!(of(define(["a", "b"]), "c"), None);
        assert_eq!(of(define(["a", OTHER]), "c").as_deref(), Some("n.l.other"));
    }
}
