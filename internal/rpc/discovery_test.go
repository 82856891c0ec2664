// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	discoveryv1 "github.com/sluice-project/sluice/api/gen/sluice/discovery/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/discovery/v1/discoveryv1connect"
	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/discovery"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
)

// goldRules make the label user_type of the label user, and fail for the user "bad".
type goldRules struct{}

func (goldRules) Eval(in *classify.Input, out []classify.Label) ([]classify.Label, error) {
	user, _ := in.Label("user")
	switch user {
	case "bad":
		return out, &classify.Error{Code: classify.CodeEvalFailed, Message: "division by zero\x80"}
	case "":
		return out, nil
	}
	return append(out, classify.Label{Key: "user_type", Value: "gold-" + user, Telemetry: true}, classify.Label{Key: "tier", Value: "paid"}), nil
}

// seen is a DiscoveryService with an engine that classifies HTTP flows at "ingress" and lets everything pass.
type seen struct {
	*DiscoveryService
	t *testing.T
}

func newSeen(t *testing.T, directory Directory) *seen {
	t.Helper()
	memory, err := ledger.NewMemory(ledger.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = memory.Close() })
	engine, err := flow.New(flow.Config{Authority: memory, TokenKey: make([]byte, flow.TokenKeySize)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(engine.Close)
	err = engine.Publish(flow.Set{Classifiers: []*flow.ClassifierSpec{{
		Policy: "gold", Index: 2, Rules: goldRules{}, Selectors: []flow.Selector{{ControlPoint: "ingress"}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return &seen{NewDiscoveryService(engine, directory), t}
}

func (s *seen) pass(r flow.Request) {
	s.t.Helper()
	f := s.engine.Start(context.Background(), &r)
	if !f.Admitted() {
		s.t.Fatalf("the flow was denied: %s", f.Verdict.Reason)
	}
	f.End(flow.Outcome{})
}

func (s *seen) request(user string) flow.Request {
	return flow.Request{
		ControlPoint: "ingress", Labels: map[string]string{"user": user, "tier": "free"}, Services: []string{"shop"}, QueueTimeout: -1,
		HTTP: &classify.Request{
			Method: "POST", Path: "/buy/now?item=1&access_token=hush", Host: "shop.example", Scheme: "https", Protocol: "HTTP/1.1", Size: 4,
			Headers: map[string]string{"authorization": "Bearer hush", "x-tokens": "17", "user-agent": "curl"}, Body: "body",
			Source: classify.Address{Text: "10.0.0.1", Port: 1234}, DestinationServices: []string{"shop"},
		},
	}
}

// previewing runs a preview in the bubble; the samples come through the channel, which is closed at its end.
func (s *seen) previewing(ctx context.Context, in *discoveryv1.PreviewFlowsRequest) (samples chan *discoveryv1.PreviewFlowsResponse, end chan error) {
	samples, end = make(chan *discoveryv1.PreviewFlowsResponse, 2000), make(chan error, 1)
	go func() {
		end <- s.preview(ctx, in, func(one *discoveryv1.PreviewFlowsResponse) error { samples <- one; return nil })
		close(samples)
	}()
	synctest.Wait()
	return samples, end
}

func TestPreview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSeen(t, nil)
		samples, end := s.previewing(t.Context(), &discoveryv1.PreviewFlowsRequest{ControlPoint: "ingress", Samples: 2})
		s.pass(flow.Request{ControlPoint: "elsewhere", QueueTimeout: -1})
		s.pass(s.request("ann"))
		s.pass(s.request("bad"))
		if err := <-end; err != nil {
			t.Fatal(err)
		}
		one, two := <-samples, <-samples
		if s.engine.Taps() != 0 || len(s.previews) != 0 {
			t.Error("the preview is over and the engine is still watched")
		}
		if got := one.LabelsBefore; got["user"] != "ann" || got["tier"] != "free" || got["user_type"] != "" {
			t.Errorf("got labels before %v", got)
		}
		if got := one.LabelsAfter; got["user_type"] != "gold-ann" || got["tier"] != "paid" {
			t.Errorf("got labels after %v", got)
		}
		if !cmp.Equal(one.Services, []string{"shop"}) || time.Since(one.Time.AsTime()) != 0 || len(one.Problems) != 0 {
			t.Errorf("got %v", one)
		}
		want := &discoveryv1.ClassifierProblem{Policy: "gold", Index: 2, Code: "eval_failed", Message: "division by zero�"}
		if len(two.Problems) != 1 || two.Problems[0].String() != want.String() {
			t.Errorf("got problems %v, want %v", two.Problems, want)
		}
		if text := fmt.Sprint(one, two); strings.Contains(text, "hush") {
			t.Errorf("a secret is shown: %s", text)
		}
		attributes := one.Http.AsMap()["attributes"].(map[string]any)
		http := attributes["request"].(map[string]any)["http"].(map[string]any)
		wantHTTP := map[string]any{
			"id": "", "method": "POST", "path": "/buy/now?item=1&access_token=(hidden)", "host": "shop.example", "scheme": "https", "protocol": "HTTP/1.1",
			"size": 4.0, "body": "body", "headers": map[string]any{"authorization": "(hidden, 11 bytes)", "x-tokens": "17", "user-agent": "curl"},
		}
		if !cmp.Equal(http, wantHTTP) {
			t.Errorf("the request: %s", cmp.Diff(wantHTTP, http))
		}
		if got := one.LabelsBefore["http.request.header.authorization"]; got != "(hidden, 11 bytes)" {
			t.Errorf("the label of the authorization header is %q", got)
		}
		if got := one.Http.AsMap()["parsed_path"]; !cmp.Equal(got, []any{"buy", "now"}) {
			t.Errorf("got parsed_path %v", got)
		}
	})
}

func TestPreviewFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSeen(t, nil)
		byLabel, end1 := s.previewing(t.Context(), &discoveryv1.PreviewFlowsRequest{ControlPoint: "ingress", Samples: 1, Filter: `labels["user_type"] == "gold-bob"`})
		byService, end2 := s.previewing(t.Context(), &discoveryv1.PreviewFlowsRequest{ControlPoint: "ingress", Samples: 1, Service: "cart"})
		s.pass(s.request("ann"))
		s.pass(s.request("bob"))
		cart := s.request("carl")
		cart.Services = []string{"cart"}
		s.pass(cart)
		if err := errors.Join(<-end1, <-end2); err != nil {
			t.Fatal(err)
		}
		if got := (<-byLabel).LabelsAfter["user"]; got != "bob" {
			t.Errorf("got the flow of %q, want that of bob", got)
		}
		if got := (<-byService).LabelsAfter["user"]; got != "carl" {
			t.Errorf("got the flow of %q, want that of carl", got)
		}
	})
}

