// SPDX-License-Identifier: Apache-2.0

package extauthz

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
)

// rateSpec is a bucket by user that does not refill, so that verdicts do not depend on the clock.
func rateSpec(id ledger.LimiterID, capacity float64) *flow.LimiterSpec {
	return &flow.LimiterSpec{
		ID: id, Policy: "p", Component: "root.0", Kind: flow.RateLimiter, DeniedStatus: 429,
		Selectors: []flow.Selector{{ControlPoint: "cp"}}, LimitBy: "user",
		Bucket: limit.BucketRule{Capacity: capacity, FillAmount: 1, Interval: time.Hour, Continuous: true},
	}
}

// slotSpec lets one flow run at a time; others wait, or are denied.
func slotSpec(id ledger.LimiterID, kind flow.Kind) *flow.LimiterSpec {
	s := &flow.LimiterSpec{
		ID: id, Policy: "q", Component: "root.0", Kind: kind, DeniedStatus: 503,
		Selectors: []flow.Selector{{ControlPoint: "slots"}},
		Slots:     ledger.SlotRule{Max: 1, MaxInFlight: time.Minute},
	}
	if kind == flow.ConcurrencyScheduler {
		s.Scheduler = &flow.SchedulerSpec{Default: flow.WorkloadSpec{Name: "default", Priority: 1, Tokens: 1}, Margin: 10 * time.Millisecond}
	}
	return s
}

func newEngine(t testing.TB, specs ...*flow.LimiterSpec) *flow.Engine {
	t.Helper()
	m, err := ledger.NewMemory(ledger.Config{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := flow.New(flow.Config{Authority: m, TokenKey: make([]byte, flow.TokenKeySize)})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Publish(flow.Set{Limiters: specs}); err != nil {
		t.Fatal(err)
	}
	return e
}

// asked is what Envoy sends about a request; pairs are context extensions.
func asked(pairs ...string) *authv3.CheckRequest {
	in := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:            peerOf("10.0.0.1", 40000),
		Destination:       peerOf("10.0.0.2", 8080),
		ContextExtensions: make(map[string]string),
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Id: "1", Method: "POST", Path: "/cart?x=1", Host: "shop", Scheme: "http", Protocol: "HTTP/1.1", Size: -1,
			Headers: map[string]string{":authority": "shop", ":method": "POST", ":path": "/cart?x=1", "user-agent": "curl", "x-user": "ann"},
		}},
	}}
	for i := 0; i+1 < len(pairs); i += 2 {
		in.Attributes.ContextExtensions[pairs[i]] = pairs[i+1]
	}
	return in
}

func peerOf(ip string, port uint32) *authv3.AttributeContext_Peer {
	return &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
		SocketAddress: &corev3.SocketAddress{Address: ip, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}},
	}}}
}

func check(t testing.TB, d *Door, ctx context.Context, in *authv3.CheckRequest) *authv3.CheckResponse {
	t.Helper()
	out, err := checks{d}.Check(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func header(list []*corev3.HeaderValueOption, name string) string {
	for _, h := range list {
		if h.Header.Key == name {
			return h.Header.Value
		}
	}
	return ""
}

func wantCount(t *testing.T, d *Door, metric, result string, want float64) {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(d.Collector())
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == metric && (result == "" || m.Label[0].GetValue() == result) && m.Counter.GetValue() != want {
				t.Errorf("%s{result=%q} is %v, want %v", metric, result, m.Counter.GetValue(), want)
			}
		}
	}
}

func TestCheckAdmitsThenDenies(t *testing.T) {
	synctest.Test(t, admitsThenDenies) // in virtual time the bucket does not fill meanwhile
}

