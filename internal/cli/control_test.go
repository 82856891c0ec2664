// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "github.com/sluice-project/sluice/api/gen/sluice/control/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/control/v1/controlv1connect"
	policyv1 "github.com/sluice-project/sluice/api/gen/sluice/policy/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/policy/v1/policyv1connect"
)

// fakeControl is a server with one policy, "checkout".
type fakeControl struct {
	controlv1connect.UnimplementedControlServiceHandler
	policyv1connect.UnimplementedPolicyServiceHandler

	config map[string]any
	asked  *controlv1.ListAlertsRequest
}

func (f *fakeControl) known(policy string) error {
	if policy != "checkout" {
		return connect.NewError(connect.CodeNotFound, errors.New("no policy is called \""+policy+"\""))
	}
	return nil
}

func (f *fakeControl) GetCircuit(_ context.Context, in *connect.Request[controlv1.GetCircuitRequest]) (*connect.Response[controlv1.GetCircuitResponse], error) {
	most := 2.0
	return connect.NewResponse(&controlv1.GetCircuitResponse{Circuit: &controlv1.Circuit{
		Policy: "checkout", IntervalSeconds: 1,
		Components: []*controlv1.CircuitComponent{
			{Id: "root.0", Kind: "promql", Status: "no series matches", Outputs: []*controlv1.Port{{Name: "output", Signal: "A", Circuit: "root"}}},
			{Id: "root.1", Kind: "max", Status: "running", Inputs: []*controlv1.Port{{Name: "input", Signal: "A", Circuit: "root"}, {Name: "input", Constant: &most}}},
		},
	}}), f.known(in.Msg.GetPolicy())
}

