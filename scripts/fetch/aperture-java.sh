#!/usr/bin/env bash
# A client of Aperture's API for Java, for tests that it works with Sluice: bin/aperture-clients/java. Maven Central
# does not have the published one any more, so this one is built from the protos with what Maven Central has.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/fetch/lib.bash

into=bin/aperture-clients/java
from=test/doors/aperture/java
sum=$(cat "$from/pom.xml" "$from/src/main/java/Driver.java" api/proto/aperture/flowcontrol/check/v1/check.proto | sha256sum)
[ "$(cat "$into/built-from" 2>/dev/null)" != "$sum" ] || exit 0

if ! command -v mvn >/dev/null || ! command -v javac >/dev/null; then
  can_root
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends maven default-jdk-headless >/dev/null
fi
rm -rf "$into.new"
mkdir -p "$into.new"
mvn --batch-mode --quiet --file "$from/pom.xml" compile
echo "$sum" >"$into.new/built-from"
rm -rf "$into"
mv "$into.new" "$into" # whole or not at all
