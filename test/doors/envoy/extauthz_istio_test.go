// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/goccy/go-yaml"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-project/sluice/test/doors/doorstest"
)

// Resource is what Istio knows of a resource, as far as the examples use it: a mistyped key is an error.
type Resource struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name, Namespace string }
}

type envoyFilter struct {
	Resource `yaml:",inline"`
	Spec     struct {
		WorkloadSelector struct{ Labels map[string]string } `yaml:"workloadSelector"`
		ConfigPatches    []struct {
			ApplyTo string `yaml:"applyTo"`
			Match   struct {
				Context  string
				Listener struct {
					FilterChain struct {
						Filter struct {
							Name      string
							SubFilter struct{ Name string } `yaml:"subFilter"`
						}
					} `yaml:"filterChain"`
				}
			}
			Patch struct {
				Operation string
				Value     object
			}
		} `yaml:"configPatches"`
	}
}

// Target is where a provider is. Exported, like Resource, for the decoder, which sets what is embedded.
type Target struct {
	Service string
	Port    int
}

type meshConfig struct {
	MeshConfig struct {
		ExtensionProviders []struct {
			Name              string
			EnvoyExtAuthzGRPC *struct {
				Target                    `yaml:",inline"`
				Timeout                   string
				FailOpen                  bool `yaml:"failOpen"`
				IncludeRequestBodyInCheck struct {
					MaxRequestBytes     int  `yaml:"maxRequestBytes"`
					AllowPartialMessage bool `yaml:"allowPartialMessage"`
				} `yaml:"includeRequestBodyInCheck"`
			} `yaml:"envoyExtAuthzGrpc"`
			EnvoyHTTPALS *Target `yaml:"envoyHttpAls"`
		} `yaml:"extensionProviders"`
	} `yaml:"meshConfig"`
}

type selector struct {
	MatchLabels map[string]string `yaml:"matchLabels"`
}

type authorizationPolicy struct {
	Resource `yaml:",inline"`
	Spec     struct {
		Selector selector
		Action   string
		Provider struct{ Name string }
		Rules    []struct {
			To []struct {
				Operation struct {
					NotPaths []string `yaml:"notPaths"`
				}
			}
		}
	}
}

type telemetry struct {
	Resource `yaml:",inline"`
	Spec     struct {
		Selector      selector
		AccessLogging []struct {
			Match     struct{ Mode string }
			Providers []struct{ Name string }
		} `yaml:"accessLogging"`
	}
}

type destinationRule struct {
	Resource `yaml:",inline"`
	Spec     struct {
		Host          string
		TrafficPolicy struct {
			ConnectionPool struct {
				HTTP struct {
					HTTP2MaxRequests        int `yaml:"http2MaxRequests"`
					HTTP1MaxPendingRequests int `yaml:"http1MaxPendingRequests"`
				}
			} `yaml:"connectionPool"`
		} `yaml:"trafficPolicy"`
	}
}

// strictly decodes the documents of a file, one into each of out; a key that is not known fails the test.
func strictly(t *testing.T, path string, out ...any) {
	t.Helper()
	d := yaml.NewDecoder(strings.NewReader(doorstest.Read(t, path)), yaml.Strict())
	for _, o := range out {
		if err := d.Decode(o); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	var rest any
	if err := d.Decode(&rest); !errors.Is(err, io.EOF) {
		t.Errorf("%s has more documents than %d: %v", path, len(out), rest)
	}
}

const istioCluster = "outbound|8080||sluice.sluice.svc.cluster.local"

func TestIstioResources(t *testing.T) {
	var mesh meshConfig
	strictly(t, "examples/istio/mesh-config.yaml", &mesh)
	var policy authorizationPolicy
	var logs telemetry
	strictly(t, "examples/istio/authorization-policy.yaml", &policy, &logs)
	var rule destinationRule
	strictly(t, "examples/istio/destinationrule.yaml", &rule)
	providers := make(map[string]*Target)
	for _, p := range mesh.MeshConfig.ExtensionProviders {
		if providers[p.Name] = p.EnvoyHTTPALS; p.EnvoyExtAuthzGRPC != nil {
			providers[p.Name] = &p.EnvoyExtAuthzGRPC.Target
		}
	}
	for _, name := range []string{policy.Spec.Provider.Name, logs.Spec.AccessLogging[0].Providers[0].Name} {
		p := providers[name]
		if p == nil || istioCluster != "outbound|8080||"+p.Service || p.Port != 8080 || rule.Spec.Host != p.Service {
			t.Errorf("provider %s is %+v, want that the names of the files agree", name, p)
		}
	}
	if policy.Spec.Action != "CUSTOM" || policy.Kind != "AuthorizationPolicy" || logs.Kind != "Telemetry" || rule.Kind != "DestinationRule" {
		t.Errorf("got %+v, %+v, %+v", policy, logs, rule)
	}
}

// decodeProto decodes a part of a YAML document into a message of Envoy's; a field that is not known fails the test.
func decodeProto(t *testing.T, value any, into proto.Message) {
	t.Helper()
	raw, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(raw, into); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	if v, ok := into.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			t.Errorf("%T: %v", into, err)
		}
	}
}

