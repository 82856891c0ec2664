// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/meter"
	"github.com/sluice-project/sluice/internal/setpoint"
)

func newEngine(tb testing.TB, specs ...*LimiterSpec) *Engine {
	tb.Helper()
	m, err := ledger.NewMemory(ledger.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	e, err := New(Config{Authority: m, TokenKey: make([]byte, TokenKeySize)})
	if err != nil {
		tb.Fatal(err)
	}
	if err := e.Publish(Set{Limiters: specs}); err != nil {
		tb.Fatal(err)
	}
	return e
}

var wide = limit.BucketRule{Capacity: 1e12, FillAmount: 1e12, Interval: time.Second, Continuous: true}

func rateSpec(id ledger.LimiterID, point, by string, match label.Expr, rule limit.BucketRule) *LimiterSpec {
	return &LimiterSpec{
		ID: id, Policy: fmt.Sprintf("policy-%d", id), Component: "root.0", Kind: RateLimiter, DeniedStatus: 429,
		Selectors: []Selector{{ControlPoint: point, Match: match}}, LimitBy: by, Bucket: rule,
	}
}

func slotSpec(kind Kind, id ledger.LimiterID, point, by string, max float64) *LimiterSpec {
	s := &LimiterSpec{
		ID: id, Policy: fmt.Sprintf("policy-%d", id), Component: "root.0", Kind: kind, DeniedStatus: 429,
		Selectors: []Selector{{ControlPoint: point}}, LimitBy: by,
		Slots: ledger.SlotRule{Max: max, MaxInFlight: time.Minute},
	}
	if kind == ConcurrencyScheduler {
		s.Scheduler = &SchedulerSpec{Default: WorkloadSpec{Name: "default", Priority: 1, Tokens: 1}, PriorityKey: "priority"}
	}
	return s
}

const benchUsers = 100_000

var benchKeys = sync.OnceValues(func() (users []string, order []int) {
	users = make([]string, benchUsers)
	for i := range users {
		users[i] = fmt.Sprintf("user-%07d", i)
	}
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, benchUsers-1)
	order = make([]int, 1<<16)
	for i := range order {
		order[i] = int(z.Uint64())
	}
	return users, order
})

