//! The pictures of `docs/operations.md`.
//!
//! `PIXELL_SCREENSHOTS=docs/images cargo xtask test browser` renews them, and the hash of the page that they show.
//! `tests/envoy/operations.rs` fails if that is not the hash of the current page. Without the variable, the pictures go to `target/`.

use std::fmt::Write;
use std::path::PathBuf;

use harness::Envoy;
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

/// Takes the picture `name` of this Envoy's page in the browser.
pub(crate) async fn take(browser: &Browser, envoy: &Envoy, name: &str) {
    let page = envoy.routes().get("/").await.unwrap().body;
    take_of(browser, &page, name).await;
}

/// As [`take`], if Envoy has gone: `page` is the document that it served.
pub(crate) async fn take_of(browser: &Browser, page: &[u8], name: &str) {
    let directory = directory();
    browser.screenshot(&directory.join(name)).await.unwrap();
    let hash = Sha256::digest(page).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    std::fs::write(directory.join("status-page.sha256"), hash + "\n").unwrap();
}