func admitsThenDenies(t *testing.T) {
	d := New(Config{Engine: newEngine(t, rateSpec(1, 1))})
	in := asked("control-point", "cp", "label.user", "ann")
	out := check(t, d, t.Context(), in)
	if out.Status.Code != int32(codes.OK) || out.GetOkResponse() == nil || out.GetDeniedResponse() != nil {
		t.Errorf("first request: got %v, want OK", out)
	}
	if got := header(out.GetOkResponse().ResponseHeadersToAdd, "ratelimit"); !strings.Contains(got, "r=0") {
		t.Errorf("ratelimit: got %q, want that nothing remains (r=0)", got)
	}
	out = check(t, d, t.Context(), in)
	denied := out.GetDeniedResponse()
	if out.Status.Code != int32(codes.Unavailable) || denied.GetStatus().GetCode() != 429 {
		t.Fatalf("second request: got %v, want status 14 and HTTP 429", out)
	}
	if got := header(denied.Headers, "retry-after"); got != "3600" {
		t.Errorf("retry-after: got %q, want 3600", got)
	}
	if denied.Body != "Too many requests. Retry in 3600 s.\n" || header(denied.Headers, "content-type") != "text/plain; charset=utf-8" {
		t.Errorf("got the body %q and %v, want a sentence for the public", denied.Body, denied.Headers)
	}
	if want := "policy p, rate limiter root.0, account user:ann: 1 token asked, 0 left"; !strings.HasPrefix(out.Status.Message, want) {
		t.Errorf("the message for Envoy is %q, want %s", out.Status.Message, want)
	}
	in.Attributes.Request.Http.Headers["accept"] = "application/json"
	denied = check(t, d, t.Context(), in).GetDeniedResponse()
	if !strings.Contains(denied.Body, `"reason":"rate_limited"`) || header(denied.Headers, "content-type") != "application/problem+json" {
		t.Errorf("for a program: got the body %q and %v, want problem+json", denied.Body, denied.Headers)
	}
	if token := out.DynamicMetadata.GetFields()[tokenKey]; token != nil {
		t.Errorf("a denied request has the token %v", token)
	}
	out = check(t, d, t.Context(), asked("control-point", "cp", "label.user", "bob"))
	if out.GetOkResponse() == nil {
		t.Errorf("another user: got %v, want OK", out)
	}
	wantCount(t, d, "sluice_extauthz_checks_total", "admitted", 2)
	wantCount(t, d, "sluice_extauthz_checks_total", "denied", 2)
}

func TestControlPointComesFromMetadataThenExtensions(t *testing.T) {
	d := New(Config{Engine: newEngine(t, rateSpec(1, 0.5))})
	withMetadata := func(kv ...string) context.Context {
		return metadata.NewIncomingContext(t.Context(), metadata.Pairs(kv...))
	}
	for name, c := range map[string]struct {
		ctx    context.Context
		in     *authv3.CheckRequest
		denied bool
	}{
		"metadata":            {withMetadata("control-point", "cp"), asked("label.user", "a"), true},
		"metadata wins":       {withMetadata("control-point", "other"), asked("label.user", "a", "control-point", "cp"), false},
		"empty metadata":      {withMetadata("control-point", ""), asked("label.user", "a", "control-point", "cp"), true},
		"extensions":          {t.Context(), asked("label.user", "a", "control-point", "cp"), true},
		"no such label":       {t.Context(), asked("label.", "a", "control-point", "cp"), false},
		"ramp mode, no ramp":  {t.Context(), asked("control-point", "other", "ramp-mode", "true"), true},
		"ramp mode by header": {withMetadata("control-point", "other", "ramp-mode", "true"), asked(), true},
	} {
		if out := check(t, d, c.ctx, c.in); (out.GetDeniedResponse() != nil) != c.denied {
			t.Errorf("%s: got %v, want denied=%v", name, out, c.denied)
		}
	}
	for name, in := range map[string]*authv3.CheckRequest{
		"nothing names it": asked(), "empty": asked("control-point", ""), "no attributes": {}, "nil": nil,
	} {
		_, err := checks{d}.Check(t.Context(), in)
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "missing control-point") {
			t.Errorf("%s: got %v, want InvalidArgument missing control-point", name, err)
		}
	}
	wantCount(t, d, "sluice_extauthz_checks_total", "no_control_point", 4)
	d = New(Config{Engine: newEngine(t, rateSpec(1, 0.5)), ControlPoint: "cp"})
	if out := check(t, d, t.Context(), asked("label.user", "a")); out.GetDeniedResponse() == nil {
		t.Errorf("the default: got %v, want that cp denies", out)
	}
	if out := check(t, d, t.Context(), asked("label.user", "a", "control-point", "other")); out.GetDeniedResponse() != nil {
		t.Errorf("what is named wins over the default: got %v, want OK", out)
	}
}

