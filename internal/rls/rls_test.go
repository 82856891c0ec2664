// SPDX-License-Identifier: Apache-2.0

package rls

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/rls/descriptor"
)

const (
	ok   = rlsv3.RateLimitResponse_OK
	over = rlsv3.RateLimitResponse_OVER_LIMIT
)

// perDescriptor admits n hits a minute of each descriptor of the domain "shop".
func perDescriptor(n float64) *flow.LimiterSpec {
	return &flow.LimiterSpec{
		ID: 1, Policy: "p", Component: "root.0", Kind: flow.RateLimiter,
		Selectors: []flow.Selector{{ControlPoint: "ratelimit/shop"}},
		LimitBy:   descriptor.LabelDescriptor, TokensKey: descriptor.LabelHits,
		Bucket: limit.BucketRule{Capacity: n, FillAmount: n, Interval: time.Minute, FixedWindow: true, CountRefused: true},
	}
}

// oneSlot lets one flow of the domain "shop" run at a time, for a minute, and makes the others wait.
func oneSlot() *flow.LimiterSpec {
	return &flow.LimiterSpec{
		ID: 2, Policy: "q", Component: "root.0", Kind: flow.ConcurrencyScheduler,
		Selectors: []flow.Selector{{ControlPoint: "ratelimit/shop"}},
		Slots:     ledger.SlotRule{Max: 1, MaxInFlight: time.Minute},
		Scheduler: &flow.SchedulerSpec{Default: flow.WorkloadSpec{Name: "default", Priority: 1, Tokens: 1}},
	}
}

func newDoor(t testing.TB, c Config, specs ...*flow.LimiterSpec) *Door {
	t.Helper()
	m, err := ledger.NewMemory(ledger.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Engine, err = flow.New(flow.Config{Authority: m, TokenKey: make([]byte, flow.TokenKeySize)}); err != nil {
		t.Fatal(err)
	}
	if err := c.Engine.Publish(flow.Set{Limiters: specs}); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return New(c)
}

// entries makes a descriptor of "key=value" pairs.
func entries(pairs ...string) *commonv3.RateLimitDescriptor {
	d := &commonv3.RateLimitDescriptor{}
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		d.Entries = append(d.Entries, &commonv3.RateLimitDescriptor_Entry{Key: key, Value: value})
	}
	return d
}

func ask(descriptors ...*commonv3.RateLimitDescriptor) *rlsv3.RateLimitRequest {
	return &rlsv3.RateLimitRequest{Domain: "shop", Descriptors: descriptors}
}

