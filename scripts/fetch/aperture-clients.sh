#!/usr/bin/env bash
# The published clients of Aperture, for tests that they work with Sluice unchanged: bin/aperture-clients/js from npm
# and bin/aperture-clients/py from PyPI. Versions and checksums are in test/doors/aperture.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/fetch/lib.bash

into=bin/aperture-clients
from=test/doors/aperture

# need installs Debian packages unless the command is there.
need() {
  local command=$1
  shift
  if ! command -v "$command" >/dev/null; then
    can_root
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
  fi
}

# finish puts a folder where the tests look for it, whole or not at all.
finish() {
  rm -rf "$2"
  mv "$1" "$2"
}

fetch_js() {
  need node nodejs
  need npm npm
  rm -rf "$into/js.new"
  mkdir -p "$into/js.new"
  cp "$from/js/package.json" "$from/js/package-lock.json" "$into/js.new/"
  npm ci --prefix "$into/js.new" --ignore-scripts --no-audit --no-fund --loglevel=error
  finish "$into/js.new" "$into/js"
}

fetch_py() {
  need python3 python3
  python3 -m pip --version >/dev/null 2>&1 || need pip3 python3-pip
  rm -rf "$into/py.new"
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes --root-user-action ignore \
    --target "$into/py.new" --requirement "$from/python/requirements.txt"
  finish "$into/py.new" "$into/py"
}

mkdir -p "$into"
cmp -s "$from/js/package-lock.json" "$into/js/package-lock.json" || fetch_js
if [ ! -d "$into/py" ] || ! cmp -s "$from/python/requirements.txt" "$into/py/requirements.txt"; then
  fetch_py
  cp "$from/python/requirements.txt" "$into/py/"
fi