func (f *fakeControl) WatchSignals(_ context.Context, in *connect.Request[controlv1.WatchSignalsRequest], s *connect.ServerStream[controlv1.WatchSignalsResponse]) error {
	if err := f.known(in.Msg.GetPolicy()); err != nil {
		return err
	}
	for i := range 3 {
		err := s.Send(&controlv1.WatchSignalsResponse{
			Signals: []*controlv1.Signal{{Name: "A", Circuit: "root"}, {Name: "B", Circuit: "root.1"}},
			Frames:  []*controlv1.Frame{{Tick: uint64(i), Time: timestamppb.New(time.Unix(int64(i), 0)), Values: []float64{float64(i), 7}}},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeControl) GetDynamicConfig(_ context.Context, in *connect.Request[controlv1.GetDynamicConfigRequest]) (*connect.Response[controlv1.GetDynamicConfigResponse], error) {
	config, err := structpb.NewStruct(f.config)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&controlv1.GetDynamicConfigResponse{Config: config, Keys: []*controlv1.ConfigKey{
		{Key: "dry_run", Component: "root.0", Type: "boolean", Description: "compute, and do nothing"},
		{Key: "setpoint", Component: "root.1", Type: "number"},
		{Key: "users", Component: "root.2", Type: "list of strings"},
	}}), f.known(in.Msg.GetPolicy())
}

func (f *fakeControl) SetDynamicConfig(_ context.Context, in *connect.Request[controlv1.SetDynamicConfigRequest]) (*connect.Response[controlv1.SetDynamicConfigResponse], error) {
	f.config = in.Msg.GetConfig().AsMap()
	return connect.NewResponse(&controlv1.SetDynamicConfigResponse{Config: in.Msg.GetConfig()}), f.known(in.Msg.GetPolicy())
}

func (f *fakeControl) DeleteDynamicConfig(_ context.Context, in *connect.Request[controlv1.DeleteDynamicConfigRequest]) (*connect.Response[controlv1.DeleteDynamicConfigResponse], error) {
	f.config = nil
	return connect.NewResponse(&controlv1.DeleteDynamicConfigResponse{}), f.known(in.Msg.GetPolicy())
}

func (f *fakeControl) ListAlerts(_ context.Context, in *connect.Request[controlv1.ListAlertsRequest]) (*connect.Response[controlv1.ListAlertsResponse], error) {
	f.asked = in.Msg
	first := &controlv1.Alert{
		Id: "1", Name: "load is \x1b[31mshed", Severity: "crit", State: "firing", Policy: "checkout", Component: "root.2",
		StartTime: timestamppb.New(time.Unix(1e9, 0)), DeliveryError: "connection refused",
	}
	second := &controlv1.Alert{Id: "2", Name: "old", Severity: "info", State: "resolved", Policy: "checkout", EndTime: timestamppb.New(time.Unix(1e9, 0))}
	if in.Msg.GetPageToken() == "" {
		return connect.NewResponse(&controlv1.ListAlertsResponse{Alerts: []*controlv1.Alert{first}, NextPageToken: "more"}), nil
	}
	return connect.NewResponse(&controlv1.ListAlertsResponse{Alerts: []*controlv1.Alert{second}}), nil
}

func (f *fakeControl) GetPolicy(_ context.Context, in *connect.Request[policyv1.GetPolicyRequest]) (*connect.Response[policyv1.GetPolicyResponse], error) {
	return connect.NewResponse(&policyv1.GetPolicyResponse{Policy: &policyv1.Policy{
		Name: "checkout", Blueprint: "rate-limiting/base",
		Document: "policy:\n  policy_name: checkout\n  rate_limiter:\n    bucket_capacity: 10\n    fill_amount: 1\n    parameters: {interval: 1s}\n    selectors: [{control_point: checkout}]\n",
	}}), f.known(in.Msg.GetName())
}

func serveControl(t *testing.T) (*fakeControl, []string) {
	t.Helper()
	f := &fakeControl{}
	mux := http.NewServeMux()
	mux.Handle(controlv1connect.NewControlServiceHandler(f))
	mux.Handle(policyv1connect.NewPolicyServiceHandler(f))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return f, []string{"SLUICE_SERVER=" + s.URL}
}

func TestConfigSet(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want map[string]any // nil: refused
		errs string
	}{
		{[]string{"dry_run=true"}, map[string]any{"dry_run": true, "setpoint": 5.0}, ""},
		{[]string{"setpoint=2.5e2", "users=a, b"}, map[string]any{"setpoint": 250.0, "users": []any{"a", "b"}}, ""},
		{[]string{`users=["a,b", "c"]`}, map[string]any{"setpoint": 5.0, "users": []any{"a,b", "c"}}, ""},
		{[]string{"users="}, map[string]any{"setpoint": 5.0, "users": []any{}}, ""},
		{[]string{"dry_run=yes"}, nil, `dry_run: got "yes", want true or false`},
		{[]string{"setpoint=NaN"}, nil, `setpoint: got "NaN", want a finite number`},
		{[]string{"setpoint=much"}, nil, `setpoint: got "much"`},
		{[]string{"users=[1]"}, nil, "users: got 1 in the list, want texts only"},
		{[]string{"users=[1"}, nil, `users: got "[1"`},
		{[]string{"dryrun=true"}, nil, `does not read the key "dryrun"; did you mean "dry_run"?`},
		{[]string{"dry_run"}, nil, `got "dry_run", want KEY=VALUE`},
	} {
		f, env := serveControl(t)
		f.config = map[string]any{"setpoint": 5.0}
		code, out, errs := run(t, env, append([]string{"policy", "config", "set", "checkout"}, tt.args...)...)
		if tt.want == nil {
			if code != 1 || !strings.Contains(errs, tt.errs) || len(f.config) != 1 {
				t.Errorf("%v: got %d %q, config %v, want it refused with %q", tt.args, code, errs, f.config, tt.errs)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, f.config); diff != "" || code != 0 || !strings.Contains(out, "KEY") {
			t.Errorf("%v: got %d %q %q: %s", tt.args, code, out, errs, diff)
		}
	}
}

func TestConfigGetAndDelete(t *testing.T) {
	f, env := serveControl(t)
	f.config = map[string]any{"setpoint": 5.0, "users": []any{"a"}, "old": "x"}
	_, out, _ := run(t, env, "policy", "config", "get", "checkout")
	for _, want := range []string{"setpoint  5 ", `users     ["a"]`, "dry_run   as the policy says", "old       x ", "no component reads it"} {
		if !strings.Contains(out, want) {
			t.Errorf("got %q, want %q in it", out, want)
		}
	}
	if code, _, errs := run(t, env, "policy", "config", "delete", "checkout", "users"); code != 0 || len(f.config) != 2 {
		t.Errorf("got %d %q, config %v", code, errs, f.config)
	}
	if code, _, errs := run(t, env, "policy", "config", "delete", "checkout", "dry_run"); code != 1 || !strings.Contains(errs, "is not set") {
		t.Errorf("got %d %q", code, errs)
	}
	if code, out, _ := run(t, env, "policy", "config", "delete", "checkout"); code != 0 || f.config != nil || !strings.Contains(out, "all settings") {
		t.Errorf("got %d %q, config %v", code, out, f.config)
	}
	if code, _, errs := run(t, env, "policy", "config", "get", "other"); code != 1 || errs != "sluice: no policy is called \"other\"\n" {
		t.Errorf("got %d %q", code, errs)
	}
}

func TestAlerts(t *testing.T) {
	f, env := serveControl(t)
	code, out, _ := run(t, env, "alerts", "--policy", "checkout", "--state", "firing", "--limit", "2")
	if code != 0 || strings.Contains(out, "\x1b") || !strings.Contains(out, "not delivered: connection refused") || strings.Count(out, "\n") != 3 {
		t.Errorf("got %d %q", code, out)
	}
	if f.asked.GetPolicy() != "checkout" || f.asked.GetState() != "firing" || f.asked.GetPageSize() != 1 || f.asked.GetPageToken() != "more" {
		t.Errorf("asked %v", f.asked)
	}
	_, out, _ = run(t, env, "alerts", "-o", "json")
	var list []map[string]any
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 2 || list[0]["severity"] != "crit" || list[1]["end_time"] == "" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestGraph(t *testing.T) {
	_, env := serveControl(t)
	code, out, _ := run(t, env, "policy", "graph", "checkout")
	for _, want := range []string{"flowchart LR", "no series matches", `-->|"A → input"|`, "input = 2"} {
		if !strings.Contains(out, want) {
			t.Errorf("got %d %s, want %q in it", code, out, want)
		}
	}
	file := filepath.Join(t.TempDir(), "x.svg")
	if code, out, errs := run(t, env, "policy", "graph", "checkout", "-o", file); code != 0 || out+errs != "" {
		t.Errorf("got %d %q %q", code, out, errs)
	}
	text, err := os.ReadFile(file)
	if err != nil || xml.Unmarshal(text, new(struct{})) != nil || !strings.HasPrefix(string(text), "<svg ") {
		t.Errorf("got %v %s", err, text)
	}
	// A file needs no server.
	code, out, errs := run(t, nil, "policy", "graph", "-f", "../../examples/policy-tests/checkout.yaml", "--format", "dot", "--depth", "2")
	if code != 0 || !strings.HasPrefix(out, "digraph") || !strings.Contains(out, "cluster_n0") {
		t.Errorf("got %d %q %q", code, out, errs)
	}
	code, _, errs = run(t, nil, "policy", "graph", "-f", "../policy/testdata/nothing.yaml")
	if code != 1 || !strings.Contains(errs, "no such file") {
		t.Errorf("got %d %q", code, errs)
	}
}

func TestDashboard(t *testing.T) {
	_, env := serveControl(t)
	dir := filepath.Join(t.TempDir(), "new", "dashboards")
	code, out, errs := run(t, env, "dashboard", "checkout", "--output-dir", dir, "--datasource", "mine", "-o", "json")
	var written []dashboardInfo
	if err := json.Unmarshal([]byte(out), &written); code != 0 || err != nil || len(written) != 2 {
		t.Fatalf("got %d %q %q", code, out, errs)
	}
	for _, w := range written {
		text, err := os.ReadFile(w.File)
		if err != nil || !strings.Contains(string(text), `"text": "mine"`) || !json.Valid(text) {
			t.Errorf("%s: %v", w.File, err)
		}
	}
	code, out, errs = run(t, nil, "dashboard", "-f", "../../examples/policies", "--output-dir", dir)
	if code != 0 || strings.Count(out, "Policy Summary") < 3 {
		t.Errorf("got %d %q %q", code, out, errs)
	}
}

func TestWatch(t *testing.T) {
	_, env := serveControl(t)
	code, out, errs := run(t, env, "policy", "watch", "checkout", "--signals", "B", "--ticks", "2")
	want := `{"tick":0,"time":"1970-01-01T00:00:00Z","signals":{"root.1/B":7}}` + "\n" + `{"tick":1,"time":"1970-01-01T00:00:01Z","signals":{"root.1/B":7}}` + "\n"
	if code != 0 || out != want {
		t.Errorf("got %d %q %q", code, out, errs)
	}
	code, out, errs = run(t, env, "policy", "watch", "checkout", "-o", "json")
	if code != 1 || strings.Count(out, "\n") != 3 || !strings.Contains(errs, "ended the stream") {
		t.Errorf("got %d %q %q", code, out, errs)
	}
	if code, _, errs := run(t, env, "policy", "watch", "other"); code != 1 || !strings.Contains(errs, `no policy is called "other"`) {
		t.Errorf("got %d %q", code, errs)
	}
}

func TestPolicyTest(t *testing.T) {
	code, out, errs := run(t, nil, "policy", "test", "../../examples/policy-tests")
	if code != 0 || strings.Count(out, "ok   ") != 2 || errs != "" {
		t.Errorf("got %d %q %q", code, out, errs)
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "p_test.yaml")
	text := `
document:
  circuit:
    components:
      - variable: {constant_output: {value: 1}, out_ports: {output: {signal_name: "<A>"}}}
cases:
  - name: right
    steps: [{at: 0, expect: {"<A>": 1}}]
  - name: wrong & odd
    steps: [{at: 0..3, expect: {"<A>": 2}}]
`
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	code, out, _ = run(t, nil, "policy", "test", dir)
	for _, want := range []string{"--- FAIL: wrong & odd (" + script + ":9)", script + `:10:40: tick 0: <A>: got 1, want 2`, ">    0    1", "1 of 2 cases failed"} {
		if code != 1 || !strings.Contains(out, want) {
			t.Errorf("got %d %s\nwant %q in it", code, out, want)
		}
	}
	if code, out, _ = run(t, nil, "policy", "test", dir, "--run", "^right$", "-v"); code != 0 || !strings.Contains(out, "--- PASS: right") {
		t.Errorf("got %d %s", code, out)
	}
	if code, _, errs = run(t, nil, "policy", "test", dir, "--run", "nothing"); code != 1 || !strings.Contains(errs, "no case of") {
		t.Errorf("got %d %s", code, errs)
	}
	checkReports(t, dir)
}

// checkReports reads the formats for programs.
func checkReports(t *testing.T, dir string) {
	t.Helper()
	code, out, _ := run(t, nil, "policy", "test", dir, "-o", "json")
	var reports []testReport
	if err := json.Unmarshal([]byte(out), &reports); err != nil || code != 1 || reports[0].Passed || !reports[0].Cases[0].Passed || reports[0].Cases[1].Failures[0].Got != "1" {
		t.Errorf("%v: got %d %s", err, code, out)
	}
	code, out, _ = run(t, nil, "policy", "test", dir, "-o", "junit")
	var suites junitSuites
	if err := xml.Unmarshal([]byte(out), &suites); err != nil || code != 1 || suites.Suites[0].Tests != 2 || suites.Suites[0].Failures != 1 {
		t.Errorf("%v: got %d %s", err, code, out)
	}
	broken := filepath.Join(dir, "broken_test.yaml")
	if err := os.WriteFile(broken, []byte("polcy: x\ncases: [{name: a, steps: [{at: 0}]}]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	code, out, _ = run(t, nil, "policy", "test", broken)
	if code != 1 || !strings.Contains(out, broken+`:1:1: polcy: unknown field; did you mean "policy"?`) {
		t.Errorf("got %d %s", code, out)
	}
	code, out, _ = run(t, nil, "policy", "test", broken, "-o", "junit")
	if err := xml.Unmarshal([]byte(out), &suites); err != nil || code != 1 || !strings.Contains(out, `errors="1"`) {
		t.Errorf("%v: got %d %s", err, code, out)
	}
}

func TestControlUsageErrors(t *testing.T) {
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"want the name of a policy in force, or -f FILE", []string{"policy", "graph"}},
		{"want one of them", []string{"policy", "graph", "p", "-f", "x"}},
		{"want one policy", []string{"policy", "graph", "p", "q"}},
		{`--format: got "svgg", want mermaid, dot, svg; did you mean "svg"?`, []string{"policy", "graph", "p", "--format", "svgg"}},
		{"does not tell the format", []string{"policy", "graph", "p", "-o", "x.png"}},
		{"--depth: got -1", []string{"policy", "graph", "p", "--depth", "-1"}},
		{"want a script or a directory", []string{"policy", "test"}},
		{"--output: got \"xml\"", []string{"policy", "test", "x", "-o", "xml"}},
		{"--run: got \"(\"", []string{"policy", "test", ".", "--run", "("}},
		{"no file in this directory", []string{"policy", "test", "."}},
		{"--ticks: got -1", []string{"policy", "watch", "p", "--ticks", "-1"}},
		{"got yaml", []string{"policy", "watch", "p", "-o", "yaml"}},
		{"--state: got \"open\"", []string{"alerts", "--state", "open"}},
		{"--limit: got 0", []string{"alerts", "--limit", "0"}},
		{"want the name of a policy and KEY=VALUE", []string{"policy", "config", "set", "p"}},
		{"want the name of a policy in force", []string{"dashboard"}},
		{"has no command", []string{"policy", "config", "gte"}},
	} {
		code, _, errs := run(t, nil, tt.args...)
		if code != 1 || !strings.Contains(errs, tt.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: got %d %q, want %q", tt.args, code, errs, tt.want)
		}
	}
}
