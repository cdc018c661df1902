//! `trim-modules COMPILED DIRECTORY`: makes the modules in DIRECTORY from the compiler's output directory COMPILED.

use std::path::Path;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [compiled, directory] = arguments.as_slice() else {
        bail!("usage: trim-modules COMPILED DIRECTORY");
    };
    for module in trim_modules::write(Path::new(compiled), Path::new(directory))? {
        println!("{}: {} bytes ({} before exports were removed)", module.place.display(), module.size, module.compiled_size);
    }
    Ok(())
}