// TestNoControlPointIsLogged holds that an Envoy that lets everything pass, because nothing tells us the control point,
// can be found, and that it does not fill the log.
func TestNoControlPointIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		d := New(Config{Engine: newEngine(t), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		ask := func(want int, more string) {
			t.Helper()
			if _, err := (checks{d}).Check(t.Context(), asked()); status.Code(err) != codes.InvalidArgument {
				t.Fatalf("got %v, want InvalidArgument", err)
			}
			text := strings.TrimSpace(log.String())
			last := text[strings.LastIndexByte(text, '\n')+1:]
			if n := strings.Count(log.String(), "\n"); n != want || !strings.Contains(last, "level=WARN") ||
				!strings.Contains(last, "Envoy names no control point") || !strings.HasSuffix(last, "more_before="+more) {
				t.Fatalf("got %d lines, the last %q, want %d, the last with more_before=%s", n, last, want, more)
			}
		}
		ask(1, "0")
		ask(1, "0")
		time.Sleep(unnamedLogInterval - 1)
		ask(1, "0")
		time.Sleep(time.Nanosecond)
		ask(2, "2")
		check(t, d, t.Context(), asked("control-point", "cp"))
	})
}

func TestServicesAreThoseOfEnvoyThenOfTheDestination(t *testing.T) {
	known := map[string][]string{"10.0.0.1": {"client"}, "10.0.0.2": {"shop"}, "10.0.0.9": {"sidecar"}}
	d := New(Config{Engine: newEngine(t), Services: func(a string) []string { return known[a] }})
	from := func(addr net.Addr) context.Context { return peer.NewContext(t.Context(), &peer.Peer{Addr: addr}) }
	for name, c := range map[string]struct {
		ctx  context.Context
		want []string
	}{
		"known peer":       {from(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 9), Port: 1}), known["10.0.0.9"]},
		"IPv4 in IPv6":     {from(&net.TCPAddr{IP: net.ParseIP("::ffff:10.0.0.9"), Port: 1}), known["10.0.0.9"]},
		"unknown peer":     {from(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 8), Port: 1}), known["10.0.0.2"]},
		"unix socket":      {from(&net.UnixAddr{Name: "/run/envoy"}), known["10.0.0.2"]},
		"nobody knows who": {t.Context(), known["10.0.0.2"]},
	} {
		r := d.request(c.ctx, asked("control-point", "cp").Attributes)
		if !slices.Equal(r.Services, c.want) {
			t.Errorf("%s: got %v, want %v", name, r.Services, c.want)
		}
		if !slices.Equal(r.HTTP.SourceServices, known["10.0.0.1"]) || !slices.Equal(r.HTTP.DestinationServices, known["10.0.0.2"]) {
			t.Errorf("%s: got %v and %v, want those of both ends", name, r.HTTP.SourceServices, r.HTTP.DestinationServices)
		}
	}
}

func TestRequestAttributes(t *testing.T) {
	in := asked("control-point", "cp")
	h := in.Attributes.Request.Http
	h.RawBody, h.Size = []byte(`{"a":1}`), 7
	r := New(Config{Engine: newEngine(t)}).request(t.Context(), in.Attributes).HTTP
	if r.ID != "1" || r.Method != "POST" || r.Path != "/cart?x=1" || r.Host != "shop" || r.Scheme != "http" || r.Protocol != "HTTP/1.1" ||
		r.Size != 7 || r.Body != `{"a":1}` || r.Source.Text != "10.0.0.1" || r.Source.Port != 40000 ||
		r.Destination.Text != "10.0.0.2" || r.Destination.Port != 8080 || !r.Envoy || r.Headers["x-user"] != "ann" {
		t.Errorf("got %+v", r)
	}
	h.Headers = map[string]string{"X-User": "bob", "x-user": "ann", "X-Other": "o"}
	if got := fromEnvoyHeaders(h); got["x-user"] != "ann" || got["x-other"] != "o" || len(got) != 2 {
		t.Errorf("names in upper case: got %v", got)
	}
	h.HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: "Cookie", RawValue: []byte("a=1")},
		{Key: "cookie", RawValue: []byte("b=2")},
		{Key: "x-list", RawValue: []byte("1")},
		{Key: "x-list", Value: "2"},
		{Key: "x-raw", RawValue: []byte{'a', 0xff}},
	}}
	got := fromEnvoyHeaders(h)
	if got["cookie"] != "a=1; b=2" || got["x-list"] != "1, 2" || got["x-raw"] != "a!" {
		t.Errorf("raw headers: got %v", got)
	}
	pipe := &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/run/s"}}}
	if a := fromEnvoyAddress(pipe); a.Text != "/run/s" || a.Port != 0 {
		t.Errorf("pipe: got %+v", a)
	}
}

