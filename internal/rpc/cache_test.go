// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	cachev1 "github.com/sluice-project/sluice/api/gen/sluice/cache/v1"
	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/ledger"
)

// cachingServer serves flows and caches; the label tenant separates tenants.
func cachingServer(t *testing.T) (address string) {
	t.Helper()
	memory, err := ledger.NewMemory(ledger.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := cache.DefaultConfig()
	cfg.TenantLabel, cfg.Now = "tenant", memory.Now
	c, err := cache.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	engine, err := flow.New(flow.Config{Authority: memory, TokenKey: make([]byte, flow.TokenKeySize), Cache: c})
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(ServerConfig{
		Flow: NewFlowService(engine, nil), Observe: NewObserveService(engine, ServerInfo{}), Policy: NewPolicyService(nil, nil),
		Auth: OpenAuth(), Cache: NewCacheService(c), Drain: engine.Close, ShutdownTimeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	address, _ = running(t, s)
	return address
}

func startCached(t *testing.T, flows flowv1.FlowServiceClient, in *flowv1.CacheLookup, labels map[string]string) *flowv1.StartResponse {
	t.Helper()
	out, err := flows.Start(t.Context(), &flowv1.StartRequest{ControlPoint: "cp", Labels: labels, Cache: in})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestCacheService(t *testing.T) {
	conn := dial(t, cachingServer(t))
	flows, caches := flowv1.NewFlowServiceClient(conn), cachev1.NewCacheServiceClient(conn)
	labels := map[string]string{"tenant": "acme"}
	ask := &flowv1.CacheLookup{ResultKey: "k", GlobalKeys: []string{"g", "absent"}}

	got := startCached(t, flows, ask, labels)
	if got.Verdict != "admit" || got.Cache.Result.Status != "miss" || got.Cache.Global["g"].Status != "miss" || got.Cache.Tenant != "acme" {
		t.Fatalf("got %v, want misses of acme", got)
	}
	upserted, err := caches.Upsert(t.Context(), &cachev1.UpsertRequest{
		ControlPoint: "cp", ResultKey: "k", Result: &cachev1.Entry{Value: []byte("result"), Ttl: durationpb.New(time.Minute)},
		Global: map[string]*cachev1.Entry{
			"g": {Value: []byte("shared")}, "zero": {Ttl: durationpb.New(0)}, "negative": {Ttl: durationpb.New(-1)},
			"": {}, strings.Repeat("x", 1<<20): {},
		},
		Tenant: "acme",
	})
	if err != nil {
		t.Fatal(err)
	}
	if upserted.ResultError != "" || len(upserted.GlobalErrors) != 4 || upserted.GlobalErrors["g"] != "" {
		t.Errorf("got %d errors, %q among them, want errors for four keys", len(upserted.GlobalErrors), upserted.ResultError)
	}
	got = startCached(t, flows, ask, labels)
	if c := got.Cache; c.Result.Status != "hit" || string(c.Result.Value) != "result" || string(c.Global["g"].Value) != "shared" ||
		c.Global["absent"].Status != "miss" {
		t.Errorf("got %v, want hits", c)
	}
	if c := startCached(t, flows, ask, nil).Cache; c.Result.Status != "miss" || c.Global["g"].Status != "miss" {
		t.Errorf("without the label: got %v, want misses", c)
	}
	looked, err := caches.Lookup(t.Context(), &cachev1.LookupRequest{ControlPoint: "cp", ResultKey: "k", GlobalKeys: []string{"g"}, Tenant: "acme"})
	if err != nil || string(looked.Result.Value) != "result" || string(looked.Global["g"].Value) != "shared" {
		t.Errorf("got %v, %v", looked, err)
	}
	if _, err = caches.Delete(t.Context(), &cachev1.DeleteRequest{ControlPoint: "cp", ResultKey: "k", GlobalKeys: []string{"g", "x"}, Tenant: "acme"}); err != nil {
		t.Error(err)
	}
	if c := startCached(t, flows, ask, labels).Cache; c.Result.Status != "miss" || c.Global["g"].Status != "miss" {
		t.Errorf("after Delete: got %v, want misses", c)
	}
}

// TestCacheServiceRefuses: one mistake is an error of its key where the answer has a place for it, and of the call
// where it has not.
func TestCacheServiceRefuses(t *testing.T) {
	caches := cachev1.NewCacheServiceClient(dial(t, cachingServer(t)))
	ctx := t.Context()
	looked, err := caches.Lookup(ctx, &cachev1.LookupRequest{ResultKey: "k"})
	if err != nil || looked.Result.Status != "error" || looked.Result.Error != "cache control_point cannot be empty" {
		t.Errorf("Lookup: got %v, %v", looked, err)
	}
	for _, in := range []*cachev1.UpsertRequest{
		{ControlPoint: "cp", ResultKey: "k"},
		{ControlPoint: "cp", Result: &cachev1.Entry{}},
		{ResultKey: "k", Result: &cachev1.Entry{}},
		{ControlPoint: "cp", ResultKey: "k", Result: &cachev1.Entry{Value: make([]byte, 1<<20+1)}},
		{ControlPoint: "cp", ResultKey: "k", Result: &cachev1.Entry{Ttl: &durationpb.Duration{Seconds: -1 << 62}}},
	} {
		if out, err := caches.Upsert(ctx, in); err != nil || out.ResultError == "" {
			t.Errorf("Upsert %.80v: got %v, %v, want an error of the result", in, out, err)
		}
	}
	many := make([]string, 65)
	entries := make(map[string]*cachev1.Entry)
	for i := range many {
		many[i] = strings.Repeat("k", i+1)
		entries[many[i]] = &cachev1.Entry{}
	}
	_, errLookup := caches.Lookup(ctx, &cachev1.LookupRequest{GlobalKeys: many})
	_, errUpsert := caches.Upsert(ctx, &cachev1.UpsertRequest{Global: entries})
	_, errDelete := caches.Delete(ctx, &cachev1.DeleteRequest{GlobalKeys: many})
	_, errPoint := caches.Delete(ctx, &cachev1.DeleteRequest{ResultKey: "k"})
	for _, err := range []error{errLookup, errUpsert, errDelete, errPoint} {
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("got %v, want InvalidArgument", err)
		}
	}
	if _, err := caches.Upsert(ctx, &cachev1.UpsertRequest{Global: map[string]*cachev1.Entry{"k": {Value: make([]byte, 5<<20)}}}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("5 MiB: got %v, want ResourceExhausted", err)
	}
}

// TestCoalescingOverRPC: one computes; the others, however they ask, wait for its Upsert, or for its End.
func TestCoalescingOverRPC(t *testing.T) {
	address := cachingServer(t)
	conn := dial(t, address)
	flows, caches := flowv1.NewFlowServiceClient(conn), cachev1.NewCacheServiceClient(conn)
	ask := &flowv1.CacheLookup{ResultKey: "k", Coalesce: flowv1.Coalesce_COALESCE_WAIT}
	const others = 20
	answers := make(chan *flowv1.StartResponse, others)
	leader := startCached(t, flows, ask, nil)
	if !leader.Cache.Leader {
		t.Fatalf("got %v, want a leader", leader)
	}
	for range others {
		go func() {
			out, err := flows.Start(t.Context(), &flowv1.StartRequest{ControlPoint: "cp", Cache: ask})
			if err != nil {
				t.Error(err)
			}
			answers <- out
		}()
	}
	// The first leader fails. Whoever is chosen then stores the value.
	if _, err := flows.End(t.Context(), &flowv1.EndRequest{Token: leader.Token, Status: flowv1.FlowStatus_FLOW_STATUS_ERROR}); err != nil {
		t.Fatal(err)
	}
	second := <-answers
	if !second.GetCache().GetLeader() {
		t.Fatalf("got %v, want the next leader", second)
	}
	if _, err := caches.Upsert(t.Context(), &cachev1.UpsertRequest{ControlPoint: "cp", ResultKey: "k", Result: &cachev1.Entry{Value: []byte("v")}}); err != nil {
		t.Fatal(err)
	}
	for range others - 1 {
		if out := <-answers; out.GetCache().GetResult().GetStatus() != "hit" || out.Cache.Leader || string(out.Cache.Result.Value) != "v" {
			t.Errorf("got %v, want a hit", out)
		}
	}
}

func TestCachesOverJSON(t *testing.T) {
	address := cachingServer(t)
	call := func(path, body string) string {
		resp, err := http.Post("http://"+address+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(text), " ", "")
	}
	const service = "/sluice.cache.v1.CacheService/"
	if got := call(service+"Upsert", `{"controlPoint":"cp","resultKey":"k","result":{"value":"aGVsbG8=","ttl":"60s"}}`); got != "{}" {
		t.Errorf("Upsert: got %s", got)
	}
	if got := call(service+"Lookup", `{"controlPoint":"cp","resultKey":"k"}`); !strings.Contains(got, `"value":"aGVsbG8="`) {
		t.Errorf("Lookup: got %s", got)
	}
	if got := call("/sluice.flow.v1.FlowService/Start", `{"controlPoint":"cp","cache":{"resultKey":"k"}}`); !strings.Contains(got, `"status":"hit"`) {
		t.Errorf("Start: got %s", got)
	}
	if got := call(service+"Delete", `{"controlPoint":"cp","resultKey":"k"}`); got != "{}" {
		t.Errorf("Delete: got %s", got)
	}
	if got := call(service+"Upsert", `{"globl":{}}`); !strings.Contains(got, "invalid_argument") {
		t.Errorf("a field that is not there: got %s", got)
	}
}