// TestIstioFilter runs what envoyfilter.yaml adds to sidecars in an Envoy.
func TestIstioFilter(t *testing.T) {
	var filter envoyFilter
	strictly(t, "examples/istio/envoyfilter.yaml", &filter)
	patches := filter.Spec.ConfigPatches
	if len(patches) != 2 || patches[0].ApplyTo != "HTTP_FILTER" || patches[1].ApplyTo != "NETWORK_FILTER" {
		t.Fatalf("got %+v, want a patch of the HTTP filters and one of the network filter", patches)
	}
	var authz hcmv3.HttpFilter
	decodeProto(t, patches[0].Patch.Value, &authz)
	var settings extauthzv3.ExtAuthz
	if err := authz.GetTypedConfig().UnmarshalTo(&settings); err != nil || !settings.FailureModeAllow {
		t.Errorf("got %v, %v", err, &settings)
	}
	var network listenerv3.Filter
	decodeProto(t, patches[1].Patch.Value, &network)
	var hcm hcmv3.HttpConnectionManager
	var log grpclogv3.HttpGrpcAccessLogConfig
	if err := network.GetTypedConfig().UnmarshalTo(&hcm); err != nil {
		t.Fatal(err)
	}
	if err := hcm.AccessLog[0].GetTypedConfig().UnmarshalTo(&log); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{settings.GetGrpcService().GetEnvoyGrpc().ClusterName, log.CommonConfig.GrpcService.GetEnvoyGrpc().ClusterName} {
		if name != istioCluster {
			t.Errorf("the cluster is %s, want %s", name, istioCluster)
		}
	}

	doorstest.Require(t, "bin/envoy")
	app := startApp(t)
	sluice := doorstest.Sluice(t, doorstest.Options{Policies: []string{slotPolicy, perUserPolicy}})
	path, ports := envoyConfig(t, extauthzFile, sluice.Addr, app.addr, "name: sluice\n", "name: "+istioCluster+"\n", "cluster_name: sluice\n", "cluster_name: "+istioCluster+"\n")
	envoy := runEnvoy(t, sidecar(t, path, patches[0].Patch.Value, patches[1].Patch.Value), ports)
	for i := range 5 {
		if got := envoy.get("/", "x-user", "ann"); got.status != 200 {
			t.Fatalf("request %d: got %+v, want 200", i, got)
		}
		eventuallyEnded(t, sluice, float64(i+1))
	}
	if got := envoy.get("/", "x-user", "ann"); got.status != 429 {
		t.Errorf("request 6: got %d, want 429", got.status)
	}
}

// sidecar patches a configuration as Istio does: the HTTP filter comes instead of that of the file, and the access
// log is merged into the network filter.
func sidecar(t *testing.T, path string, httpFilter, networkFilter object) string {
	t.Helper()
	return edited(t, path, func(config object) {
		listener := config["static_resources"].(object)["listeners"].([]any)[0].(object)
		hcm := listener["filter_chains"].([]any)[0].(object)["filters"].([]any)[0].(object)["typed_config"].(object)
		hcm["http_filters"].([]any)[0] = httpFilter
		hcm["access_log"] = networkFilter["typed_config"].(object)["access_log"]
	})
}
