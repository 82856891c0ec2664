// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	controlv1 "github.com/sluice-project/sluice/api/gen/sluice/control/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/control/v1/controlv1connect"
	"github.com/sluice-project/sluice/internal/alert"
	"github.com/sluice-project/sluice/internal/control"
	"github.com/sluice-project/sluice/internal/policy"
)

// tuned is a policy whose limit is moved by dynamic configuration. NOTHING is always invalid, and the
// alerter fires while ALARM is true.
const tuned = `policy_name: NAME
circuit:
  evaluation_interval: 1s
  components:
    - variable: {constant_output: {value: 5}, config_key: slots, out_ports: {output: {signal_name: SLOTS}}}
    - variable: {constant_output: {special_value: NaN}, out_ports: {output: {signal_name: NOTHING}}}
    - first_valid: {in_ports: {inputs: [{signal_name: NOTHING}, {signal_name: SLOTS}]}, out_ports: {output: {signal_name: MOST}}}
    - bool_variable: {constant_output: false, config_key: alarm, out_ports: {output: {signal_name: ALARM}}}
    - alerter:
        in_ports: {signal: {signal_name: ALARM}}
        parameters: {alert_name: Watch out, severity: warn, resolve_timeout: 3s}
    - nested_circuit:
        in_ports_map: {in: {signal_name: SLOTS}}
        components:
          - nested_signal_ingress: {port_name: in, out_ports: {signal: {signal_name: PRIVATE}}}
          - unary_operator: {operator: sqrt, in_ports: {input: {signal_name: PRIVATE}}, out_ports: {output: {signal_name: ROOT}}}
    - flow_control:
        concurrency_limiter:
          in_ports: {max_concurrency: {signal_name: MOST}, pass_through: {constant_signal: {value: 0}}}
          request_parameters: {}
          parameters: {max_inflight_duration: 60s}
          selectors: [{control_point: door}]
`

// controlled is a ControlService with running circuits in virtual time.
type controlled struct {
	*ControlService
	t     *testing.T
	store *configStore
	set   []*control.Program
}

// configStore keeps dynamic configuration, or fails to.
type configStore struct{ broken atomic.Bool }

func (*configStore) LoadDynamicConfig(context.Context, string) (map[string]any, error) {
	return nil, nil
}

func (s *configStore) SaveDynamicConfig(context.Context, string, map[string]any) error {
	if s.broken.Load() {
		return errors.New("the disk is full")
	}
	return nil
}

func (s *configStore) DeleteDynamicConfig(ctx context.Context, policy string) error {
	return s.SaveDynamicConfig(ctx, policy, nil)
}

// inControl runs a test with policies in force that have ticked three times.
func inControl(t *testing.T, test func(t *testing.T, c *controlled)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		alerts, err := alert.New(alert.Config{})
		if err != nil {
			t.Fatal(err)
		}
		c := &controlled{t: t, store: &configStore{}}
		runtime := control.New(control.Config{Alerts: alerts, Store: c.store})
		c.ControlService = NewControlService(runtime, alerts)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{}, 2)
		go func() { _ = runtime.Run(ctx); done <- struct{}{} }()
		go func() { _ = alerts.Run(ctx); done <- struct{}{} }()
		defer func() { cancel(); <-done; <-done }()
		c.publish("tuned", "other")
		time.Sleep(2500 * time.Millisecond)
		test(t, c)
	})
}

// publish replaces the policies in force.
func (c *controlled) publish(names ...string) {
	c.t.Helper()
	c.set = nil
	for _, name := range names {
		doc, err := policy.Parse(policy.Source{File: name + ".yaml", Text: []byte(strings.Replace(tuned, "NAME", name, 1))})
		if err != nil {
			c.t.Fatal(err)
		}
		p, err := control.Compile(doc)
		if err != nil {
			c.t.Fatal(err)
		}
		c.set = append(c.set, p)
	}
	if err := c.runtime.Publish(c.t.Context(), c.set); err != nil {
		c.t.Fatal(err)
	}
}

