// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-project/sluice/internal/control"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/signal"
)

// queried is a policy that lets as many flows through a control point of its own name at once as a query
// says, ticking every 100 ms; without an answer there is no limit.
func queried(name, query string) string {
	return fmt.Sprintf(`policy_name: %[1]s
circuit:
  evaluation_interval: 100ms
  components:
    - query: {promql: {query_string: %[2]q, evaluation_interval: 100ms, out_ports: {output: {signal_name: MOST}}}}
    - flow_control:
        concurrency_limiter:
          in_ports: {max_concurrency: {signal_name: MOST}}
          parameters: {max_inflight_duration: 60s}
          selectors: [{control_point: %[1]s}]
`, name, query)
}

// admitted counts how many of n flows may run at once.
func (p *planes) admitted(point string, n int) (count int) {
	p.t.Helper()
	flows := make([]*flow.Flow, n)
	for i := range flows {
		flows[i] = p.engine.Start(p.t.Context(), &flow.Request{ControlPoint: point})
	}
	for _, f := range flows {
		if f.Admitted() {
			count++
			f.End(flow.Outcome{})
		} else {
			f.Free()
		}
	}
	return count
}

// status is the status of a component of a policy.
func (p *planes) status(policy, component string) string {
	p.t.Helper()
	st, err := p.runtime.Status(policy)
	if err != nil {
		p.t.Fatal(err)
	}
	for i := range st.Components {
		if st.Components[i].ID == component {
			return st.Components[i].Status
		}
	}
	p.t.Fatalf("%s has no component %s", policy, component)
	return ""
}

// doctor answers queries: of "well" with 2, of others as the name says.
type doctor struct{ asked atomic.Int64 }

func (d *doctor) RoundTrip(r *http.Request) (*http.Response, error) {
	d.asked.Add(1)
	if err := r.ParseForm(); err != nil {
		return nil, err
	}
	answer := func(code int, body string) (*http.Response, error) {
		return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
	query, _, _ := strings.Cut(r.Form.Get("query"), " ")
	switch query {
	case "well":
		return answer(200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[0,"2"]}]}}`)
	case "nothing":
		return answer(200, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	case "many":
		return answer(200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"1"},"value":[0,"2"]},{"metric":{"a":"2"},"value":[0,"3"]}]}}`)
	case "nonsense":
		return answer(200, `<html>`)
	case "failing":
		return answer(500, `oops`)
	case "hanging":
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return nil, errors.New("connection refused")
}

// TestBrokenPoliciesBesideAHealthyOne: whatever is wrong with the queries of others, a policy ticks on time
// and its limit follows its query. Those whose query does not answer limit nothing, and say why.
func TestBrokenPoliciesBesideAHealthyOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlanes(t, func(c *signal.Config) {
			c.Dir, c.Remote = "", &signal.RemoteConfig{URL: "http://prometheus:9090", Transport: &doctor{}}
		})
		wrong := map[string]string{
			"nothing": "selects nothing", "many": "2 values", "nonsense": "prometheus:9090", "failing": "500",
			"hanging": "longer than 5s", "down": "refused",
		}
		documents := []string{queried("well", "well")}
		p.publish(documents...)
		time.Sleep(300 * time.Millisecond)
		for name := range wrong {
			documents = append(documents, queried(name, name))
			for i := range 3 {
				documents = append(documents, queried(fmt.Sprintf("%s-%d", name, i), fmt.Sprintf("%s and vector(%d)", name, i)))
			}
		}
		p.publish(documents...)
		for i := range 200 {
			if i == 100 { // one that comes later does not have to wait for those that hang, either
				p.publish(append(documents, queried("late", "well or vector(1)"))...)
				time.Sleep(time.Second)
				if got := p.admitted("late", 5); got != 2 {
					t.Errorf("%d of 5 flows of a new policy were admitted at once, want 2", got)
				}
			}
			time.Sleep(300 * time.Millisecond)
			if got := p.admitted("well", 5); got != 2 {
				t.Fatalf("%d of 5 flows of the healthy policy were admitted at once, want 2", got)
			}
		}
		for name, text := range wrong {
			if got := p.admitted(name, 5); got != 5 {
				t.Errorf("%s: %d of 5 flows were admitted, want all", name, got)
			}
			if v := p.value(name, "MOST"); !math.IsNaN(v) {
				t.Errorf("%s: the query reads %v, want invalid", name, v)
			}
			if got := p.status(name, "root.0"); !strings.Contains(got, text) {
				t.Errorf("%s: the status is %q, want something with %q", name, got, text)
			}
		}
		if got := p.status("well", "root.0"); got != control.Running {
			t.Errorf("the healthy one is %q", got)
		}
		for _, name := range p.runtime.Policies() {
			st, err := p.runtime.Status(name)
			if err != nil {
				t.Fatal(err)
			}
			if st.Skipped > 0 || st.Stopped != "" || name != "late" && (st.Ticks < 608 || st.Ticks > 615) {
				t.Errorf("%s has ticked %d times in 61 s and skipped %d ticks, want 610 and 0: %s", name, st.Ticks, st.Skipped, st.Stopped)
			}
		}
	})
}

