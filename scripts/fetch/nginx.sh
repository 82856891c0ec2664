#!/usr/bin/env bash
# Debian's nginx with its Lua module, for tests of the door for proxies: bin/nginx-root, unpacked and not installed. It
# runs with LD_LIBRARY_PATH, LUA_PATH and LUA_CPATH pointing below that folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/fetch/lib.bash

[ ! -x bin/nginx-root/usr/sbin/nginx ] || exit 0
mkdir -p bin
rm -rf bin/nginx-root.new
debian_download bin/nginx-root.new nginx nginx-common libnginx-mod-http-ndk libnginx-mod-http-lua lua-resty-core \
  lua-resty-lrucache libluajit2-5.1-2 libluajit2-5.1-common lua-cjson libpcre3 libssl3
rm -rf bin/nginx-root
mv bin/nginx-root.new bin/nginx-root # whole or not at all
