#!/usr/bin/env bash
# Fails when `make generate` changes anything: generated files are committed, so a difference means
# that somebody edited one by hand or forgot to generate. Files are compared with what they were just
# before, not with the last commit, so that this also works in a tree with work in progress.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

before=$(mktemp)
after=$(mktemp)
trap 'rm -f "$before" "$after"' EXIT

# snapshot lists every file git tracks or could track, with its hash. A file that is gone has no line.
snapshot() {
  git ls-files -z --cached --others --exclude-standard | sort -zu |
    while IFS= read -r -d '' file; do [ ! -f "$file" ] || printf '%s\0' "$file"; done |
    xargs -0 sha256sum
}

snapshot >"$before"
make --no-print-directory generate
snapshot >"$after"
if ! changed=$(diff "$before" "$after"); then
  echo "check-generate: these generated files are not up to date; run 'make generate' and commit the result:" >&2
  awk '/^[<>]/ { print "  " $3 }' <<<"$changed" | sort -u >&2
  exit 1
fi
