#!/usr/bin/env bash
# Says what to open and type while the server of `make run` is up: banner.sh HOST:PORT.
set -euo pipefail
server=$1
elsewhere=''
[ "$server" = 127.0.0.1:8080 ] || elsewhere=$'\n'"  export SLUICE_SERVER=$server"

cat <<EOF

Starting Sluice with the policies of examples/policies. Ctrl-C stops it.

Open  http://$server/debug/     queues, accounts, policies, circuits and alerts
      http://$server/metrics    for Prometheus; a data source of Grafana is http://$server

In another terminal:
$elsewhere
  # Five are admitted at once, then one every two seconds.
  for i in {1..8}; do bin/sluice check hello --label user=alice; done

  # The same over HTTP, from any language.
  curl -s http://$server/sluice.flow.v1.FlowService/Start -H 'content-type: application/json' \\
    -d '{"controlPoint": "hello", "labels": {"user": "bob"}}'

  bin/sluice top                  # watch it
  bin/sluice policy list          # what is in force
  bin/sluice policy watch shop    # the signals of a policy that finds its limit by itself
  bin/sluice alerts               # what policies raise
  bin/sluice demo mistral         # paying users first, measured without and with a policy
  bin/sluice demo overload        # three times the load a service can do; takes two and a half minutes

  # A service for 200 requests a second on port 9090, which the policy shop protects.
  go run ./examples/checkout

EOF
