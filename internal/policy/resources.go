// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// Resources are what components and other policies refer to by name.
type Resources struct {
	// Old form of infra_meters.
	TelemetryCollectors []TelemetryCollector `json:"telemetry_collectors,omitempty" deprecated:"use infra_meters"`
	// Collectors of infrastructure metrics, by name.
	InfraMeters map[string]InfraMeter `json:"infra_meters,omitempty"`
	// Resources that look at flows.
	FlowControl FlowControlResources `json:"flow_control,omitzero"`
}

// FlowControlResources look at flows.
type FlowControlResources struct {
	// Histograms over flows, by name.
	FluxMeters map[string]FluxMeter `json:"flux_meters,omitempty"`
	// Rules that make labels from requests.
	Classifiers []Classifier `json:"classifiers,omitempty"`
}

// TelemetryCollector is the old form of infra meters.
type TelemetryCollector struct {
	// Group of agents that collects.
	AgentGroup string `json:"agent_group" default:"default"`
	// Collectors of infrastructure metrics, by name.
	InfraMeters map[string]InfraMeter `json:"infra_meters,omitempty"`
}

// InfraMeter collects metrics from infrastructure with OpenTelemetry receivers.
type InfraMeter struct {
	// Configuration of receivers, by name; each is what OpenTelemetry's collector expects.
	Receivers map[string]map[string]any `json:"receivers,omitempty"`
	// Configuration of processors, by name; each is what OpenTelemetry's collector expects.
	Processors map[string]map[string]any `json:"processors,omitempty"`
	// Receivers and processors to run. Empty: all receivers, and the processor.
	Pipeline MetricsPipeline `json:"pipeline,omitzero"`
	// Collect once per group of agents instead of on every agent.
	PerAgentGroup bool `json:"per_agent_group" default:"false"`
	// Group of agents that collects.
	AgentGroup string `json:"agent_group" default:"default"`
}

// MetricsPipeline names what an infra meter runs.
type MetricsPipeline struct {
	// Names of receivers.
	Receivers []string `json:"receivers,omitempty"`
	// Names of processors, in order.
	Processors []string `json:"processors,omitempty"`
}

// FluxMeter is a histogram over an attribute of flows.
type FluxMeter struct {
	// Buckets with the upper bounds given.
	StaticBuckets *StaticBuckets `json:"static_buckets,omitempty" union:"histogram_buckets"`
	// Buckets of equal width.
	LinearBuckets *LinearBuckets `json:"linear_buckets,omitempty" union:"histogram_buckets"`
	// Buckets that grow by a factor.
	ExponentialBuckets *ExponentialBuckets `json:"exponential_buckets,omitempty" union:"histogram_buckets"`
	// Buckets that grow by the factor that leads from min to max.
	ExponentialBucketsRange *ExponentialBucketsRange `json:"exponential_buckets_range,omitempty" union:"histogram_buckets"`
	// Attribute to measure.
	AttributeKey string `json:"attribute_key" default:"workload_duration_ms" check:"nonempty"`
	// Flows to measure.
	Selectors []Selector `json:"selectors" check:"required"`
}

// StaticBuckets are buckets with given upper bounds.
type StaticBuckets struct {
	// Upper bounds, increasing.
	Buckets []float64 `json:"buckets" default:"[5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000]" check:"nonempty"`
}

var _ strict.Checker = (*StaticBuckets)(nil)

// Check refuses bounds that do not increase.
func (b *StaticBuckets) Check(at strict.Place) {
	for i := 1; i < len(b.Buckets); i++ {
		if b.Buckets[i] <= b.Buckets[i-1] {
			at.Field("buckets").Index(i).Refuse(fielderr.Error{Want: fmt.Sprintf("more than the bound before it, %g", b.Buckets[i-1])})
		}
	}
}

// LinearBuckets are buckets of equal width.
type LinearBuckets struct {
	// Upper bound of the first bucket.
	Start float64 `json:"start"`
	// Width of each bucket.
	Width float64 `json:"width" check:"required,gt=0"`
	// Number of buckets.
	Count int32 `json:"count" check:"required,gt=0,lte=1000"`
}

