//! Draws the contenders' CPU time per request as an SVG chart: a bar up to the median, and a line between the quartiles.

use std::fmt::Write as _;

use crate::results::{Results, Row};

const ROW: f64 = 26.0;
const TOP: f64 = 44.0;
/// Where the bars begin, and the greatest length of a bar.
const LEFT: f64 = 150.0;
const WIDTH: f64 = 520.0;
/// Space for the number after a bar.
const RIGHT: f64 = 90.0;

/// The chart as SVG text.
#[must_use]
pub fn svg(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, &results.contenders);
    text
}

fn write(text: &mut String, rows: &[Row]) -> std::fmt::Result {
    let longest = rows.iter().map(|row| row.cpu.upper).fold(1.0, f64::max);
    let (width, height) = (LEFT + WIDTH + RIGHT, TOP + ROW * rows.len() as f64 + 10.0);
    writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">"
    )?;
    writeln!(text, "<title>CPU time of the proxy per request</title>")?;
    writeln!(text, "<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>")?;
    writeln!(
        text,
        "<text x=\"10\" y=\"24\" font-weight=\"bold\">CPU time of the proxy per request, microseconds: median, quartiles</text>"
    )?;
    for (number, row) in rows.iter().enumerate() {
        let middle = TOP + ROW * (number as f64 + 0.5);
        let long = |value: f64| value / longest * WIDTH;
        let fill = if ["ours", "native", "h2-ours", "h2-native"].iter().any(|ours| row.name.starts_with(ours)) {
            "#1f6feb"
        } else {
            "#8c959f"
        };
        writeln!(text, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 8.0, middle + 4.0, row.name)?;
        writeln!(
            text,
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"16\" fill=\"{fill}\"><title>{}</title></rect>",
            middle - 8.0,
            long(row.cpu.median),
            row.about
        )?;
        writeln!(
            text,
            "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"#24292f\" stroke-width=\"2\"/>",
            LEFT + long(row.cpu.lower),
            LEFT + long(row.cpu.upper)
        )?;
        writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\">{:.1}</text>",
            LEFT + long(row.cpu.upper) + 6.0,
            middle + 4.0,
            row.cpu.median
        )?;
    }
    writeln!(text, "</svg>")
}
