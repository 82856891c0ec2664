// SPDX-License-Identifier: Apache-2.0

// Package blueprint turns a few values into a whole policy: a limit wired to its alert, a load scheduler
// with the signal that shows an overload, a ramp with the measurements that move it.
//
// A blueprint is a struct of values (the language of its values file, read by package strict like the
// policy language) and a method that makes components of them. Parse is the one entry for everything people
// apply: policies, and the values of blueprints.
package blueprint

import (
	_ "embed"
	"fmt"
	"reflect"
	"slices"

	"github.com/sluice-project/sluice/internal/policy/strict"
	"github.com/sluice-project/sluice/schemas"
)

// Blueprint is a kind of policy that is written as a few values. All() lists those there are; there is no
// other way to get one. Its methods may be called concurrently.
type Blueprint struct {
	// Name is how a values file names it, such as rate-limiting/base.
	Name string
	// Title is its name for people.
	Title string
	// Description is Markdown: what it does and when to use it.
	Description string
	// Example is a complete values file.
	Example string
	// ValuesFile is the type of its values file, for the generators of schemas and reference.
	ValuesFile reflect.Type

	changes []change // of keys that had other names
	decode  func(*strict.Document) (*Common, func(*circuit))
}

// All lists the blueprints, by name.
func All() []*Blueprint { return slices.Clone(all) }

var all = []*Blueprint{
	define[PodAutoScaling](Blueprint{
		Name:        "auto-scaling/pod-auto-scaler",
		Title:       "Pod auto-scaling",
		Description: podAutoScalingDescription,
		Example:     podAutoScalingExample,
	}),
	define[ConcurrencyLimiting](Blueprint{
		Name:        "concurrency-limiting/base",
		Title:       "Concurrency limiting",
		Description: concurrencyLimitingDescription,
		Example:     concurrencyLimitingExample,
	}),
	define[ConcurrencyScheduling](Blueprint{
		Name:        "concurrency-scheduling/base",
		Title:       "Concurrency scheduling",
		Description: concurrencySchedulingDescription,
		Example:     concurrencySchedulingExample,
	}),
	define[LoadRamping](Blueprint{
		Name:        "load-ramping/base",
		Title:       "Load ramping",
		Description: loadRampingDescription,
		Example:     loadRampingExample,
	}),
	define[AdaptiveLoadScheduling](Blueprint{
		Name:        "load-scheduling/adaptive",
		Title:       "Load scheduling without a setpoint",
		Description: adaptiveDescription,
		Example:     adaptiveExample,
		changes:     coreChanges,
	}),
	define[AverageLatencyLoadScheduling](Blueprint{
		Name:        "load-scheduling/average-latency",
		Title:       "Load scheduling by average latency",
		Description: averageLatencyDescription,
		Example:     averageLatencyExample,
		changes:     aimdChanges,
	}),
	define[CPULoadScheduling](Blueprint{
		Name:        "load-scheduling/cpu-overload-protection-k8s",
		Title:       "Load scheduling by CPU use in Kubernetes",
		Description: cpuDescription,
		Example:     cpuExample,
		changes:     renamed(aiadChanges, "setpoint", coreSetpoint),
	}),
	define[ElasticsearchLoadScheduling](Blueprint{
		Name:        "load-scheduling/elasticsearch",
		Title:       "Load scheduling by the search queue of Elasticsearch",
		Description: elasticsearchDescription,
		Example:     elasticsearchExample,
		changes:     renamed(aiadChanges, "setpoint", "search_queue_threshold"),
	}),
	define[JavaGCLoadScheduling](Blueprint{
		Name:        "load-scheduling/java-gc-generic",
		Title:       "Load scheduling by Java garbage collection",
		Description: javaGCDescription,
		Example:     javaGCExample,
		changes:     renamed(aiadChanges, "setpoint", coreSetpoint),
	}),
	define[JavaGCKubernetesLoadScheduling](Blueprint{
		Name:        "load-scheduling/java-gc-k8s",
		Title:       "Load scheduling by Java garbage collection in Kubernetes",
		Description: javaGCKubernetesDescription,
		Example:     javaGCKubernetesExample,
		changes:     renamed(aiadChanges, "setpoint", coreSetpoint),
	}),
	define[PostgreSQLLoadScheduling](Blueprint{
		Name:        "load-scheduling/postgresql",
		Title:       "Load scheduling by the connections of PostgreSQL",
		Description: postgreSQLDescription,
		Example:     postgreSQLExample,
		changes:     renamed(aiadChanges, "setpoint", "connections_used_threshold"),
	}),
	define[PromQLLoadScheduling](Blueprint{
		Name:        "load-scheduling/promql",
		Title:       "Load scheduling by a query",
		Description: promQLDescription,
		Example:     promQLExample,
		changes:     aiadChanges,
	}),
	define[QuotaScheduling](Blueprint{
		Name:        "quota-scheduling/base",
		Title:       "Quota scheduling",
		Description: quotaSchedulingDescription,
		Example:     quotaSchedulingExample,
	}),
	define[RateLimiting](Blueprint{
		Name:        "rate-limiting/base",
		Title:       "Rate limiting",
		Description: rateLimitingDescription,
		Example:     rateLimitingExample,
	}),
}