func answerOf(t testing.TB, d *Door, in *rlsv3.RateLimitRequest) *rlsv3.RateLimitResponse {
	t.Helper()
	out, err := d.ShouldRateLimit(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantCodes(t *testing.T, out *rlsv3.RateLimitResponse, overall rlsv3.RateLimitResponse_Code, each ...rlsv3.RateLimitResponse_Code) {
	t.Helper()
	if out.OverallCode != overall {
		t.Errorf("overall code %v, want %v", out.OverallCode, overall)
	}
	if len(out.Statuses) != len(each) {
		t.Fatalf("%d statuses, want %d", len(out.Statuses), len(each))
	}
	for i, s := range out.Statuses {
		if s.Code != each[i] {
			t.Errorf("status %d: code %v, want %v", i, s.Code, each[i])
		}
	}
}

func TestEveryDescriptorIsCharged(t *testing.T) {
	d := newDoor(t, Config{}, perDescriptor(2))
	alice, bob := entries("user=alice"), entries("user=bob")
	wantCodes(t, answerOf(t, d, ask(alice)), ok, ok)
	wantCodes(t, answerOf(t, d, ask(alice)), ok, ok)
	wantCodes(t, answerOf(t, d, ask(alice, bob)), over, over, ok)
	wantCodes(t, answerOf(t, d, ask(bob, alice)), over, ok, over) // bob was charged before, though alice was over
	wantCodes(t, answerOf(t, d, ask(bob)), over, over)
	other := ask(alice)
	other.Domain = "no-such-domain"
	wantCodes(t, answerOf(t, d, other), ok, ok)
	for name, want := range map[string]float64{"ok": 3, "over_limit": 3} {
		if got := testutil.ToFloat64(d.metrics.requests.WithLabelValues(name)); got != want {
			t.Errorf("%v requests counted as %s, want %v", got, name, want)
		}
	}
	if got := testutil.ToFloat64(d.metrics.descriptorOver); got != 3 {
		t.Errorf("%v descriptors counted as over their limit, want 3", got)
	}
}

func TestHits(t *testing.T) {
	own := func(n uint64) *commonv3.RateLimitDescriptor {
		d := entries("user=alice")
		d.HitsAddend = wrapperspb.UInt64(n)
		return d
	}
	tests := []struct {
		name    string
		in      *rlsv3.RateLimitRequest
		request uint32
		left    uint32
	}{
		{"0 of a request is 1", ask(entries("user=alice")), 0, 9},
		{"of the request, for each", ask(entries("user=alice"), entries("user=alice")), 3, 4},
		{"of the descriptor", ask(own(7)), 3, 3},
		{"0 of a descriptor is none", ask(own(0)), 3, 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDoor(t, Config{}, perDescriptor(10))
			tt.in.HitsAddend = tt.request
			out := answerOf(t, d, tt.in)
			if got := out.Statuses[len(out.Statuses)-1].LimitRemaining; got != tt.left {
				t.Errorf("%d left, want %d", got, tt.left)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	negative := entries("user=alice")
	negative.IsNegativeHits = true
	many := make([]string, descriptor.MaxEntries+1)
	huge := entries("user=alice")
	huge.HitsAddend = wrapperspb.UInt64(1 << 60)
	long := ask(entries("user=alice"))
	long.Domain = strings.Repeat("d", flow.MaxControlPointLen)
	tests := []struct {
		name, reason, want string
		in                 *rlsv3.RateLimitRequest
	}{
		{"no domain", reasonDomain, "domain: got none", &rlsv3.RateLimitRequest{Descriptors: ask(entries("a=b")).Descriptors}},
		{"a domain that makes no control point", reasonDomain, "domain: invalid request: control_point is longer than 255 bytes", long},
		{"nothing at all", reasonDomain, "domain: got none", &rlsv3.RateLimitRequest{}},
		{"no descriptors", reasonDescriptors, "descriptors: got none", ask()},
		{"a flood of descriptors", reasonDescriptors, "descriptors: got 257, want at most 256", ask(make([]*commonv3.RateLimitDescriptor, 257)...)},
		{"a flood of entries", reasonEntries, "descriptors[1]: entries: got 65, want at most 64", ask(entries(), entries(many...))},
		{"hits to give back", reasonNegativeHits, "descriptors[0]: is_negative_hits: got true", ask(negative)},
		{"absurd hits", reasonHits, "descriptors[0]: hits_addend: got 1152921504606846976", ask(huge)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDoor(t, Config{}, perDescriptor(1))
			_, err := d.ShouldRateLimit(context.Background(), tt.in)
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want InvalidArgument with %q", err, tt.want)
			}
			if got := testutil.ToFloat64(d.metrics.refusals.WithLabelValues(tt.reason)); got != 1 {
				t.Errorf("counted %v for %s, want 1", got, tt.reason)
			}
		})
	}
}

// A value that is long, or no number where one is wanted, comes from a client: it must not be a way around the limit,
// as an error would be.
func TestHostileValuesAreDeniedNotRefused(t *testing.T) {
	spec := perDescriptor(1)
	spec.TokensKey = "cost"
	d := newDoor(t, Config{}, spec)
	long := entries("cost=1", "path="+strings.Repeat("x", 1<<20))
	wantCodes(t, answerOf(t, d, ask(long)), ok, ok)
	wantCodes(t, answerOf(t, d, ask(long)), over, over)
	wantCodes(t, answerOf(t, d, ask(entries("cost=-5"))), over, over)
	wantCodes(t, answerOf(t, d, ask(entries("cost=1"), nil)), ok, ok, ok)
}

// labelsOf returns a policy that selects by one label, and so tells whether it has the value.
func TestLabels(t *testing.T) {
	in := entries("path=/login", "user=alice", "user=bob", "ratelimit.domain=mine", "x-renamed=1", "dropped=1")
	in.Limit = &commonv3.RateLimitDescriptor_RateLimitOverride{
		RequestsPerUnit: 5, Unit: typev3.RateLimitUnit_SECOND, UnitMultiplier: wrapperspb.UInt32(10),
	}
	request := ask(in)
	request.HitsAddend = 7
	config := Config{Labels: map[string]string{"x-renamed": "renamed", "dropped": ""}}
	tests := map[string]string{
		"path":                     "/login",
		"user":                     "bob",
		"renamed":                  "1",
		descriptor.LabelDomain:     "shop",
		descriptor.LabelKeys:       "path,user,user,ratelimit.domain,x-renamed,dropped",
		descriptor.LabelDescriptor: "path=/login,user=alice,user=bob,ratelimit.domain=mine,x-renamed=1,dropped=1",
		descriptor.LabelHits:       "7",
		descriptor.LabelOverride:   "5/10 second",
		descriptor.LabelValue(2):   "alice",
		descriptor.LabelValue(6):   "1",
	}
	for key, want := range tests {
		spec := perDescriptor(0)
		spec.TokensKey = ""
		spec.Selectors[0].Match = label.Equal(key, want)
		if out := answerOf(t, newDoor(t, config, spec), request); out.OverallCode != over {
			t.Errorf("label %s is not %q", key, want)
		}
	}
	for _, key := range []string{"x-renamed", "dropped", descriptor.LabelValue(7)} {
		spec := perDescriptor(0)
		spec.TokensKey = ""
		spec.Selectors[0].Match = label.Expr{Op: label.Exists, Key: key}
		if out := answerOf(t, newDoor(t, config, spec), request); out.OverallCode != ok {
			t.Errorf("there is a label %s", key)
		}
	}
}

func TestControlPointsAndServices(t *testing.T) {
	spec := perDescriptor(0)
	spec.Selectors = []flow.Selector{
		{ControlPoint: "edge/shop", Service: "gateway"},
		{ControlPoint: "special", Service: "gateway"},
	}
	config := Config{
		ControlPoint: "edge/" + DomainMark, ControlPoints: map[string]string{"vip": "special"},
		Services: func(address string) []string {
			if address == "10.0.0.7" {
				return []string{"gateway"}
			}
			return nil
		},
	}
	d := newDoor(t, config, spec)
	for _, tt := range []struct {
		domain string
		addr   net.Addr
		want   rlsv3.RateLimitResponse_Code
	}{
		{"shop", &net.TCPAddr{IP: net.ParseIP("10.0.0.7"), Port: 1}, over},
		{"vip", &net.TCPAddr{IP: net.ParseIP("::ffff:10.0.0.7"), Port: 1}, over},
		{"other", &net.TCPAddr{IP: net.ParseIP("10.0.0.7"), Port: 1}, ok},
		{"shop", &net.TCPAddr{IP: net.ParseIP("10.0.0.8"), Port: 1}, ok},
		{"shop", &net.UnixAddr{Name: "/run/envoy", Net: "unix"}, ok},
	} {
		in := ask(entries("a=b"))
		in.Domain = tt.domain
		out, err := d.ShouldRateLimit(peer.NewContext(context.Background(), &peer.Peer{Addr: tt.addr}), in)
		if err != nil || out.OverallCode != tt.want {
			t.Errorf("%s from %v: got %v, %v, want %v", tt.domain, tt.addr, out.GetOverallCode(), err, tt.want)
		}
	}
}

func TestFlowsWaitUntilTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, Config{}, oneSlot())
		wantCodes(t, answerOf(t, d, ask(entries("a=b"))), ok, ok)
		wantCodes(t, answerOf(t, d, ask(entries("a=b"))), over, over) // no deadline, no wait
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		out, err := d.ShouldRateLimit(ctx, ask(entries("a=b")))
		if err != nil || out.OverallCode != ok || time.Since(began) != time.Minute {
			t.Errorf("got %v, %v after %v, want OK when the slot is free, after 1m", out.GetOverallCode(), err, time.Since(began))
		}
	})
}

