#!/usr/bin/env bash
# Debian's Caddy, for tests of the door for proxies: bin/caddy. Only its program is wanted, so the package is unpacked
# and not installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/fetch/lib.bash

[ ! -x bin/caddy ] || exit 0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
debian_download "$dir" caddy
mkdir -p bin
install -m 755 "$dir/usr/bin/caddy" bin/caddy.new
mv bin/caddy.new bin/caddy # whole or not at all
