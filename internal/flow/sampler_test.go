// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/setpoint"
)

func samplerSpec(id ledger.LimiterID, ramp bool) *LimiterSpec {
	kind := Sampler
	if ramp {
		kind = LoadRamp
	}
	return &LimiterSpec{
		ID: id, Policy: fmt.Sprintf("policy-%d", id), Component: "root.0", Hash: "h", Kind: kind, DeniedStatus: 403,
		Selectors: []Selector{{ControlPoint: "cp"}}, LimitBy: "user", Driven: true, Sample: &SampleSpec{Ramp: ramp},
	}
}

// constantSampler admits a percentage that nothing moves.
func constantSampler(id ledger.LimiterID, percentage float64) *LimiterSpec {
	s := samplerSpec(id, false)
	s.Driven, s.Sample.Percentage = false, percentage
	return s
}

func TestSamplerSharesAreExact(t *testing.T) {
	const flows = 20_000
	for _, percentage := range []float64{0, 1e-9, 1, 25, 50, 99, 99.99999999, 100} {
		e := newEngine(t, constantSampler(1, percentage))
		sticky, random := 0, 0
		for i := range flows {
			sticky += admittedOf(e, 1, "user", fmt.Sprint("user-", i))
			random += admittedOf(e, 1)
		}
		want := percentage / 100 * flows
		for name, got := range map[string]int{"by session": sticky, "by chance": random} {
			if exact := percentage == 0 || percentage == 100; exact && float64(got) != want {
				t.Errorf("%v %% %s: %d of %d", percentage, name, got, flows)
			}
			if margin := 5*70.0 + 1; float64(got) < want-margin || float64(got) > want+margin { // 5 standard deviations
				t.Errorf("%v %% %s: %d of %d, want about %v", percentage, name, got, flows, want)
			}
		}
	}
}

// TestSamplerIsStickyAndMonotone: whoever is let in at a percentage is let in every time, and at every
// larger one.
func TestSamplerIsStickyAndMonotone(t *testing.T) {
	e := newEngine(t, samplerSpec(1, false))
	rng := rand.New(rand.NewPCG(3, 4))
	since := map[string]float64{} // the percentage at which a user was first let in
	version := uint64(0)
	for percentage := 0.0; percentage <= 100; percentage += 2.5 {
		version++
		steer(e, 1, setpoint.Setpoint{Version: version, AcceptPercentage: percentage})
		for range 500 {
			user := fmt.Sprint("u", rng.IntN(300))
			in := admittedOf(e, 1, "user", user) == 1
			first, known := since[user]
			switch {
			case in && !known:
				since[user] = percentage
			case !in && known:
				t.Fatalf("%s was let in at %v %% and not at %v %%", user, first, percentage)
			}
		}
	}
	if len(since) < 290 {
		t.Errorf("only %d of 300 users were let in at 100 %%", len(since))
	}
}

func TestHashIsFNV1a(t *testing.T) {
	for _, s := range []string{"", "a", "user-17", "\xff\x00", strings.Repeat("long", 100)} {
		h := fnv.New32a()
		h.Write([]byte(s))
		if got := fnv32a(s); got != h.Sum32() {
			t.Errorf("%q: %x, want %x", s, got, h.Sum32())
		}
	}
}

func TestPassThroughValues(t *testing.T) {
	spec := samplerSpec(1, true)
	spec.Sample.PassValues = []string{"vip", ""}
	e := newEngine(t, spec)
	check := func(when string, want map[string]bool) {
		t.Helper()
		for user, in := range want {
			if got := admittedOf(e, 1, "user", user) == 1; got != in {
				t.Errorf("%s: %q admitted %v, want %v", when, user, got, in)
			}
		}
	}
	check("before the first setpoint", map[string]bool{"vip": true, "": false, "bob": false})
	steer(e, 1, setpoint.Setpoint{Version: 1, PassThroughValues: []string{"bob", ""}})
	check("at 0 %", map[string]bool{"vip": false, "": false, "bob": true})
	steer(e, 1, setpoint.Setpoint{Version: 2, AcceptPercentage: 100})
	check("at 100 %", map[string]bool{"vip": true, "": true, "bob": true})
	steer(e, 1, setpoint.Setpoint{Version: 3, PassThrough: true, PassThroughValues: []string{"vip"}})
	check("when nothing is known any more", map[string]bool{"vip": true, "": false, "bob": false})
	if n := admittedOf(e, 1); n != 0 {
		t.Error("a flow without a session was let in")
	}
}