// A scheduler knows when a fixed window ends: who can wait for the next one does, who cannot is denied at once.
func TestFlowsWaitForTheNextWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // begins at midnight
		spec := perDescriptor(1)
		spec.Kind, spec.Scheduler, spec.Bucket.CountRefused = flow.QuotaScheduler, oneSlot().Scheduler, false
		d := newDoor(t, Config{}, spec)
		time.Sleep(20 * time.Second)
		began := time.Now()
		for _, tt := range []struct {
			deadline, took time.Duration
			want           rlsv3.RateLimitResponse_Code
		}{{time.Hour, 0, ok}, {39 * time.Second, 0, over}, {41 * time.Second, 40 * time.Second, ok}, {time.Hour, 100 * time.Second, ok}} {
			ctx, cancel := context.WithTimeout(context.Background(), tt.deadline)
			out, err := d.ShouldRateLimit(ctx, ask(entries("a=b")))
			cancel()
			if err != nil || out.OverallCode != tt.want || time.Since(began) != tt.took {
				t.Errorf("with %v: got %v, %v after %v, want %v after %v", tt.deadline, out.GetOverallCode(), err, time.Since(began), tt.want, tt.took)
			}
		}
	})
}

// What a caller who went away was charged is given back, whether its flow waited or not.
func TestCancelledCallsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := perDescriptor(1)
		d := newDoor(t, Config{}, tokens, oneSlot())
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		wantCodes(t, answerOf(t, d, ask(entries("a=holds"))), ok, ok)
		done := make(chan error, 1)
		go func() {
			_, err := d.ShouldRateLimit(ctx, ask(entries("a=waits")))
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; status.Code(err) != codes.Canceled {
			t.Errorf("got %v, want Canceled", err)
		}
		time.Sleep(time.Minute) // the slot is free, and it is a new window
		_, err := d.ShouldRateLimit(ctx, ask(entries("a=b"), entries("a=c")))
		if status.Code(err) != codes.Canceled {
			t.Errorf("got %v, want Canceled", err)
		}
		wantCodes(t, answerOf(t, d, ask(entries("a=b"))), ok, ok)
		if got := testutil.ToFloat64(d.metrics.cancelled); got != 2 {
			t.Errorf("%v calls counted as cancelled, want 2", got)
		}
	})
}

