// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	checkv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/check/v1"
	"github.com/sluice-project/sluice/internal/flow"
)

func TestCheckTellsWhatWasDecided(t *testing.T) {
	big := rateSpec(2, 5)
	big.Selectors = []flow.Selector{{ControlPoint: "large"}}
	d := newDoor(t, limiters(rateSpec(1, 1), big,
		slotSpec(3, flow.ConcurrencyLimiter, 1), slotSpec(4, flow.ConcurrencyScheduler, 1),
		sampleSpec(5, flow.Sampler, 0), sampleSpec(6, flow.LoadRamp, 0)))
	user := func(tokens string) map[string]string { return map[string]string{"user": "ann", "tokens": tokens} }
	none := checkv1.CheckResponse_REJECT_REASON_NONE
	noTokens := checkv1.CheckResponse_REJECT_REASON_NO_TOKENS
	limited := checkv1.CheckResponse_REJECT_REASON_RATE_LIMITED
	for _, tt := range []struct {
		name   string
		in     *checkv1.CheckRequest
		ok     bool
		reason checkv1.CheckResponse_RejectReason
		code   checkv1.StatusCode
	}{
		{"no policy", &checkv1.CheckRequest{ControlPoint: "free"}, true, none, 0},
		{"rate limiter admits", &checkv1.CheckRequest{ControlPoint: "rate", Labels: user("1")}, true, none, 0},
		{"rate limiter denies", &checkv1.CheckRequest{ControlPoint: "rate", Labels: user("1")}, false, limited, 429},
		{"too large", &checkv1.CheckRequest{ControlPoint: "large", Labels: user("6")}, false, limited, 429},
		{"nonsense tokens", &checkv1.CheckRequest{ControlPoint: "large", Labels: user("NaN")}, false, limited, 400},
		{"negative tokens", &checkv1.CheckRequest{ControlPoint: "large", Labels: user("-100")}, false, limited, 400},
		{"slot", &checkv1.CheckRequest{ControlPoint: "concurrency_limiter"}, true, none, 0},
		{"no slot", &checkv1.CheckRequest{ControlPoint: "concurrency_limiter"}, false, limited, 429},
		{"place", &checkv1.CheckRequest{ControlPoint: "concurrency_scheduler"}, true, none, 0},
		{"not sampled", &checkv1.CheckRequest{ControlPoint: "sampler", Labels: user("1")}, false, checkv1.CheckResponse_REJECT_REASON_NOT_SAMPLED, 403},
		{"ramp denies", &checkv1.CheckRequest{ControlPoint: "load_ramp", Labels: user("1"), RampMode: true}, false, checkv1.CheckResponse_REJECT_REASON_NO_MATCHING_RAMP, 403},
		{"no ramp", &checkv1.CheckRequest{ControlPoint: "free", RampMode: true}, false, checkv1.CheckResponse_REJECT_REASON_NO_MATCHING_RAMP, 403},
	} {
		got := check(t, d, tt.in)
		if accepted(got) != tt.ok || got.RejectReason != tt.reason || got.DeniedResponseStatusCode != tt.code {
			t.Errorf("%s: got %s, %s, %d, want accepted %t, %s, %d",
				tt.name, got.DecisionType, got.RejectReason, got.DeniedResponseStatusCode, tt.ok, tt.reason, tt.code)
		}
		if got.ControlPoint != tt.in.ControlPoint || !got.Start.IsValid() || got.End.AsTime().Before(got.Start.AsTime()) {
			t.Errorf("%s: got %v, want the control point and the times of the decision", tt.name, got)
		}
		if (got.TelemetryFlowLabels[TokenLabel] != "") != tt.ok {
			t.Errorf("%s: got the token %q, want one exactly if the flow may run", tt.name, got.TelemetryFlowLabels[TokenLabel])
		}
	}
	// A place in the queue, with no time to wait.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	got, err := checkService{d: d}.Check(ctx, &checkv1.CheckRequest{ControlPoint: "concurrency_scheduler"})
	if err != nil || accepted(got) || got.RejectReason != noTokens || got.DeniedResponseStatusCode != 503 {
		t.Errorf("full queue: got %v, %v, want a rejection for no tokens with 503", got, err)
	}
}

