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

# Tests of alerts talk to a real Alertmanager. Only its program is wanted, not a service that starts with the
# machine, so the package is unpacked and not installed. Without it that test is skipped.
fetch_alertmanager() {
  [ ! -x bin/alertmanager ] || return 0
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null || return 1 # nobody is asked for a password for this
  local dir
  dir=$(mktemp -d)
  chmod 755 "$dir"
  (
    cd "$dir"
    apt-get download -qq prometheus-alertmanager >/dev/null 2>&1 ||
      { as_root apt-get update -qq && apt-get download -qq prometheus-alertmanager >/dev/null; }
    dpkg-deb -x ./*.deb .
  ) || return 1
  # It reads its templates from there and nowhere else.
  as_root mkdir -p /usr/share/prometheus || return 1
  as_root cp -rn "$dir/usr/share/prometheus/alertmanager" /usr/share/prometheus/ || return 1
  mkdir -p bin
  cp "$dir/usr/bin/prometheus-alertmanager" bin/alertmanager
  rm -rf "$dir"
}
fetch_alertmanager || echo "setup: no Alertmanager from this machine's packages: the test that talks to a real one will be skipped" >&2

[ ${#missing[@]} -gt 0 ] || exit 0

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