// runStartEnd measures Start+End pairs on all cores; keys[0] carries the user.
func runStartEnd(b *testing.B, e *Engine, keys, values []string) {
	b.Helper()
	users, order := benchKeys()
	shape, err := NewShape("cp", keys, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		ctx := context.Background()
		vals := append([]string{""}, values...)
		r := Request{Shape: shape, Values: vals, QueueTimeout: -1}
		for i := rand.IntN(1 << 16); pb.Next(); i++ {
			vals[0] = users[order[i&(1<<16-1)]]
			f := e.Start(ctx, &r)
			if !f.Admitted() {
				b.Errorf("denied: %s", f.Verdict.Message())
				return
			}
			f.End(Outcome{})
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "flows/s")
}

// BenchmarkStartEnd is one rate limiter with 100,000 keys. Target: 4 M/s on 2 cores, 0 allocations.
func BenchmarkStartEnd(b *testing.B) {
	runStartEnd(b, newEngine(b, rateSpec(1, "cp", "user", label.Expr{}, wide)), []string{"user"}, nil)
}

// BenchmarkStartEndUnmatched is the floor: no policy selects the flow.
func BenchmarkStartEndUnmatched(b *testing.B) {
	runStartEnd(b, newEngine(b), []string{"user"}, nil)
}

// hundredPolicies are 95 policies that do not match and 5 that do: 2 rate limiters, 1 concurrency
// limiter and 1 scheduler, one of the rate limiters by two selectors.
func hundredPolicies() []*LimiterSpec {
	specs := []*LimiterSpec{
		rateSpec(1, "cp", "user", label.Expr{}, wide),
		rateSpec(2, "cp", "tier", label.Equal("region", "eu"), wide),
		slotSpec(ConcurrencyLimiter, 3, "cp", "user", 1e6),
		slotSpec(ConcurrencyScheduler, 4, "cp", "", 1e6),
		rateSpec(5, "cp", "model", label.Expr{Op: label.Exists, Key: "model"}, wide),
	}
	for i := len(specs); i < 100; i++ {
		id := ledger.LimiterID(i + 1)
		specs = append(specs, rateSpec(id, "cp", "user", label.Equal("tenant", fmt.Sprintf("tenant-%d", i)), wide))
	}
	return specs
}

// BenchmarkStartEnd100Policies is the same with 100 policies loaded, five of them matching. Target:
// 1.5 µs median.
func BenchmarkStartEnd100Policies(b *testing.B) {
	e := newEngine(b, hundredPolicies()...)
	runStartEnd(b, e, []string{"user", "tier", "region", "model", "priority"}, []string{"gold", "eu", "large", "5"})
}

// BenchmarkMedian100Policies times single flows, one after the other; the clock itself is in the figure.
func BenchmarkMedian100Policies(b *testing.B) {
	e := newEngine(b, hundredPolicies()...)
	users, order := benchKeys()
	shape, err := NewShape("cp", []string{"user", "tier", "region", "model", "priority"}, nil)
	if err != nil {
		b.Fatal(err)
	}
	vals := []string{"", "gold", "eu", "large", "5"}
	r := Request{Shape: shape, Values: vals, QueueTimeout: -1}
	var took []time.Duration
	i := 0
	for b.Loop() {
		vals[0] = users[order[i&(1<<16-1)]]
		began := time.Now()
		f := e.Start(context.Background(), &r)
		f.End(Outcome{})
		if d := time.Since(began); i < 1<<20 {
			took = append(took, d)
		}
		i++
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
}

type silent struct{}

func (silent) Decided(*Flow) {}

// BenchmarkWaitingFlowMemory reports what a flow takes while it waits, everything included but the
// connection it came by. Target: 1.5 KB.
func BenchmarkWaitingFlowMemory(b *testing.B) {
	const n = 50_000
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	for b.Loop() {
		e := newEngine(b, slotSpec(ConcurrencyScheduler, 1, "cp", "", 1))
		held := e.Start(context.Background(), &Request{ControlPoint: "cp"})
		before := heap()
		flows := make([]*Flow, n)
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		for i := range flows {
			labels := map[string]string{"priority": fmt.Sprint(1 + i%5)}
			flows[i], _ = e.Begin(ctx, &Request{ControlPoint: "cp", Labels: labels, QueueTimeout: -1}, silent{})
		}
		b.ReportMetric(float64(heap()-before)/n, "B/flow")
		runtime.KeepAlive(flows)
		runtime.KeepAlive(held)
		cancel()
	}
}

// BenchmarkSteer moves one limit of an engine with 1,000 driven limiters and 100,000 accounts.
func BenchmarkSteer(b *testing.B) {
	for _, kind := range []Kind{RateLimiter, ConcurrencyScheduler, AdaptiveConcurrencyScheduler, LoadScheduler, Sampler} {
		b.Run(kind.String(), func(b *testing.B) {
			var specs []*LimiterSpec
			for id := ledger.LimiterID(1); id <= 1000; id++ {
				var s *LimiterSpec
				switch kind {
				case RateLimiter:
					s = driven(rateSpec(id, "cp", "user", label.Equal("n", fmt.Sprint(id)), limit.BucketRule{Interval: time.Second, Continuous: true}), "h")
				case LoadScheduler:
					s = loadSpec(id, "cp")
				case Sampler:
					s = samplerSpec(id, false)
				default:
					s = drivenSlots(kind, id)
				}
				specs = append(specs, s)
			}
			specs = append(specs, rateSpec(1001, "accounts", "user", label.Expr{}, limit.BucketRule{Capacity: 5, FillAmount: 1, Interval: time.Hour, Continuous: true}))
			e := newEngine(b, specs...)
			users, _ := benchKeys()
			for _, u := range users {
				start(e, "accounts", "user", u).Free()
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				n := float64((i/1000+i)%50 + 1)
				steer(e, ledger.LimiterID(i%1000+1), setpoint.Setpoint{
					Version: uint64(i), BucketCapacity: n, FillAmount: n, MaxConcurrency: n, LoadMultiplier: n / 50, AcceptPercentage: n,
				})
			}
		})
	}
}

// BenchmarkDriven is Start and End at one driven limiter of each kind that is new.
func BenchmarkDriven(b *testing.B) {
	for _, s := range []*LimiterSpec{samplerSpec(1, false), drivenSlots(AdaptiveConcurrencyScheduler, 1), loadSpec(1, "cp")} {
		for _, pass := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/pass=%v", s.Kind, pass), func(b *testing.B) {
				e := newEngine(b, s)
				steer(e, 1, setpoint.Setpoint{MaxConcurrency: 1e6, LoadMultiplier: 1e6, AcceptPercentage: 100, PassThrough: pass})
				runStartEnd(b, e, []string{"user"}, nil)
			})
		}
	}
}

// BenchmarkObserve reads what control reads on every tick.
func BenchmarkObserve(b *testing.B) {
	e := newEngine(b, drivenSlots(AdaptiveConcurrencyScheduler, 1))
	ref := setpoint.Ref{Policy: "policy-1", Component: "root.0"}
	var o setpoint.Observation
	b.ReportAllocs()
	for b.Loop() {
		e.Observe(ref, &o)
	}
}

