//! Has the module carry the unwinder: Envoy's distroless image lacks `libgcc_s.so.1`.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let Some(directory) = std::env::var_os("OUT_DIR").map(PathBuf::from) else { return };
    // The linker looks for `-lgcc_s`, which the standard library asks for, here first, and finds the static libraries.
    let script = directory.join("libgcc_s.so");
    match std::fs::write(&script, "INPUT(-lgcc_eh -lgcc)\n") {
        Ok(()) => println!("cargo::rustc-link-arg-cdylib=-L{}", directory.display()),
        Err(error) => println!("cargo::error={}: {error}", script.display()),
    }
}
