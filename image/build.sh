#!/bin/sh
# What the first stage of Dockerfile.envoy runs: `compile` builds the filter and the image's own programs, `install DIRECTORY` lays
# out what goes into the image.
set -eu

host=$(rustc -vV | sed -n 's/^host: //p')
wasi=wasm32-wasip1

case ${1:-} in
compile)
  # As `cargo xtask build` does it.
  cargo build --locked --profile module --target "$wasi" --package pixell-router-module --package pixell-admin-module
  cargo build --locked --package trim-modules
  # Linked statically, as the base image may have an older C library, or none. `--target` keeps the flag from build scripts.
  RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --package launcher --target "$host"
  ;;
install)
  target/debug/trim-modules "target/$wasi/module" modules.out
  # Modes are said here, as the files of the work tree have those of whoever cloned it.
  install -D -m 644 -t "$2/root/usr/local/lib/pixell-envoy" modules.out/router.wasm modules.out/admin.wasm
  install -D -m 644 -t "$2/root/etc/envoy" envoy/envoy.yaml
  install -D -m 755 -t "$2/root/usr/local/bin" "target/$host/release/pixell-envoy" "target/$host/release/pixell-envoy-health"
  install -d -m 700 "$2/run/pixell-envoy"
  ;;
*)
  echo "usage: build.sh compile | install DIRECTORY" >&2
  exit 2
  ;;
esac
