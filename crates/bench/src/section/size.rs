//! The size of the router's Wasm module.

use anyhow::{Context, Result};

use crate::contender::Stage;
use crate::results::Figure;

pub(super) fn measure(stage: &Stage<'_>) -> Result<Vec<Figure>> {
    let path = stage.modules.join("router.wasm");
    let bytes = path.metadata().with_context(|| format!("looking at {}", path.display()))?.len();
    Ok(vec![
        Figure::single("Size of the router's module, hops to other tasks included", "KiB", bytes as f64 / 1024.0)
            .at_most(186.0),
    ])
}
