// SPDX-License-Identifier: Apache-2.0

package envoyconfig_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/rls"
	"github.com/sluice-project/sluice/internal/rls/envoyconfig"
)

// tree is a descriptor of a configuration, as the model knows it.
type tree struct {
	key, value string // value "": any
	limit      int    // less than 0: none
	unit       string
	unlimited  bool
	share      bool
	below      []*tree
}

type model struct {
	top      []*tree
	counters map[string]int // by descriptor and window
}

type pair struct{ key, value string }

var unitSeconds = map[string]int64{
	"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400, "month": 30 * 86400, "year": 365 * 86400,
}

// find is the decision rule of envoyproxy/ratelimit, told with lists instead of maps. It also returns the counter.
func (m *model) find(entries []pair) (*tree, string) {
	list, counter := m.top, ""
	for i, e := range entries {
		var found *tree
		for _, t := range list {
			if t.key == e.key && t.value != "" && t.value == e.value {
				found = t
			}
		}
		counted := e.value
		for _, t := range list {
			if begin, star := strings.CutSuffix(t.value, "*"); found == nil && star && t.key == e.key && strings.HasPrefix(e.value, begin) {
				if found = t; t.share {
					counted = t.value
				}
			}
		}
		for _, t := range list {
			if found == nil && t.key == e.key && t.value == "" {
				found = t
			}
		}
		if found == nil {
			return nil, ""
		}
		counter += fmt.Sprintf("%q=%q;", e.key, counted)
		if i == len(entries)-1 {
			return found, counter
		}
		list = found.below
	}
	return nil, ""
}

// ask counts hits and tells whether they are over the limit.
func (m *model) ask(entries []pair, hits int, now int64) bool {
	t, counter := m.find(entries)
	if t == nil || t.unlimited || t.limit < 0 {
		return false
	}
	counter += fmt.Sprint(now / unitSeconds[t.unit])
	m.counters[counter] += hits
	return m.counters[counter] > t.limit
}

func (t *tree) write(b *strings.Builder, indent int) {
	pad := strings.Repeat(" ", indent)
	fmt.Fprintf(b, "%s- key: %s\n", pad, t.key)
	if t.value != "" {
		fmt.Fprintf(b, "%s  value: %q\n", pad, t.value)
	}
	if t.share {
		fmt.Fprintf(b, "%s  share_threshold: true\n", pad)
	}
	switch {
	case t.unlimited:
		fmt.Fprintf(b, "%s  rate_limit: {unlimited: true}\n", pad)
	case t.limit >= 0:
		fmt.Fprintf(b, "%s  rate_limit: {unit: %s, requests_per_unit: %d}\n", pad, t.unit, t.limit)
	}
	if len(t.below) > 0 {
		fmt.Fprintf(b, "%s  descriptors:\n", pad)
		for _, c := range t.below {
			c.write(b, indent+4)
		}
	}
}

var (
	keys   = []string{"a", "b", "c.d"}
	values = []string{"", "x", "xy", "xyz", "y", "x*", "xy*", "*", "x**", "a=b,c", `back\slash`, "ü", "y.*"}
	sent   = []string{"", "x", "xy", "xyz", "xyzz", "y", "y.", "y.1", "x*", "xy*", "x**", "*", "z", "a=b,c", `back\slash`, "ü", "line\nbreak"}
	names  = []string{"second", "second", "minute", "minute", "hour", "day", "week", "month", "year"}
)

func randomTrees(rng *rand.Rand, depth int) (list []*tree) {
	seen := map[pair]bool{}
	for range 1 + rng.IntN(6) {
		t := &tree{key: keys[rng.IntN(len(keys))], value: values[rng.IntN(len(values))], limit: -1}
		if seen[pair{t.key, t.value}] {
			continue
		}
		seen[pair{t.key, t.value}] = true
		switch rng.IntN(10) {
		case 0:
			t.unlimited = true
		case 1:
		default:
			t.limit, t.unit = rng.IntN(5), names[rng.IntN(len(names))]
		}
		t.share = strings.HasSuffix(t.value, "*") && rng.IntN(3) == 0
		if depth > 1 && rng.IntN(2) == 0 {
			t.below = randomTrees(rng, depth-1)
		}
		list = append(list, t)
	}
	return list
}

