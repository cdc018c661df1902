//! The form of the filter, as an argument of a command.

use anyhow::Result;
use clap::Args;
use launcher::filter::Filter;

use crate::envoy::default_filter;

/// The form of the filter, as an argument of a command.
#[derive(Args, Clone, Copy, Debug)]
pub struct Form {
    /// The form of the filter [default: $PIXELL_FILTER, or wasm]
    #[arg(long, value_name = "wasm|native", value_parser = named)]
    filter: Option<Filter>,
}

fn named(name: &str) -> Result<Filter, &'static str> {
    Filter::named(name).ok_or("expected wasm or native")
}

impl Form {
    /// The form in the argument, else in `$PIXELL_FILTER`, else WebAssembly.
    ///
    /// # Errors
    /// If there is no argument and `$PIXELL_FILTER` names no form.
    pub fn filter(self) -> Result<Filter> {
        self.filter.map_or_else(default_filter, Ok)
    }
}
