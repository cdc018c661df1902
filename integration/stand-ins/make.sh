#!/bin/bash
# Makes a stand-in for a base image if no registry can be reached, and prints its name. `cargo xtask image` and `cargo xtask
# integration` call it. A stand-in is made of Debian packages, and of this machine's Rust toolchain or the Envoy release that is
# given. An existing one is reused. docs/image.md says what stand-ins cannot prove.
#
# usage: make.sh envoy ENVOY_BINARY | rust | python
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# The release of rust:*-bookworm and python:*-bookworm. Envoy's own base is Ubuntu 22.04, which is close to it.
release=bookworm
authorities=/etc/ssl/certs/ca-certificates.crt

die() {
  echo "make.sh: $*" >&2
  exit 1
}

need() { # COMMAND PACKAGE
  command -v "$1" >/dev/null || die "$1 is missing: install it (Debian: apt-get install $2)"
}

# Twelve digits that change with the contents of a stand-in.
fingerprint() { # [NAME [PROGRAM]]
  cat "$here/make.sh" "$authorities" ${1:+"$here/$1.Dockerfile"} ${2:+"$2"} | sha256sum | cut -c1-12
}

is_there() { # IMAGE
  docker image inspect "$1" >/dev/null 2>&1
}

# The root file system of all stand-ins: Debian's essential packages and apt, and this machine's certificate authorities, so that a
# build reaches every registry that this machine reaches, also one with a private authority.
debian() {
  local image
  image=pixell-stand-in/debian:$release-$(fingerprint)
  if ! is_there "$image"; then
    need mmdebstrap mmdebstrap
    mmdebstrap --quiet --variant=apt --include=ca-certificates --dpkgopt='path-exclude=/usr/share/doc/*' \
      --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --customize-hook="copy-in $authorities /etc/ssl/certs" "$release" - |
      docker import --change 'CMD ["bash"]' - "$image" >&2
  fi
  echo "$image"
}

# Builds IMAGE from NAME.Dockerfile and the files that the TAR_ARGUMENTs name, unless it exists.
make() { # IMAGE NAME TAR_ARGUMENT...
  local image=$1 name=$2 base
  shift 2
  if ! is_there "$image"; then
    base=$(debian)
    echo "making $image" >&2
    tar --create --directory "$here" "$name.Dockerfile" "$@" |
      docker build --quiet --file "$name.Dockerfile" --build-arg "DEBIAN=$base" --tag "$image" - >&2
  fi
  echo "$image"
}

need docker docker.io
[[ -r $authorities ]] || die "$authorities is missing: install it (Debian: apt-get install ca-certificates)"

case ${1:-} in
envoy)
  binary=${2:?an Envoy binary is needed}
  [[ -x $binary ]] || die "$binary is not a program"
  version=$("$binary" --version | sed -n 's|.* version: [0-9a-f]*/\([^/]*\)/.*|\1|p')
  [[ -n $version ]] || die "$binary is not an Envoy"
  make "pixell-stand-in/envoy:$version-$(fingerprint envoy "$binary")" envoy \
    --directory "$(dirname "$binary")" --transform "s|^$(basename "$binary")$|envoy|" "$(basename "$binary")"
  ;;
rust)
  rustup=$(command -v rustup) || die "rustup is missing: install it (https://rustup.rs)"
  sysroot=$(rustc --print sysroot)
  version=$(rustc --version | cut -d' ' -f2)
  # Named as rustup names it, or rustup would not find its targets. Documentation and other targets would double the size.
  toolchain=$version-$(rustc -vV | sed -n 's/^host: //p')
  make "pixell-stand-in/rust:$version-$(fingerprint rust "$sysroot/bin/rustc")" rust \
    --transform "s|^\./|toolchains/$toolchain/|" --directory "$sysroot" \
    --exclude=./lib/rustlib/wasm32-unknown-unknown --exclude=./lib/rustlib/src ./bin ./lib ./libexec \
    --directory "$(dirname "$rustup")" rustup
  ;;
python)
  make "pixell-stand-in/python:3.11-$(fingerprint python)" python
  ;;
*)
  die "usage: make.sh envoy ENVOY_BINARY | rust | python"
  ;;
esac
