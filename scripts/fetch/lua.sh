#!/usr/bin/env bash
# Debian's Lua 5.1 with busted, for the unit tests of the plugin for Kong: bin/lua-root, unpacked and not installed. It
# runs with LD_LIBRARY_PATH, LUA_PATH and LUA_CPATH pointing below that folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/fetch/lib.bash

[ ! -x bin/lua-root/usr/bin/lua5.1 ] || exit 0
mkdir -p bin
rm -rf bin/lua-root.new
debian_download bin/lua-root.new lua5.1 liblua5.1-0 lua-busted lua-cliargs lua-dkjson lua-filesystem lua-luassert \
  lua-mediator lua-penlight lua-say lua-system lua-term lua-socket lua-cjson libreadline8 readline-common
rm -rf bin/lua-root
mv bin/lua-root.new bin/lua-root # whole or not at all