// randomEntries walks down the tree most of the time, so that limits are found.
func randomEntries(rng *rand.Rand, list []*tree) (entries []pair) {
	for range 1 + rng.IntN(3) {
		e := pair{keys[rng.IntN(len(keys))], sent[rng.IntN(len(sent))]}
		var below []*tree
		if len(list) > 0 && rng.IntN(8) > 0 {
			t := list[rng.IntN(len(list))]
			below = t.below
			if e.key = t.key; rng.IntN(2) == 0 {
				e.value = strings.TrimSuffix(t.value, "*") + []string{"", "", "z"}[rng.IntN(3)]
			}
		}
		entries = append(entries, e)
		if list = below; list == nil && rng.IntN(4) > 0 {
			break
		}
	}
	return entries
}

// A policy made of a configuration decides like envoyproxy/ratelimit, for every domain, request after request.
func TestDecidesTheSameWay(t *testing.T) {
	runs := 300
	if testing.Short() {
		runs = 30
	}
	denied, total := 0, 0
	for seed := range uint64(runs) {
		synctest.Test(t, func(t *testing.T) {
			d, n := compare(t, rand.New(rand.NewPCG(seed, 4)), seed)
			denied, total = denied+d, total+n
		})
		if t.Failed() {
			return
		}
	}
	if denied < total/10 || denied > total*9/10 {
		t.Errorf("%d of %d requests were over a limit: too few or too many to tell anything", denied, total)
	}
}

func compare(t *testing.T, rng *rand.Rand, seed uint64) (denied, total int) {
	m := model{randomTrees(rng, 3), map[string]int{}}
	var text strings.Builder
	text.WriteString("domain: d\ndescriptors:\n")
	for _, tree := range m.top {
		tree.write(&text, 2)
	}
	files := []envoyconfig.File{{Name: "a.yaml", Text: []byte(text.String())}}
	r, err := envoyconfig.Convert(files, envoyconfig.Options{ControlPoint: func(d string) string { return "ratelimit/" + d }})
	if err == envoyconfig.ErrNoLimits {
		return 0, 0
	}
	if err != nil {
		t.Fatalf("seed %d: %v\n%s", seed, err, text.String())
	}
	if r.Differs() { // two entries of any value beside one that shares: the only difference these trees can have
		return 0, 0
	}
	door := doorOf(t, r)
	time.Sleep(time.Duration(rng.Int64N(int64(40 * 24 * time.Hour))))
	for range 150 {
		time.Sleep(time.Duration(rng.Int64N(int64([]time.Duration{time.Millisecond, time.Second, time.Minute, 10 * time.Hour}[rng.IntN(4)]))))
		in := &rlsv3.RateLimitRequest{Domain: "d", HitsAddend: uint32(rng.IntN(3))}
		var want []bool
		for range 1 + rng.IntN(3) {
			entries := randomEntries(rng, m.top)
			hits := int(max(1, in.HitsAddend))
			d := &commonv3.RateLimitDescriptor{}
			if rng.IntN(4) == 0 {
				hits = rng.IntN(4)
				d.HitsAddend = wrapperspb.UInt64(uint64(hits))
			}
			for _, e := range entries {
				d.Entries = append(d.Entries, &commonv3.RateLimitDescriptor_Entry{Key: e.key, Value: e.value})
			}
			in.Descriptors = append(in.Descriptors, d)
			want = append(want, m.ask(entries, hits, time.Now().Unix()))
		}
		out, err := door.ShouldRateLimit(context.Background(), in)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i, over := range want {
			total++
			if over {
				denied++
			}
			if got := out.Statuses[i].Code == rlsv3.RateLimitResponse_OVER_LIMIT; got != over {
				t.Fatalf("seed %d: over limit is %t, want %t, for %v of\n%s\nby\n%s", seed, got, over, in.Descriptors[i], text.String(), r.Policies[0].Text)
			}
		}
	}
	return denied, total
}

// doorOf runs the policies as the server does.
func doorOf(t *testing.T, r *envoyconfig.Result) *rls.Door {
	t.Helper()
	authority, err := ledger.NewMemory(ledger.Config{})
	if err != nil {
		t.Fatal(err)
	}
	engine, err := flow.New(flow.Config{Authority: authority, TokenKey: make([]byte, flow.TokenKeySize)})
	if err != nil {
		t.Fatal(err)
	}
	var specs []*flow.LimiterSpec
	for _, p := range r.Policies {
		doc, err := policy.Parse(policy.Source{Text: p.Text})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range doc.Components {
			s, err := flow.FromComponent(doc.Name, doc.Hash, c.ID, c.Component)
			if err != nil {
				t.Fatal(err)
			}
			s.ID = ledger.LimiterID(len(specs) + 1)
			specs = append(specs, s)
		}
	}
	if err := engine.Publish(flow.Set{Limiters: specs}); err != nil {
		t.Fatal(err)
	}
	return rls.New(rls.Config{Engine: engine})
}