// TestPreviewVerdicts: previews tell why flows are denied, also when nothing else is asked for, and no secret with it.
func TestPreviewVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSeen(t, nil)
		limiter := &flow.LimiterSpec{
			ID: 1, Policy: "per-key", Component: "root.3", Kind: flow.RateLimiter, DeniedStatus: 429,
			Selectors: []flow.Selector{{ControlPoint: "ingress"}}, LimitBy: "http.request.header.x_api_key",
			Bucket: limit.BucketRule{Capacity: 1, FillAmount: 1, Interval: time.Minute, Continuous: true},
		}
		if err := s.engine.Publish(flow.Set{Limiters: []*flow.LimiterSpec{limiter}}); err != nil {
			t.Fatal(err)
		}
		all, end1 := s.previewing(t.Context(), &discoveryv1.PreviewFlowsRequest{ControlPoint: "ingress", Samples: 2})
		denied, end2 := s.previewing(t.Context(), &discoveryv1.PreviewFlowsRequest{ControlPoint: "ingress", Samples: 1, DeniedOnly: true})
		for range 2 {
			r := s.request("ann")
			r.HTTP.Headers["x-api-key"] = "k-hush"
			s.engine.Start(t.Context(), &r).Free()
		}
		if err := errors.Join(<-end1, <-end2); err != nil {
			t.Fatal(err)
		}
		first, second, only := <-all, <-all, <-denied
		if first.Verdict != "admit" || first.Reason != "admitted" || first.Message != "admitted" || first.Policy != "" || first.RetryAfterSeconds != nil {
			t.Errorf("the first: got %v", first)
		}
		want := "policy per-key, rate limiter root.3, account http.request.header.x_api_key:(hidden, 6 bytes): 1 token asked, 0 left (limit 1 per 60s, burst 1); retry in 60s"
		if strings.ReplaceAll(second.Message, "1m0s", "60s") != want {
			t.Errorf("got the message %q, want %q", second.Message, want)
		}
		if second.Verdict != "deny" || second.Reason != "rate_limited" || second.Policy != "per-key" || second.Limiter != "root.3" || second.GetRetryAfterSeconds() != 60 {
			t.Errorf("the second: got %v", second)
		}
		if !proto.Equal(only, second) {
			t.Errorf("with denied_only: got %v, want %v", only, second)
		}
		if text := fmt.Sprint(first, second); strings.Contains(text, "hush") {
			t.Errorf("a secret is shown: %s", text)
		}
	})
}

