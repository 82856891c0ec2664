#!/usr/bin/env bash
# Debian's Alertmanager, for tests of alerts: bin/alertmanager. Only its program is wanted, not a service that
# starts with the machine, so the package is unpacked and not installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/fetch/lib.bash

[ ! -x bin/alertmanager ] || exit 0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
debian_download "$dir" prometheus-alertmanager
# It reads its templates from there and nowhere else.
as_root mkdir -p /usr/share/prometheus
as_root cp -rn "$dir/usr/share/prometheus/alertmanager" /usr/share/prometheus/
mkdir -p bin
cp "$dir/usr/bin/prometheus-alertmanager" bin/alertmanager
