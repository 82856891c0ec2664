#!/usr/bin/env bash
# Debian's HAProxy, for tests of the door for proxies: bin/haproxy-root, unpacked and not installed. It runs with
# LD_LIBRARY_PATH pointing below that folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/fetch/lib.bash

[ ! -x bin/haproxy-root/usr/sbin/haproxy ] || exit 0
mkdir -p bin
rm -rf bin/haproxy-root.new
debian_download bin/haproxy-root.new haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1 libsystemd0 libssl3
rm -rf bin/haproxy-root
mv bin/haproxy-root.new bin/haproxy-root # whole or not at all