// TestPreviewMemory: what waits for a client that does not read takes little memory, however large requests are.
func TestPreviewMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSeen(t, nil)
		read := make(chan struct{})
		end := make(chan error, 1)
		n := 0
		go func() {
			end <- s.preview(t.Context(), &discoveryv1.PreviewFlowsRequest{ControlPoint: "ingress", Samples: 10}, func(*discoveryv1.PreviewFlowsResponse) error {
				<-read
				n++
				return nil
			})
		}()
		synctest.Wait()
		large := func() flow.Request {
			r := s.request("ann")
			r.HTTP.Body = strings.Repeat("x", previewBytes-1<<20)
			return r
		}
		for range 10 {
			s.pass(large())
			synctest.Wait()
		}
		close(read)
		synctest.Wait()
		if n != 2 || s.missed.Load() != 8 { // one in the hand of the client, one that waits
			t.Errorf("%d large flows were shown and %d missed, want 2 and 8", n, s.missed.Load())
		}
		for range 8 { // and afterwards there is room again
			s.pass(large())
			synctest.Wait()
		}
		if err := <-end; err != nil || n != 10 {
			t.Errorf("got %d flows, %v, want 10", n, err)
		}
	})
}

// TestPreviewSlowClient: flows do not wait for a client that reads slowly. What it misses is counted.
func TestPreviewSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSeen(t, nil)
		read := make(chan struct{})
		end := make(chan error, 1)
		n := 0
		go func() {
			end <- s.preview(t.Context(), &discoveryv1.PreviewFlowsRequest{ControlPoint: "ingress", Samples: 100}, func(*discoveryv1.PreviewFlowsResponse) error {
				<-read
				n++
				return nil
			})
		}()
		synctest.Wait()
		for range 500 {
			s.pass(s.request("ann"))
		}
		close(read)
		synctest.Wait()
		if missed := s.missed.Load(); n < previewBuffer || n > previewBuffer+1 || missed != uint64(500-n) {
			t.Errorf("%d flows were shown and %d were missed of 500, want about %d shown", n, missed, previewBuffer)
		}
		for range 100 {
			s.pass(s.request("ann"))
			synctest.Wait()
		}
		if err := <-end; err != nil || n != 100 {
			t.Errorf("got %d flows, %v, want 100", n, err)
		}
	})
}

func TestPreviewEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSeen(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		_, end := s.previewing(ctx, &discoveryv1.PreviewFlowsRequest{ControlPoint: "ingress"})
		cancel()
		if err := <-end; status.Code(err) != codes.Canceled {
			t.Errorf("got %v, want it cancelled", err)
		}
		gone := errors.New("gone")
		go func() {
			end <- s.preview(t.Context(), &discoveryv1.PreviewFlowsRequest{ControlPoint: "ingress"}, func(*discoveryv1.PreviewFlowsResponse) error { return gone })
		}()
		synctest.Wait()
		s.pass(s.request("ann"))
		if err := <-end; err != gone {
			t.Errorf("got %v, want the error of the stream", err)
		}
		if n := s.engine.Taps(); n != 0 {
			t.Errorf("%d taps are left", n)
		}
	})
}

func TestPreviewsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSeen(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var ends []chan error
		for range maxPreviews {
			_, end := s.previewing(ctx, &discoveryv1.PreviewFlowsRequest{ControlPoint: "ingress"})
			ends = append(ends, end)
		}
		_, end := s.previewing(ctx, &discoveryv1.PreviewFlowsRequest{ControlPoint: "ingress"})
		if err := <-end; status.Code(err) != codes.ResourceExhausted {
			t.Errorf("got %v, want it refused", err)
		}
		cancel()
		for _, end := range ends {
			<-end
		}
		ctx, cancel = context.WithCancel(t.Context())
		_, end = s.previewing(ctx, &discoveryv1.PreviewFlowsRequest{ControlPoint: "ingress"})
		cancel()
		if err := <-end; status.Code(err) != codes.Canceled {
			t.Errorf("got %v, want room again", err)
		}
	})
}