func TestCheckRefusesCallsWithoutControlPoint(t *testing.T) {
	d := newDoor(t, flow.Set{})
	for _, name := range []string{"", strings.Repeat("x", 256)} {
		_, err := checkService{d: d}.Check(t.Context(), &checkv1.CheckRequest{ControlPoint: name})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("control point of %d bytes: got %v, want InvalidArgument", len(name), err)
		}
	}
	// Labels often come from users: refusing the call would let SDKs run the work.
	flood := make(map[string]string)
	for i := range flow.MaxLabels + 1 {
		flood[string(rune('a'+i%26))+strings.Repeat("x", i/26)] = ""
	}
	got := check(t, d, &checkv1.CheckRequest{ControlPoint: "free", Labels: flood})
	if accepted(got) || got.DeniedResponseStatusCode != checkv1.StatusCode_BadRequest {
		t.Errorf("flood of labels: got %s, %s, want a rejection with 400", got.DecisionType, got.DeniedResponseStatusCode)
	}
}

func TestCheckTellsLabelsAndDecisions(t *testing.T) {
	d := newDoor(t, limiters(rateSpec(1, 9), slotSpec(2, flow.ConcurrencyScheduler, 4)))
	got := check(t, d, &checkv1.CheckRequest{
		ControlPoint: "rate", ExpectEnd: true,
		Labels: map[string]string{"user": "ann", "tokens": "2", "a": "1", TokenLabel: "forged"},
	})
	if want := []string{"a", TokenLabel, "tokens", "user"}; !slices.Equal(got.FlowLabelKeys, want) {
		t.Errorf("keys: got %q, want %q", got.FlowLabelKeys, want)
	}
	labels := got.TelemetryFlowLabels
	if labels["a"] != "1" || labels[controlPointType] != "feature" || labels[TokenLabel] == "forged" || !got.ExpectEnd {
		t.Errorf("got labels %v and expect_end %t", labels, got.ExpectEnd)
	}
	if len(got.LimiterDecisions) != 1 {
		t.Fatalf("got %v, want one decision", got.LimiterDecisions)
	}
	one := got.LimiterDecisions[0]
	info := one.GetRateLimiterInfo()
	if one.PolicyName != "rates" || one.PolicyHash != "h1" || one.ComponentId != "root.1" || one.Dropped ||
		info.GetLabel() != "user:ann" || info.TokensInfo.GetConsumed() != 2 || info.TokensInfo.Remaining != 7 || info.TokensInfo.Current != 2 {
		t.Errorf("got %v", one)
	}
	missing := check(t, d, &checkv1.CheckRequest{ControlPoint: "rate"}).LimiterDecisions[0]
	if missing.Reason != checkv1.LimiterDecision_LIMITER_REASON_KEY_NOT_FOUND || missing.Dropped || missing.GetRateLimiterInfo().TokensInfo != nil {
		t.Errorf("without its label: got %v", missing)
	}
	queued := check(t, d, &checkv1.CheckRequest{ControlPoint: "concurrency_scheduler"}).LimiterDecisions[0].GetConcurrencySchedulerInfo()
	if queued.GetLabel() != "default" || queued.WorkloadIndex != "default" || queued.Priority != 1 || queued.RequestId == "" {
		t.Errorf("got %v", queued)
	}
}

// TestDeadlineBoundsTheQueue: a flow waits for a slot as long as its call may take, and gets it when one is free.
func TestDeadlineBoundsTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, limiters(slotSpec(1, flow.ConcurrencyScheduler, 1)))
		in := &checkv1.CheckRequest{ControlPoint: "concurrency_scheduler", ExpectEnd: true}
		first := check(t, d, in)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		began := time.Now()
		late, err := checkService{d: d}.Check(ctx, in)
		if err != nil || accepted(late) || late.RejectReason != checkv1.CheckResponse_REJECT_REASON_NO_TOKENS {
			t.Fatalf("got %v, %v, want a rejection", late, err)
		}
		if waited := time.Since(began); waited < time.Second || waited > 2*time.Second {
			t.Errorf("it waited %s, want nearly 2s", waited)
		}
		go func() {
			time.Sleep(time.Second)
			flowEnd(t, d, refs(first)...)
		}()
		if second := check(t, d, in); !accepted(second) {
			t.Errorf("got %v, want that FlowEnd made room", second)
		}
	})
}

