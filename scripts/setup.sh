#!/usr/bin/env bash
# Installs the system packages the tests need and the machine lacks. Does nothing when all are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing=()
command -v git >/dev/null || missing+=(git)
command -v make >/dev/null || missing+=(make)
# The race detector needs a C compiler; the product itself is pure Go.
command -v "${CC:-gcc}" >/dev/null || missing+=(gcc)
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
command -v shellcheck >/dev/null || missing+=(shellcheck)
command -v curl >/dev/null || missing+=(curl)

# as_root runs a command as root; it fails where nobody may become root.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  else
    sudo "$@"
  fi
}

# Tests talk to real servers and clients of others: scripts/fetch has one script for each, which puts it below bin/
# and does nothing when it is there. What cannot be fetched is told, and its tests are skipped; with
# SLUICE_REQUIRE_SERVERS=1, as in CI, they fail.
fetch_servers() {
  local script
  for script in scripts/fetch/*.sh; do
    "$script" || echo "setup: $script failed: the tests that need what it fetches will be skipped" >&2
  done
}

if [ ${#missing[@]} -eq 0 ]; then
  fetch_servers
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "setup: this machine lacks ${missing[*]} and has no apt-get: install them and run this again" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
  echo "setup: not root and no sudo: install ${missing[*]} and run this again" >&2
  exit 1
fi
echo "setup: installing ${missing[*]}"
as_root apt-get update -qq
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"
fetch_servers
