// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/discovery"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/rls"
)

// Classifiers bounds the work of one evaluation of one classifier.
type Classifiers struct {
	// How long a Rego module may take, or a CEL expression with loops. A classifier that takes longer makes no
	// labels, and the flow goes on.
	Timeout Duration `json:"timeout" default:"10ms"`
	// Longest body of a request that is parsed, in bytes. A longer one counts as truncated.
	MaxBodyBytes int64 `json:"max_body_bytes" default:"1048576"`
}

// Caches bounds the caches and says how they work.
type Caches struct {
	// Memory for cached values, keys and their bookkeeping, in bytes. The entries used least make room for new
	// ones.
	MaxBytes int64 `json:"max_bytes" default:"67108864"`
	// Longest value that is kept, in bytes.
	MaxValueBytes int64 `json:"max_value_bytes" default:"1048576"`
	// Label whose value separates tenants: what one has cached no other gets. Unset: all share.
	TenantLabel string `json:"tenant_label"`
	// How long one flow may take to compute a missing value before the next one that waits for it is chosen.
	CoalesceTimeout Duration `json:"coalesce_timeout" default:"30s"`
	// How long a value is kept after it has expired, for flows that take stale values while one computes it
	// anew; never longer than it was fresh. 0s: not at all.
	StaleFor Duration `json:"stale_for" default:"5m"`
}

// Cache are the settings as package cache has them.
func (c Caches) Cache() cache.Config {
	return cache.Config{
		MaxBytes: c.MaxBytes, MaxValueBytes: int(c.MaxValueBytes), TenantLabel: c.TenantLabel,
		CoalesceTimeout: c.CoalesceTimeout.Std(), StaleFor: c.StaleFor.Std(),
	}
}

// ForwardAuth says how proxies are answered that ask about a request with a request.
type ForwardAuth struct {
	// How long a request may wait in queues unless the URL says otherwise (timeout=). Keep it below the time-out
	// of the proxy, which lets requests pass after it. 0s: not at all.
	QueueTimeout Duration `json:"queue_timeout" default:"500ms"`
}

// EnvoyAuthorization says how Envoy is answered that asks by external authorization.
type EnvoyAuthorization struct {
	// Control point of requests for which Envoy names none, which extension providers of Istio cannot do. Unset:
	// such calls are refused, and Envoy does what its failure_mode_allow says.
	ControlPoint string `json:"control_point"`
	// Attach the answer in the form of Aperture, too, from which access logs that were configured for Aperture tell
	// the end of a flow. It takes about a sixth of the work of an answer.
	ApertureMetadata bool `json:"aperture_metadata" default:"true"`
}

// EnvoyRateLimit says how descriptors of Envoy's rate limit filter become flows.
type EnvoyRateLimit struct {
	// Control point of the flows. {domain} in it stands for the domain that Envoy's filter names.
	ControlPoint string `json:"control_point" default:"ratelimit/{domain}"`
	// Control points of single domains, by domain.
	ControlPoints map[string]string `json:"control_points"`
	// Labels that entries of descriptors become, by key of the entry. A key that is not there is its own label;
	// one with an empty label makes none.
	Labels map[string]string `json:"labels"`
	// Headers about limits that responses get: ratelimit (RateLimit and RateLimit-Policy), x-ratelimit
	// (X-RateLimit-Limit, -Remaining and -Reset), both or none.
	Headers string `json:"headers" default:"ratelimit"`
}

// Service are the settings as package rls has them.
func (e EnvoyRateLimit) Service() rls.Config {
	return rls.Config{ControlPoint: e.ControlPoint, ControlPoints: e.ControlPoints, Labels: e.Labels, Headers: rls.Headers(e.Headers)}
}

// Discovery says which services there are, so that policies can select by service.
type Discovery struct {
	// Addresses kept of all sources together; about 600 bytes each. More are left out, and the source says so.
	MaxEntities int64 `json:"max_entities" default:"100000"`
	// Services whose addresses do not change.
	Static []StaticService `json:"static"`
	// Services whose addresses DNS knows.
	DNS DNS `json:"dns"`
	// Services of a Kubernetes cluster.
	Kubernetes Kubernetes `json:"kubernetes"`
}