// config makes dynamic configuration.
func config(t *testing.T, values map[string]any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(values)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantError compares the code of an error, and looks for a text in its message.
func wantError(t *testing.T, what string, err error, code codes.Code, text string) {
	t.Helper()
	st := status.Convert(err)
	if st.Code() != code || !strings.Contains(st.Message(), text) {
		t.Errorf("%s: got %v, want %v with %q", what, err, code, text)
	}
	if strings.Contains(st.Message(), "rpc error") {
		t.Errorf("%s: the message is one for programmers: %s", what, st.Message())
	}
}

// TestControlNeedsAPolicy: every method that is about a policy says so when none, or one that is not there,
// is named.
func TestControlNeedsAPolicy(t *testing.T) {
	inControl(t, func(t *testing.T, c *controlled) {
		ctx := t.Context()
		for method, call := range map[string]func(policy string) error{
			"GetCircuit": func(p string) error {
				_, err := c.GetCircuit(ctx, &controlv1.GetCircuitRequest{Policy: p})
				return err
			},
			"GetSignals": func(p string) error {
				_, err := c.GetSignals(ctx, &controlv1.GetSignalsRequest{Policy: p})
				return err
			},
			"WatchSignals": func(p string) error {
				return c.watch(ctx, &controlv1.WatchSignalsRequest{Policy: p}, nil)
			},
			"GetDynamicConfig": func(p string) error {
				_, err := c.GetDynamicConfig(ctx, &controlv1.GetDynamicConfigRequest{Policy: p})
				return err
			},
			"SetDynamicConfig": func(p string) error {
				_, err := c.SetDynamicConfig(ctx, &controlv1.SetDynamicConfigRequest{Policy: p})
				return err
			},
			"DeleteDynamicConfig": func(p string) error {
				_, err := c.DeleteDynamicConfig(ctx, &controlv1.DeleteDynamicConfigRequest{Policy: p})
				return err
			},
		} {
			wantError(t, method, call(""), codes.InvalidArgument, "policy is empty")
			wantError(t, method, call("nobody"), codes.NotFound, `"nobody"`)
		}
	})
}

func TestGetCircuit(t *testing.T) {
	inControl(t, func(t *testing.T, c *controlled) {
		got, err := c.GetCircuit(t.Context(), &controlv1.GetCircuitRequest{Policy: "tuned"})
		if err != nil {
			t.Fatal(err)
		}
		k := got.Circuit
		if k.Policy != "tuned" || k.Hash != c.set[0].Hash || k.IntervalSeconds != 1 || k.Ticks != 3 || k.SkippedTicks != 0 ||
			k.Stopped != "" || k.LastTick == nil || k.LastTickSeconds < 0 {
			t.Errorf("got %v", k)
		}
		byID := map[string]*controlv1.CircuitComponent{}
		for _, p := range k.Components {
			byID[p.Id] = p
			if p.Status != control.Running {
				t.Errorf("%s: got status %q", p.Id, p.Status)
			}
		}
		if p := byID["root.2"]; p == nil || p.Kind != "first_valid" || len(p.Inputs) != 2 || p.Inputs[1].Signal != "SLOTS" ||
			p.Inputs[1].Circuit != "root" || p.Inputs[1].Constant != nil || p.Outputs[0].Signal != "MOST" {
			t.Errorf("got %v", p)
		}
		if p := byID["root.5.1"]; p == nil || p.Parent != "root.5" || p.Outputs[0].Circuit != "root.5" {
			t.Errorf("got %v", p)
		}
		if p := byID["root.6"]; p == nil || p.Inputs[1].Constant == nil || *p.Inputs[1].Constant != 0 {
			t.Errorf("got %v, want the constant 0, which is not the same as none", p)
		}
	})
}

func TestGetSignals(t *testing.T) {
	inControl(t, func(t *testing.T, c *controlled) {
		for _, tt := range []struct {
			ticks   int32
			all     bool
			signals int
			first   uint64
			frames  int
		}{{0, false, 4, 0, 3}, {2, false, 4, 1, 2}, {1000, false, 4, 0, 3}, {1, true, 7, 2, 1}} {
			got, err := c.GetSignals(t.Context(), &controlv1.GetSignalsRequest{Policy: "tuned", Ticks: tt.ticks, All: tt.all})
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Signals) != tt.signals || len(got.Frames) != tt.frames || got.Frames[0].Tick != tt.first {
				t.Errorf("%+v: got %v", tt, got)
			}
			for _, f := range got.Frames {
				if len(f.Values) != len(got.Signals) {
					t.Errorf("%+v: %d readings of %d signals", tt, len(f.Values), len(got.Signals))
				}
				for i, s := range got.Signals {
					want := map[string]float64{"SLOTS": 5, "NOTHING": math.NaN(), "MOST": 5, "ALARM": 0, "PRIVATE": 5, "ROOT": math.Sqrt(5), "ACCEPT_PERCENTAGE": math.NaN()}[s.Name]
					if v := f.Values[i]; v != want && !(math.IsNaN(v) && math.IsNaN(want)) {
						t.Errorf("%v: got %v, want %v", s, v, want)
					}
				}
			}
		}
		_, err := c.GetSignals(t.Context(), &controlv1.GetSignalsRequest{Policy: "tuned", Ticks: -1})
		wantError(t, "ticks", err, codes.InvalidArgument, "ticks is -1")
		err = c.watch(t.Context(), &controlv1.WatchSignalsRequest{Policy: "tuned", Ticks: -7}, nil)
		wantError(t, "ticks", err, codes.InvalidArgument, "ticks is -7")
	})
}

