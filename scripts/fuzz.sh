#!/usr/bin/env bash
# Runs every fuzz target of the repository for a while, one after the other: fuzz.sh [TIME, default 10s].
# A failing input is written to the package's testdata/fuzz: commit it, it is then a test for good.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Lines "file:func FuzzName(": git knows which files are ours.
{ git grep --untracked -oE '^func Fuzz[A-Za-z0-9_]+\(' -- '*_test.go' ':!*/testdata/*' || true; } |
  while IFS=: read -r file match; do
    name=${match#func }
    name=${name%(}
    echo "fuzzing $name in $(dirname "$file")"
    go test -run '^$' -fuzz "^$name\$" -fuzztime "${1:-10s}" "./$(dirname "$file")" </dev/null
  done
