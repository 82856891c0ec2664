#!/usr/bin/env bash
# Says what to open and type while the server of `make run` is up: banner.sh HOST:PORT.
set -euo pipefail
server=$1
elsewhere=''
[ "$server" = 127.0.0.1:8080 ] || elsewhere=$'\n'"  export SLUICE_SERVER=$server"

cat <<EOF

Starting Sluice with the policies of examples/policies. Ctrl-C stops it.

Open  http://$server/debug/     queues, accounts and policies
      http://$server/metrics    for Prometheus

In another terminal:
$elsewhere
  # Five are admitted at once, then one every two seconds.
  for i in {1..8}; do bin/sluice check hello --label user=alice; done

  # The same over HTTP, from any language.
  curl -s http://$server/sluice.flow.v1.FlowService/Start -H 'content-type: application/json' \\
    -d '{"controlPoint": "hello", "labels": {"user": "bob"}}'

  bin/sluice top            # watch it
  bin/sluice policy list    # what is in force
  bin/sluice demo mistral   # paying users first, measured without and with a policy

EOF