// TestDrivenLimitFromTheFirstTick: a policy that comes into force limits at once, and so after a restart.
func TestDrivenLimitFromTheFirstTick(t *testing.T) {
	const one = `policy_name: one
circuit:
  evaluation_interval: 10s
  components:
    - variable: {constant_output: {value: 1}, config_key: most, out_ports: {output: {signal_name: MOST}}}
    - flow_control:
        concurrency_limiter:
          in_ports: {max_concurrency: {signal_name: MOST}}
          parameters: {max_inflight_duration: 60s}
          selectors: [{control_point: one}]
`
	synctest.Test(t, func(t *testing.T) {
		p := newPlanes(t, nil)
		time.Sleep(1234 * time.Millisecond)
		p.publish(one)
		synctest.Wait()
		if got := p.admitted("one", 5); got != 1 {
			t.Errorf("%d of 5 flows were admitted right after the policy came into force, want 1", got)
		}
		p.publish(strings.Replace(one, "value: 1", "value: 3", 1))
		synctest.Wait()
		if got := p.admitted("one", 5); got != 3 {
			t.Errorf("%d of 5 flows were admitted right after the policy was replaced, want 3", got)
		}
		p.publish()
		if got := p.admitted("one", 5); got != 5 {
			t.Errorf("%d of 5 flows were admitted after the policy was gone, want all", got)
		}
		p.publish(one)
		synctest.Wait()
		if got := p.admitted("one", 5); got != 1 {
			t.Errorf("%d of 5 flows were admitted after the policy came back, want 1", got)
		}
	})
}

// TestPoliciesChangeUnderLoad publishes at random while flows come, wait, run and are cancelled. Afterwards
// nothing is held and nothing waits; that no goroutine is left is what the bubble checks.
func TestPoliciesChangeUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const seed = 20261121
		random := rand.New(rand.NewPCG(seed, seed))
		p := newPlanes(t, nil)
		documents := []string{
			protection("average-latency", 100*time.Millisecond), protection("adaptive", time.Second),
			protection("promql", 200*time.Millisecond), queried("slots", "vector(3)"), queried("slots", "scalar(vector(4))"),
			strings.ReplaceAll(queried("shared", "time() % 7"), "control_point: shared", "control_point: checkout"),
		}
		var flows sync.WaitGroup
		served := newBackend(5, 80*time.Millisecond)
		ctx, stop := context.WithCancel(t.Context())
		for i := range 40 {
			flows.Go(func() { wander(ctx, p, served, i) })
		}
		for range 150 {
			time.Sleep(time.Duration(random.IntN(700)) * time.Millisecond)
			served.service.Store(int64(time.Duration(20+random.IntN(200)) * time.Millisecond))
			chosen, names := []string{}, map[string]bool{}
			for _, i := range random.Perm(len(documents))[:random.IntN(4)] {
				if name, _, _ := strings.Cut(documents[i][strings.Index(documents[i], "policy_name: "):], "\n"); !names[name] {
					names[name] = true
					chosen = append(chosen, documents[i])
				}
			}
			p.publish(chosen...)
		}
		stop()
		flows.Wait()
		p.publish(documents[0], documents[3])
		time.Sleep(2 * time.Second)
		for _, l := range p.engine.Overview(0).Limiters {
			if l.Waiting != 0 {
				t.Errorf("%s %s: %d flows wait after all have gone", l.Spec.Policy, l.Spec.Component, l.Waiting)
			}
		}
		if got := p.admitted("slots", 9); got != 3 {
			t.Errorf("%d of 9 flows were admitted at once, want 3: slots were lost or given twice", got)
		}
	})
}

// wander starts flows one after the other, some of which are given up while they wait.
func wander(ctx context.Context, p *planes, b *backend, seed int) {
	random := rand.New(rand.NewPCG(uint64(seed), 7))
	for ctx.Err() == nil {
		time.Sleep(time.Duration(1+random.IntN(60)) * time.Millisecond)
		mine, cancel := context.WithTimeout(context.Background(), time.Duration(random.IntN(400))*time.Millisecond)
		f := p.engine.Start(mine, &flow.Request{ControlPoint: []string{"checkout", "slots"}[random.IntN(2)], QueueTimeout: time.Second})
		cancel()
		if !f.Admitted() {
			f.Free()
			continue
		}
		b.work()
		f.End(flow.Outcome{Failed: random.IntN(5) == 0})
	}
}
