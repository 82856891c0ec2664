// SPDX-License-Identifier: Apache-2.0

import aperture.flowcontrol.check.v1.Check.CacheDeleteRequest;
import aperture.flowcontrol.check.v1.Check.CacheEntry;
import aperture.flowcontrol.check.v1.Check.CacheLookupRequest;
import aperture.flowcontrol.check.v1.Check.CacheLookupStatus;
import aperture.flowcontrol.check.v1.Check.CacheUpsertRequest;
import aperture.flowcontrol.check.v1.Check.CheckRequest;
import aperture.flowcontrol.check.v1.Check.CheckResponse;
import aperture.flowcontrol.check.v1.Check.FlowEndRequest;
import aperture.flowcontrol.check.v1.Check.InflightRequestRef;
import aperture.flowcontrol.check.v1.Check.KeyLookupResponse;
import aperture.flowcontrol.check.v1.Check.LimiterDecision;
import aperture.flowcontrol.check.v1.Check.TokenReturnStatus;
import aperture.flowcontrol.check.v1.FlowControlServiceGrpc;
import com.google.gson.Gson;
import com.google.gson.JsonObject;
import com.google.protobuf.ByteString;
import com.google.protobuf.Duration;
import com.google.protobuf.util.JsonFormat;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.MetadataUtils;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.exporter.otlp.trace.OtlpGrpcSpanExporter;
import io.opentelemetry.exporter.otlp.trace.OtlpGrpcSpanExporterBuilder;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;

/**
 * A client of Aperture's API, driven by lines of JSON. It is not the published client for Java, which Maven Central
 * does not have any more: it is written from the protos, and does what that one is known to do. It asks with a
 * timeout of 200 ms unless told, runs the work when nobody answers, sends FlowEnd for concurrency limiters but, as
 * that one, never for concurrency schedulers, and reports a span with the answer as JSON.
 *
 * <p>Arguments: the address, and for TLS the file of the authority and an API key.
 */
public final class Driver {
  private static final class Flow {
    String point;
    String resultKey;
    boolean ramp;
    Span span;
    CheckResponse response;
    String error = "";

    boolean shouldRun() {
      return response == null ? !ramp : response.getDecisionType() == CheckResponse.DecisionType.DECISION_TYPE_ACCEPTED;
    }
  }

  private final Map<String, Flow> flows = new ConcurrentHashMap<>();
  private final Gson gson = new Gson();
  private final SdkTracerProvider tracing;
  private final FlowControlServiceGrpc.FlowControlServiceBlockingStub stub;

  private Driver(String[] args) throws Exception {
    boolean tls = args.length > 1;
    NettyChannelBuilder channel = NettyChannelBuilder.forTarget(args[0]);
    OtlpGrpcSpanExporterBuilder exporter =
        OtlpGrpcSpanExporter.builder().setEndpoint((tls ? "https://" : "http://") + args[0]);
    if (tls) {
      channel.sslContext(GrpcSslContexts.forClient().trustManager(new File(args[1])).build());
      exporter.setTrustedCertificates(Files.readAllBytes(new File(args[1]).toPath())).addHeader("x-api-key", args[2]);
    } else {
      channel.usePlaintext();
    }
    ManagedChannel built = channel.build();
    FlowControlServiceGrpc.FlowControlServiceBlockingStub plain = FlowControlServiceGrpc.newBlockingStub(built);
    if (tls) {
      Metadata headers = new Metadata();
      headers.put(Metadata.Key.of("x-api-key", Metadata.ASCII_STRING_MARSHALLER), args[2]);
      plain = plain.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
    }
    stub = plain;
    tracing =
        SdkTracerProvider.builder()
            .addSpanProcessor(
                BatchSpanProcessor.builder(exporter.build()).setScheduleDelay(60, TimeUnit.SECONDS).build())
            .build();
  }

  private JsonObject start(JsonObject in) {
    Flow flow = new Flow();
    flow.point = in.get("point").getAsString();
    flow.ramp = in.has("ramp") && in.get("ramp").getAsBoolean();
    CheckRequest.Builder request =
        CheckRequest.newBuilder().setControlPoint(flow.point).setRampMode(flow.ramp).setExpectEnd(true);
    if (in.has("labels")) {
      in.getAsJsonObject("labels").entrySet().forEach(e -> request.putLabels(e.getKey(), e.getValue().getAsString()));
    }
    CacheLookupRequest.Builder lookup = CacheLookupRequest.newBuilder();
    if (in.has("result")) {
      flow.resultKey = in.get("result").getAsString();
      lookup.setResultCacheKey(flow.resultKey);
    }
    if (in.has("globals")) {
      in.getAsJsonArray("globals").forEach(key -> lookup.addGlobalCacheKeys(key.getAsString()));
    }
    request.setCacheLookupRequest(lookup);
    flow.span = tracing.get("aperture-driver").spanBuilder("Aperture Check").startSpan();
    flow.span.setAttribute("aperture.flow_start_timestamp", now());
    flow.span.setAttribute("aperture.source", "sdk");
    long timeout = in.has("timeout_ms") ? in.get("timeout_ms").getAsLong() : 200;
    try {
      flow.response = stub.withDeadlineAfter(timeout, TimeUnit.MILLISECONDS).check(request.build());
    } catch (StatusRuntimeException e) {
      flow.error = e.getStatus().toString();
    }
    flow.span.setAttribute("aperture.workload_start_timestamp", now());
    flows.put(in.get("id").getAsString(), flow);
    return started(flow, in);
  }

