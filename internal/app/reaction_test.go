// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-project/sluice/internal/flow"
)

// Three ways to protect the control point "checkout" from a backend that has become slow.
var protections = map[string]string{
	"average-latency": `blueprint: load-scheduling/average-latency
policy:
  policy_name: protect
  evaluation_interval: INTERVAL
  latency_baseliner:
    flux_meter: {selectors: [{control_point: checkout}]}
  load_scheduling_core:
    aimd_load_scheduler:
      load_multiplier_linear_increment: 1
      load_scheduler: {selectors: [{control_point: checkout}]}
`,
	"promql": `blueprint: load-scheduling/promql
policy:
  policy_name: protect
  evaluation_interval: INTERVAL
  promql_query: >
    sum(increase(workload_latency_ms_sum{policy_name="protect"}[WINDOW]))
    / sum(increase(workload_latency_ms_count{policy_name="protect"}[WINDOW]))
  setpoint: 75
  overload_condition: gt
  load_scheduling_core:
    aiad_load_scheduler:
      load_multiplier_linear_decrement: 0.2
      load_multiplier_linear_increment: 1
      load_scheduler: {selectors: [{control_point: checkout}]}
`,
	"adaptive": `blueprint: load-scheduling/adaptive
policy:
  policy_name: protect
  evaluation_interval: INTERVAL
  load_scheduling_core:
    adaptive_concurrency_scheduler:
      selectors: [{control_point: checkout}]
`,
}

func protection(name string, interval time.Duration) string {
	r := strings.NewReplacer("INTERVAL", interval.String(), "WINDOW", (5 * interval).String())
	return r.Replace(protections[name])
}

// TestReaction is the promise of the product: from the moment at which the first slow flow ends, flows are
// turned away within two ticks, and no more after the backend is well again.
func TestReaction(t *testing.T) {
	for name := range protections {
		for _, interval := range []time.Duration{time.Second, 100 * time.Millisecond} {
			for _, c := range []struct {
				slower int     // how many times as long the backend takes
				phase  float64 // when it begins, between two ticks
			}{{4, 0.05}, {3, 0.95}, {20, 0.5}} {
				t.Run(fmt.Sprintf("%s/%v/x%d/%v", name, interval, c.slower, c.phase), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { react(t, name, interval, c.slower, c.phase) })
				})
			}
		}
	}
}

func react(t *testing.T, name string, interval time.Duration, slower int, phase float64) {
	const usual = 50 * time.Millisecond
	p := newPlanes(t, nil)
	p.publish(protection(name, interval))
	// 200 flows a second are what the backend can do; half of that comes.
	tr := &traffic{planes: p, point: "checkout", backend: newBackend(10, usual)}
	defer tr.flows.Wait()
	begin := time.Now()
	tr.run(100, 35*time.Second+time.Duration(phase*float64(interval)))
	if n := tr.deniedIn(begin, time.Now()); n > 0 {
		t.Errorf("%d flows were denied before the overload", n)
	}
	slow := time.Now()
	tr.backend.service.Store(int64(slower) * int64(usual))
	tr.run(100, 10*time.Second)
	visible, acted := tr.firstSlow(slow, usual+usual/2), tr.firstDenied(slow)
	reaction := acted.Sub(visible)
	t.Logf("visible after %v, acted %v later", visible.Sub(slow), reaction)
	most := map[time.Duration]time.Duration{time.Second: 2 * time.Second, 100 * time.Millisecond: 300 * time.Millisecond}[interval]
	if acted.IsZero() || reaction > most {
		t.Errorf("the first flow was denied %v after the first slow one ended, want at most %v", reaction, most)
	}
	tr.backend.service.Store(int64(usual))
	tr.run(100, time.Duration(45+2*slower)*time.Second) // what was cut deeper comes back later
	if n := tr.deniedIn(time.Now().Add(-20*time.Second), time.Now()); n > 0 {
		t.Errorf("%d flows were denied when the backend had been well for a while", n)
	}
}

