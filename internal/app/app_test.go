// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/flow/v1/flowv1connect"
	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/observe/v1/observev1connect"
	policyv1 "github.com/sluice-project/sluice/api/gen/sluice/policy/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/policy/v1/policyv1connect"
	"github.com/sluice-project/sluice/internal/config"
	"github.com/sluice-project/sluice/internal/store"
)

// rateLimit admits capacity flows per user, and one per hour after that.
func rateLimit(name string, capacity string) string {
	return `blueprint: rate-limiting/base
policy:
  policy_name: ` + name + `
  rate_limiter:
    bucket_capacity: ` + capacity + `
    fill_amount: 1
    parameters:
      interval: 3600s
      limit_by_label_key: user
    selectors:
      - control_point: door
`
}

// settings are for a server on a free port with a data directory of its own.
func settings(t *testing.T) config.Config {
	c := config.Default()
	c.Listen, c.DataDir = "127.0.0.1:0", filepath.Join(t.TempDir(), "data")
	return c
}

// started is a running server and clients for it.
type started struct {
	*App
	t        *testing.T
	flows    flowv1connect.FlowServiceClient
	policies policyv1connect.PolicyServiceClient
}

func start(t *testing.T, c config.Config) *started {
	t.Helper()
	a, err := Start(t.Context(), c, Options{LogTo: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return &started{
		App: a, t: t, flows: flowv1connect.NewFlowServiceClient(http.DefaultClient, a.URL()),
		policies: policyv1connect.NewPolicyServiceClient(http.DefaultClient, a.URL()),
	}
}

func (s *started) apply(document string) (*policyv1.ApplyPolicyResponse, error) {
	out, err := s.policies.ApplyPolicy(s.t.Context(), connect.NewRequest(&policyv1.ApplyPolicyRequest{Document: document}))
	if err != nil {
		return nil, err
	}
	return out.Msg, nil
}

// admitted counts how many of n flows of a user may run.
func (s *started) admitted(user string, n int) (count int) {
	s.t.Helper()
	for range n {
		got, err := s.flows.Start(s.t.Context(), connect.NewRequest(&flowv1.StartRequest{ControlPoint: "door", Labels: map[string]string{"user": user}}))
		if err != nil {
			s.t.Fatal(err)
		}
		if got.Msg.Verdict == "admit" {
			count++
		}
	}
	return count
}

func TestPolicyFromApplyToRollback(t *testing.T) {
	s := start(t, settings(t))
	if got := s.admitted("a", 3); got != 3 {
		t.Errorf("without a policy %d of 3 flows were admitted", got)
	}
	got, err := s.apply(rateLimit("p", "2"))
	if err != nil || got.Change != "created" || got.Policy.Version != 1 {
		t.Fatalf("got %v, %v", got, err)
	}
	if got := s.admitted("a", 3); got != 2 {
		t.Errorf("with a limit of 2, %d of 3 flows were admitted", got)
	}
	if _, err := s.apply(strings.Replace(rateLimit("p", "2"), "interval", "intervall", 1)); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a document with a mistake: got %v, want invalid argument", err)
	}
	if got := s.admitted("a", 1); got != 0 {
		t.Error("a refused document changed what is in force")
	}
	if got, err = s.apply(rateLimit("p", "5")); err != nil || got.Change != "updated" {
		t.Fatalf("got %v, %v", got, err)
	}
	if got := s.admitted("b", 6); got != 5 {
		t.Errorf("with a limit of 5, %d of 6 flows were admitted", got)
	}
	if got, err = s.apply(rateLimit("p", "5")); err != nil || got.Change != "unchanged" {
		t.Fatalf("got %v, %v", got, err)
	}
	if _, err := s.policies.RollbackPolicy(t.Context(), connect.NewRequest(&policyv1.RollbackPolicyRequest{Name: "p"})); err != nil {
		t.Fatal(err)
	}
	if got := s.admitted("c", 6); got != 2 {
		t.Errorf("after the roll back, %d of 6 flows were admitted, want 2", got)
	}
	if _, err := s.policies.DeletePolicy(t.Context(), connect.NewRequest(&policyv1.DeletePolicyRequest{Name: "p"})); err != nil {
		t.Fatal(err)
	}
	if got := s.admitted("c", 3); got != 3 {
		t.Errorf("after the deletion, %d of 3 flows were admitted", got)
	}
}

// TestRestart stops and starts: policies and counts are as before, and flows of the first run end in
// the second.
func TestRestart(t *testing.T) {
	c := settings(t)
	first := start(t, c)
	if _, err := first.apply(rateLimit("p", "3")); err != nil {
		t.Fatal(err)
	}
	got, err := first.flows.Start(t.Context(), connect.NewRequest(&flowv1.StartRequest{ControlPoint: "door", Labels: map[string]string{"user": "a"}}))
	if err != nil {
		t.Fatal(err)
	}
	if n := first.admitted("a", 1); n != 1 {
		t.Fatal("the second flow was denied")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := start(t, c)
	if n := second.admitted("a", 5); n != 1 {
		t.Errorf("after the restart %d flows were admitted, want the 1 that was left", n)
	}
	end, err := second.flows.End(t.Context(), connect.NewRequest(&flowv1.EndRequest{Token: got.Msg.Token}))
	if err != nil || end.Msg.Result == "" {
		t.Errorf("end: got %v, %v", end, err)
	}
}

// TestEditKeepsCounts edits one limit; the other one, and what it has counted, stays.
func TestEditKeepsCounts(t *testing.T) {
	s := start(t, settings(t))
	for _, doc := range []string{rateLimit("p", "3"), strings.Replace(rateLimit("other", "9"), "door", "window", 1)} {
		if _, err := s.apply(doc); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.admitted("a", 3); n != 3 {
		t.Fatalf("admitted %d, want 3", n)
	}
	if _, err := s.apply(strings.Replace(rateLimit("other", "8"), "door", "window", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.apply(strings.Replace(rateLimit("p", "3"), "fill_amount: 1", "fill_amount: 2", 1)); err != nil {
		t.Fatal(err)
	}
	if n := s.admitted("a", 1); n != 0 {
		t.Error("an edit gave the quota back")
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	c := settings(t)
	start(t, c)
	if _, err := Start(t.Context(), c, Options{LogTo: io.Discard}); !errors.Is(err, store.ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
}

func TestPortInUse(t *testing.T) {
	s := start(t, settings(t))
	c := settings(t)
	c.Listen = s.Addr()
	if _, err := Start(t.Context(), c, Options{LogTo: io.Discard}); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("got %v, want an error that says to choose another port", err)
	}
	if _, err := os.Stat(c.DataDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a server that could not start made a data directory: %v", err)
	}
}

func TestDamagedFilesRefuseTheStart(t *testing.T) {
	for _, file := range []string{flowKeyFile, "sluice.db", "accounts.sluice"} {
		c := settings(t)
		if err := start(t, c).Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(c.DataDir, file)
		if err := os.WriteFile(path, []byte("nonsense, and more than a few bytes of it, so that it is not just empty"), 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := Start(t.Context(), c, Options{LogTo: io.Discard})
		if err == nil {
			_ = a.Close()
		}
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want an error that names the file", file, err)
		}
	}
}

func TestMissingFilesRefuseTheStart(t *testing.T) {
	for _, file := range []string{"sluice.db", "accounts.sluice"} {
		c := settings(t)
		if err := start(t, c).Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(c.DataDir, file)); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the first refusal must not make the second start work
			a, err := Start(t.Context(), c, Options{LogTo: io.Discard})
			if err == nil {
				_ = a.Close()
			}
			if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "restore it from a backup") {
				t.Errorf("%s: got %v, want an error that names the file and what to do", file, err)
			}
		}
	}
}

// public are settings for an address that others reach.
func public(t *testing.T) config.Config {
	c := settings(t)
	c.Listen = "0.0.0.0:0"
	return c
}

func get(t *testing.T, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestAdminTokenIsMadeAndKept(t *testing.T) {
	c := public(t)
	var log strings.Builder
	a, err := Start(t.Context(), c, Options{LogTo: &log})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.DataDir, adminTokenFile)
	if a.Access().TokenFile != path {
		t.Errorf("got token file %q, want %q", a.Access().TokenFile, path)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the token has mode %v, want 0600", info.Mode())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(string(text))
	for given, want := range map[string]int{"": 401, "wrong-wrong-wrong-wrong": 401, token: 200} {
		if code, body := get(t, a.URL()+"/metrics", given); code != want {
			t.Errorf("token %q: got %d %s, want %d", given, code, body, want)
		}
	}
	for _, open := range []string{"/healthz", "/readyz", "/"} {
		if code, _ := get(t, a.URL()+open, ""); code != 200 {
			t.Errorf("%s asks for a token: %d", open, code)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), token) || !strings.Contains(log.String(), path) {
		t.Errorf("the log must name the file and not repeat the token:\n%s", log.String())
	}
	again := start(t, c)
	if code, _ := get(t, again.URL()+"/metrics", token); code != 200 {
		t.Errorf("after a restart the token is not known any more: %d", code)
	}
}

func TestNoAuthMustBeSaid(t *testing.T) {
	c := public(t)
	c.Auth.Disabled = true
	s := start(t, c)
	if code, _ := get(t, s.URL()+"/metrics", ""); code != 200 || !s.Access().Open() {
		t.Errorf("got %d, want it open", code)
	}
}

func TestConfiguredTokens(t *testing.T) {
	c := settings(t) // on loopback too, when configured
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("viewer-token-viewer-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Auth.Tokens = []config.Token{
		{Name: "ann", Role: "operator", Token: "operator-token-operator-token"},
		{Name: "wall", Role: "viewer", TokenFile: file},
	}
	s := start(t, c)
	if code, _ := get(t, s.URL()+"/debug/queues", "viewer-token-viewer-token"); code != 200 {
		t.Errorf("viewer: got %d", code)
	}
	if code, _ := get(t, s.URL()+"/debug/config", "viewer-token-viewer-token"); code != 403 {
		t.Errorf("viewer on the configuration: got %d, want 403", code)
	}
	req := connect.NewRequest(&policyv1.ApplyPolicyRequest{Document: rateLimit("p", "1"), Author: "mallory"})
	req.Header().Set("Authorization", "Bearer operator-token-operator-token")
	got, err := s.policies.ApplyPolicy(t.Context(), req)
	if err != nil || got.Msg.Policy.Author != "ann" {
		t.Errorf("got %v, %v, want the holder of the token as author", got, err)
	}
}

func TestTokenFileMistakes(t *testing.T) {
	c := settings(t)
	short := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(short, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Auth.Tokens = []config.Token{{Name: "a", Role: "admin", TokenFile: short}, {Name: "b", Role: "admin", TokenFile: short + "-not"}}
	_, err := Start(t.Context(), c, Options{LogTo: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "auth.tokens[0]") || !strings.Contains(err.Error(), "auth.tokens[1]") {
		t.Errorf("got %v, want both mistakes", err)
	}
}

func TestPolicyDir(t *testing.T) {
	c := settings(t)
	c.PolicyDir = t.TempDir()
	if err := os.WriteFile(filepath.Join(c.PolicyDir, "p.yaml"), []byte(rateLimit("p", "1")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.PolicyDir, "bad.yaml"), []byte("circuit: 5"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, c)
	if n := s.admitted("a", 2); n != 1 {
		t.Errorf("the policy of the directory was not in force with the first request: admitted %d of 2", n)
	}
	if _, err := s.apply(rateLimit("p", "2")); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("got %v, want failed precondition for a policy of the directory", err)
	}
	if code, body := get(t, s.URL()+"/debug/policy-dir?format=json", ""); code != 200 || !strings.Contains(body, "bad.yaml") {
		t.Errorf("got %d %s, want the problem of bad.yaml", code, body)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c.PolicyDir = ""
	if _, err := start(t, c).apply(rateLimit("p", "2")); err != nil {
		t.Errorf("nobody reads the file any more, but the policy cannot be changed: %v", err)
	}
	c = settings(t)
	c.PolicyDir = filepath.Join(t.TempDir(), "nope")
	if _, err := Start(t.Context(), c, Options{LogTo: io.Discard}); err == nil || !strings.Contains(err.Error(), "policy_dir") {
		t.Errorf("got %v, want an error about policy_dir", err)
	}
}

func TestDebugPages(t *testing.T) {
	c := settings(t)
	c.Auth.Tokens = []config.Token{{Name: "root", Role: "admin", Token: "hunter2-hunter2-hunter2"}}
	s := start(t, c)
	req := connect.NewRequest(&policyv1.ApplyPolicyRequest{Document: rateLimit("p", "1")})
	req.Header().Set("Authorization", "Bearer hunter2-hunter2-hunter2")
	if _, err := s.policies.ApplyPolicy(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	_, index := get(t, s.URL()+"/debug/", "hunter2-hunter2-hunter2")
	for _, page := range []string{"queues", "limiters", "workloads", "accounts", "policies", "policy-dir", "build", "config", "pprof/"} {
		if !strings.Contains(index, `"/debug/`+page+`"`) {
			t.Errorf("the index has no link to %s", page)
		}
		code, body := get(t, s.URL()+"/debug/"+page, "hunter2-hunter2-hunter2")
		if code != 200 || strings.Contains(body, "hunter2") {
			t.Errorf("%s: got %d, or a secret:\n%s", page, code, body)
		}
	}
	code, body := get(t, s.URL()+"/debug/limiters?format=json", "hunter2-hunter2-hunter2")
	var rows []map[string]string
	if err := json.Unmarshal([]byte(body), &rows); err != nil || code != 200 || len(rows) != 1 || rows[0]["policy"] != "p" {
		t.Errorf("got %d %s %v", code, body, err)
	}
	if _, body := get(t, s.URL()+"/debug/limiters", "hunter2-hunter2-hunter2"); !strings.Contains(body, `<a href="/debug/circuits?policy=p">p</a>`) {
		t.Errorf("the policy is no link to its circuit:\n%s", body)
	}
	if code, _ := get(t, s.URL()+"/debug/queues?limit=0", "hunter2-hunter2-hunter2"); code != 400 {
		t.Errorf("limit=0: got %d, want 400", code)
	}
}

func TestDebugCanBeSwitchedOff(t *testing.T) {
	c := settings(t)
	c.Debug.Enabled = false
	if code, _ := get(t, start(t, c).URL()+"/debug/", ""); code != 404 {
		t.Errorf("got %d, want 404", code)
	}
}

// TestMetrics looks for one metric of each package.
func TestMetrics(t *testing.T) {
	s := start(t, settings(t))
	if _, err := s.apply(rateLimit("p", "1")); err != nil {
		t.Fatal(err)
	}
	s.admitted("a", 2)
	_, body := get(t, s.URL()+"/metrics", "")
	for _, want := range []string{
		"sluice_build_info{", "sluice_policies 1", `sluice_flows_total{control_point="door",reason="rate_limited",verdict="denied"} 1`,
		"sluice_ledger_shared_takes_total 0", "go_goroutines", "sluice_limiter_decisions_total",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
}

// TestGRPCClient uses the door that SDKs use.
func TestGRPCClient(t *testing.T) {
	s := start(t, settings(t))
	conn, err := grpc.NewClient(s.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	got, err := policyv1.NewPolicyServiceClient(conn).ListPolicies(t.Context(), &policyv1.ListPoliciesRequest{})
	if err != nil || len(got.Policies) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

// queueing is a policy with one slot, for which flows wait.
const queueing = `blueprint: concurrency-scheduling/base
policy:
  policy_name: queue
  concurrency_scheduler:
    max_concurrency: 1
    concurrency_limiter: {max_inflight_duration: 600s}
    selectors: [{control_point: gpu}]
`

// TestTenThousandWaiting has a client with 10,000 flows in the queue vanish: no flow is left behind, and
// the slot is free for the next one.
func TestTenThousandWaiting(t *testing.T) {
	const flows = 10_000
	s := start(t, settings(t))
	if _, err := s.apply(queueing); err != nil {
		t.Fatal(err)
	}
	observe := observev1connect.NewObserveServiceClient(http.DefaultClient, s.URL())
	waiting := func() int64 {
		got, err := observe.GetOverview(t.Context(), connect.NewRequest(&observev1.GetOverviewRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		return got.Msg.Overview.ControlPoints[0].Waiting
	}
	conn, err := grpc.NewClient(s.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	client := flowv1.NewFlowServiceClient(conn)
	holder, err := client.Start(t.Context(), &flowv1.StartRequest{ControlPoint: "gpu"})
	if err != nil || holder.Verdict != "admit" {
		t.Fatalf("got %v, %v", holder, err)
	}
	var clients sync.WaitGroup
	for range flows {
		clients.Go(func() {
			if got, err := client.Start(t.Context(), &flowv1.StartRequest{ControlPoint: "gpu"}); err == nil && got.Verdict == "admit" {
				t.Error("a flow was admitted although the slot is taken")
			}
		})
	}
	await(t, func() bool { return waiting() == flows })
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	clients.Wait()
	await(t, func() bool { return waiting() == 0 })
	if _, err := s.flows.End(t.Context(), connect.NewRequest(&flowv1.EndRequest{Token: holder.Token})); err != nil {
		t.Fatal(err)
	}
	got, err := s.flows.Start(t.Context(), connect.NewRequest(&flowv1.StartRequest{ControlPoint: "gpu", QueueTimeout: durationpb.New(0)}))
	if err != nil || got.Msg.Verdict != "admit" {
		t.Errorf("the slot is not free: %v, %v", got, err)
	}
}

// await asks until ok, for what other goroutines do.
func await(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 6000 {
		if ok() {
			return
		}
		<-tick.C
	}
	t.Fatal("it did not come to this within a minute")
}

// TestHostileConnections does what scanners and broken clients do; the server goes on.
func TestHostileConnections(t *testing.T) {
	s := start(t, settings(t))
	for _, opening := range []string{
		"", "P", "PRI", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00\x01", "\x00\x00\x00", strings.Repeat("A", 100_000), "POST /sluice.flow.v1.FlowService/Start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n{",
		"POST /sluice.flow.v1.FlowService/Start HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"GET /" + strings.Repeat("x", 200_000) + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, opening) // the server may have hung up
		_ = conn.Close()
	}
	if n := s.admitted("a", 1); n != 1 {
		t.Error("the server does not decide flows any more")
	}
}

func TestInvalidConfigIsRefused(t *testing.T) {
	c := settings(t)
	c.Log.Level, c.Listen = "loud", "nowhere"
	_, err := Start(context.Background(), c, Options{LogTo: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "log.level") || !strings.Contains(err.Error(), "listen") {
		t.Errorf("got %v, want both mistakes", err)
	}
}

func TestServesOnMoreAddresses(t *testing.T) {
	c := settings(t)
	c.AlsoListen = []string{"127.0.0.1:0", "127.0.0.1:0"}
	s := start(t, c)
	if len(s.AlsoAddrs()) != 2 {
		t.Fatalf("got %q, want two addresses more", s.AlsoAddrs())
	}
	for _, address := range append(s.AlsoAddrs(), s.Addr()) {
		resp, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s answers %s", address, resp.Status)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := http.Get("http://" + s.AlsoAddrs()[1] + "/readyz"); err == nil {
		t.Error("an address is still served after Close")
	}
}