// TestCallerThatLeaves takes nothing: not while it waits, and not when it is gone as the answer comes.
func TestCallerThatLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, limiters(slotSpec(1, flow.ConcurrencyScheduler, 1)))
		in := &checkv1.CheckRequest{ControlPoint: "concurrency_scheduler"}
		gone, leave := context.WithCancel(t.Context())
		leave()
		if out, err := (checkService{d: d}).Check(gone, in); err == nil && accepted(out) {
			t.Errorf("got %v, want nothing for a caller that has left", out)
		}
		first := check(t, d, in)
		waiting, stop := context.WithCancel(t.Context())
		go func() {
			time.Sleep(time.Second)
			stop()
		}()
		if out, err := (checkService{d: d}).Check(waiting, in); err == nil && accepted(out) {
			t.Errorf("got %v, want a rejection", out)
		}
		flowEnd(t, d, refs(first)...)
		if again := check(t, d, in); !accepted(again) {
			t.Errorf("got %v, want the slot", again)
		}
	})
}

func TestFlowEndFreesSlotsOnce(t *testing.T) {
	d := newDoor(t, limiters(slotSpec(1, flow.ConcurrencyLimiter, 1), slotSpec(2, flow.ConcurrencyScheduler, 1)))
	in := &checkv1.CheckRequest{ControlPoint: "both", ExpectEnd: true}
	first := check(t, d, in)
	list := refs(first)
	if len(list) != 2 || list[0].RequestId == list[1].RequestId || list[0].Tokens != 1 {
		t.Fatalf("got %v, want a reference for each of the two limiters", list)
	}
	if again := check(t, d, in); accepted(again) || len(refs(again)) != 0 {
		t.Fatalf("got %v, want a rejection that holds nothing", again)
	}
	for i, s := range flowEnd(t, d, list...) {
		if !s.Returned || s.Error != "" || s.InflightRequestRef.ComponentId != list[i].ComponentId {
			t.Errorf("reference %d: got %v, want that it was returned", i, s)
		}
	}
	second := check(t, d, in)
	if !accepted(second) {
		t.Fatalf("got %v, want the slots", second)
	}
	for _, s := range flowEnd(t, d, list...) {
		if s.Returned || s.Error != "" {
			t.Errorf("a second time: got %v, want nothing returned, and no error", s)
		}
	}
	if third := check(t, d, in); accepted(third) {
		t.Error("ending the first flow twice freed the slots of the second")
	}
	if p := d.point("both"); p.Failed != 0 {
		t.Errorf("got %+v, want that FlowEnd tells nothing about how it went", p)
	}
}

func TestFlowEndRefusesWhatIsNotOurs(t *testing.T) {
	d := newDoor(t, limiters(slotSpec(1, flow.ConcurrencyLimiter, 1)))
	in := &checkv1.CheckRequest{ControlPoint: "concurrency_limiter"}
	good := refs(check(t, d, in))[0]
	change := func(f func(*checkv1.InflightRequestRef)) *checkv1.InflightRequestRef {
		r := &checkv1.InflightRequestRef{
			PolicyName: good.PolicyName, PolicyHash: good.PolicyHash, ComponentId: good.ComponentId,
			RequestId: good.RequestId, Tokens: math.NaN(),
		}
		f(r)
		return r
	}
	sum := good.RequestId[strings.Index(good.RequestId, "#"):]
	for i, s := range flowEnd(t, d,
		change(func(r *checkv1.InflightRequestRef) { r.RequestId = "" }),
		change(func(r *checkv1.InflightRequestRef) { r.PolicyName = "other" }),
		change(func(r *checkv1.InflightRequestRef) { r.PolicyHash = "older" }),
		change(func(r *checkv1.InflightRequestRef) { r.ComponentId = "root.9" }),
		change(func(r *checkv1.InflightRequestRef) { r.RequestId = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6" }),
		change(func(r *checkv1.InflightRequestRef) { r.RequestId = "AAAA" + r.RequestId[4:] }),
		change(func(r *checkv1.InflightRequestRef) { r.RequestId = "!!" + sum }),
		change(func(r *checkv1.InflightRequestRef) { r.RequestId = strings.Repeat("A", 1<<20) + sum }),
		nil,
	) {
		if s.Returned || s.Error == "" {
			t.Errorf("reference %d: got %v, want an error", i, s)
		}
	}
	if accepted(check(t, d, in)) {
		t.Error("a reference that is not ours freed a slot")
	}
	// Tokens are as they were sealed, whatever the reference says.
	if s := flowEnd(t, d, change(func(*checkv1.InflightRequestRef) {}))[0]; !s.Returned {
		t.Errorf("got %v, want that it was returned", s)
	}
	many := make([]*checkv1.InflightRequestRef, mostRefs+1)
	if _, err := (checkService{d: d}).FlowEnd(t.Context(), &checkv1.FlowEndRequest{InflightRequests: many}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("flood of references: got %v, want InvalidArgument", err)
	}
}
