//! A reading of Envoy's counters and gauges.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use regex::Regex;

/// Counters and gauges by name, as they were at one moment. Histograms are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats(BTreeMap<String, u64>);

impl Stats {
    /// Reads the answer of `GET /stats`: a line `name: value` each.
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
    /// Where `pattern` is no regular expression.
    pub fn matching(&self, pattern: &str) -> Result<Vec<(&str, u64)>> {
        let pattern = Regex::new(pattern).with_context(|| format!("not a regular expression: {pattern}"))?;
        let all = self.0.iter().map(|(name, value)| (name.as_str(), *value));
        Ok(all.filter(|(name, _)| pattern.is_match(name)).collect())
    }

    /// The sum of the stats that match `pattern`.
    ///
    /// # Errors
    /// Where `pattern` is no regular expression.
    pub fn sum(&self, pattern: &str) -> Result<u64> {
        Ok(self.matching(pattern)?.iter().map(|(_, value)| value).sum())
    }

    /// The sum of Envoy's `wasm.<filter>.vm_reload*` counters: above 0 where a request has met a VM that had crashed. The crash
    /// itself is not counted, so send each worker a request before asking.
    ///
    /// # Errors
    /// Where Envoy keeps no such counter, so that a test cannot pass by counting nothing.
    pub fn vm_reloads(&self) -> Result<u64> {
        let counters = self.matching(r"^wasm\..*\.vm_reload")?;
        if counters.is_empty() {
            bail!("Envoy has no vm_reload counters");
        }
        Ok(counters.iter().map(|(_, value)| value).sum())
    }

    /// How many connections each worker has taken on the listener called `listener` (`agents` or `admin`): worker -> count.
    ///
    /// # Errors
    /// Where Envoy keeps no such counter, so that a test cannot pass by counting nothing.
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
    fn reads_names_and_values() {
        let stats = Stats::parse(TEXT);
        assert_eq!(stats.get("odd: name"), Some(5));
        assert_eq!(stats.get("cluster.a.upstream_rq_time"), None);
        assert_eq!(stats.sum("downstream_cx_total").unwrap(), 7);
        assert_eq!(stats.matching("active$").unwrap(), [("listener.agents.worker_1.downstream_cx_active", 1)]);
        assert!(stats.vm_reloads().is_err());
    }

    #[test]
    fn counts_every_kind_of_reload() {
        let text = "wasm.pixell.admin.vm_reload: 1\nwasm.pixell.router.vm_reload_backoff: 2\nwasm.wasm_vm_count: 4\n";
        assert_eq!(Stats::parse(text).vm_reloads().unwrap(), 3);
    }

    #[test]
    fn tells_workers_apart() {
        let stats = Stats::parse(TEXT);
        assert_eq!(stats.worker_connections("agents").unwrap(), BTreeMap::from([(0, 3), (1, 4)]));
        assert!(stats.worker_connections("nobody").is_err());
    }
}