// TestEditUnderOverload: an edit of a policy that throttles does not open the gate, although its circuit
// starts from scratch.
func TestEditUnderOverload(t *testing.T) {
	for name := range protections {
		for _, interval := range []time.Duration{time.Second, 100 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s/%v", name, interval), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					const usual = 50 * time.Millisecond
					p := newPlanes(t, nil)
					document := protection(name, interval)
					p.publish(document)
					tr := &traffic{planes: p, point: "checkout", backend: newBackend(10, usual)}
					defer tr.flows.Wait()
					tr.run(100, 35*time.Second)
					tr.backend.service.Store(int64(4 * usual))
					tr.run(100, 20*time.Second)
					edited := time.Now()
					p.publish(document + "  resources: {flow_control: {flux_meters: {more: {selectors: [{control_point: other}]}}}}\n")
					tr.run(100, 5*time.Second)
					for i := range 10 {
						from := edited.Add(time.Duration(i) * 500 * time.Millisecond)
						if tr.deniedIn(from, from.Add(500*time.Millisecond)) == 0 {
							t.Errorf("no flow was denied in half a second, %v after the edit", from.Sub(edited))
						}
					}
				})
			})
		}
	}
}

// TestSurgeEnds: load schedulers, however long their multiplier takes to come back, turn away little of what the
// service could do even during the surge. The settings are those of the blueprints.
func TestSurgeEnds(t *testing.T) {
	for name, document := range protections {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newPlanes(t, nil)
				lines := strings.Split(document, "\n")
				lines = slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, "_linear_") })
				p.publish(strings.NewReplacer("INTERVAL", "1s", "WINDOW", "5s").Replace(strings.Join(lines, "\n")))
				tr := &traffic{planes: p, point: "checkout", backend: newBackend(10, 50*time.Millisecond)}
				defer tr.flows.Wait()
				tr.run(100, 40*time.Second)
				tr.run(500, 20*time.Second) // of 200 that it can do
				settled := time.Now().Add(5 * time.Second)
				tr.run(100, 2*time.Minute)
				if n := tr.deniedIn(settled, time.Now()); n > 575 {
					t.Errorf("%d of 11500 flows were denied after the surge, want at most 5 %%", n)
				}
			})
		})
	}
}

// backend is a service that works on a number of flows at a time; the others queue in it.
type backend struct {
	workers chan struct{}
	service atomic.Int64 // how long a worker takes for one
}

func newBackend(workers int, service time.Duration) *backend {
	b := &backend{workers: make(chan struct{}, workers)}
	b.service.Store(int64(service))
	return b
}

func (b *backend) work() {
	b.workers <- struct{}{}
	time.Sleep(time.Duration(b.service.Load()))
	<-b.workers
}

// traffic is flows through a control point to a backend, and what became of them.
type traffic struct {
	planes  *planes
	point   string
	labels  map[string]string
	backend *backend
	flows   sync.WaitGroup

	mu     sync.Mutex
	denied []time.Time
	ended  []ending
}

// ending is a flow that was admitted.
type ending struct {
	at      time.Time
	latency time.Duration
}

// run starts flows evenly, whether or not those before have ended; none of them waits for admission.
func (tr *traffic) run(perSecond int, during time.Duration) {
	every := time.Second / time.Duration(perSecond)
	for range int(during / every) {
		tr.flows.Go(tr.one)
		time.Sleep(every)
	}
}

func (tr *traffic) one() {
	begin := time.Now()
	f := tr.planes.engine.Start(context.Background(), &flow.Request{ControlPoint: tr.point, Labels: tr.labels})
	if !f.Admitted() {
		f.Free()
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.denied = append(tr.denied, begin)
		return
	}
	tr.backend.work()
	f.End(flow.Outcome{})
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.ended = append(tr.ended, ending{time.Now(), time.Since(begin)})
}

// deniedIn counts flows denied in a time.
func (tr *traffic) deniedIn(from, to time.Time) (n int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, at := range tr.denied {
		if !at.Before(from) && at.Before(to) {
			n++
		}
	}
	return n
}

// firstDenied is when the first flow was denied at or after a time; zero: none.
func (tr *traffic) firstDenied(from time.Time) time.Time {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, at := range tr.denied {
		if !at.Before(from) {
			return at
		}
	}
	return time.Time{}
}

// firstSlow is when the first flow ended after a time that took as long.
func (tr *traffic) firstSlow(from time.Time, latency time.Duration) time.Time {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, e := range tr.ended {
		if !e.at.Before(from) && e.latency >= latency {
			return e.at
		}
	}
	return time.Time{}
}
