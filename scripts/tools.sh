#!/usr/bin/env bash
# Builds the tools named on the command line (all of them by default) into ./bin, at the versions
# pinned in tools.txt. A tool is built again only when its own build record names another version of
# it or of Go: golangci-lint refuses code newer than the Go it was built with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

go_version=$(go env GOVERSION)

# installed_version prints "<go version> <tool version>" as the binary itself records them.
installed_version() {
  [ -x "bin/$1" ] || return 0
  go version -m "bin/$1" 2>/dev/null | awk 'NR == 1 { go = $2 } $1 == "mod" { print go, $3 }'
}

wanted=" $* "
while read -r name package version; do
  case "$name" in '' | '#'*) continue ;; esac
  [ $# -eq 0 ] || [[ "$wanted" == *" $name "* ]] || continue
  wanted=${wanted/ $name / }
  [ "$(installed_version "$name")" != "$go_version $version" ] || continue
  echo "building bin/$name $version"
  # The environment's GOFLAGS are meant for our code: -mod or -race would break or slow the tools.
  GOFLAGS='' GOBIN="$PWD/bin" CGO_ENABLED=0 go install -trimpath -ldflags='-s -w' "$package@$version"
done <scripts/tools.txt

if [ $# -gt 0 ] && [ -n "${wanted// /}" ]; then
  echo "scripts/tools.sh: no such tool in scripts/tools.txt:$wanted" >&2
  exit 1
fi
