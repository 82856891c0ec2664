// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/sluice-project/sluice/test/doors/doorstest"
)

// apertureLog is the access log of an Envoy that was set up for FluxNinja Aperture: records by OTLP, which carry the
// answer of the check.
const apertureLog = `
name: envoy.access_loggers.open_telemetry
typed_config:
  "@type": type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig
  common_config:
    log_name: ingress
    transport_api_version: V3
    buffer_size_bytes: 0
    grpc_service: {envoy_grpc: {cluster_name: sluice}}
  body: {string_value: "%REQ(:METHOD)%"}
  attributes:
    values:
      - {key: aperture.source, value: {string_value: envoy}}
      - {key: aperture.check_response, value: {string_value: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:aperture.check_response)%"}}
      - {key: http.status_code, value: {string_value: "%RESPONSE_CODE%"}}
      - {key: authz_duration, value: {string_value: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:ext_authz_duration)%"}}
      - {key: BYTES_RECEIVED, value: {string_value: "%BYTES_RECEIVED%"}}
      - {key: BYTES_SENT, value: {string_value: "%BYTES_SENT%"}}
      - {key: DURATION, value: {string_value: "%DURATION%"}}
      - {key: REQUEST_DURATION, value: {string_value: "%REQUEST_DURATION%"}}
      - {key: REQUEST_TX_DURATION, value: {string_value: "%REQUEST_TX_DURATION%"}}
      - {key: RESPONSE_DURATION, value: {string_value: "%RESPONSE_DURATION%"}}
      - {key: RESPONSE_TX_DURATION, value: {string_value: "%RESPONSE_TX_DURATION%"}}
`

func TestExtAuthzWithTheAccessLogOfAperture(t *testing.T) {
	t.Parallel()
	doorstest.Require(t, "bin/envoy")
	app := startApp(t)
	sluice := doorstest.Sluice(t, doorstest.Options{Policies: []string{slotPolicy}})
	path, ports := envoyConfig(t, extauthzFile, sluice.Addr, app.addr)
	var log object
	if err := yaml.Unmarshal([]byte(apertureLog), &log); err != nil {
		t.Fatal(err)
	}
	path = edited(t, path, func(config object) {
		listener := config["static_resources"].(object)["listeners"].([]any)[0].(object)
		hcm := listener["filter_chains"].([]any)[0].(object)["filters"].([]any)[0].(object)["typed_config"].(object)
		hcm["access_log"] = []any{log}
	})
	envoy := runEnvoy(t, path, ports)
	checkSlots(t, envoy, app)
	if n := sluice.Metric("sluice_extauthz_ends_total", "result", "ended"); n != 0 {
		t.Errorf("%v flows were ended by Envoy's own access log, want all by records", n)
	}
}