// StaticService is a service whose addresses do not change.
type StaticService struct {
	// Name of the service, as selectors of policies name it.
	Service string `json:"service"`
	// IP addresses, or prefixes such as 10.2.0.0/28.
	Addresses []string `json:"addresses"`
	// Name of what runs there, for lists. Unset: the address.
	Name string `json:"name"`
}

// DNS says which services to look up.
type DNS struct {
	// Time between two look-ups of a name, give or take a tenth.
	Interval Duration `json:"interval" default:"30s"`
	// How long one look-up may take.
	Timeout Duration `json:"timeout" default:"5s"`
	// How long the last answer counts while look-ups fail. 0s: not at all.
	Keep Duration `json:"keep" default:"10m"`
	// What to look up.
	Services []DNSService `json:"services"`
}

// DNSService is a service that has the addresses of a host.
type DNSService struct {
	// Name of the service, as selectors of policies name it.
	Service string `json:"service"`
	// Host to look up, such as checkout.internal. One that begins with an underscore, such as
	// _http._tcp.checkout.internal, is looked up as an SRV record.
	Host string `json:"host"`
}

// Kubernetes says which cluster to watch.
type Kubernetes struct {
	// Take services from the EndpointSlices and Services of a cluster.
	Enabled bool `json:"enabled" default:"false"`
	// File that says how to reach the cluster. Unset: the service account of the pod.
	Kubeconfig string `json:"kubeconfig"`
	// Only services of this namespace. Unset: all.
	Namespace string `json:"namespace"`
	// Only pods on this node. Unset: all.
	Node string `json:"node"`
	// What names of services end with: NAME.NAMESPACE.svc.DOMAIN.
	ClusterDomain string `json:"cluster_domain" default:"cluster.local"`
}

// Directory are the settings as package discovery has them.
func (d Discovery) Directory() discovery.Config {
	out := discovery.Config{
		MaxEntities: int(d.MaxEntities),
		DNS:         discovery.DNS{Interval: d.DNS.Interval.Std(), Timeout: d.DNS.Timeout.Std(), Keep: d.DNS.Keep.Std()},
	}
	if out.DNS.Keep == 0 {
		out.DNS.Keep = -1 // there, 0 is the default
	}
	for _, s := range d.Static {
		out.Static = append(out.Static, discovery.Static{Service: s.Service, Addresses: s.Addresses, Name: s.Name})
	}
	for _, s := range d.DNS.Services {
		out.DNS.Services = append(out.DNS.Services, discovery.DNSService{Service: s.Service, Host: s.Host})
	}
	return out
}

func (v *validator) doors(c Config) {
	if d := c.Classifiers.Timeout.Std(); d < time.Millisecond || d > time.Second {
		v.add("classifiers.timeout", d.String(), "1ms to 1s")
	}
	v.between("classifiers.max_body_bytes", c.Classifiers.MaxBodyBytes, 1024, maxBodyBytes)
	if d := c.ForwardAuth.QueueTimeout.Std(); d < 0 || d > time.Minute {
		v.add("forward_auth.queue_timeout", d.String(), "0s to 1m")
	}
	if n := len(c.EnvoyAuthorization.ControlPoint); n > flow.MaxControlPointLen {
		v.add("envoy_authorization.control_point", strconv.Itoa(n)+" bytes", "at most "+strconv.Itoa(flow.MaxControlPointLen))
	}
	caches, limits := c.Caches.Cache(), c.EnvoyRateLimit.Service()
	v.each("caches", caches.Validate())
	v.each("envoy_rate_limit", limits.Validate())
	v.discovery(c.Discovery)
}

// maxBodyBytes is what one request may have over every protocol.
const maxBodyBytes = 4 << 20

// each adds the mistakes that a package found in its own settings, which say "key: got ..., want ...".
func (v *validator) each(section string, err error) {
	var several interface{ Unwrap() []error }
	if !errors.As(err, &several) {
		return
	}
	for _, one := range several.Unwrap() {
		key, rest, _ := strings.Cut(one.Error(), ": ")
		got, want, _ := strings.Cut(strings.TrimPrefix(rest, "got "), ", want ")
		v.add(section+"."+key, got, want)
	}
}

func (v *validator) discovery(d Discovery) {
	v.between("discovery.max_entities", d.MaxEntities, 1, 10_000_000)
	settings := d.Directory()
	settings.MaxEntities = 0
	for _, p := range settings.Validate() {
		p.Path = "discovery." + p.Path
		v.problems = append(v.problems, p)
	}
}
