//! The pictures of `docs/operations.md`.
//!
//! `PIXELL_SCREENSHOTS=docs/images cargo xtask test browser` renews them, and the note beside them of which page they show;
//! `tests/envoy/operations.rs` fails where that is not the page as it is. Without the variable they go below `target/`.

use std::fmt::Write;
use std::path::PathBuf;

use harness::{Envoy, workspace};
use sha2::{Digest, Sha256};

use crate::driver::Browser;

const VARIABLE: &str = "PIXELL_SCREENSHOTS";

fn directory() -> PathBuf {
    let directory = std::env::var_os(VARIABLE).map_or_else(|| "target/screenshots".into(), PathBuf::from);
    // A test runs in the directory of its package.
    let directory = workspace::root().join(directory);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Takes the picture called `name` of what the browser shows of this Envoy's page.
pub(crate) async fn take(browser: &Browser, envoy: &Envoy, name: &str) {
    let page = envoy.routes().get("/").await.unwrap().body;
    take_of(browser, &page, name).await;
}

/// As [`take`], where Envoy cannot be asked any more: `page` is the document that it gave.
pub(crate) async fn take_of(browser: &Browser, page: &[u8], name: &str) {
    let directory = directory();
    browser.screenshot(&directory.join(name)).await.unwrap();
    let hash = Sha256::digest(page).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    std::fs::write(directory.join("status-page.sha256"), hash + "\n").unwrap();
}