func TestPreviewBadInput(t *testing.T) {
	s := newSeen(t, nil)
	for _, tt := range []struct {
		in   *discoveryv1.PreviewFlowsRequest
		want string
	}{
		{&discoveryv1.PreviewFlowsRequest{}, "control_point has 0 bytes; expected 1 to 255"},
		{&discoveryv1.PreviewFlowsRequest{ControlPoint: strings.Repeat("x", 256)}, "control_point has 256 bytes"},
		{&discoveryv1.PreviewFlowsRequest{ControlPoint: "x", Samples: -1}, "samples is -1; expected 0 (10) to 1000"},
		{&discoveryv1.PreviewFlowsRequest{ControlPoint: "x", Samples: 1001}, "samples is 1001"},
		{&discoveryv1.PreviewFlowsRequest{ControlPoint: "x", Filter: "user_type =="}, "filter: 1:"},
		{&discoveryv1.PreviewFlowsRequest{ControlPoint: "x", Filter: strings.Repeat("(", 100_000)}, "filter: "},
	} {
		err := s.preview(t.Context(), tt.in, nil)
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %.300v, want %q", err, tt.want)
		}
	}
}

// TestPreviewRoles: viewers do not see bodies.
func TestPreviewRoles(t *testing.T) {
	r := newSeen(t, nil).request("ann").HTTP
	body := func(role Role) string {
		ctx := context.WithValue(t.Context(), identityKey{}, Identity{Name: "x", Role: role})
		http := viewOf(ctx).request(r).AsMap()["attributes"].(map[string]any)["request"].(map[string]any)["http"].(map[string]any)
		return http["body"].(string)
	}
	if got := body(RoleViewer); got != "(hidden, 4 bytes)" {
		t.Errorf("a viewer sees the body %q", got)
	}
	if got := body(RoleOperator); got != "body" {
		t.Errorf("an operator sees the body %q", got)
	}
}