var (
	//go:embed examples/auto-scaling-pod-auto-scaler.yaml
	podAutoScalingExample string
	//go:embed examples/concurrency-limiting.yaml
	concurrencyLimitingExample string
	//go:embed examples/concurrency-scheduling.yaml
	concurrencySchedulingExample string
	//go:embed examples/load-ramping.yaml
	loadRampingExample string
	//go:embed examples/load-scheduling-adaptive.yaml
	adaptiveExample string
	//go:embed examples/load-scheduling-average-latency.yaml
	averageLatencyExample string
	//go:embed examples/load-scheduling-cpu-overload-protection-k8s.yaml
	cpuExample string
	//go:embed examples/load-scheduling-elasticsearch.yaml
	elasticsearchExample string
	//go:embed examples/load-scheduling-java-gc-generic.yaml
	javaGCExample string
	//go:embed examples/load-scheduling-java-gc-k8s.yaml
	javaGCKubernetesExample string
	//go:embed examples/load-scheduling-postgresql.yaml
	postgreSQLExample string
	//go:embed examples/load-scheduling-promql.yaml
	promQLExample string
	//go:embed examples/quota-scheduling.yaml
	quotaSchedulingExample string
	//go:embed examples/rate-limiting.yaml
	rateLimitingExample string
)

// valuesFile is a values file of the blueprint with the values V.
type valuesFile[V any] struct {
	// Name of the blueprint.
	Blueprint string `json:"blueprint,omitempty"`
	// Where the blueprint comes from; ignored, the blueprints are part of the program.
	URI string `json:"uri,omitempty"`
	// The values.
	Policy V `json:"policy" check:"required"`
}

func define[V any, P interface {
	*V
	values
}](b Blueprint) *Blueprint {
	b.ValuesFile = reflect.TypeFor[valuesFile[V]]()
	b.decode = func(doc *strict.Document) (*Common, func(*circuit)) {
		var f valuesFile[V]
		doc.Decode("", doc.Root, &f)
		v := P(&f.Policy)
		return v.shared(), v.build
	}
	return &b
}

// Find returns the blueprint of that name, which may be one that it had before.
func Find(name string) (*Blueprint, bool) {
	name, _ = currentName(name)
	i := slices.IndexFunc(all, func(b *Blueprint) bool { return b.Name == name })
	if i < 0 {
		return nil, false
	}
	return all[i], true
}

// Names lists the names of the blueprints, sorted.
func Names() []string {
	names := make([]string, len(all))
	for i, b := range all {
		names[i] = b.Name
	}
	return names
}

// Values returns a values file with every default and a comment on every key. Keys that have to be filled
// in say __REQUIRED_FIELD__, which the parser refuses.
func (b *Blueprint) Values() ([]byte, error) {
	text, err := schemas.Values(b.Name)
	if err != nil {
		return nil, fmt.Errorf("values of blueprint %s: %w", b.Name, err)
	}
	return text, nil
}

// Schema returns the JSON Schema of the values file.
func (b *Blueprint) Schema() ([]byte, error) {
	text, err := schemas.Blueprint(b.Name)
	if err != nil {
		return nil, fmt.Errorf("schema of blueprint %s: %w", b.Name, err)
	}
	return text, nil
}
