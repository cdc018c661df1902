#!/bin/sh
# The first stage of Dockerfile.envoy runs this. It builds both forms of the filter and the image's own programs, and lays out the
# image's files in DIRECTORY. They are for this machine, or for another one that Rust calls TARGET; cargo's variable
# CARGO_TARGET_<TARGET>_LINKER then names its linker.
set -eu

out=${1:?usage: build-image.sh DIRECTORY [TARGET]}
target=${2:-$(rustc -vV | sed -n 's/^host: //p')}
wasi=wasm32-wasip1

# The same steps as `cargo xtask build`.
cargo build --locked --profile module --target "$wasi" --package pixell-router-module --package pixell-responses-module \
    --package pixell-admin-module --package pixell-clients-module
cargo run --locked --package trim-modules -- "target/$wasi/module" "$out/modules"
cargo build --locked --profile native --package pixell-native --target "$target"
# Linked statically, because the base image may have an older C library, or none. `--target` keeps the flag from build scripts.
RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --package launcher --target "$target"

# The modes are set here, because files of the work tree have the modes of the user that cloned it.

install -D -m 644 -t "$out/root/usr/local/lib/pixell-envoy" "$out"/modules/*.wasm
install -m 644 "target/$target/native/libpixell_native.so" "$out/root/usr/local/lib/pixell-envoy/native.so"
install -D -m 644 -t "$out/root/etc/envoy" envoy/envoy.yaml envoy/log-rate.yaml
install -D -m 755 -t "$out/root/usr/local/bin" "target/$target/release/pixell-envoy" "target/$target/release/pixell-envoy-health"
install -d -m 700 "$out/run/pixell-envoy"
