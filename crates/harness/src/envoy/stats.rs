//! Envoy's counters and gauges at one moment.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use regex::Regex;

/// Counters and gauges by name. Histograms are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats(BTreeMap<String, u64>);

impl Stats {
    /// Parses the response to `GET /stats`: lines `name: value`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let values = text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(values.collect())
    }

    /// The value of the stat called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// The stats whose name matches the regular expression `pattern` (anywhere in the name), in order of their names.
    ///
    /// # Errors
    /// If `pattern` is not a regular expression.
    pub fn matching(&self, pattern: &str) -> Result<Vec<(&str, u64)>> {
        let pattern = Regex::new(pattern).with_context(|| format!("not a regular expression: {pattern}"))?;
        let all = self.0.iter().map(|(name, value)| (name.as_str(), *value));
        Ok(all.filter(|(name, _)| pattern.is_match(name)).collect())
    }

    /// The sum of the stats that match `pattern`.
    ///
    /// # Errors
    /// If `pattern` is not a regular expression.
    pub fn sum(&self, pattern: &str) -> Result<u64> {
        Ok(self.matching(pattern)?.iter().map(|(_, value)| value).sum())
    }

    /// How often the filter has crashed: the sum of Envoy's `wasm.<filter>.vm_reload*` counters, or the panics of the native filter.
    /// Envoy counts a VM's crash only at the next request to its worker, so send one to each worker first.
    ///
    /// # Errors
    /// If Envoy has no such counter, so that a test cannot pass by counting nothing.
    pub fn crashes(&self) -> Result<u64> {
        let counters = self.matching(r"^wasm\..*\.vm_reload|^wasmcustom\.pixell_panics_total$")?;
        if counters.is_empty() {
            bail!("Envoy has no counter of crashes");
        }
        Ok(counters.iter().map(|(_, value)| value).sum())
    }

    /// How many connections each worker has accepted on the listener `listener` (`agents` or `admin`), by the worker's number.
    ///
    /// # Errors
    /// If Envoy has no such counter, so that a test cannot pass by counting nothing.
    pub fn worker_connections(&self, listener: &str) -> Result<BTreeMap<u32, u64>> {
        let pattern = format!(r"^listener\.{}\.worker_(\d+)\.downstream_cx_total$", regex::escape(listener));
        let pattern = Regex::new(&pattern)?;
        let mut workers = BTreeMap::new();
        for (name, value) in &self.0 {
            if let Some(worker) = pattern.captures(name).and_then(|found| found.get(1)) {
                workers.insert(worker.as_str().parse()?, *value);
            }
        }
        if workers.is_empty() {
            bail!("Envoy has no worker counters for a listener {listener:?}");
        }
        Ok(workers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "cluster.a.upstream_rq_time: No recorded values\n\
                        listener.agents.worker_0.downstream_cx_total: 3\n\
                        listener.agents.worker_1.downstream_cx_total: 4\n\
                        listener.agents.worker_1.downstream_cx_active: 1\n\
                        odd: name: 5\n";

    #[test]
    fn names_and_values_are_parsed() {
        let stats = Stats::parse(TEXT);
        assert_eq!(stats.get("odd: name"), Some(5));
        assert_eq!(stats.get("cluster.a.upstream_rq_time"), None);
        assert_eq!(stats.sum("downstream_cx_total").unwrap(), 7);
        assert_eq!(stats.matching("active$").unwrap(), [("listener.agents.worker_1.downstream_cx_active", 1)]);
        assert!(stats.crashes().is_err());
    }

    #[test]
    fn every_kind_of_crash_is_counted() {
        let text = "wasm.pixell.admin.vm_reload: 1\nwasm.pixell.router.vm_reload_backoff: 2\nwasm.wasm_vm_count: 4\n";
        assert_eq!(Stats::parse(text).crashes().unwrap(), 3);
        assert_eq!(Stats::parse("wasmcustom.pixell_panics_total: 2\n").crashes().unwrap(), 2);
    }

    #[test]
    fn connections_are_counted_by_worker() {
        let stats = Stats::parse(TEXT);
        assert_eq!(stats.worker_connections("agents").unwrap(), BTreeMap::from([(0, 3), (1, 4)]));
        assert!(stats.worker_connections("nobody").is_err());
    }
}
