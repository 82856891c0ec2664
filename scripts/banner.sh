#!/usr/bin/env bash
# Says what to open and type while the server of `make run` is up: banner.sh HOST:PORT.
set -euo pipefail
server=$1
flag=''
[ "$server" = 127.0.0.1:8080 ] || flag=" --server $server"

cat <<EOF

  Sluice is starting on http://$server with the policies of examples/policies. Ctrl-C stops it.

  Open     http://$server/debug/                      queues, accounts, policies in force
           http://$server/metrics                     Prometheus metrics

  In another terminal:
           bin/sluice policy list$flag                    what is in force
           bin/sluice top$flag                            a live view
           for i in {1..8}; do bin/sluice check hello --label user=alice$flag; done
                                                          five are admitted, then one every two seconds
           curl -s http://$server/sluice.flow.v1.FlowService/Start \\
             -H 'content-type: application/json' -d '{"controlPoint": "hello", "labels": {"user": "bob"}}'
           bin/sluice demo mistral                        paid users first, measured without and with a policy

EOF
