//! Writes what was counted as Markdown.

use std::fmt::Write as _;

use super::{ABI, Measured};

/// All tables.
#[must_use]
pub fn markdown(measured: &[Measured]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, measured);
    text
}

fn write(text: &mut String, measured: &[Measured]) -> std::fmt::Result {
    let of = |name: &str| measured.iter().find(|other| other.name == name).map(|other| other.instructions as f64);
    let ratio =
        |instructions: u64, to: Option<f64>| to.map_or_else(|| "-".to_owned(), |to| format!("{:.3}", instructions as f64 / to));
    writeln!(text, "| | | instructions per request | to `bare` | to `none` |\n| --- | --- | --- | --- | --- |")?;
    for Measured { name, about, instructions, .. } in measured {
        let (bare, none) = (ratio(*instructions, of("bare")), ratio(*instructions, of("none")));
        writeln!(text, "| `{name}` | {about} | {instructions} | {bare} | {none} |")?;
    }
    for Measured { name, calls, .. } in measured.iter().filter(|measured| !measured.calls.is_empty()) {
        writeln!(text, "\n`{name}`: calls between Envoy and the module, with everything that they call\n")?;
        writeln!(text, "| call | per request | instructions per request |\n| --- | --- | --- |")?;
        for (call, count, instructions) in calls {
            let call = call.strip_prefix(ABI).unwrap_or(call);
            writeln!(text, "| `{call}` | {count:.2} | {instructions:.0} |")?;
        }
    }
    Ok(())
}