func TestSecretNames(t *testing.T) {
	for name, want := range map[string]bool{
		"authorization": true, "proxy-authorization": true, "cookie": true, "set-cookie": true, "x-api-key": true, "X_API_KEY": true, "apikey": true,
		"x-auth-token": true, "accessToken": true, "access_token": true, "sluice-token": true, "x-amz-signature": true, "client_secret": true,
		"sessionId": true, "password": true, "code": true, "id_token": true, "x-csrftoken": true, "idtoken": true,
		"tokens": false, "x-prompt-tokens": false, "user": false, "content-type": false, "monkey": false, "author": false, "country-code": false,
		"": false, "---": false, "keyboard": false, "user-agent": false, "\xff\x00": false, strings.Repeat("a", 1000): false,
	} {
		if got := classify.IsSecret(name); got != want {
			t.Errorf("IsSecret(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestShowPath(t *testing.T) {
	for path, want := range map[string]string{
		"/a":                       "/a",
		"/a?":                      "/a?",
		"/a?b=1&c=2":               "/a?b=1&c=2",
		"/a?token=x&b=1":           "/a?token=(hidden)&b=1",
		"/a?b=1;api%5Fkey=x":       "/a?b=1&api%5Fkey=(hidden)",
		"/a?%zz=x":                 "/a?%zz=(hidden)",
		"/a?token=":                "/a?token=",
		"/a?token=x?token=y&code=": "/a?token=(hidden)&code=",
	} {
		if got := classify.ShowPath(path); got != want {
			t.Errorf("ShowPath(%q) = %q, want %q", path, got, want)
		}
	}
}

// TestHugeSample: whatever a flow carries, what is shown of it fits into a message.
func TestHugeSample(t *testing.T) {
	huge := strings.Repeat("\xff", 1<<16)
	one := &tapped{Sample: flow.Sample{Before: map[string]string{}, HTTP: &classify.Request{
		Method: huge, Path: "/" + strings.Repeat("/", 1<<16) + "?a=" + huge, Host: huge, Headers: map[string]string{}, Body: huge + huge,
		SourceServices: strings.Split(huge, ""), Source: classify.Address{Text: huge},
	}}}
	for i := range 5000 {
		one.Before[fmt.Sprint(i, huge)] = huge
		one.HTTP.Headers[fmt.Sprint(i, huge)] = huge
	}
	one.After = one.Before
	got := view{bodies: true}.sample(one)
	if got.Http == nil || len(got.LabelsAfter) != maxShownLabels {
		t.Fatal("the request or labels are missing")
	}
	if n := encoded(t, got); n > 4<<20 {
		t.Errorf("a sample has %d bytes, want at most 4 MiB", n)
	}
}

func TestCutText(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"short", "short"}, {"exactly 10", "exactly 10"}, {"eleven byte", "eleven …"}, {"ääääääää", "äää…"}, {"\xff", "�"}, {strings.Repeat("\x80", 20), "�…"},
	} {
		if got := cutText(tt.in, 10); got != tt.want {
			t.Errorf("cutText(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzShow(f *testing.F) {
	const secret = "hush-hush"
	f.Add("/a?token=x", "authorization", "Bearer x")
	f.Fuzz(func(t *testing.T, path, header, value string) {
		value += secret
		one := &tapped{Sample: flow.Sample{
			Before: map[string]string{"http.request.header." + header: value}, After: map[string]string{"http.target": path},
			HTTP: &classify.Request{Path: path, Headers: map[string]string{header: value}},
		}}
		out := view{}.sample(one)
		if out.Http == nil {
			t.Fatal("the request is not shown")
		}
		encoded(t, out)
		if classify.IsSecret(header) && !strings.Contains(header+path, secret) && strings.Contains(out.String(), secret) {
			t.Fatalf("the value of %q is shown: %v", header, out)
		}
	})
}

func TestListControlPoints(t *testing.T) {
	s := newSeen(t, nil)
	for i := range 5 {
		s.pass(flow.Request{ControlPoint: fmt.Sprintf("feature-%d", i), Labels: map[string]string{"user": "ann"}, Services: []string{"shop"}, QueueTimeout: -1})
	}
	s.pass(s.request("bob"))
	got, err := s.ListControlPoints(t.Context(), &discoveryv1.ListControlPointsRequest{Prefix: "ingress"})
	if err != nil || len(got.ControlPoints) != 1 {
		t.Fatalf("got %v, %v", got, err)
	}
	p := got.ControlPoints[0]
	if p.Name != "ingress" || p.Type != "http" || p.Flows != 1 || !cmp.Equal(p.Policies, []string{"gold"}) || !cmp.Equal(p.Services, []string{"shop"}) || p.LastSeen == nil {
		t.Errorf("got %v", p)
	}
	var keys []string
	for _, l := range p.Labels {
		keys = append(keys, l.Key)
		if strings.Contains(fmt.Sprint(l.Values), "hush") {
			t.Errorf("label %s shows a secret", l.Key)
		}
	}
	if text := strings.Join(keys, " "); !strings.Contains(text, "user_type") || !strings.Contains(text, "http.method") {
		t.Errorf("got labels %s", text)
	}
	var names []string
	in := &discoveryv1.ListControlPointsRequest{Prefix: "feature-", PageSize: 2}
	for pages := 1; ; pages++ {
		page, err := s.ListControlPoints(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range page.ControlPoints {
			names = append(names, p.Name)
			if p.Type != "feature" {
				t.Errorf("got type %s", p.Type)
			}
		}
		if in.PageToken = page.NextPageToken; in.PageToken == "" {
			if pages != 3 {
				t.Errorf("got %d pages, want 3", pages)
			}
			break
		}
	}
	if !cmp.Equal(names, []string{"feature-0", "feature-1", "feature-2", "feature-3", "feature-4"}) {
		t.Errorf("got %q", names)
	}
	for want, in := range map[string]*discoveryv1.ListControlPointsRequest{
		"page_size is -1": {PageSize: -1}, `page_token is "!"`: {PageToken: "!"}, "page_token is": {PageToken: pageToken("-3")}, "page_token": {PageToken: pageToken("x")},
	} {
		if _, err := s.ListControlPoints(t.Context(), in); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", in, err, want)
		}
	}
	if got, err := s.ListControlPoints(t.Context(), &discoveryv1.ListControlPointsRequest{PageToken: pageToken("999")}); err != nil || len(got.ControlPoints) != 0 {
		t.Errorf("beyond the end: got %v, %v", got, err)
	}
}

func TestListServices(t *testing.T) {
	d, err := discovery.New(discovery.Config{Static: []discovery.Static{
		{Service: "cart", Addresses: []string{"10.0.0.1"}, Name: "old"}, {Service: "shop", Addresses: []string{"10.0.0.1", "10.0.0.2"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	d.Feed(discovery.SourceKubernetes).Problem("forbidden")
	s := newSeen(t, d)
	list := func(in *discoveryv1.ListServicesRequest) *discoveryv1.ListServicesResponse {
		t.Helper()
		got, err := s.ListServices(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	all := list(&discoveryv1.ListServicesRequest{})
	if len(all.Services) != 2 || all.Services[1].Name != "shop" || len(all.Services[1].Entities) != 2 || all.Services[0].Entities[0].Name != "old" {
		t.Errorf("got %v", all)
	}
	if len(all.Sources) != 2 || all.Sources[0].Name != "static" || all.Sources[0].Entities != 3 || all.Sources[0].LastUpdate == nil || all.Sources[1].Error != "forbidden" || all.Sources[1].LastUpdate != nil {
		t.Errorf("got sources %v", all.Sources)
	}
	first := list(&discoveryv1.ListServicesRequest{PageSize: 1})
	second := list(&discoveryv1.ListServicesRequest{PageSize: 1, PageToken: first.NextPageToken})
	if first.Services[0].Name != "cart" || second.Services[0].Name != "shop" || second.NextPageToken != "" {
		t.Errorf("got pages %v %v", first, second)
	}
	if got := list(&discoveryv1.ListServicesRequest{Address: "10.0.0.2"}); len(got.Services) != 1 || got.Services[0].Name != "shop" {
		t.Errorf("by address: got %v", got)
	}
	if got := list(&discoveryv1.ListServicesRequest{NameContains: "ar"}); len(got.Services) != 1 || got.Services[0].Name != "cart" {
		t.Errorf("by name: got %v", got)
	}
	for want, in := range map[string]*discoveryv1.ListServicesRequest{
		"page_size is -1": {PageSize: -1}, `page_token is "!"`: {PageToken: "!"}, `address is "shop"; expected an IP address`: {Address: "shop"},
	} {
		if _, err := s.ListServices(t.Context(), in); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", in, err, want)
		}
	}
	if got, err := newSeen(t, nil).ListServices(t.Context(), &discoveryv1.ListServicesRequest{}); err != nil || len(got.Services)+len(got.Sources) != 0 {
		t.Errorf("without discovery: got %v, %v", got, err)
	}
}

// TestPreviewOverTheWire previews by gRPC and Connect, and ends what is under way when the server stops.
func TestPreviewOverTheWire(t *testing.T) {
	s := newSeen(t, nil)
	address, stop := running(t, testServer(t, ServerConfig{Discovery: s.DiscoveryService, ShutdownTimeout: time.Minute}))
	byGRPC, err := discoveryv1.NewDiscoveryServiceClient(dial(t, address)).PreviewFlows(t.Context(), &discoveryv1.PreviewFlowsRequest{ControlPoint: "ingress"})
	if err != nil {
		t.Fatal(err)
	}
	connected := make(chan error, 1)
	go func() {
		stream, err := discoveryv1connect.NewDiscoveryServiceClient(http.DefaultClient, "http://"+address).
			PreviewFlows(t.Context(), connect.NewRequest(&discoveryv1.PreviewFlowsRequest{ControlPoint: "ingress"}))
		if err != nil {
			connected <- err
			return
		}
		if !stream.Receive() || stream.Msg().LabelsAfter["user"] != "ann" {
			connected <- fmt.Errorf("by Connect: got %v, %w", stream.Msg(), stream.Err())
			return
		}
		connected <- nil
		for stream.Receive() {
		}
		connected <- stream.Err()
	}()
	for deadline := time.Now().Add(10 * time.Second); s.engine.Taps() < 2; {
		if time.Now().After(deadline) {
			t.Fatal("the previews did not begin")
		}
	}
	s.pass(s.request("ann"))
	if one, err := byGRPC.Recv(); err != nil || one.LabelsAfter["user"] != "ann" {
		t.Errorf("by gRPC: got %v, %v", one, err)
	}
	if err := <-connected; err != nil {
		t.Error(err)
	}
	stop()
	if _, err := byGRPC.Recv(); err == nil {
		t.Error("by gRPC: the preview goes on when the server has stopped")
	}
	if err := <-connected; err == nil {
		t.Error("by Connect: the preview ended well though it had too few flows")
	}
	if n := s.engine.Taps(); n != 0 {
		t.Errorf("%d taps are left", n)
	}
}

// encoded is how long a message is, in bytes.
func encoded(t *testing.T, m proto.Message) int {
	t.Helper()
	text, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return len(text)
}