  private JsonObject started(Flow flow, JsonObject in) {
    JsonObject out = new JsonObject();
    out.addProperty("run", flow.shouldRun());
    out.addProperty("error", flow.error);
    CheckResponse r = flow.response == null ? CheckResponse.getDefaultInstance() : flow.response;
    out.addProperty("status", r.getDeniedResponseStatusCodeValue() == 0 ? 200 : r.getDeniedResponseStatusCodeValue());
    out.addProperty("retry_after", r.getWaitTime().getSeconds());
    if (in.has("result")) {
      out.add("result", cached(r.getCacheLookupResponse().getResultCacheResponse()));
    }
    if (in.has("globals")) {
      JsonObject globals = new JsonObject();
      r.getCacheLookupResponse().getGlobalCacheResponsesMap().forEach((key, v) -> globals.add(key, cached(v)));
      out.add("globals", globals);
    }
    return out;
  }

  private static JsonObject cached(KeyLookupResponse v) {
    JsonObject out = new JsonObject();
    out.addProperty("status", v.getLookupStatus() == CacheLookupStatus.HIT ? "HIT" : "MISS");
    out.addProperty("value", v.getValue().toStringUtf8());
    out.addProperty("error", v.getError());
    return out;
  }

  private JsonObject end(JsonObject in) throws Exception {
    Flow flow = flows.get(in.get("id").getAsString());
    boolean failed = in.has("failed") && in.get("failed").getAsBoolean();
    flow.span.setAttribute("aperture.flow.status", failed ? "Error" : "OK");
    if (flow.response != null) {
      flow.span.setAttribute("aperture.check_response", JsonFormat.printer().print(flow.response));
    }
    flow.span.setAttribute("aperture.flow_end_timestamp", now());
    flow.span.end();
    JsonObject out = new JsonObject();
    FlowEndRequest.Builder request = FlowEndRequest.newBuilder().setControlPoint(flow.point);
    for (LimiterDecision d : flow.response.getLimiterDecisionsList()) {
      LimiterDecision.ConcurrencyLimiterInfo info = d.getConcurrencyLimiterInfo();
      if (!info.getRequestId().isEmpty()) {
        request.addInflightRequests(
            InflightRequestRef.newBuilder()
                .setPolicyName(d.getPolicyName())
                .setPolicyHash(d.getPolicyHash())
                .setComponentId(d.getComponentId())
                .setLabel(info.getLabel())
                .setRequestId(info.getRequestId())
                .setTokens(info.getTokensInfo().getConsumed()));
      }
    }
    if (request.getInflightRequestsCount() > 0 && !in.has("record_only")) {
      List<Boolean> returned = new ArrayList<>();
      List<String> problems = new ArrayList<>();
      for (TokenReturnStatus s : stub.flowEnd(request.build()).getTokenReturnStatusesList()) {
        returned.add(s.getReturned());
        problems.add(s.getError());
      }
      out.add("returned", gson.toJsonTree(returned));
      out.add("problems", gson.toJsonTree(problems));
    }
    return out;
  }

  private static CacheEntry.Builder entry(JsonObject in) {
    return CacheEntry.newBuilder()
        .setValue(ByteString.copyFromUtf8(in.get("value").getAsString()))
        .setTtl(Duration.newBuilder().setSeconds(in.get("ttl").getAsLong()));
  }

  private JsonObject caches(String operation, JsonObject in) {
    Flow flow = flows.get(in.get("id").getAsString());
    String key = in.has("key") ? in.get("key").getAsString() : flow.resultKey;
    CacheUpsertRequest.Builder upsert = CacheUpsertRequest.newBuilder().setControlPoint(flow.point);
    CacheDeleteRequest.Builder delete = CacheDeleteRequest.newBuilder().setControlPoint(flow.point);
    String error;
    switch (operation) {
      case "set_result":
        upsert.setResultCacheEntry(entry(in).setKey(key));
        error = stub.cacheUpsert(upsert.build()).getResultCacheResponse().getError();
        break;
      case "set_global":
        upsert.putGlobalCacheEntries(key, entry(in).build());
        error = stub.cacheUpsert(upsert.build()).getGlobalCacheResponsesOrThrow(key).getError();
        break;
      case "delete_result":
        error = stub.cacheDelete(delete.setResultCacheKey(key).build()).getResultCacheResponse().getError();
        break;
      default:
        error = stub.cacheDelete(delete.addGlobalCacheKeys(key).build()).getGlobalCacheResponsesOrThrow(key).getError();
    }
    JsonObject out = new JsonObject();
    out.addProperty("error", error);
    return out;
  }

  private static long now() {
    Instant now = Instant.now();
    return TimeUnit.SECONDS.toNanos(now.getEpochSecond()) + now.getNano();
  }

  private JsonObject run(JsonObject in) throws Exception {
    String operation = in.get("op").getAsString();
    switch (operation) {
      case "start":
        return start(in);
      case "end":
        return end(in);
      case "flush":
        tracing.forceFlush().join(10, TimeUnit.SECONDS);
        return new JsonObject();
      default:
        return caches(operation, in);
    }
  }

  private void answer(String line) {
    JsonObject in = gson.fromJson(line, JsonObject.class);
    JsonObject out = new JsonObject();
    out.add("n", in.get("n"));
    try {
      run(in).entrySet().forEach(e -> out.add(e.getKey(), e.getValue()));
    } catch (Exception e) {
      out.addProperty("error", "the driver failed: " + e);
    }
    synchronized (this) {
      System.out.println(gson.toJson(out));
      System.out.flush();
    }
  }

  public static void main(String[] args) throws Exception {
    Driver driver = new Driver(args);
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      String command = line;
      Thread thread = new Thread(() -> driver.answer(command));
      thread.setDaemon(true);
      thread.start();
    }
    System.exit(0);
  }
}