func TestShuttingDownIsAnError(t *testing.T) {
	d := newDoor(t, Config{}, oneSlot())
	wantCodes(t, answerOf(t, d, ask(entries("a=b"))), ok, ok)
	d.config.Engine.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := d.ShouldRateLimit(ctx, ask(entries("a=b"))); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want Unavailable", err)
	}
}

func TestFormsAreBounded(t *testing.T) {
	d := newDoor(t, Config{}, perDescriptor(1))
	for i := range maxForms + 10 {
		wantCodes(t, answerOf(t, d, ask(entries(fmt.Sprintf("key%d=1", i)))), ok, ok)
	}
	if n := len(*d.forms.known.Load()); n != maxForms {
		t.Errorf("%d forms are kept, want %d", n, maxForms)
	}
	wantCodes(t, answerOf(t, d, ask(entries(fmt.Sprintf("key%d=1", maxForms+9)))), over, over)
}

func TestValidate(t *testing.T) {
	c := Config{
		Headers: "all", ControlPoint: strings.Repeat("x", 300),
		ControlPoints: map[string]string{"": "a", "b": "", "c": strings.Repeat("x", 256)},
		Labels:        map[string]string{"user": "ratelimit.keys", "fine": "x"},
	}
	err := c.Validate()
	for _, want := range []string{
		`headers: got "all"`, "control_point: got 300 bytes", "control_points: got an empty domain", "control_points.b: got no control point",
		"control_points.c: got 256 bytes", `labels.user: got "ratelimit.keys"`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "fine") {
		t.Errorf("a good label is refused: %v", err)
	}
}
