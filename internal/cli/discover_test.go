// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "github.com/sluice-project/sluice/api/gen/sluice/discovery/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/discovery/v1/discoveryv1connect"
)

// fakeDiscovery is a server with three control points, two services, and flows that differ.
type fakeDiscovery struct {
	discoveryv1connect.UnimplementedDiscoveryServiceHandler

	empty   bool
	flows   int // that pass; then it waits, or ends if ends is set
	ends    bool
	preview *discoveryv1.PreviewFlowsRequest
	wants   *discoveryv1.ListServicesRequest
	sent    chan struct{} // told when all flows have passed
}

func (f *fakeDiscovery) ListControlPoints(_ context.Context, in *connect.Request[discoveryv1.ListControlPointsRequest]) (*connect.Response[discoveryv1.ListControlPointsResponse], error) {
	if f.empty {
		return connect.NewResponse(&discoveryv1.ListControlPointsResponse{}), nil
	}
	all := []*discoveryv1.ControlPoint{
		{
			Name: "ingress", Type: "http", FlowsPerSecond: 1234.5, DeniedPerSecond: 7, Flows: 99, Services: []string{"cart", "shop", "x"}, Policies: []string{"gold"},
			LastSeen: timestamppb.New(time.Unix(1e9, 0)),
			Labels: []*discoveryv1.LabelSeen{
				{Key: "http.method", Values: []string{"GET", ""}, Distinct: 2, Share: 1},
				{Key: "http.request.header.cookie", Share: 0.5},
				{Key: "tier\x1b[31m", Values: []string{"gold", "\x1b]0;x"}, Distinct: 16, AtLeast: true, Share: 0.255},
			},
		},
		{Name: "ingress-admin", Type: "feature"},
	}
	if in.Msg.GetPageToken() != "" {
		return connect.NewResponse(&discoveryv1.ListControlPointsResponse{ControlPoints: all[1:]}), nil
	}
	return connect.NewResponse(&discoveryv1.ListControlPointsResponse{ControlPoints: all[:1], NextPageToken: "more"}), nil
}

func (f *fakeDiscovery) ListServices(_ context.Context, in *connect.Request[discoveryv1.ListServicesRequest]) (*connect.Response[discoveryv1.ListServicesResponse], error) {
	f.wants = in.Msg
	if f.empty {
		return connect.NewResponse(&discoveryv1.ListServicesResponse{}), nil
	}
	sources := []*discoveryv1.Source{{Name: "static", Entities: 4, LastUpdate: timestamppb.New(time.Unix(1e9, 0))}, {Name: "dns", Error: "a: no such name"}}
	if in.Msg.GetPageToken() != "" {
		return connect.NewResponse(&discoveryv1.ListServicesResponse{Services: []*discoveryv1.Service{{Name: "shop"}}, Sources: sources}), nil
	}
	var entities []*discoveryv1.Entity
	for _, a := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"} {
		entities = append(entities, &discoveryv1.Entity{Address: a, Source: "static"})
	}
	return connect.NewResponse(&discoveryv1.ListServicesResponse{
		Services: []*discoveryv1.Service{{Name: "cart", Entities: entities}}, NextPageToken: "more", Sources: sources,
	}), nil
}

