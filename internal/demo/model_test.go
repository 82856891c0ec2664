// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew; commit only a difference you can explain")

func testModelConfig() modelConfig {
	return modelConfig{
		Name: "mistral", GPU: gpuConfig{Slots: 2, Penalty: 0.125, MaxJobs: 4, Speed: 1},
		PromptRate: 100, OutputRate: 10, MinOutput: 5, MaxOutput: 9, ChunkTokens: 3, Seed: 1,
	}
}

func mustModel(t *testing.T, cfg modelConfig) *model {
	t.Helper()
	m, err := newModel(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.gpu.close)
	return m
}

// TestProtocol compares whole answers with testdata/*.golden. In a bubble the clock starts at a fixed
// instant and work takes exactly its time, so even the durations are golden.
func TestProtocol(t *testing.T) {
	tests := []struct {
		name, method, path, body string
	}{
		{"ollama_stream", "POST", "/api/generate", `{"model":"mistral","prompt":"Why is the sky blue?"}`},
		{"ollama_whole", "POST", "/api/generate", `{"model":"mistral","prompt":"Why is the sky blue?","stream":false}`},
		{"ollama_limit", "POST", "/api/generate", `{"model":"mistral","prompt":"Why?","stream":false,"options":{"num_predict":2}}`},
		{"ollama_bad_json", "POST", "/api/generate", `{"model":`},
		{"ollama_wrong_type", "POST", "/api/generate", `{"model":7}`},
		{"ollama_empty", "POST", "/api/generate", ``},
		{"ollama_unknown_model", "POST", "/api/generate", `{"model":"gpt-5","prompt":"hi"}`},
		{"ollama_method", "GET", "/api/generate", ``},
		{"ollama_tags", "GET", "/api/tags", ``},
		{"ollama_tags_method", "POST", "/api/tags", `{}`},
		{"openai_stream", "POST", "/v1/chat/completions", `{"model":"mistral","messages":[{"role":"user","content":"Why is the sky blue?"}],"stream":true}`},
		{"openai_stream_usage", "POST", "/v1/chat/completions", `{"model":"mistral","messages":[{"role":"user","content":"Why?"}],"stream":true,"max_tokens":2,"stream_options":{"include_usage":true}}`},
		{"openai_whole", "POST", "/v1/chat/completions", `{"model":"mistral","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Why is the sky blue?"}]}`},
		{"openai_bad_json", "POST", "/v1/chat/completions", `not json`},
		{"openai_no_messages", "POST", "/v1/chat/completions", `{"model":"mistral"}`},
		{"openai_unknown_model", "POST", "/v1/chat/completions", `{"model":"gpt-5","messages":[{"role":"user","content":"hi"}]}`},
		{"openai_method", "DELETE", "/v1/chat/completions", ``},
		{"openai_models", "GET", "/v1/models", ``},
		{"openai_models_method", "POST", "/v1/models", `{}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := mustModel(t, testModelConfig())
				w := httptest.NewRecorder()
				m.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)))
				golden(t, tt.name, describe(w))
				if n := m.gpu.running(); n != 0 {
					t.Errorf("%d prompts still run", n)
				}
			})
		})
	}
}

// describe writes an answer down: status, headers that matter, body.
func describe(w *httptest.ResponseRecorder) string {
	var b strings.Builder
	fmt.Fprintln(&b, w.Code)
	for _, h := range []string{"Content-Type", "Allow", "Retry-After", "Retry-After-Ms"} {
		if v := w.Header().Get(h); v != "" {
			fmt.Fprintf(&b, "%s: %s\n", h, v)
		}
	}
	return b.String() + "\n" + w.Body.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

func TestBusyAndOversized(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mustModel(t, testModelConfig())
		for range m.cfg.GPU.MaxJobs {
			if _, err := m.gpu.begin(1000); err != nil {
				t.Fatal(err)
			}
		}
		for path, body := range map[string]string{
			"/api/generate":        `{"model":"mistral","prompt":"hi"}`,
			"/v1/chat/completions": `{"model":"mistral","messages":[{"role":"user","content":"hi"}],"stream":true}`,
		} {
			w := httptest.NewRecorder()
			m.ServeHTTP(w, httptest.NewRequest("POST", path, strings.NewReader(body)))
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%s on a full server: got %d %s, want 503 and JSON", path, w.Code, w.Header().Get("Content-Type"))
			}
			w = httptest.NewRecorder()
			m.ServeHTTP(w, httptest.NewRequest("POST", path, strings.NewReader(strings.Repeat(" ", maxBody+1))))
			if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "larger than") {
				t.Errorf("%s with a huge body: got %d %s, want 400", path, w.Code, w.Body)
			}
		}
	})
}

func TestDisconnectFreesItsSlot(t *testing.T) {
	bodies := map[string]string{
		"/api/generate":        `{"model":"mistral","prompt":"hi","stream":%t}`,
		"/v1/chat/completions": `{"model":"mistral","messages":[{"role":"user","content":"hi"}],"stream":%t}`,
	}
	for path, body := range bodies {
		for _, stream := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s stream=%t", path, stream), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := mustModel(t, testModelConfig())
					client := serveInMemory(t, m)
					ctx, cancel := context.WithCancel(t.Context())
					req, err := http.NewRequestWithContext(ctx, "POST", "http://model"+path, strings.NewReader(fmt.Sprintf(body, stream)))
					if err != nil {
						t.Fatal(err)
					}
					if stream {
						resp, err := client.Do(req)
						if err != nil {
							t.Fatal(err)
						}
						defer resp.Body.Close()
						if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
							t.Fatal(err)
						}
					} else {
						time.AfterFunc(100*time.Millisecond, cancel)
						if _, err := client.Do(req); err == nil {
							t.Fatal("got an answer to a cancelled request")
						}
					}
					if stream && m.gpu.running() != 1 {
						t.Errorf("%d prompts run in the middle of the answer, want 1", m.gpu.running())
					}
					cancel()
					synctest.Wait()
					if n := m.gpu.running(); n != 0 {
						t.Errorf("%d prompts run after the client has gone, want 0", n)
					}
				})
			})
		}
	}
}

func TestAnswersDependOnPromptAndSeedOnly(t *testing.T) {
	cfg := testModelConfig()
	a, b := mustModel(t, cfg), mustModel(t, cfg)
	cfg.Seed, cfg.MaxOutput = 2, 500
	c := mustModel(t, cfg)
	lengths := map[int]bool{}
	for _, p := range prompts {
		x, y := a.answerTo(p, 0), b.answerTo(p, 0)
		if x != y || x.text(0, x.outputTokens) != y.text(0, y.outputTokens) {
			t.Errorf("two servers of one seed answer %q differently", p)
		}
		if x.outputTokens < cfg.MinOutput || x.outputTokens > 9 {
			t.Errorf("answer of %d tokens, want 5 to 9", x.outputTokens)
		}
		if got := x.text(0, 2) + x.text(2, x.outputTokens); got != x.text(0, x.outputTokens) {
			t.Errorf("the chunks of an answer make %q, want %q", got, x.text(0, x.outputTokens))
		}
		lengths[c.answerTo(p, 0).outputTokens] = true
	}
	if len(lengths) < 15 {
		t.Errorf("25 prompts have answers of only %d different lengths", len(lengths))
	}
}

func TestModelConfigIsChecked(t *testing.T) {
	for _, spoil := range []func(*modelConfig){
		func(c *modelConfig) { c.PromptRate = 0 },
		func(c *modelConfig) { c.OutputRate = -1 },
		func(c *modelConfig) { c.ChunkTokens = 0 },
		func(c *modelConfig) { c.MinOutput = 0 },
		func(c *modelConfig) { c.MaxOutput = 1 },
		func(c *modelConfig) { c.GPU.Slots = 0 },
	} {
		cfg := testModelConfig()
		spoil(&cfg)
		if _, err := newModel(cfg); err == nil {
			t.Errorf("newModel(%+v): got no error", cfg)
		}
	}
}

// memoryListener accepts connections made of net.Pipe, so that HTTP works inside a bubble.
type memoryListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newMemoryListener() *memoryListener {
	return &memoryListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *memoryListener) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }

// client returns an HTTP client whose every connection goes to l.
func (l *memoryListener) client(t *testing.T) *http.Client {
	transport := &http.Transport{
		MaxIdleConnsPerHost: 100,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			near, far := net.Pipe()
			select {
			case l.conns <- far:
				return near, nil
			case <-l.closed:
				return nil, net.ErrClosed
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func serveInMemory(t *testing.T, h http.Handler) *http.Client {
	l := newMemoryListener()
	server := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	client := l.client(t)
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return client
}

func TestPromptsAreDifferent(t *testing.T) {
	if len(prompts) != mistralPrompts {
		t.Fatalf("%d prompts, want %d", len(prompts), mistralPrompts)
	}
	u := user{index: 3}
	var sent []string
	for n := range mistralPrompts {
		sent = append(sent, promptFor(1, u, n))
	}
	slices.Sort(sent)
	if got := len(slices.Compact(sent)); got != mistralPrompts {
		t.Errorf("a user sends %d different prompts, want %d", got, mistralPrompts)
	}
}
