# SPDX-License-Identifier: Apache-2.0

"""Drives the published client of Aperture for Python: commands come as lines of JSON, and so do their results.

Arguments: the address, and for TLS the file of the authority and an API key. The client is in PYTHONPATH.
"""

import datetime
import json
import sys
import threading
import traceback

import grpc
from aperture_sdk.client import ApertureClient
from aperture_sdk.client_common import FlowParams
from aperture_sdk.flow_common import FlowStatus
from opentelemetry import trace

flows = {}
printing = threading.Lock()


def new_client(address, ca=None, api_key=None):
    if ca is None:
        return ApertureClient.new_client(address=address, insecure=True)
    with open(ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(root_certificates=file.read())
    return ApertureClient.new_client(address=address, api_key=api_key, credentials=credentials)


def text(error):
    return "" if error is None else str(error)


def cached(response):
    value = response.get_value()
    error = text(response.get_error())
    return {
        "status": response.get_lookup_status().name,
        "value": value.decode() if value else "",
        "error": "" if error == "None" else error,
    }


def start(c):
    params = FlowParams(
        explicit_labels=c.get("labels"),
        check_timeout=datetime.timedelta(milliseconds=c.get("timeout_ms", 0)),
        ramp_mode=c.get("ramp", False),
        result_cache_key=c.get("result"),
        global_cache_keys=c.get("globals"),
    )
    flow = client.start_flow(control_point=c["point"], params=params)
    flows[c["id"]] = flow
    retry = flow.retry_after()
    out = {
        "run": flow.should_run(),
        "error": text(flow.error()),
        "status": flow.http_response_code(),
        "retry_after": retry.total_seconds() if retry else 0,
    }
    if c.get("result"):
        out["result"] = cached(flow.result_cache())
    if c.get("globals"):
        out["globals"] = {key: cached(flow.global_cache(key)) for key in c["globals"]}
    return out


def end(c):
    flow = flows[c["id"]]
    if c.get("failed"):
        flow.set_status(FlowStatus.Error)
    if c.get("record_only"):
        # The client dies after its record has left and before it calls FlowEnd.
        flow._fcs_stub.FlowEnd = lambda _: None
    response = flow.end()
    ended = response.get_flow_end_response()
    statuses = ended.token_return_statuses if ended else []
    return {
        "error": text(response.get_error()),
        "returned": [s.returned for s in statuses],
        "problems": [s.error for s in statuses],
    }


def flush(_):
    trace.get_tracer_provider().force_flush()
    return {}


def ttl(c):
    return datetime.timedelta(seconds=c["ttl"])


operations = {
    "start": start,
    "end": end,
    "flush": flush,
    "set_result": lambda c: {"error": text(flows[c["id"]].set_result_cache(c["value"], ttl(c)).get_error())},
    "set_global": lambda c: {"error": text(flows[c["id"]].set_global_cache(c["key"], c["value"], ttl(c)).get_error())},
    "delete_result": lambda c: {"error": text(flows[c["id"]].delete_result_cache().get_error())},
    "delete_global": lambda c: {"error": text(flows[c["id"]].delete_global_cache(c["key"]).get_error())},
}


def run(c):
    try:
        result = operations[c["op"]](c)
    except Exception:  # the test shows it
        result = {"error": "the driver failed: " + traceback.format_exc()}
    with printing:
        print(json.dumps({"n": c["n"], **result}), flush=True)


client = new_client(*sys.argv[1:])
for line in sys.stdin:
    threading.Thread(target=run, args=(json.loads(line),), daemon=True).start()