func (f *fakeDiscovery) PreviewFlows(ctx context.Context, in *connect.Request[discoveryv1.PreviewFlowsRequest], s *connect.ServerStream[discoveryv1.PreviewFlowsResponse]) error {
	f.preview = in.Msg
	if in.Msg.GetFilter() == "bad" {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("filter: 1:1: undeclared reference"))
	}
	for i := range f.flows {
		one := &discoveryv1.PreviewFlowsResponse{
			Time: timestamppb.New(time.Unix(1e9, 0)), Services: []string{"shop"},
			LabelsBefore: map[string]string{"user": "ann", "tier": "free", "empty": ""},
			LabelsAfter:  map[string]string{"user": "ann", "tier": "paid", "empty": "", "user_type": "gold\x1b[2J", "long": strings.Repeat("x", 200)},
		}
		if i != 2 { // as servers of old answer
			one.Verdict, one.Message = "admit", "admitted"
		}
		switch i {
		case 1:
			one.Verdict, one.Message = "deny", "policy tiers: too\nmany"
			one.LabelsAfter, one.Services = one.LabelsBefore, nil
			one.Problems = []*discoveryv1.ClassifierProblem{{Policy: "gold", Index: 1, Code: "eval_failed", Message: "division by zero"}}
		case 2:
			one.LabelsBefore, one.LabelsAfter = nil, nil
			one.Http, _ = structpb.NewStruct(map[string]any{"parsed_path": []any{"a"}})
		}
		if err := s.Send(one); err != nil {
			return err
		}
	}
	if f.sent != nil {
		close(f.sent)
	}
	if f.ends {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func serveDiscovery(t *testing.T) (*fakeDiscovery, []string) {
	t.Helper()
	f := &fakeDiscovery{}
	mux := http.NewServeMux()
	mux.Handle(discoveryv1connect.NewDiscoveryServiceHandler(f))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return f, []string{"SLUICE_SERVER=" + s.URL}
}

func TestDiscover(t *testing.T) {
	f, env := serveDiscovery(t)
	code, out, errs := run(t, env, "discover")
	want := `CONTROL POINT  TYPE     FLOWS/S  DENIED/S  SERVICES       POLICIES  LABELS
ingress        http     1234     7         cart, shop +1  gold      tier·[31m, http.method, http.request.header.cookie
ingress-admin  feature  0        0         -              -         -
`
	if code != 0 || out != want {
		t.Errorf("got %d %q %s, want\n%s", code, out, errs, want)
	}
	code, out, _ = run(t, env, "discover", "ingress")
	want = `ingress: http, 1234 flows/s, 7 denied/s, 99 flows since start
services: cart, shop, x
policies: gold

LABEL                       IN FLOWS  VALUES  FOR EXAMPLE
http.method                 100%      2       GET, ""
http.request.header.cookie  50%       -       -
tier·[31m                   26%       16+     gold, ·]0;x
`
	if code != 0 || out != want {
		t.Errorf("got %d %s, want\n%s", code, out, want)
	}
	code, out, _ = run(t, env, "discover", "-o", "json", "--limit", "1")
	var points []map[string]any
	if err := json.Unmarshal([]byte(out), &points); err != nil || code != 0 || len(points) != 1 || points[0]["flows_per_second"] != 1234.5 || points[0]["last_seen"] != "2001-09-09T01:46:40Z" {
		t.Errorf("got %d %s, %v", code, out, err)
	}
	if _, out, _ := run(t, env, "discover", "ingress-admin", "-o", "yaml"); !strings.Contains(out, "name: ingress-admin\n") || !strings.Contains(out, "labels: []\n") {
		t.Errorf("got %s", out)
	}
	f.empty = true
	if code, out, _ := run(t, env, "discover"); code != 0 || out != "no flows have passed since the server started\n" {
		t.Errorf("got %d %q", code, out)
	}
	if code, _, errs := run(t, env, "discover", "ingres"); code != 1 || !strings.Contains(errs, `no flows have passed a control point named "ingres"`) {
		t.Errorf("got %d %q", code, errs)
	}
}

func TestDiscoverServices(t *testing.T) {
	f, env := serveDiscovery(t)
	code, out, errs := run(t, env, "discover", "--services")
	out = strings.ReplaceAll(out, time.Unix(1e9, 0).Format("2006-01-02 15:04:05"), "2001-09-09 01:46:40")
	want := `SERVICE  ENTITIES  SOURCE  ADDRESSES
cart     4         static  10.0.0.1, 10.0.0.2, 10.0.0.3 +1
shop     0         -       -

SOURCE  ENTITIES  UP TO DATE           PROBLEM
static  4         2001-09-09 01:46:40  -
dns     0         -                    a: no such name
`
	if code != 0 || out != want {
		t.Errorf("got %d %s %s, want\n%s", code, out, errs, want)
	}
	code, out, _ = run(t, env, "discover", "--services", "--contains", "ar", "--address", "10.0.0.1", "-o", "json")
	var got servicesInfo
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || len(got.Services) != 2 || len(got.Sources) != 2 || got.Services[0].Entities[3].Address != "10.0.0.4" {
		t.Errorf("got %d %s, %v", code, out, err)
	}
	if f.wants.GetNameContains() != "ar" || f.wants.GetAddress() != "10.0.0.1" {
		t.Errorf("asked for %v", f.wants)
	}
	f.empty = true
	if code, out, _ := run(t, env, "discover", "--services"); code != 0 || !strings.Contains(out, "has no source in its section discovery") {
		t.Errorf("got %d %q", code, out)
	}
}

func TestDiscoverMistakes(t *testing.T) {
	_, env := serveDiscovery(t)
	for want, args := range map[string][]string{
		"--limit: got 0, want at least 1":              {"--limit", "0"},
		`got "x" and --services, want one of them`:     {"--services", "x"},
		"--prefix: it is for control points":           {"--services", "--prefix", "a"},
		"--contains and --address: they are for":       {"--contains", "a"},
		`got "x" and --prefix, want one of them`:       {"x", "--prefix", "a"},
		`--address: got "x", want an IP address`:       {"--services", "--address", "x"},
		"got 2 arguments, want the name of a control":  {"a", "b"},
		`--output: got "jsn", want table, json, yaml;`: {"-o", "jsn"},
	} {
		if code, _, errs := run(t, env, append([]string{"discover"}, args...)...); code != 1 || !strings.Contains(errs, want) {
			t.Errorf("%v: got %d %q, want %q", args, code, errs, want)
		}
	}
}

func TestPreview(t *testing.T) {
	f, env := serveDiscovery(t)
	f.flows = 3
	code, out, errs := run(t, env, "preview", "ingress", "--samples", "3", "--service", "shop", "--filter", `labels.user == "ann"`)
	at := time.Unix(1e9, 0).Format("15:04:05.000")
	want := "1  " + at + `  shop
   ADMIT: admitted
   empty      ""
   user       ann
 + long       ` + strings.Repeat("x", 119) + `…
 ~ tier       free → paid
 + user_type  gold·[2J
2  ` + at + `
   DENY: policy tiers: too·many
   empty  ""
   tier   free
   user   ann
 ! classifier 1 of policy gold: eval_failed: division by zero
3  ` + at + `  shop
   no labels
`
	if code != 0 || out != want || errs != "" {
		t.Errorf("got %d\n%s%s, want\n%s", code, out, errs, want)
	}
	if in := f.preview; in.GetControlPoint() != "ingress" || in.GetSamples() != 3 || in.GetService() != "shop" || in.GetFilter() != `labels.user == "ann"` {
		t.Errorf("asked for %v", in)
	}
	if f.preview.GetDeniedOnly() {
		t.Error("asked for denied flows only")
	}
	_, out, _ = run(t, env, "preview", "ingress", "-n", "2", "--changed", "--denied")
	if !f.preview.GetDeniedOnly() {
		t.Error("with --denied: asked for all flows")
	}
	if strings.Contains(out, "user ") || !strings.Contains(out, " ~ tier ") || !strings.Contains(out, "classifiers made no labels") {
		t.Errorf("with --changed: got\n%s", out)
	}
	code, out, _ = run(t, env, "preview", "ingress", "-n", "3", "-o", "json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var last map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); code != 0 || err != nil || len(lines) != 3 || last["http"].(map[string]any)["parsed_path"] == nil || last["labels_before"] == nil {
		t.Errorf("got %d %s, %v", code, out, err)
	}
	if _, out, _ := run(t, env, "preview", "ingress", "-n", "2", "-o", "yaml"); strings.Count(out, "---\n") != 2 || !strings.Contains(out, "  user_type: ") {
		t.Errorf("got %s", out)
	}
}

func TestPreviewEnds(t *testing.T) {
	f, env := serveDiscovery(t)
	f.flows, f.ends = 2, true
	if code, _, errs := run(t, env, "preview", "ingress"); code != 1 || !strings.Contains(errs, "the server ended the preview after 2 of 10 flows: is it stopping?") {
		t.Errorf("the server ends it: got %d %q", code, errs)
	}
	f.ends = false
	if code, _, errs := run(t, env, "preview", "ingress", "--timeout", "300ms"); code != 0 || errs != "ended after 2 of 10 flows\n" {
		t.Errorf("with a time-out: got %d %q", code, errs)
	}
	f.flows = 0
	if code, out, errs := run(t, env, "preview", "ingress", "--timeout", "100ms"); code != 0 || out != "" || errs != "ended after 0 of 10 flows\n" {
		t.Errorf("without flows: got %d %q %q", code, out, errs)
	}
	for want, args := range map[string][]string{
		"--samples: got 0, want 1 to 1000":         {"x", "-n", "0"},
		"--samples: got 1001":                      {"x", "-n", "1001"},
		"--timeout: got -1s":                       {"x", "--timeout", "-1s"},
		"got 0 arguments, want the name":           {},
		"filter: 1:1: undeclared reference":        {"x", "--filter", "bad"},
		"cannot reach the server at http://127.0.": {"x", "--server", "127.0.0.1:1"},
	} {
		if code, _, errs := run(t, env, append([]string{"preview"}, args...)...); code != 1 || !strings.Contains(errs, want) {
			t.Errorf("%v: got %d %q, want %q", args, code, errs, want)
		}
	}
}

// safeBuffer may be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestPreviewInterrupted: Ctrl-C ends it cleanly, and the line that counts is gone.
func TestPreviewInterrupted(t *testing.T) {
	f, env := serveDiscovery(t)
	f.flows, f.sent = 1, make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs safeBuffer
	done := make(chan int)
	go func() {
		done <- Main(ctx, Env{Args: []string{"preview", "ingress"}, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Environ: env, Progress: true})
	}()
	<-f.sent
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(errs.String(), "1 of 10"); {
		if time.Now().After(deadline) {
			t.Fatalf("the progress is %q", errs.String())
		}
	}
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("got the exit code %d", code)
	}
	const clear = "\r\x1b[K"
	if got, want := errs.String(), "0 of 10 flows at ingress; Ctrl-C ends"+clear+"1 of 10 flows at ingress; Ctrl-C ends"+clear+"ended after 1 of 10 flows\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
