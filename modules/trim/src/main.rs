//! `trim-modules RELEASE DIRECTORY`: what the build of the image runs on the compiler's release directory.

use std::path::Path;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [release, directory] = arguments.as_slice() else {
        bail!("usage: trim-modules RELEASE DIRECTORY");
    };
    for module in trim_modules::write(Path::new(release), Path::new(directory))? {
        println!("{}: {} bytes", module.place.display(), module.size);
    }
    Ok(())
}
