// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/flow/v1/flowv1connect"
)

// run runs one command line.
func run(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(t.Context(), Env{Args: args, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Environ: environ})
	return code, out.String(), errs.String()
}

// fakeFlows answers every Start the same and remembers what was asked.
type fakeFlows struct {
	flowv1connect.UnimplementedFlowServiceHandler
	answer *flowv1.StartResponse
	err    error
	asked  *flowv1.StartRequest
	header http.Header
	ended  int
	http   *flowv1.CheckHTTPRequest
}

func (f *fakeFlows) CheckHTTP(_ context.Context, in *connect.Request[flowv1.CheckHTTPRequest]) (*connect.Response[flowv1.CheckHTTPResponse], error) {
	f.http = in.Msg
	return connect.NewResponse(&flowv1.CheckHTTPResponse{
		Verdict: f.answer, DerivedLabels: map[string]string{"operation": "mutation"},
		RequestHeaders:  map[string]string{"baggage": "operation=mutation"},
		ResponseHeaders: map[string]string{"RateLimit": `"p";r=4;t=1`},
	}), nil
}

func (f *fakeFlows) Start(_ context.Context, in *connect.Request[flowv1.StartRequest]) (*connect.Response[flowv1.StartResponse], error) {
	f.asked, f.header = in.Msg, in.Header()
	if f.err != nil {
		return nil, f.err
	}
	return connect.NewResponse(f.answer), nil
}

func (f *fakeFlows) End(context.Context, *connect.Request[flowv1.EndRequest]) (*connect.Response[flowv1.EndResponse], error) {
	f.ended++
	return connect.NewResponse(&flowv1.EndResponse{Result: "ended"}), nil
}

func serveFake(t *testing.T, f *fakeFlows) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(flowv1connect.NewFlowServiceHandler(f))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

func TestCheckAdmits(t *testing.T) {
	f := &fakeFlows{answer: &flowv1.StartResponse{Verdict: "admit", Reason: "admitted", Message: "admitted", Token: []byte("t")}}
	url := serveFake(t, f)
	code, out, errs := run(t, []string{"SLUICE_SERVER=" + url, "SLUICE_TOKEN=secret"}, "check", "door", "-l", "a=b=c", "-l", "n=", "--service", "s")
	if code != 0 || out != "ADMIT: admitted\n" || errs != "" {
		t.Errorf("got %d %q %q", code, out, errs)
	}
	if diff := cmp.Diff(map[string]string{"a": "b=c", "n": ""}, f.asked.Labels); diff != "" {
		t.Error(diff)
	}
	if f.asked.QueueTimeout.AsDuration().Seconds() != 5 || f.asked.Services[0] != "s" || f.ended != 1 {
		t.Errorf("asked %v, ended %d", f.asked, f.ended)
	}
	if got := f.header.Get("Authorization"); got != "Bearer secret" {
		t.Errorf("got authorization %q", got)
	}
	if _, _, _ = run(t, []string{"SLUICE_SERVER=" + url, "SLUICE_TOKEN=secret"}, "check", "door", "--token", "other"); f.header.Get("Authorization") != "Bearer other" {
		t.Errorf("--token does not win over SLUICE_TOKEN: %q", f.header.Get("Authorization"))
	}
}

