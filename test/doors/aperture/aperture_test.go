// SPDX-License-Identifier: Apache-2.0

// Package aperture runs the published clients of Aperture against the product, unchanged. Each is driven by a small
// program that reads commands and prints results, so that one suite of tests is for all of them.
package aperture

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/test/doors/doorstest"
)

func TestMain(m *testing.M) { os.Exit(doorstest.Main(m)) }

const policies = "test/doors/aperture/policies.yaml"

// each runs a test for every client, each with a server of its own.
func each(t *testing.T, test func(t *testing.T, c client, s *doorstest.Server, d *driver)) {
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.command(t) // skips where the client is missing
			s := doorstest.Sluice(t, doorstest.Options{Policies: []string{policies}})
			test(t, c, s, startDriver(t, c, s.Addr))
		})
	}
}

func wantRun(t *testing.T, what string, got object, run bool) {
	t.Helper()
	if got["run"] != run || got["error"] != "" {
		t.Errorf("%s: got %v, want run: %t", what, got, run)
	}
}

// awaitMetric waits until a metric has a value.
func awaitMetric(t *testing.T, s *doorstest.Server, want float64, name string, labels ...string) {
	t.Helper()
	doorstest.Eventually(t, func() error {
		if got := s.Metric(name, labels...); got != want {
			return fmt.Errorf("%s%q is %v, want %v", name, labels, got, want)
		}
		return nil
	})
}

const records = "sluice_aperture_records_total"

func TestClients(t *testing.T) {
	each(t, func(t *testing.T, c client, s *doorstest.Server, d *driver) {
		decisions(t, c, s, d)
		slots(t, c, s, d)
		queue(t, c, d)
		caches(t, d)
		away(t, c, s, d)
	})
}

// decisions: denial codes, when to try again, ramp mode, and records of flows that hold nothing.
func decisions(t *testing.T, c client, s *doorstest.Server, d *driver) {
	wantRun(t, "no policy", d.start("free", "free"), true)
	ann := map[string]string{"user": "ann", "tokens": "1"}
	wantRun(t, "first", d.start("1", "rate", "labels", ann), true)
	wantRun(t, "second", d.start("2", "rate", "labels", ann), true)
	third := d.start("3", "rate", "labels", ann)
	wantRun(t, "third", third, false)
	if third["status"] != 429.0 {
		t.Errorf("third: got status %v, want 429", third["status"])
	}
	if wait := third["retry_after"].(float64); c.retryAfter && (wait < 1 || wait > 31) {
		t.Errorf("third: got %v seconds until a retry, want up to 30", wait)
	}
	wantRun(t, "somebody else", d.start("bob", "rate", "labels", map[string]string{"user": "bob"}), true)
	hostile := d.start("nan", "rate", "labels", map[string]string{"user": "eve", "tokens": "NaN"})
	wantRun(t, "tokens that are no number", hostile, false)
	closed := d.start("closed", "closed")
	wantRun(t, "not sampled", closed, false)
	if closed["status"] != 403.0 {
		t.Errorf("not sampled: got status %v, want 403", closed["status"])
	}
	wantRun(t, "ramp mode with a ramp", d.start("ramp", "ramp", "ramp", true), true)
	wantRun(t, "ramp mode without", d.start("noramp", "free", "ramp", true), false)
	for _, id := range []string{"free", "1", "2", "bob", "ramp"} {
		d.end(id)
	}
	d.flush()
	awaitMetric(t, s, 5, records, "result", "ended")
	d.end("3")
	d.end("noramp")
	d.flush()
	awaitMetric(t, s, 2, records, "result", "rejected_flow")
}

