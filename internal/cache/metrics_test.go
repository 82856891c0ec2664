// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-project/sluice/internal/cache"
)

// TestMetrics follows one key through its life. (What counted as an error in Aperture was counted as a success.)
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		lead := mustLead(t, c, cache.CoalesceWait) // a miss that leads
		a, b := mustWait(t, c, time.Second), mustWait(t, c, 0)
		time.Sleep(time.Second)
		synctest.Wait()
		a.isTold(t, cache.Miss, false) // a miss that waited for too long
		next := c.Leave(lead, c.Now())
		next.Resumer.Resumed(next)
		b.isTold(t, cache.Miss, true) // a miss that leads, too
		w := mustWait(t, c, 0)
		upsert(t, c, wanted, "v", time.Minute)
		w.isTold(t, cache.Hit, false) // a hit after waiting
		wantLookup(t, c, wanted, cache.Hit, "v")
		wantLookup(t, c, cache.GlobalKey("", "absent"), cache.Miss, "")
		wantLookup(t, c, cache.GlobalKey("", ""), cache.Failed, "")
		if err := c.Upsert(t.Context(), wanted, cache.Entry{}, c.Now()); err == nil {
			t.Error("an entry without a time was stored")
		}
		if err := c.Delete(t.Context(), wanted); err != nil {
			t.Error(err)
		}
		want := `
			cache_lookup_hits_total{control_point="",type="global"} 0
			cache_lookup_hits_total{control_point="cp",type="result"} 2
			cache_lookup_misses_total{control_point="",type="global"} 2
			cache_lookup_misses_total{control_point="cp",type="result"} 3
			cache_operation_results_total{control_point="",operation_type="lookup",status="error",type="global"} 1
			cache_operation_results_total{control_point="",operation_type="lookup",status="success",type="global"} 1
			cache_operation_results_total{control_point="cp",operation_type="delete",status="success",type="result"} 1
			cache_operation_results_total{control_point="cp",operation_type="lookup",status="success",type="result"} 5
			cache_operation_results_total{control_point="cp",operation_type="upsert",status="error",type="result"} 1
			cache_operation_results_total{control_point="cp",operation_type="upsert",status="success",type="result"} 1
			sluice_cache_coalesced_total{control_point="cp"} 1
			sluice_cache_leaders_total{control_point="cp"} 2
			sluice_cache_leads_passed_total 1
			sluice_cache_wait_timeouts_total 1
			sluice_cache_waiting 0
			sluice_cache_computing 0`
		got := gathered(t, c)
		for line := range strings.Lines(want) {
			if line = strings.TrimSpace(line); line != "" && !strings.Contains(got, line+"\n") {
				t.Errorf("no line %s in\n%s", line, got)
			}
		}
	})
}

// gathered returns the samples as text.
func gathered(t *testing.T, c *cache.Cache) string {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c.Collector())
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			b.WriteString(f.GetName())
			if len(labels) > 0 {
				b.WriteString("{" + strings.Join(labels, ",") + "}")
			}
			fmt.Fprintf(&b, " %v\n", m.GetCounter().GetValue()+m.GetGauge().GetValue())
		}
	}
	return b.String()
}

// TestMetricsAreBounded: names that callers make up do not become series without end, nor break the others.
func TestMetricsAreBounded(t *testing.T) {
	c := open(t)
	for _, name := range []string{"\xff", "\x00", "a\nb", "", strings.Repeat("x", 300), "(other)"} {
		c.Lookup(t.Context(), cache.ResultKey("", name, "k"), c.Now())
	}
	for i := range 10_100 {
		c.Lookup(t.Context(), cache.ResultKey("", fmt.Sprint("cp", i), "k"), c.Now())
	}
	got := gathered(t, c)
	if n := strings.Count(got, "cache_lookup_misses_total{"); n > 10_001 {
		t.Errorf("%d series, want 10,001 at most", n)
	}
	if !strings.Contains(got, `cache_lookup_misses_total{control_point="(other)",type="result"} `) {
		t.Error("the rest is not counted")
	}
}