func TestCheckResponseIsPassedOn(t *testing.T) {
	var seen []byte
	d := New(Config{Engine: newEngine(t, rateSpec(1, 1)), CheckResponse: func(f *flow.Flow, r *flow.Request, _ time.Time, token []byte) string {
		seen = bytes.Clone(token)
		return r.ControlPoint + " " + f.Verdict.Reason.String() + "\xff"
	}})
	in := asked("control-point", "cp", "label.user", "ann")
	out := check(t, d, t.Context(), in)
	fields := out.DynamicMetadata.GetFields()
	if got := fields[checkResponseKey].GetStringValue(); got != "cp admitted�" {
		t.Errorf("got %q", got)
	}
	if got := fields[tokenKey].GetStringValue(); got == "" || got != tokenText.EncodeToString(seen) {
		t.Errorf("the token is %q, want the one that the function saw", got)
	}
	out = check(t, d, t.Context(), in)
	if got := out.DynamicMetadata.GetFields()[checkResponseKey].GetStringValue(); got != "cp rate_limited�" || len(seen) != 0 {
		t.Errorf("denied: got %q and a token of %d bytes, want none", got, len(seen))
	}
	in = asked("control-point", "other", "no-end", "true")
	if got := check(t, New(Config{Engine: newEngine(t)}), t.Context(), in); got.DynamicMetadata != nil {
		t.Errorf("nobody will end it, but it has the metadata %v", got.DynamicMetadata)
	}
}

func TestQueuedRequestIsAdmittedWithinItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, slotSpec(1, flow.ConcurrencyScheduler))
		d := New(Config{Engine: e})
		first := check(t, d, t.Context(), asked("control-point", "slots"))
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		got := make(chan *authv3.CheckResponse)
		go func() { got <- check(t, d, ctx, asked("control-point", "slots")) }()
		synctest.Wait()
		time.Sleep(300 * time.Millisecond)
		d.logged(entryOf(200, first.DynamicMetadata))
		second := <-got
		if second.GetOkResponse() == nil {
			t.Errorf("got %v, want that it was admitted when the first one ended", second)
		}
		began := time.Now()
		third := check(t, d, ctx, asked("control-point", "slots"))
		if waited := time.Since(began); third.GetDeniedResponse().GetStatus().GetCode() != 503 || waited >= 200*time.Millisecond {
			t.Errorf("after %v of 200 ms: %v, want 503 before Envoy's deadline", waited, third)
		}
	})
}

func TestCancelledCheckHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, slotSpec(1, flow.ConcurrencyScheduler))
		leave := func() {}
		d := New(Config{Engine: e, Services: func(string) []string { leave(); return nil }})
		first := check(t, d, t.Context(), asked("control-point", "slots"))

		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error)
		go func() {
			_, err := checks{d}.Check(ctx, asked("control-point", "slots"))
			got <- err
		}()
		synctest.Wait()
		cancel() // while it waits
		if err := <-got; status.Code(err) != codes.Canceled {
			t.Errorf("cancelled while waiting: got %v, want Canceled", err)
		}
		d.logged(entryOf(200, first.DynamicMetadata))

		ctx, leave = context.WithCancel(t.Context()) // before the verdict, which is to admit
		if _, err := (checks{d}).Check(ctx, asked("control-point", "slots")); status.Code(err) != codes.Canceled {
			t.Errorf("cancelled before the verdict: got %v, want Canceled", err)
		}
		leave = func() {}
		if n := testutil.ToFloat64(slotsHeld{e}); n != 0 {
			t.Errorf("%v slots are held, want none", n)
		}
		if out := check(t, d, t.Context(), asked("control-point", "slots")); out.GetOkResponse() == nil {
			t.Errorf("got %v, want that the slot is free", out)
		}
		wantCount(t, d, "sluice_extauthz_checks_total", "cancelled", 2)
	})
}

// slotsHeld is a gauge of the slots held at the first limiter.
type slotsHeld struct{ e *flow.Engine }

func (s slotsHeld) Describe(chan<- *prometheus.Desc) {}

func (s slotsHeld) Collect(out chan<- prometheus.Metric) {
	used := 0.0
	for _, a := range s.e.Overview(100).Accounts {
		used += a.Used
	}
	out <- prometheus.MustNewConstMetric(prometheus.NewDesc("held", "Slots.", nil, nil), prometheus.GaugeValue, used)
}

func TestStoppingServerLeavesTheDecisionToEnvoy(t *testing.T) {
	e := newEngine(t, slotSpec(1, flow.ConcurrencyScheduler))
	d := New(Config{Engine: e})
	check(t, d, t.Context(), asked("control-point", "slots"))
	e.Close()
	_, err := checks{d}.Check(t.Context(), asked("control-point", "slots"))
	if status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want Unavailable", err)
	}
	wantCount(t, d, "sluice_extauthz_checks_total", "unavailable", 1)
}
