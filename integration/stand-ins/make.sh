#!/bin/bash
# Makes stand-ins for the base images where no registry can be reached: `cargo xtask image` and `cargo xtask integration` call
# this. What they are made of: Debian packages, this machine's Rust toolchain, and the Envoy release that is given.
#
# usage: make.sh ENVOY_BINARY ENVOY_TAG RUST_TAG PYTHON_TAG
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# The release that rust:*-bookworm and python:*-bookworm are made of; Envoy's own base is Ubuntu 22.04, which is close to it.
release=bookworm
debian=pixell-stand-in/debian:$release

die() {
  echo "make.sh: $*" >&2
  exit 1
}

need() { # COMMAND PACKAGE
  command -v "$1" >/dev/null || die "$1 is missing: install it (Debian: apt-get install $2)"
}

# The root file system that all three share: Debian's essential packages and apt, and this machine's certificate authorities, so
# that registries behind an authority of its own can be reached from a build as they are from here.
make_debian() {
  [[ -n $(docker images --quiet "$debian") ]] && return
  need mmdebstrap mmdebstrap
  local authorities=/etc/ssl/certs/ca-certificates.crt
  [[ -r $authorities ]] || die "$authorities is missing: install it (Debian: apt-get install ca-certificates)"
  mmdebstrap --quiet --variant=apt --include=ca-certificates --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook="copy-in $authorities /etc/ssl/certs" "$release" - |
    docker import --change 'CMD ["bash"]' - "$debian" >/dev/null
}

# Builds the stand-in NAME from NAME.Dockerfile and the files that `tar` gets after it.
make() { # NAME TAG TAR_ARGUMENT...
  local name=$1 tag=$2
  shift 2
  tar --create --directory "$here" "$name.Dockerfile" "$@" |
    docker build --quiet --file "$name.Dockerfile" --build-arg "DEBIAN=$debian" --tag "$tag" - >/dev/null
  echo "made $tag"
}

[[ $# -eq 4 ]] || die "usage: make.sh ENVOY_BINARY ENVOY_TAG RUST_TAG PYTHON_TAG"
[[ -x $1 ]] || die "$1 is not an Envoy binary"
need docker docker.io
need rustc rustup
sysroot=$(rustc --print sysroot)
rustup=$(command -v rustup) || die "rustup is missing: https://rustup.rs"

make_debian
make envoy "$2" --directory "$(dirname "$1")" "$(basename "$1")"
# Named as rustup names it, or it would not answer for its targets. Documentation and other targets would double the size.
toolchain=$(rustc --version | cut -d' ' -f2)-$(rustc -vV | sed -n 's/^host: //p')
make rust "$3" --transform "s|^\./|toolchains/$toolchain/|" --directory "$sysroot" --exclude=./lib/rustlib/wasm32-unknown-unknown \
  --exclude=./lib/rustlib/src ./bin ./lib ./libexec --directory "$(dirname "$rustup")" rustup
make python "$4"
