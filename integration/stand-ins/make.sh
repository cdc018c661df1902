#!/bin/bash
# Makes a stand-in for a base image where no registry can be reached, and prints its name: `cargo xtask image` and `cargo xtask
# integration` call this. It is made of Debian packages, this machine's Rust toolchain, or an Envoy release that is given; what
# is there already is not made again. docs/image.md says what stand-ins cannot prove.
#
# usage: make.sh envoy ENVOY_BINARY | rust | python
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# The release that rust:*-bookworm and python:*-bookworm are made of; Envoy's own base is Ubuntu 22.04, which is close to it.
release=bookworm
authorities=/etc/ssl/certs/ca-certificates.crt

die() {
  echo "make.sh: $*" >&2
  exit 1
}

need() { # COMMAND PACKAGE
  command -v "$1" >/dev/null || die "$1 is missing: install it (Debian: apt-get install $2)"
}

# Twelve digits that change with what a stand-in is made of.
fingerprint() { # [NAME [PROGRAM]]
  cat "$here/make.sh" "$authorities" ${1:+"$here/$1.Dockerfile"} ${2:+"$2"} | sha256sum | cut -c1-12
}

is_there() { # IMAGE
  docker image inspect "$1" >/dev/null 2>&1
}

# The root file system that all of them share: Debian's essential packages and apt, and this machine's certificate authorities, so
# that registries behind an authority of its own can be reached from a build as they are from here.
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

# Builds IMAGE from NAME.Dockerfile and the files that tar gets after it, unless it is there.
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
  # Named as rustup names it, or it would not answer for its targets. Documentation and other targets would double the size.
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
