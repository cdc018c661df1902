//! Writes the results as Markdown tables, for the terminal and for the documentation.

use std::fmt::Write as _;

use crate::results::{Bound, Figure, Results};
use crate::summary::Summary;

/// All tables of `results`.
#[must_use]
pub fn markdown(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, results);
    text
}

fn write(text: &mut String, results: &Results) -> std::fmt::Result {
    let machine = &results.machine;
    writeln!(
        text,
        "{}, {} cores, {} GiB; {}; Envoy {}; {} rounds; load average at the start {:.1}\n",
        machine.processor, machine.cores, machine.memory, machine.kernel, machine.envoy, results.rounds, machine.load_average
    )?;
    if !results.contenders.is_empty() {
        writeln!(
            text,
            "| contender | | CPU per request, us | lowest | ratio to its floor | requests/s | latency, us | p99, us |"
        )?;
        writeln!(text, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
    }
    for row in &results.contenders {
        writeln!(
            text,
            "| `{}` | {} | {} | {:.1} | {} | {:.0} | {:.0} | {:.0} |",
            row.name,
            row.about,
            spread(&row.cpu, 1),
            row.cpu.min,
            row.ratio.map_or_else(|| "-".to_owned(), |ratio| spread(&ratio, 2)),
            row.throughput.median,
            row.latency.median,
            row.latency_p99.median,
        )?;
    }
    writeln!(text, "\n| figure | value | quartiles | bound | met |\n| --- | --- | --- | --- | --- |")?;
    for figure in &results.figures {
        let quartiles = figure
            .spread
            .map_or_else(|| "-".to_owned(), |spread| format!("{} to {}", number(spread.lower), number(spread.upper)));
        let bound = match figure.bound {
            Some(Bound::AtMost(bound)) => format!("<= {}", with_unit(bound.to_string(), figure)),
            Some(Bound::AtLeast(bound)) => format!(">= {}", with_unit(bound.to_string(), figure)),
            None => "-".to_owned(),
        };
        let met = match figure.met() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "-",
        };
        writeln!(text, "| {} | {} | {quartiles} | {bound} | {met} |", figure.what, with_unit(number(figure.value), figure))?;
    }
    Ok(())
}

fn with_unit(value: String, figure: &Figure) -> String {
    if figure.unit.is_empty() { value } else { format!("{value} {}", figure.unit) }
}

/// `value` with three significant digits.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// The median, and the quartiles in brackets.
fn spread(summary: &Summary, decimals: usize) -> String {
    format!("{:.decimals$} ({:.decimals$}-{:.decimals$})", summary.median, summary.lower, summary.upper)
}
