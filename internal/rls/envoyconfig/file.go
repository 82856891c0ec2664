// SPDX-License-Identifier: Apache-2.0

package envoyconfig

import (
	"fmt"
	"math"
	"strings"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// root is a configuration file.
type root struct {
	Domain      text   `json:"domain"`
	Descriptors []node `json:"descriptors"`
}

// node is a descriptor of the configuration. Fields that envoyproxy/ratelimit takes anywhere, and reads in one place
// only, are here so that their misplacing can be told.
type node struct {
	Key            text       `json:"key"`
	Value          text       `json:"value"`
	RateLimit      *rateLimit `json:"rate_limit"`
	Descriptors    []node     `json:"descriptors"`
	ShadowMode     truth      `json:"shadow_mode"`
	QuotaMode      truth      `json:"quota_mode"`
	DetailedMetric truth      `json:"detailed_metric"`
	ValueToMetric  truth      `json:"value_to_metric"`
	ShareThreshold truth      `json:"share_threshold"`

	Unit            any `json:"unit"`
	RequestsPerUnit any `json:"requests_per_unit"`
	Unlimited       any `json:"unlimited"`
	Name            any `json:"name"`
	Replaces        any `json:"replaces"`
}

type rateLimit struct {
	Unit            text      `json:"unit"`
	RequestsPerUnit count     `json:"requests_per_unit"`
	Unlimited       truth     `json:"unlimited"`
	Name            text      `json:"name"`
	Replaces        []replace `json:"replaces"`

	ShadowMode     any `json:"shadow_mode"`
	QuotaMode      any `json:"quota_mode"`
	DetailedMetric any `json:"detailed_metric"`
	ValueToMetric  any `json:"value_to_metric"`
	ShareThreshold any `json:"share_threshold"`
}

type replace struct {
	Name text `json:"name"`
}

// text is text as YAML 1.1 has it: what looks like a number or a truth is text where text is wanted.
type text string

var _ strict.Scalar = (*text)(nil)

// DecodeScalar implements strict.Scalar.
func (t *text) DecodeScalar(n *strict.Node) *fielderr.Error {
	if n.Kind == strict.List || n.Kind == strict.Map {
		return &fielderr.Error{Want: "text"}
	}
	*t = text(n.Text)
	return nil
}

// truth is a truth as YAML 1.1 has it: yes and on are true as well.
type truth bool

var _ strict.Scalar = (*truth)(nil)

// DecodeScalar implements strict.Scalar.
func (f *truth) DecodeScalar(n *strict.Node) *fielderr.Error {
	if n.Kind == strict.Bool || n.Kind == strict.Text {
		switch strings.ToLower(n.Text) {
		case "true", "yes", "on", "y":
			*f = true
			return nil
		case "false", "no", "off", "n":
			return nil
		}
	}
	return &fielderr.Error{Want: "true or false"}
}

// count is a number of requests.
type count uint32

var _ strict.Scalar = (*count)(nil)

// DecodeScalar implements strict.Scalar.
func (c *count) DecodeScalar(n *strict.Node) *fielderr.Error {
	i, ok := n.Int()
	if !ok || n.Kind != strict.Number || i < 0 || i > math.MaxUint32 {
		return &fielderr.Error{Want: "a whole number from 0 to 4294967295"}
	}
	*c = count(i)
	return nil
}

// seconds of the units. Months and years are counted in days, and weeks begin on Thursday, as the first day of 1970.
var seconds = map[string]int{
	"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400, "month": 30 * 86400, "year": 365 * 86400,
}

const wantUnit = "second, minute, hour, day, week, month or year"

var _, _, _ strict.Checker = (*root)(nil), (*node)(nil), (*rateLimit)(nil)

// Check implements strict.Checker.
func (r *root) Check(at strict.Place) {
	if r.Domain == "" {
		at.RefuseAbsence("domain", fielderr.Error{Message: "missing", Want: "the domain that Envoy's filter names"})
	}
}

// Check implements strict.Checker.
func (n *node) Check(at strict.Place) {
	if n.Key == "" {
		at.RefuseAbsence("key", fielderr.Error{Message: "missing", Want: "the key of the entry"})
	}
	if bool(n.ShareThreshold) && !n.wildcard() {
		at.Field("share_threshold").Refuse(fielderr.Error{
			Got: "true for a value without *", Want: "a value that ends with *, such as " + fmt.Sprintf("%q", string(n.Value)+"*"),
		})
	}
	warnMisplaced(at, "inside rate_limit", "unit", "requests_per_unit", "unlimited", "name", "replaces")
}

// Check implements strict.Checker.
func (l *rateLimit) Check(at strict.Place) {
	_, known := seconds[strings.ToLower(string(l.Unit))]
	switch {
	case bool(l.Unlimited) && known:
		at.Field("unit").Refuse(fielderr.Error{Got: string(l.Unit) + " beside unlimited: true", Want: "one of them"})
	case !bool(l.Unlimited) && l.Unit == "":
		at.RefuseAbsence("unit", fielderr.Error{Message: "missing", Want: wantUnit})
	case !bool(l.Unlimited) && !known:
		at.Field("unit").Refuse(fielderr.Error{Want: wantUnit})
	}
	for i, r := range l.Replaces {
		switch r.Name {
		case "":
			at.Field("replaces").Index(i).RefuseAbsence("name", fielderr.Error{Message: "missing", Want: "the name of another rate limit"})
		case l.Name:
			at.Field("replaces").Index(i).Field("name").Refuse(fielderr.Error{Got: "its own name", Want: "the name of another rate limit"})
		}
	}
	warnMisplaced(at, "beside rate_limit, not inside", "shadow_mode", "quota_mode", "detailed_metric", "value_to_metric", "share_threshold")
}

// warnMisplaced tells of fields that envoyproxy/ratelimit takes here and does not read.
func warnMisplaced(at strict.Place, where string, fields ...string) {
	for _, f := range fields {
		if at.Present(f) {
			at.Field(f).Warn(fielderr.Error{Message: "has no effect here, as in envoyproxy/ratelimit; it belongs " + where})
		}
	}
}

// wildcard tells whether the node matches values by their beginning.
func (n *node) wildcard() bool { return strings.HasSuffix(string(n.Value), "*") }

// composite is the name by which envoyproxy/ratelimit finds the node among its siblings.
func (n *node) composite() string {
	if n.Value == "" {
		return string(n.Key)
	}
	return string(n.Key) + "_" + string(n.Value)
}