// ExponentialBuckets are buckets that grow by a factor.
type ExponentialBuckets struct {
	// Upper bound of the first bucket.
	Start float64 `json:"start" check:"required,gt=0"`
	// Each bound is the one before times this.
	Factor float64 `json:"factor" check:"required,gt=1"`
	// Number of buckets.
	Count int32 `json:"count" check:"required,gt=0,lte=1000"`
}

// ExponentialBucketsRange are buckets that grow from min to max.
type ExponentialBucketsRange struct {
	// Upper bound of the first bucket.
	Min float64 `json:"min" check:"required,gt=0"`
	// Upper bound of the last bucket.
	Max float64 `json:"max" check:"required"`
	// Number of buckets.
	Count int32 `json:"count" check:"required,gt=0,lte=1000"`
}

var _ strict.Checker = (*ExponentialBucketsRange)(nil)

// Check refuses an empty range.
func (b *ExponentialBucketsRange) Check(at strict.Place) {
	if at.Present("max") && b.Max <= b.Min {
		at.Field("max").Refuse(fielderr.Error{Want: fmt.Sprintf("more than min, %g", b.Min)})
	}
}

// Classifier makes labels from requests at HTTP control points. When several make one label, the last one counts, in
// the order of the names of their policies and then of the list; within one, that of rego.
type Classifier struct {
	// Labels to make, each from one part of the request.
	Rules map[string]Rule `json:"rules,omitempty"`
	// Labels to make with a Rego module.
	Rego *Rego `json:"rego,omitempty"`
	// Flows to look at.
	Selectors []Selector `json:"selectors" check:"required"`
}

// Rule makes one label.
type Rule struct {
	// Where its value comes from.
	Extractor Extractor `json:"extractor" check:"required"`
	// Show the label in analytics.
	Telemetry bool `json:"telemetry" default:"true"`
}

// Rego makes labels with a module in the language Rego.
type Rego struct {
	// Variables of the module that become labels.
	Labels map[string]LabelProperties `json:"labels" check:"required"`
	// Text of the module.
	Module string `json:"module" check:"required"`
}

// LabelProperties say how a label is treated.
type LabelProperties struct {
	// Show the label in analytics.
	Telemetry bool `json:"telemetry" default:"true"`
}

// Extractor takes a value from a request.
type Extractor struct {
	// An attribute as it is, such as request.http.headers.user-agent.
	From string `json:"from,omitempty" union:"variant,required" check:"nonempty"`
	// Part of an attribute that is JSON.
	JSON *JSONExtractor `json:"json,omitempty" union:"variant"`
	// An address as text.
	Address *AddressExtractor `json:"address,omitempty" union:"variant"`
	// Part of a JSON Web Token, which is not verified.
	JWT *JWTExtractor `json:"jwt,omitempty" union:"variant"`
	// The name of the template that the path matches.
	PathTemplates *PathTemplateMatcher `json:"path_templates,omitempty" union:"variant"`
	// An expression in the Common Expression Language, such as request.headers["x-user"]. No label is made when
	// something that it reads is not there.
	CEL string `json:"cel,omitempty" union:"variant" check:"nonempty"`
}

// JSONExtractor takes part of an attribute that is JSON.
type JSONExtractor struct {
	// Attribute with the JSON text, such as request.http.body.
	From string `json:"from" check:"required"`
	// JSON pointer to the part; the whole when empty.
	Pointer string `json:"pointer,omitempty"`
}

// AddressExtractor takes an address as text.
type AddressExtractor struct {
	// Attribute with the address, such as source.address.
	From string `json:"from" check:"required"`
}

// JWTExtractor takes part of the payload of a JSON Web Token.
type JWTExtractor struct {
	// Attribute with the token, such as request.http.bearer.
	From string `json:"from" check:"required"`
	// JSON pointer to the part of the payload; all of it when empty.
	JSONPointer string `json:"json_pointer,omitempty"`
}

// PathTemplateMatcher turns paths into values by templates such as /users/{id}/*. The most specific
// template wins.
type PathTemplateMatcher struct {
	// Values, by template.
	TemplateValues map[string]string `json:"template_values" check:"required"`
}
