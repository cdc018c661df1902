//! Parts of the shipped configuration that a request may pay for. Each is removed by itself, to see what it costs.

use anyhow::{Context, Result};

/// The change of `stats_config` that removes the counters of requests and agents.
pub(super) const NO_STATS: [&str; 2] =
    ["patterns: [{ prefix: cluster.agents_http2.grpc-web. }]", "patterns: [{ prefix: http. }, { prefix: cluster.agents }]"];

/// A part of `envoy/envoy.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The access log of the data path.
    Log,
    /// The condition of it that is written in CEL.
    LogExpression,
    /// The request id that Envoy makes up.
    RequestId,
    /// The retry policy.
    Retries,
    /// The router's counters of responses by their status.
    DynamicStats,
    /// The counters of requests and agents.
    Stats,
    /// The circuit breakers that differ from Envoy's defaults.
    Breakers,
    /// The accounts of what each stream has buffered.
    Accounting,
    /// The overload manager.
    Overload,
    /// The removal of headers that only the proxy may send to agents.
    HeaderMutations,
    /// The time limits for headers and idle connections.
    Timers,
}

/// The changes that remove `part` from the shipped file: what is replaced (found once), and by what.
///
/// # Errors
/// If the shipped file does not hold the part.
pub(super) fn removal(part: Part, shipped: &str) -> Result<Vec<(String, String)>> {
    let without = |first: &str| anyhow::Ok((block(shipped, first)?, String::new()));
    let replace = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    Ok(match part {
        Part::Log => {
            // The log of the admin listener keeps its limit, which is written here.
            let (log, rate) = (
                block(shipped, "                access_log:")?,
                block(shipped, "                                      - &log_rate")?,
            );
            let rate = rate.replacen("- &log_rate\n", "-\n", 1);
            let moved: String = rate.split_inclusive('\n').map(|line| line.strip_prefix("      ").unwrap_or(line)).collect();
            vec![(log, String::new()), ("                                - *log_rate\n".to_owned(), moved)]
        }
        Part::LogExpression => {
            let from = "expression: response.flags == 0";
            let all: Vec<_> = shipped.lines().collect();
            let at = all.iter().position(|line| line.trim() == from).context("the log has no condition in CEL")?;
            let start = at.checked_sub(4).context("the condition stands at the beginning")?;
            let item = all.get(start..=at).context("the condition is too short")?.join("\n") + "\n";
            vec![(item, String::new())]
        }
        Part::RequestId => {
            let keep = "preserve_external_request_id: true";
            vec![replace(keep, &format!("{keep}\n                generate_request_id: false"))]
        }
        Part::Retries => vec![without("                      retry_policy: &agent_retries")?],
        Part::DynamicStats => {
            let keep = "suppress_envoy_headers: true";
            vec![replace(keep, &format!("{keep}\n                      dynamic_stats: false"))]
        }
        Part::Stats => vec![replace(NO_STATS[0], NO_STATS[1])],
        Part::Breakers => vec![
            without("      circuit_breakers: &agent_circuit_breakers")?,
            replace("      circuit_breakers: *agent_circuit_breakers\n", ""),
            replace("        per_host_thresholds: *one_agent\n", ""),
        ],
        Part::Accounting => {
            vec![without("  buffer_factory_config:")?, without("    - name: envoy.overload_actions.reset_high_memory_stream")?]
        }
        Part::Overload => vec![without("overload_manager:")?],
        Part::HeaderMutations => vec![without("                early_header_mutation_extensions:")?],
        Part::Timers => vec![
            replace("                request_headers_timeout: 10s\n                # Neither", "                # Neither"),
            replace("                  idle_timeout: 300s\n", "                  idle_timeout: 0s\n"),
            without("                  connection_keepalive:")?,
        ],
    })
}

/// The lines of `text` from the one that begins with `first` to the last one that is indented more deeply. `first` has its indentation.
fn block(text: &str, first: &str) -> Result<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = text.split_inclusive('\n').skip_while(|line| !line.starts_with(first));
    let mut block = lines.next().with_context(|| format!("envoy.yaml has no line {first:?}"))?.to_owned();
    block.extend(lines.take_while(|line| line.trim().is_empty() || indent(line) > indent(first)));
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_ends_with_its_indentation() {
        let text = "a:\n  b:\n    - 1\n\n    - 2\n  c: 3\n";
        assert_eq!(block(text, "  b:").unwrap(), "  b:\n    - 1\n\n    - 2\n");
        assert_eq!(block(text, "  c:").unwrap(), "  c: 3\n");
        assert!(block(text, "  d:").is_err());
    }

    #[test]
    fn every_part_is_found_once() {
        use Part as P;
        let shipped = std::fs::read_to_string(workspace::root().join("envoy/envoy.yaml")).unwrap();
        let parts = [
            P::Log,
            P::LogExpression,
            P::RequestId,
            P::Retries,
            P::DynamicStats,
            P::Stats,
            P::Breakers,
            P::Accounting,
            P::Overload,
            P::HeaderMutations,
            P::Timers,
        ];
        for part in parts {
            for (from, _) in removal(part, &shipped).unwrap() {
                assert_eq!(shipped.matches(&from).count(), 1, "{part:?}: {from}");
            }
        }
    }
}
