// SPDX-License-Identifier: Apache-2.0

// Drives the published client of Aperture for JavaScript: commands come as lines of JSON, and so do their results.
// Arguments: the folder of the client, the address, and for TLS the file of the authority and an API key.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [folder, address, ca, apiKey] = process.argv.slice(2);
const grpc = createRequire(path.join(folder, "package.json"))("@grpc/grpc-js");
const { ApertureClient, FlowStatus } = await import(
  pathToFileURL(path.join(folder, "node_modules/@fluxninja/aperture-js/lib/index.js"))
);
const client = new ApertureClient({
  address,
  apiKey,
  channelCredentials: ca ? grpc.credentials.createSsl(readFileSync(ca)) : grpc.credentials.createInsecure(),
});
const flows = new Map();

const text = (error) => (error ? String(error.message ?? error) : "");
const cached = (r) => ({
  status: r.getLookupStatus(),
  value: r.getValue() ? Buffer.from(r.getValue()).toString() : "",
  error: text(r.getError()),
});

const operations = {
  async start(c) {
    const params = { labels: c.labels ?? {}, rampMode: c.ramp ?? false, grpcCallOptions: {} };
    if (c.timeout_ms) params.grpcCallOptions.deadline = Date.now() + c.timeout_ms;
    if (c.result) params.resultCacheKey = c.result;
    if (c.globals) params.globalCacheKeys = c.globals;
    const flow = await client.startFlow(c.point, params);
    flows.set(c.id, flow);
    const out = { run: flow.shouldRun(), error: text(flow.error()), status: flow.httpResponseCode() };
    out.retry_after = Number(flow.retryAfter().seconds ?? 0);
    if (c.result) out.result = cached(flow.resultCache());
    if (c.globals) out.globals = Object.fromEntries(c.globals.map((key) => [key, cached(flow.globalCache(key))]));
    return out;
  },
  async end(c) {
    const flow = flows.get(c.id);
    if (c.failed) flow.setStatus(FlowStatus.Error);
    await flow.end();
    return {};
  },
  async flush() {
    await client.tracerProvider.forceFlush();
    return {};
  },
  async set_result(c) {
    const entry = { value: Buffer.from(c.value), ttl: { seconds: c.ttl, nanos: 0 } };
    return { error: text((await flows.get(c.id).setResultCache(entry)).getError()) };
  },
  async set_global(c) {
    const entry = { value: Buffer.from(c.value), ttl: { seconds: c.ttl, nanos: 0 } };
    return { error: text((await flows.get(c.id).setGlobalCache(c.key, entry)).getError()) };
  },
  async delete_result(c) {
    return { error: text((await flows.get(c.id).deleteResultCache()).getError()) };
  },
  async delete_global(c) {
    return { error: text((await flows.get(c.id).deleteGlobalCache(c.key)).getError()) };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  operations[command.op](command)
    .catch((error) => ({ error: `the driver failed: ${error.stack}` }))
    .then((result) => console.log(JSON.stringify({ n: command.n, ...result })));
}
process.exit(0);