// TestWatchSignals follows a policy until its end.
func TestWatchSignals(t *testing.T) {
	inControl(t, func(t *testing.T, c *controlled) {
		var got []*controlv1.WatchSignalsResponse
		err := c.watch(t.Context(), &controlv1.WatchSignalsRequest{Policy: "tuned", Ticks: 2}, func(m *controlv1.WatchSignalsResponse) error {
			got = append(got, m)
			if len(got) == 4 {
				time.Sleep(time.Millisecond) // between two ticks
				c.publish("other")
			}
			return nil
		})
		wantError(t, "deleted", err, codes.NotFound, `"tuned"`)
		if len(got) != 4 || len(got[0].Signals) != 4 || len(got[0].Frames) != 2 || got[0].Frames[0].Tick != 1 {
			t.Fatalf("got %v", got)
		}
		for i, m := range got[1:] {
			if len(m.Signals) != 0 || len(m.Frames) != 1 || m.Frames[0].Tick != uint64(3+i) || m.Missed != 0 {
				t.Errorf("message %d: got %v, want one tick", i+1, m)
			}
		}
	})
}

func TestWatchSignalsEnds(t *testing.T) {
	inControl(t, func(t *testing.T, c *controlled) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		messages := 0
		err := c.watch(ctx, &controlv1.WatchSignalsRequest{Policy: "tuned"}, func(*controlv1.WatchSignalsResponse) error {
			messages++
			return nil
		})
		if status.Code(err) != codes.Canceled || messages != 2 {
			t.Errorf("cancelled: got %v after %d messages, want 2", err, messages)
		}
		gone := status.Error(codes.Unavailable, "the client has gone")
		err = c.watch(t.Context(), &controlv1.WatchSignalsRequest{Policy: "tuned"}, func(*controlv1.WatchSignalsResponse) error { return gone })
		if err == nil {
			t.Error("a watch went on after a message could not be sent")
		}
	})
}

