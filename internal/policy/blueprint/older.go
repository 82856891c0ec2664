// SPDX-License-Identifier: Apache-2.0

package blueprint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// olderNames are names that blueprints had, and those they have now.
var olderNames = map[string]string{
	"feature-rollout/base":                           "load-ramping/base",
	"service-protection/average-latency":             "load-scheduling/average-latency",
	"service-protection/cpu-overload-protection":     "load-scheduling/cpu-overload-protection-k8s",
	"service-protection/cpu-overload-protection-k8s": "load-scheduling/cpu-overload-protection-k8s",
	"service-protection/elasticsearch":               "load-scheduling/elasticsearch",
	"service-protection/java-gc-generic":             "load-scheduling/java-gc-generic",
	"service-protection/java-gc-k8s":                 "load-scheduling/java-gc-k8s",
	"service-protection/postgresql":                  "load-scheduling/postgresql",
	"service-protection/promql":                      "load-scheduling/promql",
}

// change is a key of values that is not what it was.
type change struct {
	old, new string // paths below policy; new is "" for a key without effect
	why      string // for a key without effect
	// list says that the new key is a list, of which the value is one item.
	list bool
	// unless gives the value of keys that had another default under the old name, when the value has none.
	unless map[string]string
}

// coreChanges are what all load scheduling was called before.
var coreChanges = []change{
	{old: "service_protection_core", new: coreField},
	{old: coreField + ".cpu_overload_confirmation", new: coreField + ".overload_confirmations", list: true},
}

// aimdChanges are those of blueprints that answer an overload in proportion to it. The old scheduler was
// ten times slower to raise load again.
var aimdChanges = append(slices.Clone(coreChanges), change{
	old: coreField + ".adaptive_load_scheduler", new: coreField + ".aimd_load_scheduler",
	unless: map[string]string{"load_multiplier_linear_increment": "0.0025"},
})

// aiadChanges are those of blueprints that answer an overload step by step.
var aiadChanges = append(slices.Clone(coreChanges),
	change{old: coreField + ".adaptive_load_scheduler", new: coreField + ".aiad_load_scheduler"},
	change{old: coreField + ".aiad_load_scheduler.gradient", why: "load is cut by load_multiplier_linear_decrement now"},
)

// renamed adds the change of one key to others.
func renamed(changes []change, old, now string) []change {
	return append(slices.Clone(changes), change{old: old, new: now})
}

// modernise brings the values of a document up to date and warns of what it changed. The nodes of the
// document are copied where they change: an alias may stand for them elsewhere.
func modernise(doc *strict.Document, changes []change) {
	for _, c := range changes {
		path := append([]string{"policy"}, strings.Split(c.old, ".")...)
		value := get(doc.Root, path)
		if value == nil {
			continue
		}
		warning := fielderr.Error{Severity: fielderr.Warning, Message: "deprecated", Line: value.KeyLine, Column: value.KeyColumn}
		if c.new == "" {
			warning.Message, warning.Hint = "it has no effect", c.why
			doc.Report(fielderr.Path("policy."+c.old), warning)
			doc.Root = without(doc.Root, path)
			continue
		}
		now := append([]string{"policy"}, strings.Split(c.new, ".")...)
		present := get(doc.Root, now)
		if present != nil && !c.list {
			warning.Severity, warning.Message = fielderr.Refused, ""
			warning.Got, warning.Want = c.old+" and "+c.new, "only one of them"
			warning.Hint = "the first is the old name of the second"
			doc.Report(fielderr.Path("policy."+c.old), warning)
			doc.Root = without(doc.Root, path)
			continue
		}
		warning.Hint = "use " + c.new
		doc.Report(fielderr.Path("policy."+c.old), warning)
		doc.Root = with(without(doc.Root, path), now, c.renew(value, present))
	}
}

// renew is the value under the new name.
func (c change) renew(value, present *strict.Node) *strict.Node {
	renewed := *value
	for key, number := range c.unless {
		if value.Kind == strict.Map && value.Get(key) == nil {
			renewed.Members = append(slices.Clone(renewed.Members), strict.Member{
				Key: key, Line: value.KeyLine, Column: value.KeyColumn,
				Value: &strict.Node{Kind: strict.Number, Text: number, Line: value.KeyLine, Column: value.KeyColumn, KeyLine: value.KeyLine, KeyColumn: value.KeyColumn},
			})
		}
	}
	if !c.list {
		return &renewed
	}
	list := strict.Node{Kind: strict.List, Line: value.Line, Column: value.Column, KeyLine: value.KeyLine, KeyColumn: value.KeyColumn}
	if present != nil {
		list = *present
	}
	list.Items = append(slices.Clone(list.Items), &renewed)
	return &list
}

// get is the value at a path, or nil.
func get(n *strict.Node, path []string) *strict.Node {
	for _, key := range path {
		n = n.Get(key)
	}
	return n
}

// without is a copy of the tree without the key at path.
func without(n *strict.Node, path []string) *strict.Node {
	changed := *n
	changed.Members = slices.Clone(n.Members)
	for i, m := range changed.Members {
		switch {
		case m.Key != path[0]:
		case len(path) == 1:
			changed.Members = slices.Delete(changed.Members, i, i+1)
			return &changed
		default:
			changed.Members[i].Value = without(m.Value, path[1:])
			return &changed
		}
	}
	return &changed
}

// with is a copy of the tree with a value at path; mappings on the way are made where there are none.
func with(n *strict.Node, path []string, value *strict.Node) *strict.Node {
	changed := *n
	changed.Members = slices.DeleteFunc(slices.Clone(n.Members), func(m strict.Member) bool { return m.Key == path[0] })
	if len(path) > 1 {
		inner := n.Get(path[0])
		if inner == nil {
			inner = &strict.Node{Kind: strict.Map, Line: value.Line, Column: value.Column, KeyLine: value.KeyLine, KeyColumn: value.KeyColumn}
		}
		value = with(inner, path[1:], value)
	}
	changed.Members = append(changed.Members, strict.Member{Key: path[0], Line: value.KeyLine, Column: value.KeyColumn, Value: value})
	return &changed
}

// currentName is the name a blueprint has now; older says which name it replaces, or "".
func currentName(name string) (current, older string) {
	if now, ok := olderNames[name]; ok {
		return now, name
	}
	return name, ""
}

func warnOlderName(doc *strict.Document, older, current string, line, column int) {
	doc.Report("blueprint", fielderr.Error{
		Severity: fielderr.Warning, Line: line, Column: column,
		Message: fmt.Sprintf("deprecated name %q", older), Hint: fmt.Sprintf("write blueprint: %s", current),
	})
}
