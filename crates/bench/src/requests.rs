//! The figures about single requests, from the samples of all rounds.

use crate::contender::PLANS;
use crate::load::Sample;
use crate::results::{Figure, Row};
use crate::rounds::{Samples, ratios};
use crate::summary::Summary;

/// A row for each contender that was measured.
#[must_use]
pub fn rows(samples: &Samples) -> Vec<Row> {
    PLANS
        .iter()
        .filter_map(|plan| {
            let of = |value: fn(&Sample) -> f64| Summary::of(samples.get(plan.name)?.iter().map(value).collect());
            Some(Row {
                name: plan.name.to_owned(),
                about: plan.about.to_owned(),
                cpu: of(|sample| sample.cpu)?,
                ratio: Summary::of(ratios(samples, plan.name, plan.floor(), |sample| sample.cpu)),
                throughput: of(|sample| sample.throughput)?,
                latency: of(|sample| sample.latency)?,
                latency_p99: of(|sample| sample.latency_p99)?,
            })
        })
        .collect()
}

/// The figures with bounds and their floors, if their contenders were measured.
#[must_use]
pub fn figures(samples: &Samples) -> Vec<Figure> {
    let cpu = |one: &str, other: &str| ratios(samples, one, other, |sample| sample.cpu);
    let figure = |what: &str, values| Figure::median(format!("CPU per request, {what}"), "", values);
    // Requests to one agent are cheaper than requests to sixteen, even without a filter. Only the cost of the filter must count, so
    // each is divided by its own floor.
    let spread = cpu("ours-largest", "none").into_iter().zip(cpu("ours-1", "none-1")).map(|(many, one)| many / one).collect();
    [
        figure("20 routes / no filter", cpu("ours-20", "none")).map(|figure| figure.at_most(1.22)),
        figure("1 route / module without SDK", cpu("ours-1", "raw")).map(|figure| figure.at_most(1.05)),
        figure("65,535 routes / 1 route", spread).map(|figure| figure.at_most(1.05)),
        figure("20 routes / Lua with the table in the script", cpu("ours-20", "lua")).map(|figure| figure.at_most(1.05)),
        figure("10,000 header-matched routes / pixell-envoy with 10,000", cpu("headers-10000", "ours-10000"))
            .map(|figure| figure.at_least(8.0)),
        // The floors of any Wasm filter, and of any filter: they show which bounds can be met on this machine.
        figure("floor: module without SDK / no filter", cpu("raw", "none-1")),
        figure("floor: module without SDK / Lua with the table in the script", cpu("raw", "lua")),
        figure("floor: 10,000 header-matched routes / no filter", cpu("headers-10000", "none")),
    ]
    .into_iter()
    .flatten()
    .collect()
}