// slots come back by FlowEnd, and without it by the record.
func slots(t *testing.T, c client, s *doorstest.Server, d *driver) {
	before := s.Metric(records, "result", "ended")
	wantRun(t, "slot", d.start("s1", "slots"), true)
	full := d.start("s2", "slots")
	wantRun(t, "no slot", full, false)
	if full["status"] != 429.0 {
		t.Errorf("no slot: got status %v, want 429", full["status"])
	}
	ended := d.end("s1")
	if c.flowEnd {
		if returned := fmt.Sprintf("%v %q", ended["returned"], ended["problems"]); returned != `[true] [""]` {
			t.Errorf("FlowEnd: got %s", returned)
		}
		wantRun(t, "slot after FlowEnd and before the record", d.start("s3", "slots"), true)
		d.flush()
	} else {
		d.flush()
		awaitMetric(t, s, before+1, records, "result", "ended")
		wantRun(t, "slot after the record", d.start("s3", "slots"), true)
	}
	awaitMetric(t, s, before+1, records, "result", "ended")
	wantRun(t, "slot that the record of another flow does not free", d.start("s4", "slots"), false)
	d.end("s3", "record_only", true, "failed", true)
	wantRun(t, "slot while the record is under way", d.start("s5", "slots"), false)
	d.flush()
	awaitMetric(t, s, before+2, records, "result", "ended")
	wantRun(t, "slot after the record alone", d.start("s6", "slots"), true)
	d.end("s6")
	d.flush()
	awaitMetric(t, s, before+3, records, "result", "ended")
	awaitMetric(t, s, 2, "flux_meter", "flux_meter_name", "clients", "flow_status", "OK")
	awaitMetric(t, s, 1, "flux_meter", "flux_meter_name", "clients", "flow_status", "Error")
}

// queue: the deadline of the call bounds the wait, and who ends makes room for who waits.
func queue(t *testing.T, _ client, d *driver) {
	wantRun(t, "place", d.start("q1", "queue"), true)
	began := time.Now()
	late := d.start("q2", "queue", "timeout_ms", 1000)
	wantRun(t, "deadline", late, false)
	if took := time.Since(began); took < 400*time.Millisecond || took > 3*time.Second {
		t.Errorf("deadline: the answer took %s, want about 600ms", took)
	}
	if late["status"] != 503.0 {
		t.Errorf("deadline: got status %v, want 503", late["status"])
	}
	waiting := d.send(startOf("q3", "queue", "timeout_ms", 10_000))
	if out := d.result(waiting); out != nil {
		t.Errorf("got %v, want that it waits", out)
	}
	d.end("q1")
	d.flush()
	wantRun(t, "room", d.await(waiting), true)
	d.end("q3")
}

func caches(t *testing.T, d *driver) {
	lookup := []any{"result", "r", "globals", []string{"g"}}
	cell := func(o object, key string) string {
		m := o[key].(map[string]any)
		if key == "globals" {
			m = m["g"].(map[string]any)
		}
		return strings.ToUpper(fmt.Sprint(m["status"])) + " " + fmt.Sprint(m["value"]) + fmt.Sprint(m["error"])
	}
	want := func(what string, o object, result, global string) {
		t.Helper()
		if cell(o, "result") != result || cell(o, "globals") != global {
			t.Errorf("%s: got %v, want %q and %q", what, o, result, global)
		}
	}
	want("empty", d.start("c1", "cache", lookup...), "MISS ", "MISS ")
	for _, command := range []object{
		{"op": "set_result", "id": "c1", "value": "one", "ttl": 60},
		{"op": "set_global", "id": "c1", "key": "g", "value": "two", "ttl": 60},
	} {
		if out := d.do(command); out["error"] != "" {
			t.Errorf("%v: got %v", command, out)
		}
	}
	want("filled", d.start("c2", "cache", lookup...), "HIT one", "HIT two")
	want("another control point", d.start("c3", "elsewhere", lookup...), "MISS ", "HIT two")
	if out := d.do(object{"op": "set_global", "id": "c1", "key": "g", "value": "x", "ttl": -5}); out["error"] == "" {
		t.Errorf("negative ttl: got %v, want an error", out)
	}
	if out := d.do(object{"op": "set_global", "id": "c1", "key": strings.Repeat("k", 1<<20), "value": "x", "ttl": 5}); out["error"] == "" {
		t.Errorf("key of 1 MB: got %v, want an error", out)
	}
	d.do(object{"op": "delete_result", "id": "c1"})
	d.do(object{"op": "delete_global", "id": "c1", "key": "g"})
	want("emptied", d.start("c4", "cache", lookup...), "MISS ", "MISS ")
	for _, id := range []string{"c1", "c2", "c3", "c4"} {
		d.end(id)
	}
}

// away: without a server, SDKs let the work run, except in ramp mode.
func away(t *testing.T, _ client, s *doorstest.Server, d *driver) {
	s.Kill()
	out := d.start("a1", "free", "timeout_ms", 2000)
	if out["run"] != true || out["error"] == "" {
		t.Errorf("server away: got %v, want that the work runs", out)
	}
	out = d.start("a2", "free", "timeout_ms", 2000, "ramp", true)
	if out["run"] != false {
		t.Errorf("server away, ramp mode: got %v, want that the work does not run", out)
	}
}
