// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/label"
)

// Set is everything that Publish puts into force.
type Set struct {
	Limiters    []*LimiterSpec
	Meters      []*MeterSpec
	Classifiers []*ClassifierSpec
}

// CacheQuery asks for values while a flow is decided.
type CacheQuery struct {
	// ResultKey is scoped to the control point; "": none. GlobalKeys are not.
	ResultKey  string
	GlobalKeys []string
	// Coalesce says what happens when another flow computes the missing result already.
	Coalesce Coalesce
}

// Coalesce says how flows that miss the same result key share the work.
type Coalesce uint8

// The ways.
const (
	CoalesceNone  Coalesce = iota // each computes
	CoalesceWait                  // one computes, the others wait
	CoalesceStale                 // the others get the value that expired last, if it is still kept
)

// CacheStatus is the answer for one key.
type CacheStatus uint8

// The statuses.
const (
	CacheNone CacheStatus = iota // not asked for
	CacheHit
	CacheMiss
	CacheStale
	CacheError
)

// String is the stable code.
func (s CacheStatus) String() string { return [...]string{"", "hit", "miss", "stale", "error"}[s] }

// CacheValue is the answer for one key. The value must not be changed.
type CacheValue struct {
	Status CacheStatus
	Value  []byte
	Error  string
}

// CacheResult is what the caches answered a flow.
type CacheResult struct {
	Result CacheValue
	Global map[string]CacheValue
	// Leader tells that this flow was chosen to compute the missing result.
	Leader bool
}

// Cached is what the caches answered; nil when they were not asked. It is valid until the flow is freed.
func (f *Flow) Cached() *CacheResult { return nil }

// Sample is a flow as a preview shows it.
type Sample struct {
	Services []string
	// Before and After are the labels before and after classification.
	Before, After map[string]string
	Classifiers   []ClassifierResult
	// HTTP is set for HTTP flows. It must not be changed.
	HTTP *classify.Request
}

// Tap calls seen with flows of a control point as they begin, until stop is called or limit flows were seen; those
// that do not match the service ("": any) or the expression are not counted. seen is called on the goroutine
// that decides the flow: it must not block.
func (e *Engine) Tap(point, service string, match label.Expr, limit int, seen func(Sample)) (stop func()) {
	return func() {}
}

// RateLimitHeaders calls set with the headers that tell an HTTP client about its limits: RateLimit-Policy and
// RateLimit (draft-ietf-httpapi-ratelimit-headers-10), and for denials that a retry helps, Retry-After. It reads
// Decisions, so ask for them with Request.Explain.
func (v *Verdict) RateLimitHeaders(set func(name, value string)) {}
