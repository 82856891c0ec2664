// SPDX-License-Identifier: Apache-2.0

package flow

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
