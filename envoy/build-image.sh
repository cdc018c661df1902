#!/bin/sh
# The first stage of Dockerfile.envoy runs this. It builds both forms of the filter and the image's own programs, and lays out the
# image's files in DIRECTORY.
set -eu

out=${1:?usage: build-image.sh DIRECTORY}
host=$(rustc -vV | sed -n 's/^host: //p')
wasi=wasm32-wasip1

# The same steps as `cargo xtask build`.
cargo build --locked --profile module --target "$wasi" --package pixell-router-module --package pixell-responses-module \
    --package pixell-admin-module --package pixell-clients-module
cargo run --locked --package trim-modules -- "target/$wasi/module" modules.out
cargo build --locked --profile native --package pixell-native
# Linked statically, because the base image may have an older C library, or none. `--target` keeps the flag from build scripts.
RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --package launcher --target "$host"

# The modes are set here, because files of the work tree have the modes of the user that cloned it.

install -D -m 644 -t "$out/root/usr/local/lib/pixell-envoy" modules.out/router.wasm modules.out/responses.wasm modules.out/admin.wasm \
    modules.out/clients.wasm
install -m 644 target/native/libpixell_native.so "$out/root/usr/local/lib/pixell-envoy/native.so"
install -D -m 644 -t "$out/root/etc/envoy" envoy/envoy.yaml envoy/log-rate.yaml
install -D -m 755 -t "$out/root/usr/local/bin" "target/$host/release/pixell-envoy" "target/$host/release/pixell-envoy-health"
install -d -m 700 "$out/run/pixell-envoy"
