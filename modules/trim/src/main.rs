//! `trim-modules COMPILED DIRECTORY`: what the build of the image runs on the directory that the compiler wrote to.

use std::path::Path;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [compiled, directory] = arguments.as_slice() else {
        bail!("usage: trim-modules COMPILED DIRECTORY");
    };
    for module in trim_modules::write(Path::new(compiled), Path::new(directory))? {
        println!("{}: {} bytes", module.place.display(), module.size);
    }
    Ok(())
}
