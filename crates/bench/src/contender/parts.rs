//! Parts of the shipped configuration that a request may pay for. Each is removed by itself, to see what it costs. One is put back, because
//! the configuration without a filter lacks it.

use anyhow::{Context, Result};

/// The change of `stats_config` that removes the counters of requests and agents.
pub(super) const NO_STATS: [&str; 2] =
    ["patterns: [{ prefix: cluster.agents_http2.grpc-web. }]", "patterns: [{ prefix: http. }, { prefix: cluster.agents }]"];

/// A part of `envoy/envoy.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The access log of the data path.
    Log,
    /// All conditions of it: each request is logged in full.
    LogConditions,
    /// All fields of a line but one.
    LogFields,
    /// The condition of it that is written in CEL.
    LogExpression,
    /// The request id that Envoy makes up.
    RequestId,
    /// The retry policy.
    Retries,
    /// The header that tells agents the number of the attempt. It is put back: it goes with the filter that needs it.
    AttemptHeader,
    /// The router's counters of responses by their status.
    DynamicStats,
    /// The counters of requests and agents.
    Stats,
    /// The expressions that make labels of parts of a metric's name.
    StatsTags,
    /// The circuit breakers that differ from Envoy's defaults.
    Breakers,
    /// The accounts of what each stream has buffered.
    Accounting,
    /// The overload manager.
    Overload,
    /// The removal of headers that only the proxy may send to agents.
    HeaderMutations,
    /// The removal of headers that only the proxy may send to clients.
    AgentHeaders,
    /// The form of Envoy's own responses.
    LocalReplies,
    /// The time limits for headers and idle connections.
    Timers,
}

/// The changes of the shipped file that remove `part`, or put it back: what is replaced (found once), and by what.
///
/// # Errors
/// If the shipped file does not hold the part.
pub(super) fn changes(part: Part, shipped: &str) -> Result<Vec<(String, String)>> {
    let without = |first: &str| anyhow::Ok((block(shipped, first)?, String::new()));
    let replace = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    Ok(match part {
        Part::Log => vec![without("                access_log:")?, moved_rate(shipped)?],
        Part::LogConditions => vec![
            without("                    filter:")?,
            (item(shipped, "                  - name: envoy.access_loggers.stdout", "pixell.access_log.brief")?, String::new()),
            moved_rate(shipped)?,
        ],
        Part::LogFields => {
            let format = "                        json_format:";
            vec![(block(shipped, format)?, format!("{format} {{ log: access }}\n"))]
        }
        Part::LogExpression => {
            vec![(
                item(shipped, "                                      - extension_filter:", "response.flags == 0")?,
                String::new(),
            )]
        }
        Part::RequestId => {
            let keep = "preserve_external_request_id: true";
            vec![replace(keep, &format!("{keep}\n                generate_request_id: false"))]
        }
        Part::Retries => vec![without("                      retry_policy: &agent_retries")?],
        Part::AttemptHeader => {
            // The comment above it, because the line itself is removed with the filter.
            let place = "                      # For the filter pixell.retry below.\n";
            vec![replace(place, "                      include_request_attempt_count: true # as shipped\n")]
        }
        Part::DynamicStats => {
            let keep = "suppress_envoy_headers: true";
            vec![replace(keep, &format!("{keep}\n                      dynamic_stats: false"))]
        }
        Part::Stats => vec![replace(NO_STATS[0], NO_STATS[1])],
        Part::StatsTags => vec![without("  stats_tags:")?],
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
        Part::AgentHeaders => vec![without("            - name: pixell.agent_headers")?],
        Part::LocalReplies => {
            // A route needs this match, which is written here.
            let (anchor, alias) = ("&grpc_with_parameter ", "*grpc_with_parameter");
            let (_, rest) = shipped.split_once(anchor).context("the local replies have no match for gRPC with a parameter")?;
            let (matched, _) = rest.split_once(" } }").context("the match for gRPC with a parameter does not end")?;
            vec![without("                local_reply_config:")?, replace(alias, &format!("{matched} }} }}"))]
        }
        Part::Timers => vec![
            replace("                request_headers_timeout: 10s\n                # Neither", "                # Neither"),
            replace("                  idle_timeout: 300s\n", "                  idle_timeout: 0s\n"),
            without("                  connection_keepalive:")?,
        ],
    })
}

/// The change that moves the rate of the log of failed requests to the log of the admin listener, which refers to it.
fn moved_rate(shipped: &str) -> Result<(String, String)> {
    let rate = block(shipped, "                                      - &log_rate")?.replacen("- &log_rate\n", "-\n", 1);
    let moved = rate.split_inclusive('\n').map(|line| line.strip_prefix("      ").unwrap_or(line)).collect();
    Ok(("                                - *log_rate\n".to_owned(), moved))
}

/// The first block of `text` that begins with `first` and contains `inner`. It is not the text's first line.
fn item(text: &str, first: &str, inner: &str) -> Result<String> {
    let line = format!("\n{first}");
    let starts = text.match_indices(&line).filter_map(|(end, _)| text.get(end + 1..));
    let mut blocks = starts.filter_map(|rest| block(rest, first).ok());
    blocks.find(|block| block.contains(inner)).with_context(|| format!("envoy.yaml has no {first:?} with {inner:?}"))
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
    fn an_item_is_the_one_with_the_text() {
        let text = "a:\n    - b:\n        c: 2\n  - b:\n      c: 1\n  - b:\n      c: 2\n  - b: 3\n";
        assert_eq!(item(text, "  - b:", "c: 2").unwrap(), "  - b:\n      c: 2\n");
        assert!(item(text, "  - b:", "c: 3").is_err());
    }

    #[test]
    fn every_part_is_found_once() {
        use Part as P;
        let shipped = std::fs::read_to_string(workspace::root().join("envoy/envoy.yaml")).unwrap();
        let parts = [
            P::Log,
            P::LogConditions,
            P::LogFields,
            P::LogExpression,
            P::RequestId,
            P::Retries,
            P::AttemptHeader,
            P::DynamicStats,
            P::Stats,
            P::StatsTags,
            P::Breakers,
            P::Accounting,
            P::Overload,
            P::HeaderMutations,
            P::AgentHeaders,
            P::LocalReplies,
            P::Timers,
        ];
        for part in parts {
            for (from, _) in changes(part, &shipped).unwrap() {
                assert_eq!(shipped.matches(&from).count(), 1, "{part:?}: {from}");
            }
        }
    }
}