func TestCheckHTTP(t *testing.T) {
	f := &fakeFlows{answer: &flowv1.StartResponse{Verdict: "admit", Reason: "admitted", Message: "admitted", Token: []byte("t")}}
	file := filepath.Join(t.TempDir(), "query.json")
	if err := os.WriteFile(file, []byte(`{"query": "mutation"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := run(t, nil, "check", "api", "--server", serveFake(t, f), "--http", "post http://shop.example/graphql?a=b",
		"-H", "Content-Type: application/json", "-H", "x-user:ann", "-H", "X-User: bob", "--body", "@"+file, "-l", "k=v")
	want := "ADMIT: admitted\n  label operation=mutation\n  request header baggage: operation=mutation\n  response header RateLimit: \"p\";r=4;t=1\n"
	if code != 0 || errs != "" || out != want || f.ended != 1 {
		t.Errorf("got %d %q %q, ended %d, want %q", code, out, errs, f.ended, want)
	}
	r := f.http.Request
	if r.Method != "POST" || r.Path != "/graphql?a=b" || r.Host != "shop.example" || r.Scheme != "http" || string(r.Body) != `{"query": "mutation"}` ||
		*r.Size != 21 || r.Headers["x-user"] != "ann, bob" || f.http.Labels["k"] != "v" {
		t.Errorf("asked %v", f.http)
	}
	if code, _, _ = run(t, nil, "check", "api", "--server", serveFake(t, f), "--http", "/cart"); code != 0 || f.http.Request.Method != "GET" {
		t.Errorf("got %d, asked %v, want GET", code, f.http)
	}
}

func TestCheckDenies(t *testing.T) {
	after := 1.5
	f := &fakeFlows{answer: &flowv1.StartResponse{
		Verdict: "deny", Reason: "rate_limited", Message: "no \x1b[31mtokens", Policy: "p", Limiter: "root.0", RetryAfterSeconds: &after,
	}}
	code, out, _ := run(t, nil, "check", "door", "--server", serveFake(t, f), "-o", "json")
	var got map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 3 || f.ended != 0 {
		t.Fatalf("got %d %s %v, ended %d", code, out, err, f.ended)
	}
	for field, want := range map[string]any{"verdict": "deny", "reason": "rate_limited", "policy": "p", "limiter": "root.0", "retry_after_seconds": 1.5} {
		if got[field] != want {
			t.Errorf("%s: got %v, want %v", field, got[field], want)
		}
	}
	_, out, _ = run(t, nil, "check", "door", "--server", serveFake(t, f))
	if strings.Contains(out, "\x1b") || !strings.Contains(out, "retry after 1.5s") {
		t.Errorf("got %q, want no control characters", out)
	}
}

// TestCheckIsNeverFooled: an answer without a verdict is no permission.
func TestCheckIsNeverFooled(t *testing.T) {
	f := &fakeFlows{answer: &flowv1.StartResponse{}}
	if code, out, _ := run(t, nil, "check", "door", "--server", serveFake(t, f)); code == 0 {
		t.Errorf("an empty verdict was taken as a permission: %s", out)
	}
}

func TestErrorsAreExplained(t *testing.T) {
	notSluice := httptest.NewServer(http.NotFoundHandler())
	defer notSluice.Close()
	closed := httptest.NewServer(nil)
	closed.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	secure.StartTLS()
	defer secure.Close()
	closes := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer closes.Close()
	for _, tt := range []struct {
		name, server string
		want         string
	}{
		{"nothing there", closed.URL, `cannot reach the server at ` + closed.URL + `: connection refused: start one with "sluice serve"`},
		{"something else", notSluice.URL, notSluice.URL + " does not answer like a Sluice server"},
		{"refused", serveFake(t, &fakeFlows{err: connect.NewError(connect.CodeUnauthenticated, errors.New("show your token"))}), "sluice: show your token"},
		{"TLS to clear text", strings.Replace(serveFake(t, &fakeFlows{}), "http:", "https:", 1), "it does not speak TLS, so name it with http://"},
		{"an unknown certificate", secure.URL, "SSL_CERT_FILE"},
		{"closes, as ours does on clear text to TLS", closes.URL, "name it with https://"},
		{"path", "http://x/y", `--server: got "http://x/y"`},
	} {
		code, _, errs := run(t, nil, "check", "door", "--server", tt.server)
		if code != 1 || !strings.Contains(errs, tt.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: got %d %q, want 1 and one line with %q", tt.name, code, errs, tt.want)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{
		{"chek"},
		{"check"},
		{"check", "a", "b"},
		{"check", "a", "-l", "x"},
		{"check", "a", "-l", "k=\xff"},
		{"check", "a", "-l", "=v"},
		{"check", "a", "--timeout", "-1s"},
		{"check", "a", "--body", "x"},
		{"check", "a", "--http", "GET nowhere"},
		{"check", "a", "--http", "/", "-H", "x"},
		{"check", "a", "--http", "/", "--body", "@/does/not/exist"},
		{"policy", "nope"},
		{"policy", "get"},
		{"policy", "apply"},
		{"policy", "delete"},
		{"policy", "history", "p", "--limit", "0"},
		{"blueprint", "nope"},
		{"blueprint", "show"},
		{"demo"},
		{"demo", "nope"},
		{"top", "--interval", "1ms"},
		{"top", "-o", "xml"},
		{"version", "-o", "xml"},
		{"serve", "--nope"},
		{"serve", "x"},
	} {
		code, out, errs := run(t, []string{"SLUICE_SERVER=127.0.0.1:1"}, args...)
		if code != 1 || out != "" || !strings.HasPrefix(errs, "sluice: ") || strings.Contains(errs, "Usage:") {
			t.Errorf("%q: got %d, output %q, error %q; want 1 and an error that begins with sluice:", args, code, out, errs)
		}
	}
}

func TestHelpOfEveryCommand(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"policy"}, {"blueprint"}, {"serve", "--help"}, {"help", "check"}} {
		if code, out, errs := run(t, nil, args...); code != 0 || !strings.Contains(out, "Usage:") || errs != "" {
			t.Errorf("%q: got %d %q %q", args, code, out, errs)
		}
	}
}

func TestReadSources(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.yaml", "a.yml", "c.JSON", ".hidden.yaml", "README.md"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "sub.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	got, err := readSources(Env{Stdin: strings.NewReader("input")}, []string{dir, "-"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range got {
		names = append(names, filepath.Base(s.name)+"="+string(s.text))
	}
	if diff := cmp.Diff([]string{"a.yml=a.yml", "b.yaml=b.yaml", "c.JSON=c.JSON", ".=input"}, names); diff != "" {
		t.Error(diff)
	}
	if _, err := readSources(Env{Stdin: iotest{}}, []string{"-"}); err == nil {
		t.Error("a broken standard input is no error")
	}
}

type iotest struct{}

func (iotest) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestNumber(t *testing.T) {
	for f, want := range map[float64]string{
		0: "0", 1: "1", 0.5: "0.5", 1.0 / 3: "0.333", 99.95: "100", 123.4: "123", 12345: "12.3k", 2.5e6: "2.5M", 3e9: "3.0G", -5: "-5", 9e15: "9e+15",
	} {
		if got := number(f); got != want {
			t.Errorf("%v: got %s, want %s", f, got, want)
		}
	}
}

func TestSeconds(t *testing.T) {
	for s, want := range map[float64]string{0.0001: "100µs", 0.25: "250ms", 1.234: "1.23s", 90: "1m30s", 1e300: "277777h46m40s"} {
		if got := seconds(s); got != want {
			t.Errorf("%v: got %s, want %s", s, got, want)
		}
	}
}

func TestClean(t *testing.T) {
	if got := clean("a\x1b[2J\tbé\u202e"); got != "a·[2J·bé·" {
		t.Errorf("got %q", got)
	}
}