func TestRampMode(t *testing.T) {
	ramp := func(e *Engine, labels ...string) Verdict {
		f := e.Start(context.Background(), &Request{ControlPoint: "cp", Labels: labelMap(labels), RampMode: true})
		defer f.Free()
		return f.Verdict
	}
	other := samplerSpec(3, true)
	other.Selectors[0].Match = label.Equal("region", "eu")
	sampler := samplerSpec(4, false)
	inRampMode := samplerSpec(5, true)
	inRampMode.Kind = Sampler

	e := newEngine(t, sampler, rateSpec(1, "cp", "", label.Expr{}, perSecond(1e6)))
	steer(e, 4, setpoint.Setpoint{AcceptPercentage: 100})
	if v := ramp(e, "user", "ann"); v.Admitted || v.Reason != NotSampled || v.HTTPStatus() != 403 || v.Limiter != nil || !strings.Contains(v.Message(), "no load ramp selects it") {
		t.Errorf("no load ramp: %+v, %s", v, v.Message())
	}
	if r := reason(e, "cp"); r != Admitted {
		t.Errorf("a flow that is not in ramp mode: %v", r)
	}

	e = newEngine(t, samplerSpec(2, true), other)
	if v := ramp(e, "user", "ann"); v.Admitted || !strings.Contains(v.Message(), "not known") || !strings.Contains(v.Message(), "policy-2, load ramp root.0") {
		t.Errorf("before the first setpoint: %s", v.Message())
	}
	steer(e, 2, setpoint.Setpoint{AcceptPercentage: 100})
	if v := ramp(e, "user", "ann"); !v.Admitted {
		t.Errorf("at 100 %%: %s", v.Message())
	}
	if v := ramp(e, "user", "ann", "region", "eu"); v.Admitted {
		t.Error("admitted although one of two load ramps does not")
	}
	steer(e, 3, setpoint.Setpoint{AcceptPercentage: 100})
	if v := ramp(e, "user", "ann", "region", "eu"); !v.Admitted {
		t.Errorf("both admit: %s", v.Message())
	}
	steer(e, 2, setpoint.Setpoint{Version: 1, AcceptPercentage: 0})
	v := ramp(e, "user", "ann")
	if v.Admitted || v.HTTPStatus() != 403 || v.Limiter.Kind != LoadRamp || v.Message() != "policy policy-2, load ramp root.0: lets in 0 % of the flows, and not user ann" {
		t.Errorf("at 0 %%: %+v %s", v, v.Message())
	}
	if r := reason(e, "cp"); r != NotSampled {
		t.Errorf("a flow that is not in ramp mode, at 0 %%: %v, want the same", r)
	}

	e = newEngine(t, inRampMode)
	steer(e, 5, setpoint.Setpoint{AcceptPercentage: 100})
	if v := ramp(e); !v.Admitted {
		t.Errorf("a sampler in ramp mode: %s", v.Message())
	}
}

// TestRampModeThroughShapes takes the way of streams.
func TestRampModeThroughShapes(t *testing.T) {
	e := newEngine(t, samplerSpec(1, true))
	shape, err := NewShape("cp", []string{"user"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for version, percentage := range []float64{0, 100, 0} {
		steer(e, 1, setpoint.Setpoint{Version: uint64(version), AcceptPercentage: percentage})
		f := e.Start(context.Background(), &Request{Shape: shape, Values: []string{"ann"}, RampMode: true})
		if f.Admitted() != (percentage == 100) {
			t.Errorf("at %v %%: %s", percentage, f.Verdict.Message())
		}
		f.Free()
		g := e.Start(context.Background(), &Request{ControlPoint: "elsewhere", RampMode: true})
		if g.Admitted() {
			t.Error("admitted at a control point without a load ramp")
		}
		g.Free()
	}
}

// TestRampsAreDecidedFirst: a flow that a ramp keeps out costs nobody anything.
func TestRampsAreDecidedFirst(t *testing.T) {
	ramp := samplerSpec(9, true)
	ramp.Policy = "zzz"
	e := newEngine(t, rateSpec(1, "cp", "", label.Expr{}, limit.BucketRule{Capacity: 5, Interval: time.Hour, Continuous: true}), loadSpec(2, "cp"), constantSampler(3, 100), ramp)
	for range 20 {
		if r := reason(e, "cp"); r != NotSampled {
			t.Fatal(r)
		}
	}
	if used := inFlight(t, e, 1); used != 0 {
		t.Errorf("%v tokens used", used)
	}
	if o := observe(t, e, 3); o.Accepted+o.Rejected != 0 {
		t.Errorf("the sampler saw %+v", o)
	}
}
