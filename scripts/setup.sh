#!/usr/bin/env bash
# Installs the system packages the tests need and the machine lacks. Does nothing when all are there.
set -euo pipefail

missing=()
command -v git >/dev/null || missing+=(git)
command -v make >/dev/null || missing+=(make)
# The race detector needs a C compiler; the product itself is pure Go.
command -v "${CC:-gcc}" >/dev/null || missing+=(gcc)
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
command -v shellcheck >/dev/null || missing+=(shellcheck)
command -v curl >/dev/null || missing+=(curl)
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "setup: this machine lacks ${missing[*]} and has no apt-get: install them and run this again" >&2
  exit 1
fi
sudo=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: not root and no sudo: install ${missing[*]} and run this again" >&2
    exit 1
  fi
  sudo=(sudo)
fi
echo "setup: installing ${missing[*]}"
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"