// TestWatchAcrossAReplacement: the signals of the new version are named.
func TestWatchAcrossAReplacement(t *testing.T) {
	inControl(t, func(t *testing.T, c *controlled) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var named int
		_ = c.watch(ctx, &controlv1.WatchSignalsRequest{Policy: "tuned", Ticks: 1}, func(m *controlv1.WatchSignalsResponse) error {
			if len(m.Signals) == 0 {
				return nil
			}
			if named++; named == 2 {
				cancel()
				return nil
			}
			doc, err := policy.Parse(policy.Source{File: "tuned.yaml", Text: []byte(strings.NewReplacer("NAME", "tuned", "value: 5", "value: 6").Replace(tuned))})
			if err != nil {
				return err
			}
			p, err := control.Compile(doc)
			if err != nil {
				return err
			}
			return c.runtime.Publish(ctx, []*control.Program{p})
		})
		if named != 2 {
			t.Errorf("the signals were named %d times, want 2", named)
		}
	})
}

func TestDynamicConfig(t *testing.T) {
	inControl(t, func(t *testing.T, c *controlled) {
		ctx := t.Context()
		get := func() *controlv1.GetDynamicConfigResponse {
			t.Helper()
			got, err := c.GetDynamicConfig(ctx, &controlv1.GetDynamicConfigRequest{Policy: "tuned"})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		set := func(values map[string]any) error {
			_, err := c.SetDynamicConfig(ctx, &controlv1.SetDynamicConfigRequest{Policy: "tuned", Config: config(t, values)})
			return err
		}
		slots := func() float64 {
			t.Helper()
			time.Sleep(time.Second)
			got, err := c.GetSignals(ctx, &controlv1.GetSignalsRequest{Policy: "tuned", Ticks: 1})
			if err != nil {
				t.Fatal(err)
			}
			for i, s := range got.Signals {
				if s.Name == "SLOTS" {
					return got.Frames[0].Values[i]
				}
			}
			return math.NaN()
		}
		if got := get(); len(got.Config.GetFields()) != 0 || len(got.Keys) != 2 || got.Keys[0].Key != "slots" || got.Keys[0].Type != "number" ||
			got.Keys[0].Component != "root.0" || got.Keys[0].Description == "" || got.Keys[1].Type != "boolean" {
			t.Errorf("got %v", got)
		}
		if err := set(map[string]any{"slots": 9}); err != nil || slots() != 9 {
			t.Errorf("got %v and %v slots, want 9", err, slots())
		}
		// What is wrong is refused whole, and says what is wrong.
		wantError(t, "unknown key", set(map[string]any{"slots": 3, "slot": 1}), codes.InvalidArgument, `did you mean "slots"?`)
		wantError(t, "wrong type", set(map[string]any{"slots": "many"}), codes.InvalidArgument, "slots")
		wantError(t, "wrong type", set(map[string]any{"slots": 3, "alarm": 1}), codes.InvalidArgument, "alarm")
		wantError(t, "null", set(map[string]any{"slots": nil}), codes.InvalidArgument, "slots")
		c.store.broken.Store(true)
		wantError(t, "no disk", set(map[string]any{"slots": 3}), codes.Unavailable, "nothing has changed")
		_, err := c.DeleteDynamicConfig(ctx, &controlv1.DeleteDynamicConfigRequest{Policy: "tuned"})
		wantError(t, "no disk", err, codes.Unavailable, "cannot be deleted")
		c.store.broken.Store(false)
		if got := get(); got.Config.Fields["slots"].GetNumberValue() != 9 || len(got.Config.Fields) != 1 || slots() != 9 {
			t.Errorf("got %v and %v slots, want what was set", got, slots())
		}
		// Keys that are missing go back to the document.
		out, err := c.SetDynamicConfig(ctx, &controlv1.SetDynamicConfigRequest{Policy: "tuned", Config: config(t, map[string]any{"alarm": false})})
		if err != nil || len(out.Config.Fields) != 1 || slots() != 5 {
			t.Errorf("got %v, %v and %v slots, want 5", out, err, slots())
		}
		if err := set(map[string]any{"slots": 8}); err != nil {
			t.Fatal(err)
		}
		for range 2 { // deleting nothing is no error
			if _, err := c.DeleteDynamicConfig(ctx, &controlv1.DeleteDynamicConfigRequest{Policy: "tuned"}); err != nil {
				t.Error(err)
			}
			if got := get(); len(got.Config.GetFields()) != 0 || slots() != 5 {
				t.Errorf("got %v and %v slots, want nothing set and 5", got, slots())
			}
		}
		// No configuration at all is an empty one.
		if _, err := c.SetDynamicConfig(ctx, &controlv1.SetDynamicConfigRequest{Policy: "tuned"}); err != nil {
			t.Error(err)
		}
	})
}

func TestListAlerts(t *testing.T) {
	inControl(t, func(t *testing.T, c *controlled) {
		ctx := t.Context()
		list := func(in *controlv1.ListAlertsRequest) *controlv1.ListAlertsResponse {
			t.Helper()
			got, err := c.ListAlerts(ctx, in)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		alarm := func(policy string, on bool) {
			t.Helper()
			_, err := c.SetDynamicConfig(ctx, &controlv1.SetDynamicConfigRequest{Policy: policy, Config: config(t, map[string]any{"alarm": on})})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
		}
		if got := list(&controlv1.ListAlertsRequest{}); len(got.Alerts) != 0 || got.NextPageToken != "" {
			t.Errorf("got %v, want none", got)
		}
		alarm("other", true)
		alarm("other", false)
		alarm("tuned", true)
		got := list(&controlv1.ListAlertsRequest{State: "resolved"})
		if len(got.Alerts) != 1 {
			t.Fatalf("got %v", got)
		}
		if a := got.Alerts[0]; a.Name != "Watch out" || a.Severity != "warn" || a.State != "resolved" || a.Policy != "other" || a.Component != "root.4" ||
			a.Id == "" || a.Labels["policy_name"] != "other" || a.StartTime == nil || a.EndTime == nil || a.LastTime == nil || a.DeliveryError != "" {
			t.Errorf("got %v", a)
		}
		firing := list(&controlv1.ListAlertsRequest{Policy: "tuned"})
		if len(firing.Alerts) != 1 || firing.Alerts[0].State != "firing" || firing.Alerts[0].EndTime != nil {
			t.Errorf("got %v, want one that fires, without an end", firing)
		}
		// The newest first, page by page.
		page := list(&controlv1.ListAlertsRequest{PageSize: 1})
		if len(page.Alerts) != 1 || page.Alerts[0].Policy != "tuned" || page.NextPageToken == "" {
			t.Fatalf("got %v", page)
		}
		page = list(&controlv1.ListAlertsRequest{PageSize: 1, PageToken: page.NextPageToken})
		if len(page.Alerts) != 1 || page.Alerts[0].Policy != "other" || page.NextPageToken != "" {
			t.Errorf("got %v", page)
		}
		for text, in := range map[string]*controlv1.ListAlertsRequest{
			"page_token": {PageToken: "nonsense"}, "page_size": {PageSize: -1}, "state": {State: "burning"},
		} {
			_, err := c.ListAlerts(ctx, in)
			wantError(t, text, err, codes.InvalidArgument, text)
		}
	})
}

// curl posts JSON to a method as curl does.
func (c *controlled) curl(method, body string) (code int, text string) {
	_, handler := controlv1connect.NewControlServiceHandler(ControlConnect{c.ControlService}, JSONOptions())
	r := httptest.NewRequestWithContext(c.t.Context(), http.MethodPost, "/sluice.control.v1.ControlService/"+method, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// TestControlJSON is what curl sees: an invalid reading is the text "NaN", because JSON has no such number.
func TestControlJSON(t *testing.T) {
	inControl(t, func(t *testing.T, c *controlled) {
		code, text := c.curl("GetSignals", `{"policy": "tuned", "ticks": 1}`)
		var got struct {
			Signals []struct{ Name, Circuit string }
			Frames  []struct {
				Tick   string
				Values []any
			}
		}
		if err := json.Unmarshal([]byte(text), &got); err != nil || code != http.StatusOK || len(got.Frames) != 1 {
			t.Fatalf("got %d %s, %v", code, text, err)
		}
		for i, s := range got.Signals {
			want := map[string]any{"SLOTS": 5.0, "NOTHING": "NaN", "MOST": 5.0, "ALARM": 0.0}[s.Name]
			if got.Frames[0].Values[i] != want {
				t.Errorf("%s: got %#v, want %#v", s.Name, got.Frames[0].Values[i], want)
			}
		}
		for _, tt := range []struct {
			method, body string
			code         int
			text         string
		}{
			{"GetCircuit", `{"policy": "tuned"}`, 200, `"intervalSeconds":1`},
			{"GetCircuit", `{"policy": "nobody"}`, 404, `"not_found"`},
			{"GetCircuit", `{"polcy": "tuned"}`, 400, "polcy"},
			{"GetCircuit", ``, 400, "empty"},
			{"GetSignals", `{"policy": "tuned", "ticks": -3}`, 400, `"message":"ticks is -3`},
			{"GetSignals", `{}`, 400, `"message":"policy is empty`},
			{"SetDynamicConfig", `{"policy": "tuned", "config": {"slots": 4}}`, 200, `{"config":{"slots":4}}`},
			{"SetDynamicConfig", `{"policy": "tuned", "config": {"slots": "4"}}`, 400, "slots"},
			{"SetDynamicConfig", `{"policy": "tuned", "config": 4}`, 400, "unexpected token 4"},
			{"GetDynamicConfig", `{"policy": "tuned"}`, 200, `"config":{"slots":4}`},
			{"DeleteDynamicConfig", `{"policy": "tuned"}`, 200, `{}`},
			{"ListAlerts", `{}`, 200, `{}`},
			{"ListAlerts", `{"pageToken": "x"}`, 400, "page_token"},
		} {
			code, text := c.curl(tt.method, tt.body)
			// protojson adds blanks at random, so that nobody relies on them.
			if plain := strings.ReplaceAll(text, `": `, `":`); code != tt.code || !strings.Contains(strings.ReplaceAll(plain, `, "`, `,"`), tt.text) {
				t.Errorf("%s %s: got %d %s, want %d with %s", tt.method, tt.body, code, text, tt.code, tt.text)
			}
		}
	})
}

// TestControlRoles: who may look may not change, and who starts flows may neither.
func TestControlRoles(t *testing.T) {
	a, err := NewAuth(testCredentials)
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]bool{"GetCircuit": true, "GetSignals": true, "WatchSignals": true, "GetDynamicConfig": true, "ListAlerts": true}
	for _, m := range controlv1.ControlService_ServiceDesc.Methods {
		checkRoles(t, a, m.MethodName, read[m.MethodName])
	}
	for _, s := range controlv1.ControlService_ServiceDesc.Streams {
		checkRoles(t, a, s.StreamName, read[s.StreamName])
	}
}

func checkRoles(t *testing.T, a *Auth, method string, read bool) {
	t.Helper()
	for _, c := range testCredentials {
		want := codes.PermissionDenied
		if c.Role == RoleAdmin || c.Role == RoleOperator || c.Role == RoleViewer && read {
			want = codes.OK
		}
		_, err := a.authorize("Bearer "+c.Token, pathPermission("/sluice.control.v1.ControlService/"+method))
		if got := status.Code(err); got != want {
			t.Errorf("%s calls %s: got %v, want %v", c.Role, method, got, want)
		}
	}
	if _, err := a.authorize("", pathPermission("/sluice.control.v1.ControlService/"+method)); status.Code(err) != codes.Unauthenticated {
		t.Errorf("%s without a token: got %v", method, err)
	}
}