// BenchmarkGather reads all metrics of 1,000 schedulers with a flux meter each, as every tick does.
func BenchmarkGather(b *testing.B) {
	var specs []*LimiterSpec
	var meters []*MeterSpec
	for id := ledger.LimiterID(1); id <= 1000; id++ {
		specs = append(specs, loadSpec(id, fmt.Sprint("cp-", id)))
		meters = append(meters, meterSpec(fmt.Sprint("policy-", id), "m", meter.WorkloadDuration, label.Expr{}))
	}
	e := newEngine(b)
	if err := e.Publish(Set{Limiters: specs, Meters: meters}); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		prometheus.Collector
	}{{"own", e.Collector()}, {"compat", e.CompatCollector()}} {
		b.Run(c.name, func(b *testing.B) {
			r := prometheus.NewRegistry()
			if err := r.Register(c); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Gather(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkHTTP is Start and End of HTTP flows with five labels that policies read: two explicit, three of the
// request. The others have one classifier that does not select them, one that does nothing, and one that takes a
// label from a header.
func BenchmarkHTTP(b *testing.B) {
	specs := []*LimiterSpec{
		rateSpec(1, "cp", "user", label.Expr{}, wide),
		rateSpec(2, "cp", "http.method", label.Equal("http.host", "shop"), wide),
		rateSpec(3, "cp", "http.request.header.x_team", label.Expr{Op: label.Exists, Key: "tier"}, wide),
	}
	header, err := classify.Compile(classify.Spec{Rules: []classify.Rule{
		{Label: "team", Extractor: classify.Extractor{From: "request.http.headers.x-team"}},
	}})
	if err != nil {
		b.Fatal(err)
	}
	nothing := rules(func(_ *classify.Input, out []classify.Label) ([]classify.Label, error) { return out, nil })
	for _, c := range []struct {
		name        string
		classifiers []*ClassifierSpec
	}{
		{"no classifier", nil},
		{"not selected", []*ClassifierSpec{classifierSpec("p", 0, label.Equal("http.host", "other"), nothing)}},
		{"empty", []*ClassifierSpec{classifierSpec("p", 0, label.Expr{}, nothing)}},
		{"extractor", []*ClassifierSpec{classifierSpec("p", 0, label.Expr{}, header)}},
	} {
		b.Run(c.name, func(b *testing.B) {
			e := newEngine(b)
			publish(b, e, Set{Limiters: specs, Classifiers: c.classifiers})
			http := &classify.Request{
				Method: "GET", Path: "/cart/7?x=y", Host: "shop", Scheme: "https", Protocol: "HTTP/1.1", Size: -1,
				Headers: map[string]string{"x-team": "red", "accept": "*/*", "user-agent": "bench"},
			}
			r := Request{ControlPoint: "cp", Labels: map[string]string{"user": "alice", "tier": "gold"}, HTTP: http, QueueTimeout: -1}
			b.ReportAllocs()
			for b.Loop() {
				f := e.Start(context.Background(), &r)
				if !f.Admitted() {
					b.Fatal(f.Verdict.Message())
				}
				f.End(Outcome{HTTPStatus: 200})
			}
		})
	}
}

// BenchmarkLabels is the same flow without HTTP, with all five labels explicit: what HTTP costs is the difference.
func BenchmarkLabels(b *testing.B) {
	e := newEngine(b,
		rateSpec(1, "cp", "user", label.Expr{}, wide),
		rateSpec(2, "cp", "http.method", label.Equal("http.host", "shop"), wide),
		rateSpec(3, "cp", "http.request.header.x_team", label.Expr{Op: label.Exists, Key: "tier"}, wide))
	r := Request{ControlPoint: "cp", QueueTimeout: -1, Labels: map[string]string{
		"user": "alice", "tier": "gold", "http.method": "GET", "http.host": "shop", "http.request.header.x_team": "red",
	}}
	b.ReportAllocs()
	for b.Loop() {
		e.Start(context.Background(), &r).End(Outcome{})
	}
}

// BenchmarkTokens is Seal and EndToken.
func BenchmarkTokens(b *testing.B) {
	e := newEngine(b, rateSpec(1, "cp", "user", label.Expr{}, wide), slotSpec(ConcurrencyLimiter, 2, "cp", "user", 1e6))
	r := Request{ControlPoint: "cp", Labels: map[string]string{"user": "alice"}}
	for _, release := range []bool{false, true} {
		b.Run(fmt.Sprint("release=", release), func(b *testing.B) {
			var token []byte
			b.ReportAllocs()
			for b.Loop() {
				f := e.Start(context.Background(), &r)
				token = f.Seal(token[:0])
				f.Free()
				if release {
					if _, err := e.ReleaseToken(token); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := e.EndToken(token, &Outcome{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPoints reads 1,000 control points with 20 labels each.
func BenchmarkPoints(b *testing.B) {
	e := newEngine(b)
	labels := make(map[string]string)
	for i := range 20 {
		labels[fmt.Sprint("label-", i)] = fmt.Sprint("value-", i)
	}
	for i := range 1000 {
		e.Start(context.Background(), &Request{ControlPoint: fmt.Sprint("cp-", i), Labels: labels}).Free()
	}
	b.ReportAllocs()
	for b.Loop() {
		e.Points("", true)
	}
}
