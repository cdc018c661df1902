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
    let spread = |one: &str, many: &str| {
        let ratios = cpu(many, "none").into_iter().zip(cpu(one, "none-1"));
        ratios.map(|(many, one)| many / one).collect()
    };
    [
        figure("20 routes / no filter", cpu("ours-20", "none")).map(|figure| figure.at_most(1.22)),
        figure("1 route / module without SDK", cpu("ours-1", "raw")).map(|figure| figure.at_most(1.05)),
        figure("65,535 routes / 1 route", spread("ours-1", "ours-largest")).map(|figure| figure.at_most(1.05)),
        figure("20 routes / Lua with the table in the script", cpu("ours-20", "lua")).map(|figure| figure.at_most(1.05)),
        figure("10,000 header-matched routes / pixell-envoy with 10,000", cpu("headers-10000", "ours-10000"))
            .map(|figure| figure.at_least(8.0)),
        figure("20 routes / bare Envoy", cpu("ours-20", "bare")).map(|figure| figure.at_most(1.45)),
        figure("native filter, 20 routes / no filter", cpu("native-20", "none")).map(|figure| figure.at_most(1.07)),
        figure("native filter, 20 routes / without the filter before retries", cpu("native-20", "native-20-no-retry-filter"))
            .map(|figure| figure.at_most(1.03)),
        figure("native filter, 20 routes / Lua with the table in the script", cpu("native-20", "lua"))
            .map(|figure| figure.at_most(0.97)),
        figure("native filter, 20 routes / bare Envoy", cpu("native-20", "bare")).map(|figure| figure.at_most(1.20)),
        figure("native filter, 65,535 routes / 1 route", spread("native-1", "native-largest"))
            .map(|figure| figure.at_most(1.03)),
        figure("HTTP/2, 20 routes / no filter", cpu("h2-ours-20", "h2-none")),
        figure("HTTP/2, native filter, 20 routes / no filter", cpu("h2-native-20", "h2-none")),
        figure("HTTP/2, native filter, 20 routes / bare Envoy", cpu("h2-native-20", "h2-bare")),
        // The floors of any Wasm filter, and of any filter: they show which bounds can be met on this machine.
        figure("floor: module without SDK / no filter", cpu("raw", "none-1")),
        figure("floor: module without SDK / Lua with the table in the script", cpu("raw", "lua")),
        figure("floor: 10,000 header-matched routes / no filter", cpu("headers-10000", "none")),
        figure("floor: the shipped configuration without a filter / bare Envoy", cpu("none", "bare")),
    ]
    .into_iter()
    .flatten()
    .collect()
}
